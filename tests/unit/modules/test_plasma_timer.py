"""Timers of systemd: those of backups and of pruning are made, changed, started and removed."""

from __future__ import annotations

import pathlib

import pytest
from salt.exceptions import CommandExecutionError

import plasma_backup_program
import plasma_prune_timer
import plasma_run
import plasma_timer

TIMERS = {"plasma-backup": plasma_backup_program.timer, "plasma-prune": plasma_prune_timer.timer}


class Systemd:
    """Writes down what it is told; ``shown`` is what `systemctl show` says, ``failing`` are commands that fail."""

    def __init__(self):
        self.told, self.shown, self.failing = [], "ActiveState=active\nUnitFileState=enabled\n", set()

    def run(self, command, **options):
        self.told.append(command)
        if command[1] in self.failing:
            return plasma_run.Result(1, "", "it says no", command)
        return plasma_run.Result(0, self.shown if command[1] == "show" else "")


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    fake = Systemd()
    (tmp_path / "units").mkdir()
    monkeypatch.setattr(plasma_run, "run", fake.run)
    monkeypatch.setattr(plasma_timer, "UNITS", tmp_path / "units")
    monkeypatch.setattr(plasma_prune_timer, "PROGRAM", str(tmp_path / "prune.py"))
    return fake


def texts():
    return {path.name: path.read_text() for path in plasma_timer.UNITS.iterdir()}


@pytest.mark.parametrize("name", TIMERS)
def test_a_timer_is_made_changed_and_removed(systemd, name):
    make, timer, service = TIMERS[name], f"{name}.timer", f"{name}.service"
    new = plasma_timer.compare(make("daily"))
    assert (new[timer], new[service]["old"]) == ({"old": None, "new": "OnCalendar=daily"}, None)
    assert texts() == {}
    assert plasma_timer.apply(make("daily")) == new
    assert "OnCalendar=daily\n" in texts()[timer]
    assert [["systemctl", *words] for words in (["daemon-reload"], ["enable", timer], ["restart", timer])] == (
        systemd.told[-3:]
    )
    assert plasma_timer.apply(make("daily")) == {}
    later = {timer: {"old": "OnCalendar=daily", "new": "OnCalendar=weekly"}}
    assert plasma_timer.apply(make("weekly")) == later
    assert set(plasma_timer.apply(make(None))) == {timer, service}
    assert ["systemctl", "disable", "--now", timer] in systemd.told
    assert texts() == {}
    assert plasma_timer.apply(make(None)) == {}


def test_the_program_goes_with_the_timer(systemd):
    program = pathlib.Path(plasma_prune_timer.PROGRAM)
    program.touch()
    timer = plasma_prune_timer.timer("daily", 3)
    assert "--min-age=3 " in plasma_timer.compare(timer)["plasma-prune.service"]["new"]
    plasma_timer.apply(timer)
    assert program.exists()
    assert plasma_timer.apply(plasma_prune_timer.timer(None))[str(program)] == {"old": "installed", "new": None}
    assert not program.exists()


def test_a_stopped_timer_is_started(systemd):
    timer = plasma_prune_timer.timer("daily")
    plasma_timer.apply(timer)
    systemd.shown = "ActiveState=inactive\nUnitFileState=enabled\n"
    assert plasma_timer.apply(timer) == {"timer": {"old": "inactive", "new": "active"}}
    assert systemd.told[-1] == ["systemctl", "restart", "plasma-prune.timer"]


def test_a_schedule_that_systemd_does_not_know(systemd):
    systemd.failing.add("calendar")
    with pytest.raises(CommandExecutionError, match="plasma.backup.schedule: 'sometimes' is not what systemd takes"):
        plasma_timer.compare(plasma_backup_program.timer("sometimes"))


def test_a_refusal_of_systemd_is_said(systemd):
    systemd.failing.add("enable")
    with pytest.raises(CommandExecutionError, match="`systemctl enable plasma-backup.timer` failed: it says no"):
        plasma_timer.apply(plasma_backup_program.timer("daily"))
