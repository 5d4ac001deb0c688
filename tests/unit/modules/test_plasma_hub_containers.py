"""People's containers, found by their label and removed."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
import urllib.parse
from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_engine
import plasma_hub_containers as containers


class StandInEngine:
    """The part of Docker's API that is asked, on a Unix socket. ``containers`` is ``{id: (labels, state)}``."""

    def __init__(self, path):
        self.containers, self.asked, self.status, self.stubborn = {}, [], None, set()
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                status, content = engine.status or engine.handle(self.command, urllib.parse.urlsplit(self.path))
                text = json.dumps(content).encode() if content is not None else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_DELETE = answer  # the names that http.server calls

            def address_string(self):
                return "socket"

            def log_message(self, *args):
                pass

        self.server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle(self, method, url):
        query = urllib.parse.parse_qs(url.query)
        if url.path == "/containers/json":
            (label,) = json.loads(query["filters"][0])["label"]
            return 200, [
                {"Id": key, "Labels": labels, "State": state, "Names": [f"/jupyter-{labels.get('name', 'x')}"]}
                for key, (labels, state) in self.containers.items()
                if label in labels and (query.get("all") == ["1"] or state == "running")
            ]
        key = url.path.split("/")[2]
        self.asked.append((method, key, url.query))
        if key not in self.containers:
            return 404, {"message": "No such container"}
        if method == "DELETE":
            if key in self.stubborn:
                return 409, {"message": "removal is in progress"}
            assert query["force"] == ["1"]
            del self.containers[key]
        else:
            self.containers[key] = (self.containers[key][0], "exited")
        return 204, None


@pytest.fixture
def installed():
    return create_autospec(plasma_engine.engine, return_value="docker-ce")


@pytest.fixture
def configure_loader_modules(installed, monkeypatch):
    monkeypatch.setattr(containers, "POLL", 0.01)
    functions = {"plasma_engine.engine": installed, "plasma_engine.connection": plasma_engine.connection}
    return {containers: {"__salt__": functions}}


@pytest.fixture
def socket_path(tmp_path):
    return tmp_path / "docker.sock"


@pytest.fixture
def engine(socket_path):
    started = StandInEngine(socket_path)
    yield started
    started.server.shutdown()
    started.server.server_close()


def of(user, server="", state="running", **labels):
    return ({"org.plasma.user": user, "org.plasma.server": server, **labels}, state)


def test_all_of_their_containers_and_nobody_elses_are_removed(engine, socket_path):
    engine.containers = {
        "1": of("anna"),
        "2": of("anna", "my lab", "exited"),
        "3": of("anna2"),
        "4": of("ann"),
        "5": of("Anna"),
        "6": ({"name": "anna"}, "running"),  # a name is no label
        "7": of("ben", "x", "paused"),
        "8": of("eve", name="anna"),
    }
    assert containers.remove(["anna", "ben", "unknown"], socket_path) == {"anna": [""], "ben": ["x"]}
    assert set(engine.containers) == {"3", "4", "5", "6", "8"}
    # Those that run may save their work first.
    assert engine.asked[0] == ("POST", "1", "t=10")
    assert ("POST", "2", "t=10") not in engine.asked


def test_what_is_there_is_listed(engine, socket_path):
    engine.containers = {"1": of("anna", "lab", "exited"), "2": ({"org.plasma.user": "old"}, "running"), "3": of("z")}
    assert containers.owned(path=socket_path) == [
        {"id": "1", "user": "anna", "server": "lab", "running": False},
        {"id": "2", "user": "old", "server": "", "running": True},
        {"id": "3", "user": "z", "server": "", "running": True},
    ]
    assert [one["id"] for one in containers.owned(["z"], socket_path)] == ["3"]


def test_nothing_to_remove_is_no_change(engine, socket_path):
    engine.containers = {"3": of("anna2")}
    assert containers.remove(["anna"], socket_path) == {}
    assert engine.asked == []


def test_a_container_that_stays_is_an_error(engine, socket_path):
    engine.containers, engine.stubborn = {"0123456789abcdef": of("anna")}, {"0123456789abcdef"}
    with pytest.raises(CommandExecutionError, match="container 0123456789ab of anna cannot be removed"):
        containers.remove(["anna"], socket_path, timeout=0.1)


def test_one_that_the_hub_removes_meanwhile_is_no_error(engine, socket_path):
    engine.containers, engine.stubborn = {"1": of("anna")}, {"1"}
    threading.Timer(0.2, lambda: engine.containers.clear()).start()
    assert containers.remove(["anna"], socket_path, timeout=30) == {"anna": [""]}


def test_an_engine_that_refuses_is_an_error(engine, socket_path):
    engine.status = (500, {"message": "..."})
    with pytest.raises(CommandExecutionError, match="HTTP status 500"):
        containers.remove(["anna"], socket_path)


def test_without_an_engine_there_is_nothing(socket_path, installed):
    installed.return_value = None
    assert containers.owned(path=socket_path) == []
    assert containers.remove(["anna"], socket_path) == {}


def test_an_engine_that_does_not_answer_is_an_error(socket_path):
    """With live restore, containers go on without it."""
    with pytest.raises(CommandExecutionError, match="does not answer, .*systemctl start docker"):
        containers.remove(["anna"], socket_path)


def test_a_name_alone_is_refused(engine, socket_path):
    engine.containers = {"1": of("a")}
    with pytest.raises(SaltInvocationError):
        containers.remove("anna", socket_path)
    assert list(engine.containers) == ["1"]
