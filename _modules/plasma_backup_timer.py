"""
The timer of systemd that makes backups. It runs the backup program without Salt.
"""

from __future__ import annotations

import pathlib

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_backup_timer"

TIMER, SERVICE = "plasma-backup.timer", "plasma-backup.service"


def __virtual__():
    return __virtualname__


def units(schedule, **options):
    """
    Return the texts of the timer and of the service, ``{name: text}``.

    schedule
        As systemd's OnCalendar.
    options
        What ``plasma_backup.arguments`` takes.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup_timer.units '*-*-* 03:30:00'
    """
    program = __salt__["plasma_backup.program"](options.get("prefix", "/opt/tljh"))
    command = [*program, *__salt__["plasma_backup.arguments"]("scheduled", **options)]
    line = " ".join('"' + word.replace("%", "%%").replace("$", "$$") + '"' for word in command)
    return {
        SERVICE: (
            "# Managed by Plasma on Salt (plasma.backup).\n[Unit]\nDescription=Backup of the hub (Plasma)\n\n"
            f"[Service]\nType=oneshot\nExecStart={line}\nUMask=0077\nNice=10\nIOSchedulingClass=idle\nPrivateTmp=yes\n"
        ),
        TIMER: (
            "# Managed by Plasma on Salt (plasma.backup).\n[Unit]\nDescription=Backups of the hub (Plasma)\n\n[Timer]\n"
            f"OnCalendar={schedule}\nPersistent=true\nRandomizedDelaySec=60\n\n[Install]\nWantedBy=timers.target\n"
        ),
    }


def compare(schedule=None, directory_of_units="/etc/systemd/system", **options):
    """
    Return what ``schedule`` would change, ``{what: {"old", "new"}}``.

    schedule
        As systemd's OnCalendar; None: no timer.
    options
        What ``plasma_backup.arguments`` takes.

    Raises CommandExecutionError when systemd does not understand the schedule.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup_timer.compare '*-*-* 03:30:00'
    """
    folder = pathlib.Path(directory_of_units)
    changes = {}
    if schedule:
        _check(schedule)
    wanted = units(schedule, **options) if schedule else dict.fromkeys((SERVICE, TIMER))
    for name, text in wanted.items():
        path = folder / name
        old = path.read_text(encoding="utf-8") if path.exists() else None
        if old != text:
            changes[name] = {"old": "present" if old else None, "new": "written" if text else None}
    timer = __salt__["plasma_backup.unit"](TIMER, "ActiveState,UnitFileState") if schedule and not changes else {}
    if timer and (timer.get("ActiveState") != "active" or timer.get("UnitFileState") != "enabled"):
        changes["timer"] = {"old": timer.get("ActiveState"), "new": "active"}
    return changes


def _check(schedule):
    done = __salt__["cmd.run_all"](
        ["systemd-analyze", "calendar", "--", schedule],
        python_shell=False,
        ignore_retcode=True,
        output_loglevel="quiet",
    )
    if done["retcode"]:
        raise CommandExecutionError(
            f"plasma.backup.schedule: {schedule!r} is not what systemd takes for OnCalendar, such as `daily` or "
            "`Mon *-*-* 03:30:00`: see systemd.time(7)."
        )


def schedule(schedule=None, directory_of_units="/etc/systemd/system", **options):
    """
    Have backups made by a timer of systemd, or (without a schedule) no longer; archives stay.

    schedule, options
        As for ``compare``.

    Returns the changes. Raises CommandExecutionError when systemd refuses.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup_timer.schedule '*-*-* 03:30:00' keep=7
    """
    changes = compare(schedule, directory_of_units, **options)
    if not changes:
        return {}
    folder = pathlib.Path(directory_of_units)
    if not schedule:
        _systemctl("disable", "--now", TIMER)
        for name in (TIMER, SERVICE):
            (folder / name).unlink(missing_ok=True)
        _systemctl("daemon-reload")
        return changes
    for name, text in units(schedule, **options).items():
        __salt__["plasma_files.write"](folder / name, text, mode=0o644)
    _systemctl("daemon-reload")
    _systemctl("enable", TIMER)
    _systemctl("restart", TIMER)
    return changes


def _systemctl(*words):
    done = __salt__["cmd.run_all"](["systemctl", *words], python_shell=False, ignore_retcode=True)
    if done["retcode"]:
        raise CommandExecutionError(f"systemctl {' '.join(words)} failed: {done['stderr'].strip()}")
