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

import plasma_users_processes as processes
from tests.unit import needs_root

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
)


@pytest.fixture
def run_all():
    return create_autospec(cmdmod.run_all, return_value={"retcode": 0, "stdout": "", "stderr": ""})


@pytest.fixture
def configure_loader_modules(run_all):
    return {processes: {"__salt__": {"cmd.run_all": run_all}}}


@pytest.fixture
def harder(monkeypatch):
    """What was killed without a look, instead of doing so to whoever has these uids here."""
    killed = []
    monkeypatch.setattr(processes, "_kill_group", lambda uid: killed.append(("group", uid)))
    monkeypatch.setattr(processes, "_kill_all", lambda uid: killed.append(("all", uid)))
    monkeypatch.setattr(processes, "_in_containers", lambda people: set())  # of this machine
    monkeypatch.setattr(processes, "_GRACE", 1)
    # Nor do the containers count that somebody runs on this machine, with people of the same uid.
    monkeypatch.setattr(processes, "_in_containers", lambda people: set())
    return killed


@pytest.fixture
def person(monkeypatch, harder):
    """Processes count as this person's by the uid in their status; here by being children of this test."""
    children = []

    def uid(pid, people):
        alive = [child for child in children if child.poll() is None]
        return 1001 if pid in {child.pid for child in alive} else None

    monkeypatch.setattr(processes, "_uid", uid)

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


def test_nothing_is_asked_where_nothing_runs(run_all, harder):
    processes.end({4_000_000: "nobody-here"})
    run_all.assert_not_called()


def test_processes_are_ended_softly(person):
    child = person("print('up', flush=True); import time; time.sleep(300)")
    processes.end({1001: "anna"}, timeout=20)
    assert child.wait(5) == -signal.SIGTERM


def test_and_then_hard(person, monkeypatch):
    monkeypatch.setattr(processes, "_GRACE", 0.3)
    child = person(STUBBORN)
    processes.end({1001: "anna"}, timeout=20)
    assert child.wait(5) == -signal.SIGKILL


def test_what_does_not_end_is_told(person, monkeypatch):
    monkeypatch.setattr(processes, "_send", lambda *arguments: None)
    child = person(STUBBORN)
    assert processes.end({1001: "anna", 1002: "ben"}, timeout=0.3) == {
        "anna": f"processes of anna do not end (ids {child.pid}): end them, and apply again"
    }


def test_system_accounts_are_never_meant(monkeypatch):
    monkeypatch.setattr(processes, "_processes", pytest.fail)
    assert processes.end({0: "root", 2**32 - 1: "all"}) == {}


def test_what_forks_is_not_outrun(person, harder, monkeypatch):
    """One look that finds nothing proves nothing; and everybody is killed once in a way that needs no look."""
    looks = iter([{}, {}, {}, {42: 1001}, {}, {43: 1001}, *[{}] * 5])
    monkeypatch.setattr(processes, "_processes", lambda people: next(looks))
    assert processes.end({1001: "anna"}, timeout=20) == {}
    assert next(looks, None) is None
    assert harder == [("group", 1001), ("all", 1001)] * 3


def test_all_of_a_uid_is_not_killed_where_a_container_has_it(person, harder, monkeypatch):
    monkeypatch.setattr(processes, "_in_containers", lambda people: {1001})
    assert processes.end({1001: "anna", 1002: "ben"}) == {}
    assert ("all", 1001) not in harder
    assert ("all", 1002) in harder


@needs_root
def test_a_chain_of_forks_ends():
    """Each process starts the next one and ends; after some thousand the chain ends by itself."""
    uid = 54321
    link = '[ "$1" -gt 0 ] && sh -c "$0" "$0" $(($1 - 1)) &'
    subprocess.run(["sh", "-c", link, link, "20000"], user=uid, group=uid, extra_groups=[], check=True)
    assert processes.end({uid: "mallory"}, timeout=30) == {}

    def pids():
        """Zombies included, which are there until the first process of the machine has seen them."""
        return set(subprocess.run(["ps", "-u", str(uid), "-o", "pid="], capture_output=True, text=True).stdout.split())

    before = pids()
    time.sleep(0.3)
    assert pids() <= before  # a chain that goes on makes hundreds of them in that time


def test_whose_a_process_is(monkeypatch):
    me = os.getpid()
    assert processes._uid(me, {os.getuid(): "me"}) == os.getuid()
    assert processes._uid(me, {os.getuid() + 1: "somebody"}) is None
    monkeypatch.setattr(processes, "_in_container", lambda pid: True)
    assert processes._uid(me, {os.getuid(): "me"}) is None


def test_a_process_that_ended_is_nobodys():
    child = subprocess.Popen([sys.executable, "-c", ""])
    time.sleep(0.2)  # a zombie by now, or soon
    while processes._uid(child.pid, {os.getuid(): "me"}) is not None:
        time.sleep(0.05)
    child.wait()
    assert processes._uid(child.pid, {os.getuid(): "me"}) is None


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

    monkeypatch.setattr(processes.os, "readlink", readlink)
    assert processes._in_container(42) is container
