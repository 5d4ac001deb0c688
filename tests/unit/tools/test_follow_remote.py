"""The far end of plasma-follow: what it reads from a server, and what it does not pass on."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time

import pytest

from tools import follow_remote
from tools.follow_remote import BUILD_LINE, DURATION, STATE_LINE, Tail

RUNNING = (
    "2026-11-22 21:26:46,922 [salt.state       :2353][INFO    ][281] "
    "Running state [preflight-server-is-fit] at time 21:26:46.922835"
)
COMPLETED = (
    "2026-11-22 21:26:47,053 [salt.state       :2556][INFO    ][281] "
    "Completed state [/etc/docker/daemon.json] at time 21:26:47.053000 (duration_in_ms=6.413)"
)
BUILD = (
    "2026-11-22 21:27:47,053 [salt.loaded.ext.module.plasma_environment_run:318 ][INFO    ][281] "
    "Environment r-course:v1: building after 12 seconds"
)
HEAD = "2026-11-22 21:26:47,053 [salt.state       :311 ][INFO    ][281] "
VALUES = [
    HEAD + "{'diff': '+password: hunter2'}",
    HEAD + "Executing state user.present for [anna]",
    HEAD + "The password [hunter2] at time of writing",
    HEAD + "{'comment': 'x][INFO ][281] Running state [hunter2] at time 1'}",
    HEAD + "Environment hunter2: building after 12 seconds",
    BUILD.replace("building", "hunter2"),
    BUILD + " hunter2",
    HEAD + "see 2026-11-22 21:26:46,922 [salt.state :1][INFO ][281] Running state [hunter2] at time 1",
    "2026-11-22 21:26:47,053 [salt.loaded.ext.module.x:9][INFO    ][281] Running state [hunter2] at time 1",
    "2026-11-22 21:26:47,053 [salt.statefoo    :9   ][INFO    ][281] Running state [hunter2] at time 1",
    "  Running state [hunter2] at time 1",
    "[281] Running state [hunter2] at time 1",
    "+token: hunter2",
    "",
]


@pytest.mark.parametrize(
    "line, what, name, duration",
    [
        (RUNNING, "Running", "preflight-server-is-fit", None),
        (COMPLETED, "Completed", "/etc/docker/daemon.json", "6.413"),
        (
            RUNNING.replace("preflight-server-is-fit", "deb [arch=amd64 signed-by=/k.asc] https://x.org jammy stable"),
            "Running",
            "deb [arch=amd64 signed-by=/k.asc] https://x.org jammy stable",
            None,
        ),
        (COMPLETED.replace("[281]", "[1234567]").replace("6.413", "120345"), "Completed", None, "120345"),
    ],
)
def test_state_lines(line, what, name, duration):
    match = STATE_LINE.match(line)
    assert match["what"] == what
    assert name in (None, match["name"])
    assert int(match["pid"]) in (281, 1234567)
    found = DURATION.search(line)
    assert (found and found[1]) == duration


@pytest.mark.parametrize("line", VALUES)
def test_other_lines_are_not_state_lines(line):
    assert not STATE_LINE.match(line)
    assert not BUILD_LINE.match(line)


def test_builds_of_environments():
    match = BUILD_LINE.match(BUILD)
    assert (match["pid"], match["line"]) == ("281", "Environment r-course:v1: building after 12 seconds")


def test_tail_starts_where_the_file_ends(tmp_path):
    path = tmp_path / "log"
    path.write_text("yesterday\n", encoding="utf-8")
    tail = Tail(path)
    assert tail.lines() == []
    with open(path, "a", encoding="utf-8") as log:
        log.write("today\n")
    assert tail.lines() == ["today"]
    assert tail.lines() == []


def test_tail_from_the_start(tmp_path):
    path = tmp_path / "log"
    path.write_text("one\ntwo\n", encoding="utf-8")
    assert Tail(path, 0).lines() == ["one", "two"]


def test_tail_of_a_file_that_comes_later(tmp_path):
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.lines() == []
    path.write_text("one\n", encoding="utf-8")
    assert tail.lines() == ["one"]


def test_tail_puts_partial_lines_together(tmp_path):
    path = tmp_path / "log"
    tail = Tail(path)
    path.write_bytes("begun, h\N{LATIN SMALL LETTER A WITH DIAERESIS}"[:-1].encode() + b"\xc3")
    assert tail.lines() == []
    with open(path, "ab") as log:
        log.write(b"\xa4lf\nand a")
    assert tail.lines() == ["begun, hälf"]
    with open(path, "ab") as log:
        log.write(b"nother\n")
    assert tail.lines() == ["and another"]


def test_tail_of_a_truncated_file(tmp_path):
    path = tmp_path / "log"
    path.write_text("a long line of the last run\nand half of ano", encoding="utf-8")
    tail = Tail(path, 0)
    assert tail.lines() == ["a long line of the last run"]
    path.write_text("new\n", encoding="utf-8")
    # Nothing of the old file's unfinished line sticks to the new file's first.
    assert tail.lines() == ["new"]


def test_tail_of_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"\xff\xfe\n")
    assert Tail(path, 0).lines() == ["\N{REPLACEMENT CHARACTER}" * 2]


def test_count(tmp_path):
    package = tmp_path / "salt_state.tgz"
    _pack(package, [{"state": "test"}] * 7)
    assert follow_remote.count(package) == 7


def test_count_of_what_is_no_package(tmp_path):
    assert follow_remote.count(tmp_path / "none.tgz") == 0
    _pack(tmp_path / "whole.tgz", [{"state": "test"}] * 500)
    whole = (tmp_path / "whole.tgz").read_bytes()
    for size in (0, 2, 30, len(whole) // 2):
        # As scp leaves it when it is looked at too early.
        (tmp_path / "half.tgz").write_bytes(whole[:size])
        assert follow_remote.count(tmp_path / "half.tgz") == 0
    (tmp_path / "broken.tgz").write_bytes(whole[:30] + b"x" * 30 + whole[60:])
    assert follow_remote.count(tmp_path / "broken.tgz") == 0
    with tarfile.open(tmp_path / "other.tgz", "w:gz"):
        pass
    assert follow_remote.count(tmp_path / "other.tgz") == 0


def test_only_a_small_regular_file_is_opened_as_a_package(tmp_path, monkeypatch):
    package = tmp_path / "salt_state.tgz"
    _pack(package, [{}, {}])
    (tmp_path / "link.tgz").symlink_to(package)
    # Opening a pipe that nobody writes to would wait for ever.
    os.mkfifo(tmp_path / "pipe.tgz")
    for name in ("link.tgz", "pipe.tgz", "", "/dev/zero"):
        assert follow_remote.count(tmp_path / name) == 0
    assert follow_remote.count(package) == 2
    monkeypatch.setattr(follow_remote, "LARGEST_PACKAGE", package.stat().st_size - 1)
    assert follow_remote.count(package) == 0


def test_a_package_that_unpacks_to_much_more_is_not_unpacked(tmp_path, monkeypatch):
    _pack(tmp_path / "bomb.tgz", [{}] * 10_000)
    assert (tmp_path / "bomb.tgz").stat().st_size < 1000
    monkeypatch.setattr(follow_remote, "LARGEST_PACKAGE", 1000)
    assert follow_remote.count(tmp_path / "bomb.tgz") == 0


def _pack(path, lowstate):
    data = json.dumps(lowstate).encode()
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("lowstate.json")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))


# Writes what salt-call writes of an apply, a part for each line it reads.
APPLY = """
import os, sys
log, installer = sys.argv[4:]
for part in sys.stdin:
    with open(installer if part.startswith("!") else log, "a") as handle:
        handle.write(part.lstrip("!").replace("PID", str(os.getpid())))
    print("written", flush=True)
"""


@pytest.fixture
def apply(tmp_path, monkeypatch):
    """A process that looks like an apply, which is the only one the far end sees."""
    thin = tmp_path / "thin"
    (thin / "running_data").mkdir(parents=True)
    _pack(thin / "salt_state.tgz", [{}, {}])
    installer = tmp_path / "hub-install.log"
    installer.write_text("yesterday\n", encoding="utf-8")
    log = thin / "running_data" / "salt-call.log"
    log.write_text(RUNNING.replace("[281]", "[280]") + "\n", encoding="utf-8")
    monkeypatch.setattr(follow_remote, "INSTALLER_LOG", str(installer))
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            APPLY,
            str(thin / "salt-call"),
            "state.pkg",
            str(thin / "salt_state.tgz"),
            log,
            installer,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    monkeypatch.setattr(follow_remote.glob, "glob", lambda pattern: [f"/proc/{process.pid}/cmdline"])
    monkeypatch.setattr(follow_remote, "ROOT", os.geteuid())
    yield process
    process.kill()
    process.wait()


@pytest.mark.timeout(60)
def test_follow(apply, monkeypatch):
    """The states and the installer's lines, in their order, and nothing of the lines that can hold values."""
    seen = []
    started = threading.Event()

    def say(**event):
        seen.append(event)
        started.set()

    monkeypatch.setattr(follow_remote, "say", say)
    following = threading.Thread(target=follow_remote.follow, args=(30,))
    following.start()
    assert started.wait(30)
    own = [line.replace("[281]", "[PID]") for line in (RUNNING, *VALUES[:8], BUILD, COMPLETED)]
    for line in [*own, "!Collecting jupyterhub[all]", "!" + "x" * 1000]:
        apply.stdin.write(line + "\n")
        apply.stdin.flush()
        assert apply.stdout.readline() == "written\n"
    apply.stdin.close()
    apply.wait()
    following.join(30)
    assert "hunter2" not in json.dumps(seen)
    assert seen[0]["event"] == "start"
    assert seen[0]["total"] == 2
    assert seen[-1] == {"event": "end"}
    assert [event for event in seen if "name" in event] == [
        {"event": "running", "name": "preflight-server-is-fit", "ms": None},
        {"event": "completed", "name": "/etc/docker/daemon.json", "ms": 6.413},
    ]
    lines = [event["line"] for event in seen if event["event"] == "installer"]
    assert lines == ["Environment r-course:v1: building after 12 seconds", "Collecting jupyterhub[all]", "x" * 300]


def test_follow_when_nothing_runs(monkeypatch, capsys):
    monkeypatch.setattr(follow_remote.glob, "glob", lambda pattern: [])
    assert follow_remote.follow(0) == 3
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"event": "idle"}]


def test_running_ignores_other_processes(monkeypatch):
    monkeypatch.setattr(follow_remote.glob, "glob", lambda pattern: ["/proc/self/cmdline", "/proc/999999999/cmdline"])
    assert follow_remote.running() is None


def test_running_sees_an_apply(apply, tmp_path):
    thin = tmp_path / "thin"
    deadline = time.monotonic() + 10
    # The kernel shows a program's arguments a moment after it has started it.
    while follow_remote.running() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert follow_remote.running() == (str(thin), apply.pid, str(thin / "salt_state.tgz"))


def test_running_believes_no_process_of_another_user(apply, monkeypatch):
    """Anybody can start a program whose command line looks like an apply's."""
    monkeypatch.setattr(follow_remote, "ROOT", os.geteuid() + 1)
    assert follow_remote.running() is None


@pytest.mark.parametrize(
    "uids, expected",
    [("0\t0\t0\t0", True), ("1000\t1000\t1000\t1000", False), ("1000\t0\t0\t0", False), ("0\t1000\t1000\t0", False)],
)
def test_owned_looks_at_every_user_id(tmp_path, uids, expected):
    (tmp_path / "status").write_text(f"Name:\tx\nUid:\t{uids}\nGid:\t0\t0\t0\t0\n", encoding="utf-8")
    assert follow_remote.owned(str(tmp_path)) is expected


def test_owned_without_the_line(tmp_path):
    (tmp_path / "status").write_text("Name:\tx\n", encoding="utf-8")
    assert not follow_remote.owned(str(tmp_path))
