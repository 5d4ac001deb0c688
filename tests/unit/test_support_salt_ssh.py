"""salt-ssh from a process that has imported Salt already: what it says is what salt-ssh says."""

from __future__ import annotations

import subprocess

import pytest

from tests.support import salt_ssh
from tests.support.paths import REPOSITORY
from tests.support.site import SALT_SSH


@pytest.mark.parametrize("arguments", [["--version"], ["--no-such-option"], ["no-such-server", "test.ping"]])
def test_the_same_answer(arguments, monkeypatch):
    """Also of what fails."""
    monkeypatch.setenv("COLUMNS", "50")
    command = [str(SALT_SSH), *arguments]
    real = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    done = salt_ssh.run(command, 60)
    assert (done.returncode, done.stdout, done.stderr) == (real.returncode, real.stdout, real.stderr)
    assert real.stdout or real.stderr


def test_a_call_that_takes_too_long():
    with pytest.raises(subprocess.TimeoutExpired):
        salt_ssh.run([str(SALT_SSH), "--help"], 0.001)
    assert salt_ssh.run([str(SALT_SSH), "--version"], 60).returncode == 0
