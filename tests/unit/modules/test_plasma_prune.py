"""The program that prunes against an engine that stands in, its timer, and how full disks are."""

from __future__ import annotations

import http.server
import importlib.util
import json
import socketserver
import threading
import time
import urllib.parse
from unittest.mock import MagicMock

import pytest
from salt.exceptions import CommandExecutionError

import plasma_prune_timer as plasma_prune
import plasma_run
import plasma_systemd
from tests.support.paths import REPOSITORY

spec = importlib.util.spec_from_file_location("prune", REPOSITORY / "salt" / "docker" / "files" / "prune.py")
program = importlib.util.module_from_spec(spec)
spec.loader.exec_module(program)
HOUR = 3600


class Engine:
    """Images, containers and caches of an engine; what is asked for is kept."""

    def __init__(self, path):
        self.images, self.containers, self.builds, self.in_use = [], [], 0, set()
        self.caches, self.cache_status, self.asked = 0, 200, []
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                status, value = engine.handle(self.command, urllib.parse.unquote(self.path))
                content = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer

            def address_string(self):
                return "unix"

            def log_message(self, *arguments):
                """Nothing on the test's output."""

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        self.server = Server(str(path), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def image(self, name, hours, tags=("<none>:<none>",), digests=("<none>@<none>",), size=10):
        created = time.time() - hours * HOUR
        image = {"Id": name, "Created": created, "RepoTags": list(tags), "RepoDigests": list(digests), "size": size}
        self.images.append(image)

    def handle(self, method, path):
        self.asked.append((method, path))
        if path.startswith("/containers/json") and "org.plasma.build.uid" in path:
            return 200, [{"Id": "b", "ImageID": "builder"}] * self.builds
        if path.startswith("/containers/json"):
            return 200, [{"ImageID": image} for image in self.containers]
        if path.startswith("/images/json"):
            assert '"dangling": ["true"]' in path
            return 200, self.images
        if path == "/system/df":
            return 200, {"LayersSize": sum(image["size"] for image in self.images)}
        if method == "DELETE":
            name = path.rpartition("/")[2]
            if name in self.in_use:
                return 409, {"message": "in use"}
            self.images = [image for image in self.images if image["Id"] != name]
            return 200, []
        assert (method, path.partition("?")[0]) == ("POST", "/build/prune")
        return self.cache_status, {"SpaceReclaimed": self.caches}

    def names(self):
        return {image["Id"] for image in self.images}


@pytest.fixture
def engine(tmp_path):
    made = Engine(tmp_path / "docker.sock")
    yield made
    made.server.shutdown()
    made.server.server_close()


def run(tmp_path, *arguments):
    note = tmp_path / "private" / "prune.json"
    code = program.main([f"--socket={tmp_path}/docker.sock", f"--note={note}", *arguments])
    assert note.stat().st_mode & 0o777 == 0o600
    return code, json.loads(note.read_text())


def test_only_old_images_without_any_name_and_any_use_go(engine, tmp_path):
    engine.image("old", 100)
    engine.image("young", 1)
    engine.image("stopped", 100)
    engine.image("digest", 100, digests=("registry/r2d@sha256:1",))
    engine.image("tag", 100, tags=("course:1",))
    engine.image("busy", 100)
    engine.containers, engine.in_use, engine.caches = ["stopped"], {"busy"}, 7
    code, note = run(tmp_path, "--min-age=72")
    assert code == 0
    assert engine.names() == {"young", "stopped", "digest", "tag", "busy"}
    assert (note["images"], note["freed"], note["error"], note["skipped"]) == (1, 17, None, None)
    assert ("POST", '/build/prune?filters={"until": ["72h"]}') in engine.asked
    assert not any("force" in path for method, path in engine.asked if method == "DELETE")


def test_without_an_age_all_of_them_go(engine, tmp_path):
    engine.image("young", 0.01)
    assert run(tmp_path, "--min-age=0")[1]["images"] == 1
    assert ("POST", "/build/prune") in engine.asked


def test_nothing_goes_while_something_is_built(engine, tmp_path):
    engine.image("old", 100)
    engine.builds = 1
    code, note = run(tmp_path)
    assert (code, note["images"], note["skipped"]) == (0, 0, "an environment is being built")
    assert engine.names() == {"old"}
    assert not [method for method, _ in engine.asked if method != "GET"]


def test_a_build_that_begins_ends_it(engine, tmp_path):
    engine.image("first", 100)
    engine.image("second", 101)
    handle = engine.handle

    def handled(method, path):
        answer = handle(method, path)
        engine.builds += method == "DELETE"
        return answer

    engine.handle = handled
    assert run(tmp_path)[1]["images"] == 1
    assert engine.names() == {"second"}
    assert not [method for method, _ in engine.asked if method == "POST"]


def test_failures_are_noted(engine, tmp_path):
    engine.cache_status = 500
    code, note = run(tmp_path)
    assert code == 1
    assert "status 500" in note["error"]


def test_without_an_engine(tmp_path):
    code, note = run(tmp_path)
    assert code == 1
    assert "systemctl start docker" in note["error"]


# The timer.


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """Units in a directory, and what systemctl was asked."""
    found = {"show": "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n", "asked": []}

    def answered(*words, timeout=60):
        found["asked"].append(words)
        return plasma_run.Result(0, found["show"] if words[0] == "show" else "")

    monkeypatch.setattr(plasma_systemd, "run", answered)
    monkeypatch.setattr(plasma_prune, "PROGRAM", str(tmp_path / "prune.py"))
    monkeypatch.setattr(plasma_prune, "NOTE", str(tmp_path / "prune.json"))
    return found


@pytest.fixture
def configure_loader_modules():
    functions = {"plasma_mounts.mounts": MagicMock(return_value=MOUNTS)}
    return {plasma_prune: {"__salt__": functions}}


@pytest.mark.parametrize(
    ("show", "note", "problem"),
    [
        ("LoadState=not-found\nActiveState=inactive\n", None, None),
        ("LoadState=loaded\nActiveState=active\n", {"error": None}, None),
        ("LoadState=loaded\nActiveState=inactive\n", {"error": None}, "systemctl start plasma-prune.timer"),
        ("LoadState=loaded\nActiveState=active\n", {"error": "Docker does not answer"}, "Docker does not answer"),
    ],
)
def test_health(systemd, tmp_path, show, note, problem):
    systemd["show"] = show
    if note:
        (tmp_path / "prune.json").write_text(json.dumps({"at": "2026-11-25T03:00:00Z", "freed": 5, **note}))
    found = plasma_prune.health()
    assert found["freed"] == (5 if note else None)
    assert (found["problem"] is None) if problem is None else problem in found["problem"]


def test_it_runs_when_it_is_asked_to(systemd, tmp_path):
    with pytest.raises(CommandExecutionError, match=r"plasma\.docker\.prune\.enabled"):
        plasma_prune.run()
    (tmp_path / "prune.py").write_text("")
    (tmp_path / "prune.json").write_text(json.dumps({"freed": 5}))
    assert plasma_prune.run()["freed"] == 5
    assert ("start", plasma_prune.SERVICE) in systemd["asked"]


# Disks.

MOUNTS = [
    {"target": "/", "type": "ext4", "device": "8:1"},
    {"target": "/home", "type": "nfs4", "device": "0:50"},
    {"target": "/srv/data", "type": "xfs", "device": "8:2"},
    {"target": "/opt", "type": "ext4", "device": "8:1"},
]


def test_disks_are_told_once_and_those_of_other_machines_are_not_asked(monkeypatch):
    asked = []

    def statvfs(path):
        asked.append(path)
        if path == "/srv/data/gone":
            raise FileNotFoundError
        return MagicMock(f_blocks=1000, f_bfree=150, f_bavail=100, f_frsize=4096)

    monkeypatch.setattr(plasma_prune.os, "statvfs", statvfs)
    paths = ["/", "/opt/tljh", "/home", "/srv/data/gone", "/srv/data/x"]
    found = plasma_prune.disks(paths, warn_at=90)
    assert asked == ["/", "/srv/data/gone", "/srv/data/x"]
    assert [(disk["mount"], disk["percent"], disk["full"]) for disk in found] == [
        ("/", 90, True),
        ("/srv/data", 90, True),
    ]
    assert not plasma_prune.disks(["/"], warn_at=91)[0]["full"]
