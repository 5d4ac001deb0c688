"""
Timers of systemd that start programs of this project without Salt.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_run
import plasma_systemd

UNITS = pathlib.Path("/etc/systemd/system")


@dataclass(frozen=True)
class Timer:
    """
    A timer, as it should be, and the service that it starts.

    name
        Of the units, without suffix.
    schedule
        As systemd's OnCalendar; None: there is to be no timer.
    key
        The key of pillar that has the schedule, for errors.
    comment
        First line of the units.
    description
        Of the timer.
    service
        Text of the service, below the comment.
    program
        Path of a file that goes with the timer, if any.
    """

    name: str
    schedule: str | None
    key: str
    comment: str
    description: str
    service: str
    program: str | None = None

    @property
    def units(self) -> dict[str, str | None]:
        """Texts of timer and service, by name; None for what is not to be there."""
        names = f"{self.name}.timer", f"{self.name}.service"
        if not self.schedule:
            return dict.fromkeys(names)
        timer = (
            f"[Unit]\nDescription={self.description}\n\n[Timer]\nOnCalendar={self.schedule}\nPersistent=true\n"
            "RandomizedDelaySec=60\n\n[Install]\nWantedBy=timers.target\n"
        )
        return {name: f"{self.comment}\n{text}" for name, text in zip(names, (timer, self.service), strict=True)}


def compare(timer: Timer) -> dict[str, dict[str, str | None]]:
    """
    Return what ``apply`` would change, ``{what: {"old", "new"}}``. Raises CommandExecutionError when systemd does not
    understand the schedule.
    """
    if timer.schedule and plasma_run.run(["systemd-analyze", "calendar", "--", timer.schedule]).returncode:
        raise CommandExecutionError(
            f"{timer.key}: {timer.schedule!r} is not what systemd takes for OnCalendar, such as `daily` or "
            "`Mon *-*-* 03:30:00`: see systemd.time(7)."
        )
    changes = {}
    for name, text in timer.units.items():
        path = UNITS / name
        current = path.read_text(encoding="utf-8") if path.exists() else None
        if current != text:
            changes[name] = {"old": _brief(current), "new": _brief(text)}
    if timer.schedule and not changes:
        shown = plasma_systemd.show(f"{timer.name}.timer", "ActiveState", "UnitFileState")
        if shown.get("ActiveState") != "active" or shown.get("UnitFileState") != "enabled":
            changes["timer"] = {"old": shown.get("ActiveState"), "new": "active"}
    if not timer.schedule and timer.program and pathlib.Path(timer.program).exists():
        changes[timer.program] = {"old": "installed", "new": None}
    return changes


def apply(timer: Timer) -> dict[str, dict[str, str | None]]:
    """Make a timer, change it, or remove it. Returns the changes. Raises CommandExecutionError when systemd refuses."""
    changes, unit = compare(timer), f"{timer.name}.timer"
    if not changes:
        return {}
    if not timer.schedule and (UNITS / unit).exists():
        plasma_systemd.check("disable", "--now", unit)
    for name, text in timer.units.items():
        if text:
            plasma_files.write(UNITS / name, text, mode=0o644)
        else:
            (UNITS / name).unlink(missing_ok=True)
    if not timer.schedule and timer.program:
        pathlib.Path(timer.program).unlink(missing_ok=True)
    plasma_systemd.check("daemon-reload")
    if timer.schedule:
        plasma_systemd.check("enable", unit)
        plasma_systemd.check("restart", unit)
    return changes


def state(name: str) -> dict[str, str | None]:
    """
    Return how a timer is, by its name without suffix: ``{"timer": "active", "inactive" or None where there is none,
    "next": when it starts its service}``.
    """
    shown = plasma_systemd.show(f"{name}.timer", "LoadState", "ActiveState", "NextElapseUSecRealtime")
    if shown.get("LoadState") != "loaded":
        return {"timer": None, "next": None}
    return {"timer": shown["ActiveState"], "next": shown.get("NextElapseUSecRealtime") or None}


def _brief(text: str | None) -> str | None:
    """The line of a unit that may differ."""
    if text is None:
        return None
    lines = (line for line in text.splitlines() if line.startswith(("OnCalendar=", "ExecStart=")))
    return next(lines, "another unit")
