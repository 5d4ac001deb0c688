"""Backups by the execution module, with the real program; and their timer."""

from __future__ import annotations

import subprocess

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _modules.plasma_backup as plasma_backup
import plasma_backup_program as backup
import plasma_hub_installed
from tests.unit import needs_root
from tests.unit.modules.backup_world import BackupWorld
from tests.unit.modules.hub_prefix import HubPrefix


@pytest.fixture
def world(tmp_path):
    return BackupWorld(tmp_path)


@pytest.fixture
def configure_loader_modules(world):
    return world.loader_modules()


def make(world, **options):
    return backup.create(prefix=str(world.prefix), directory=str(world.place), home_path=str(world.home), **options)


@needs_root
def test_one_is_made_listed_verified_and_taken_out(world, tmp_path):
    done = make(world)
    assert (done["parts"], done["removed"]) == (["hub", "accounts", "environments"], [])
    assert done["path"].endswith("-manual.tar.gz")
    listed = backup.list_(str(world.place), str(world.prefix))
    assert [entry["path"] for entry in listed] == [done["path"]]
    about = backup.verify(done["path"], str(world.prefix))
    assert (about["ok"], about["problem"], about["sha256"]) == (True, None, done["sha256"])
    assert backup.extract(done["path"], str(tmp_path / "out"), ["state"], str(world.prefix)) == {"state": 3}
    assert (tmp_path / "out" / "state" / "word").read_text() == "before"


@needs_root
def test_a_damaged_one_is_said(world, tmp_path):
    path = make(world)["path"]
    with open(path, "r+b") as file:
        file.truncate(1000)
    about = backup.verify(path, str(world.prefix))
    assert about["ok"] is False
    assert "it is not whole" in about["problem"]
    with pytest.raises(CommandExecutionError, match="it is not whole"):
        backup.extract(path, str(tmp_path / "out"), ["state"], str(world.prefix))
    assert [entry["path"] for entry in backup.list_(str(world.place), str(world.prefix))] == [path]


def test_a_hub_below_another_prefix(tmp_path, monkeypatch):
    """Applying the state tljh would be refused."""
    hub = HubPrefix(tmp_path / "elsewhere").install()
    monkeypatch.setattr(plasma_hub_installed, "_UNIT", tmp_path / "jupyterhub.service")
    (tmp_path / "jupyterhub.service").write_text(f"[Service]\nWorkingDirectory={hub.root}/state\n")
    with pytest.raises(CommandExecutionError, match=f"is in {hub.root}, and pillar says {tmp_path}/none"):
        backup.create(prefix=str(tmp_path / "none"))


def test_without_a_hub(tmp_path):
    with pytest.raises(CommandExecutionError, match="No hub with the Plasma plugin is installed in"):
        backup.create(prefix=str(tmp_path / "none"))
    with pytest.raises(SaltInvocationError, match="parts must name something"):
        backup.extract("/x", "/y", [])
    with pytest.raises(SaltInvocationError, match="what must name hub"):
        plasma_backup.restore("/x", what=["everything"])


def test_an_error_of_the_program_is_one_sentence(world):
    (world.prefix / "state").rename(world.prefix / "away")
    with pytest.raises(CommandExecutionError, match="no hub is installed in .*, so there is nothing to back up"):
        make(world)


# --- the timer -------------------------------------------------------------------------------------------------


@needs_root
def test_the_command_of_the_unit_is_the_one_that_works(world):
    """What systemd would run, with its quotes taken off as a shell does."""
    options = {"prefix": str(world.prefix), "directory": str(world.place), "home_path": str(world.home)}
    service = backup.timer("daily", homes=True, keep=2, **options).units["plasma-backup.service"]
    line = next(line for line in service.splitlines() if line.startswith("ExecStart="))
    assert '"--keep=2"' in line
    done = subprocess.run(["sh", "-c", line.removeprefix("ExecStart=")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [made] = backup.list_(str(world.place), str(world.prefix))
    assert (made["reason"], made["parts"][-1]) == ("scheduled", "homes")


# --- health ----------------------------------------------------------------------------------------------------


def health(world):
    return backup.health(str(world.place))


def test_health_without_backups(world):
    assert set(health(world).values()) == {None}


@needs_root
def test_health_of_a_timer_that_works(world):
    path = make(world, reason="scheduled")["path"]
    world.shown["plasma-backup.timer"] = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "NextElapseUSecRealtime": "Mon 2026-03-02 03:30:00 UTC",
    }
    world.shown["plasma-backup.service"] = {"Result": "success"}
    found = health(world)
    assert (found["path"], found["timer"], found["next"]) == (path, "active", "Mon 2026-03-02 03:30:00 UTC")
    assert (found["age_hours"], found["problem"], found["last_error"]) == (0.0, None, None)


def test_health_of_what_fails_or_is_stopped(world):
    world.shown["plasma-backup.timer"] = {"LoadState": "loaded", "ActiveState": "inactive"}
    world.shown["plasma-backup.service"] = {"Result": "success"}
    assert "systemctl start plasma-backup.timer" in health(world)["problem"]
    world.shown["plasma-backup.service"] = {"Result": "exit-code"}
    found = health(world)
    assert found["last_error"] == "The disk is full"
    assert "The disk is full" in found["problem"]
    assert "systemctl start plasma-backup.service" in found["problem"]
