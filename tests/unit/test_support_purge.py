"""tests.support.purge: everything of ours goes, and nothing else does."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support import __main__ as command_line
from tests.support import engine, paths, purge
from tests.support.shell import SupportError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Directories of this test's own, and no engine that answers."""
    monkeypatch.setenv("PLASMA_ENGINE_DIR", str(tmp_path / "engine"))
    monkeypatch.setenv("PLASMA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "SYSTEM_SOCKET", f"unix://{tmp_path}/none.sock")
    return tmp_path


def test_both_directories_go_and_are_not_made_for_it(home, capsys):
    (paths.engine_dir() / "docker" / "volumes").mkdir(parents=True)
    paths.cache_dir()
    (home / "kept").touch()
    (paths.state_dir() / "link").symlink_to(home / "kept")
    assert command_line.main(["down", "--all", "--purge"]) == 0
    assert [entry.name for entry in home.iterdir()] == ["kept"]
    assert f"{home}/engine is removed" in capsys.readouterr().out
    assert purge.purge() == []
    assert [entry.name for entry in home.iterdir()] == ["kept"]


def test_without_purge_the_directories_stay(home):
    paths.engine_dir()
    assert command_line.main(["down", "--all"]) == 0
    assert paths.engine_path().exists() and paths.state_path().exists()


@pytest.mark.parametrize("mine", ["engine", "state"])
def test_a_directory_that_was_not_made_here_is_refused_and_nothing_is_removed(home, capsys, mine):
    """PLASMA_STATE_DIR=$HOME by mistake."""
    (home / mine).mkdir()
    (home / mine / "thesis.tex").touch()
    paths.engine_dir()
    paths.state_dir()
    assert command_line.main(["down", "--all", "--purge"]) == 1
    assert f"{home}/{mine} was not made here" in capsys.readouterr().err
    assert (home / mine / "thesis.tex").exists()
    assert paths.engine_path().exists() and paths.state_path().exists()


def test_a_link_to_a_directory_is_refused(home):
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / paths.MARKER).touch()
    (home / "engine").symlink_to(home / "elsewhere")
    with pytest.raises(SupportError, match="is not a directory"):
        purge.purge()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_a_directory_of_another_user_is_refused(home):
    os.chown(paths.engine_dir(), 12345, 12345)
    with pytest.raises(SupportError, match="belongs to another user"):
        purge.purge()


def test_an_empty_directory_that_somebody_named_becomes_ours(home):
    (home / "engine").mkdir()
    assert (paths.engine_dir() / paths.MARKER).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_what_is_mounted_in_it_is_not_emptied(home):
    """As a container that was killed leaves it."""
    (home / "homes").mkdir()
    (home / "homes" / "thesis.tex").touch()
    place = paths.engine_dir() / "a place"
    place.mkdir()
    subprocess.run(["mount", "--bind", home / "homes", place], check=True)
    try:
        assert purge.mounts_below(paths.engine_path()) == [str(place)]
        purge.purge()
    finally:
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
    assert not paths.engine_path().exists()
    assert (home / "homes" / "thesis.tex").exists()
