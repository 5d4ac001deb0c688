"""plasma-follow shows a running apply from a second connection."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import REPOSITORY


def follow(site, wait):
    return subprocess.Popen(
        [sys.executable, "-m", "tools.plasma_follow", "--roster", site.directory / "roster", "--wait", str(wait)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_it_shows_the_states_of_an_apply(site):
    follower = follow(site, 180)
    result = site.apply()
    output, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0, output
    assert not result.failed
    total = len(result.states)
    assert f"{total}/{total}" in output
    assert "done preflight-server-is-fit" in output
    assert "done hub-ready" in output


def test_it_says_when_nothing_runs(site):
    follower = follow(site, 1)
    output, _ = follower.communicate(timeout=60)
    assert follower.returncode == 3
    assert "No apply ran" in output
