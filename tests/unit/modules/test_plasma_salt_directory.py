"""What salt-ssh left below /var/tmp with earlier releases is found and removed, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from plasma_salt_directory import left_behind, remove

SALT = ".ubuntu_98f42a_salt"
CONFIGURATION = f"/var/lib/{SALT}/minion"


@pytest.fixture
def earlier(tmp_path):
    """What salt-ssh left below a directory like /var/tmp, with a link that leads out of it."""
    if os.geteuid() != 0:
        pytest.skip("whose files they are decides")
    above = tmp_path / "tmp"
    left = above / SALT
    (left / "running_data").mkdir(parents=True)
    (left / "salt_state.tgz").touch()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (left / "running_data" / "out").symlink_to(kept)
    above.chmod(0o1777)
    left.chmod(0o770)
    return left


def test_what_an_earlier_release_left(earlier, tmp_path):
    above = str(earlier.parent)
    # That of another user or controller, which may be at work with it.
    other = earlier.with_name(".ubuntu_000000_salt")
    other.mkdir(mode=0o700)
    assert left_behind(CONFIGURATION, above) == str(earlier)
    assert remove(CONFIGURATION, above) == str(earlier)
    assert [path.name for path in earlier.parent.iterdir()] == [other.name]
    assert (tmp_path / "kept" / "file").exists()
    assert left_behind(CONFIGURATION, above) is None
    assert remove(CONFIGURATION, above) is None


@pytest.mark.parametrize("conf_file", ["/etc/salt/minion", f"/srv/{SALT}/minion", f"/var/lib/../{SALT}/minion", None])
def test_whoever_has_salt_elsewhere_has_left_nothing(earlier, conf_file):
    assert left_behind(conf_file, str(earlier.parent)) is None


def _a_link(left):
    left.rename(left.with_name("elsewhere"))
    left.symlink_to("elsewhere")


def _above_a_link(left):
    above = left.parent
    above.rename(above.with_name("elsewhere"))
    above.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "change",
    [
        lambda left: os.chown(left, 1234, 0),
        lambda left: left.chmod(0o777),
        lambda left: left.chmod(0o755),
        lambda left: left.parent.chmod(0o777),
        lambda left: os.chown(left.parent, 1234, 0),
        lambda left: (left.rename(left.with_name("x")), left.touch()),
        _a_link,
        _above_a_link,
    ],
)
def test_what_somebody_else_could_have_put_there_stays(earlier, change):
    change(earlier)
    assert remove(CONFIGURATION, str(earlier.parent)) is None
    assert os.path.lexists(earlier)


def test_it_stays_while_a_program_runs_from_it(earlier):
    command = [sys.executable, "-c", "print(flush=True); input()", f"{earlier}/salt-call"]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert running.stdout.readline() == b"\n"  # before, /proc may not have its arguments
        assert left_behind(CONFIGURATION, str(earlier.parent)) is None
    finally:
        running.communicate()
    assert left_behind(CONFIGURATION, str(earlier.parent)) == str(earlier)
