"""Locks, and the turn of an apply, which dies with the process that has it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import pytest
from salt.exceptions import CommandExecutionError

import plasma_lock
from tests.support.paths import REPOSITORY

HOLDER = """
import subprocess, sys, time
sys.path.insert(0, sys.argv[1])
import plasma_lock
plasma_lock.take_turn(keep=sys.argv[3] == "keep", path=sys.argv[2])
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(plasma_lock, "_LOOK", 0.2)
    monkeypatch.setattr(plasma_lock, "_kept", {})
    return str(tmp_path / "apply.lock")


@contextlib.contextmanager
def another_apply(path, keep="keep"):
    """The process of another apply, which is at something that has a process of its own."""
    command = [sys.executable, "-c", HOLDER, str(REPOSITORY / "_utils"), path, keep]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        try:
            yield process
        finally:
            process.kill()
            subprocess.run(["kill", "-9", str(child)], check=False)


def test_another_apply_is_refused_until_its_process_ends(path):
    with another_apply(path) as process:
        assert plasma_lock.turn_taken(path)
        with pytest.raises(CommandExecutionError, match="Another apply runs on this server .*let it finish"):
            plasma_lock.take_turn(path=path)
        # Killed, and what it had started goes on: nobody has a turn any more.
        process.kill()
        process.wait()
        assert not plasma_lock.turn_taken(path)
        plasma_lock.take_turn(path=path)


def test_the_turn_is_this_processs(path):
    plasma_lock.take_turn(path=path)
    plasma_lock.take_turn(path=path)
    command = [sys.executable, "-c", HOLDER, str(REPOSITORY / "_utils"), path, "keep"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode and "Another apply runs on this server" in done.stderr


def test_a_process_that_goes_on_keeps_nothing(path):
    with another_apply(path, keep="look"):
        assert not plasma_lock.turn_taken(path)
        plasma_lock.take_turn(path=path)


def test_who_looks_whether_an_apply_runs_is_in_nobodys_way(path):
    plasma_lock.take_turn(keep=False, path=path)
    started = time.monotonic()
    for _ in range(50):
        assert not plasma_lock.turn_taken(path)
        plasma_lock.take_turn(keep=False, path=path)
    assert time.monotonic() - started < 2


def test_where_no_lock_can_be_made_applies_go_on(tmp_path):
    plasma_lock.take_turn(path=str(tmp_path / "none" / "apply.lock"))
    assert not plasma_lock.turn_taken(str(tmp_path / "none" / "apply.lock"))
