"""Backups by the execution module, with the real program; and their timer."""

from __future__ import annotations

import subprocess

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _modules.plasma_backup as backup
import _modules.plasma_backup_timer as timer
from tests.unit.modules.backup_world import BackupWorld


@pytest.fixture
def world(tmp_path):
    return BackupWorld(tmp_path)


@pytest.fixture
def configure_loader_modules(world):
    return world.loader_modules()


def make(world, **options):
    return backup.create(prefix=str(world.prefix), directory=str(world.place), home_path=str(world.home), **options)


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


def test_without_a_hub(tmp_path):
    with pytest.raises(CommandExecutionError, match="No hub with the Plasma plugin is installed in"):
        backup.create(prefix=str(tmp_path / "none"))
    with pytest.raises(SaltInvocationError, match="parts must name something"):
        backup.extract("/x", "/y", [])
    with pytest.raises(SaltInvocationError, match="what must name hub"):
        backup.restore("/x", what=["everything"])


def test_an_error_of_the_program_is_one_sentence(world):
    (world.prefix / "state").rename(world.prefix / "away")
    with pytest.raises(CommandExecutionError, match="no hub is installed in .*, so there is nothing to back up"):
        make(world)


# --- the timer -------------------------------------------------------------------------------------------------


def options(world):
    return {"directory_of_units": str(world.units), "prefix": str(world.prefix), "directory": str(world.place)}


def test_a_timer_is_set_and_taken_away(world):
    wanted = options(world)
    new = {
        "plasma-backup.service": {"old": None, "new": "written"},
        "plasma-backup.timer": {"old": None, "new": "written"},
    }
    assert timer.compare("daily", keep=3, **wanted) == new
    assert timer.schedule("daily", keep=3, **wanted) == new
    assert ["enable", "plasma-backup.timer"] in world.calls
    assert "OnCalendar=daily\n" in (world.units / "plasma-backup.timer").read_text()
    service = (world.units / "plasma-backup.service").read_text()
    assert '"--keep=3"' in service
    assert f'"--directory={world.place}"' in service
    world.shown["plasma-backup.timer"] = {"ActiveState": "active", "UnitFileState": "enabled"}
    assert timer.schedule("daily", keep=3, **wanted) == {}
    world.shown["plasma-backup.timer"]["ActiveState"] = "inactive"
    assert timer.compare("daily", keep=3, **wanted) == {"timer": {"old": "inactive", "new": "active"}}
    assert set(timer.compare("daily", keep=4, **wanted)) == {"plasma-backup.service"}
    assert set(timer.schedule(None, **wanted)) == set(new)
    assert ["disable", "--now", "plasma-backup.timer"] in world.calls
    assert list(world.units.iterdir()) == []
    assert timer.schedule(None, **wanted) == {}


def test_the_command_of_the_unit_is_the_one_that_works(world):
    """What systemd would run, with its quotes taken off as a shell does."""
    timer.schedule("daily", homes=True, home_path=str(world.home), keep=2, **options(world))
    text = (world.units / "plasma-backup.service").read_text()
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    done = subprocess.run(["sh", "-c", line.removeprefix("ExecStart=")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [made] = backup.list_(str(world.place), str(world.prefix))
    assert (made["reason"], made["parts"][-1]) == ("scheduled", "homes")


def test_a_schedule_that_systemd_does_not_know(world):
    world.failing.add("calendar")
    with pytest.raises(CommandExecutionError, match="plasma.backup.schedule: 'sometimes' is not what systemd takes"):
        timer.compare("sometimes", **options(world))


def test_a_refusal_of_systemd_is_said(world):
    world.failing.add("enable")
    with pytest.raises(CommandExecutionError, match="systemctl enable plasma-backup.timer failed: it says no"):
        timer.schedule("daily", **options(world))


# --- health ----------------------------------------------------------------------------------------------------


def health(world):
    return backup.health(str(world.place))


def test_health_without_backups(world):
    assert set(health(world).values()) == {None}


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
