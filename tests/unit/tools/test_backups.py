"""Archives fetched and brought, over an ssh that runs the commands here."""

from __future__ import annotations

import hashlib
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from tools import backups

ROOT = pathlib.Path(__file__).resolve().parents[3]
OLD = "plasma-hub-20260101T000000Z-manual.tar.gz"
NEW = "plasma-hub-20260301T000000Z-scheduled.tar.gz"
SSH = """#!/bin/sh
# The last word is the command; a server that is not there answers as ssh does.
for word; do command=$word; done
case "$*" in *gone.example*) echo "ssh: connect to host gone.example: No route to host" >&2; exit 255;; esac
exec sh -c "${command#sudo -n }"
"""


def write(directory, name, content):
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (directory / f"{name}.sha256").write_text(f"{digest}  {name}\n")
    return digest


@pytest.fixture
def server(tmp_path):
    directory = tmp_path / "server's backups"
    write(directory, OLD, b"old" * 1000)
    write(directory, NEW, os.urandom(3 * 1024 * 1024))
    (directory / "notes.tar.gz").write_text("not an archive")
    return directory


@pytest.fixture
def tool(tmp_path, server):
    """Runs the tool as people do."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    (tmp_path / "roster").write_text("hub: {host: hub.example, sudo: true}\ngone: gone.example\n")

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "tools.backups", *words, "--roster", "roster", "--directory", str(server)],
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{ssh.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    return run


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_they_are_listed_newest_first(tool):
    lines = tool("list", "hub").stdout.splitlines()
    assert [line.split()[-1] for line in lines] == [NEW, OLD]
    assert lines[0].split()[:2] == ["3.0", "MB"]


def test_the_newest_is_fetched_for_us_alone(tool, server, tmp_path):
    done = tool("fetch", "hub")
    assert (done.returncode, done.stderr) == (0, "")
    path = tmp_path / done.stdout.strip()
    assert path == tmp_path / ".salt/backups/hub" / NEW
    assert path.read_bytes() == (server / NEW).read_bytes()
    assert [mode(path), mode(path.with_name(f"{NEW}.sha256")), mode(path.parent)] == [0o600, 0o600, 0o700]
    assert sorted(entry.name for entry in path.parent.iterdir()) == [NEW, f"{NEW}.sha256"]
    checked = subprocess.run(["sha256sum", "--check", f"{NEW}.sha256"], cwd=path.parent, capture_output=True)
    assert checked.returncode == 0


@pytest.mark.parametrize("named", [OLD, f"/var/opt/plasma/backups/{OLD}"])
def test_another_one_by_its_name(tool, tmp_path, named):
    assert tool("fetch", "hub", "--archive", named).stdout.strip().endswith(OLD)


def test_what_does_not_arrive_whole_is_not_kept(tool, server, tmp_path):
    with open(server / NEW, "ab") as file:
        file.write(b"more")
    done = tool("fetch", "hub")
    assert done.returncode == 1
    assert "did not arrive as it is on hub" in done.stderr
    assert list((tmp_path / ".salt/backups/hub").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fetch", "hub", "--archive", "plasma-hub-20250101T000000Z-manual.tar.gz"], "hub has no plasma-hub-2025"),
        (["fetch", "hub", "--archive", "notes.tar.gz"], "hub has no notes.tar.gz"),
        (["fetch", "gone"], "No route to host"),
        (["push", "hub", "roster"], "is not named as archives are"),
        (["push", "hub", NEW], "No such file"),
        (["push", "hub"], "push needs"),
        (["fetch", "other"], "has no server other: name one of "),
    ],
)
def test_what_is_in_the_way_is_said(tool, words, said):
    done = tool(*words)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_one_is_brought_to_a_fresh_server(tool, server, tmp_path):
    name = "plasma-other-20260401T000000Z-manual.tar.gz"
    digest = write(tmp_path / "mine", name, b"content" * 5000)
    for path in server.iterdir():
        path.unlink()
    server.rmdir()
    done = tool("push", "hub", f"mine/{name}")
    assert (done.stdout.strip(), done.stderr) == (f"{server}/{name}", "")
    assert (server / name).read_bytes() == b"content" * 5000
    assert (server / f"{name}.sha256").read_text() == f"{digest}  {name}\n"
    assert [mode(server / name), mode(server)] == [0o600, 0o700]
    again = tool("push", "hub", f"mine/{name}")
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert sorted(path.name for path in server.iterdir()) == [name, f"{name}.sha256"]


def test_one_that_was_changed_here_is_not_brought(tool, server, tmp_path):
    name = "plasma-other-20260401T000000Z-manual.tar.gz"
    write(tmp_path / "mine", name, b"content")
    (tmp_path / "mine" / name).write_bytes(b"contents")
    assert "was changed" in tool("push", "hub", f"mine/{name}").stderr
    assert not (server / name).exists()


def test_one_that_is_cut_off_on_the_way_gets_no_name(server, tmp_path):
    name = "plasma-other-20260401T000000Z-manual.tar.gz"
    words = ["sh", "-c", backups.RECEIVE, "push", str(server), name, "0" * 64]
    done = subprocess.run(words, input=b"half", capture_output=True)
    assert done.returncode == 5
    assert not [path for path in server.iterdir() if "other" in path.name]
