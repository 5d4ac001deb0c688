"""Ending what people run, and who is protected. Processes here are real ones, of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from unittest.mock import create_autospec

import pytest
import salt.modules.cmdmod as cmdmod
from salt.exceptions import CommandExecutionError

import _modules.plasma_users_removal as removal

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
)


@pytest.fixture
def run_all():
    return create_autospec(cmdmod.run_all, return_value={"retcode": 0, "stdout": "", "stderr": ""})


@pytest.fixture
def configure_loader_modules(run_all):
    return {removal: {"__salt__": {"cmd.run_all": run_all}}}


@pytest.fixture
def person(monkeypatch):
    """Processes count as this person's by the uid in their status; here by being children of this test."""
    children = []

    def uid(pid, people):
        alive = [child for child in children if child.poll() is None]
        return 1001 if pid in {child.pid for child in alive} else None

    monkeypatch.setattr(removal, "_uid", uid)

    def start(code):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def test_nothing_is_asked_where_nothing_runs(run_all):
    removal.end_processes({4_000_000: "nobody-here"})
    run_all.assert_not_called()


def test_processes_are_ended_softly(person):
    child = person("print('up', flush=True); import time; time.sleep(300)")
    removal.end_processes({1001: "anna"}, timeout=20)
    assert child.wait(5) == -signal.SIGTERM


def test_and_then_hard(person, monkeypatch):
    monkeypatch.setattr(removal, "_GRACE", 0.3)
    child = person(STUBBORN)
    removal.end_processes({1001: "anna"}, timeout=20)
    assert child.wait(5) == -signal.SIGKILL


def test_what_does_not_end_is_told(person, monkeypatch):
    monkeypatch.setattr(removal, "_GRACE", 60)
    child = person(STUBBORN)
    with pytest.raises(CommandExecutionError, match=rf"^Processes of anna do not end \(ids {child.pid}\): end them"):
        removal.end_processes({1001: "anna"}, timeout=0.3)


def test_whose_a_process_is(monkeypatch):
    me = os.getpid()
    assert removal._uid(me, {os.getuid(): "me"}) == os.getuid()
    assert removal._uid(me, {os.getuid() + 1: "somebody"}) is None
    monkeypatch.setattr(removal, "_in_container", lambda pid: True)
    assert removal._uid(me, {os.getuid(): "me"}) is None


def test_a_process_that_ended_is_nobodys():
    child = subprocess.Popen([sys.executable, "-c", ""])
    time.sleep(0.2)  # a zombie by now, or soon
    while removal._uid(child.pid, {os.getuid(): "me"}) is not None:
        time.sleep(0.05)
    child.wait()
    assert removal._uid(child.pid, {os.getuid(): "me"}) is None


@pytest.mark.parametrize(
    ("other", "container"),
    [
        ({"pid": "pid:[1]", "user": "user:[1]"}, False),
        ({"pid": "pid:[2]", "user": "user:[1]"}, True),  # made by root
        ({"pid": "pid:[2]", "user": "user:[2]"}, False),  # made by anybody
        ({"pid": "pid:[1]", "user": "user:[2]"}, False),
    ],
)
def test_what_is_a_container_of_others(monkeypatch, other, container):
    def readlink(path):
        kind = path.rpartition("/")[2]
        return {"pid": "pid:[1]", "user": "user:[1]"}[kind] if "/self/" in path else other[kind]

    monkeypatch.setattr(removal.os, "readlink", readlink)
    assert removal._in_container(42) is container


def test_who_applies_is_protected(monkeypatch):
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setattr(removal, "_first_line", lambda path: "1235")
    found = removal.protected()
    assert {1234, 1235} <= set(found)
    assert 0 not in found
    monkeypatch.setattr(removal, "_first_line", lambda path: str(2**32 - 1))  # nobody logged in
    monkeypatch.delenv("SUDO_UID")
    assert not {1234, 1235, 2**32 - 1} & set(removal.protected())
