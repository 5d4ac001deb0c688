"""
Backups of the hub: made, listed, looked at, and brought back.

The work is done by a program of the standard library alone, which lies on the server beside the hub's plugin, so that
a timer can run it without Salt, and so that it works while the hub's own environment does not. This module calls it.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_backup"
__func_alias__ = {"list_": "list"}

DIRECTORY = "/var/opt/plasma/backups"
TIMER, SERVICE = "plasma-backup.timer", "plasma-backup.service"
_PYTHON = "/usr/bin/python3"
_TIMEOUT = 6 * 3600  # of one call: homes may be large


def __virtual__():
    return __virtualname__


def program(prefix="/opt/tljh"):
    """
    Return the command line of the program that makes backups, as a list.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.program
    """
    return [_PYTHON, "-I", "-B", str(pathlib.Path(prefix) / "plasma" / "plugin" / "src" / "tljh_plasma" / "backup")]


def arguments(
    reason="manual", prefix="/opt/tljh", directory=DIRECTORY, homes=False, images=False, home_path="/home", keep=0
):
    """
    Return what the program is called with to make a backup, as a list.

    reason, prefix, directory, homes, images, home_path, keep
        See ``create``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.arguments scheduled keep=7
    """
    words = ["create", f"--prefix={prefix}", f"--directory={directory}", f"--reason={reason}"]
    words += [f"--home-path={home_path}", *(["--homes"] if homes else []), *(["--images"] if images else [])]
    return [*words, *([f"--keep={int(keep)}"] if keep else [])]


def create(
    reason="manual", prefix="/opt/tljh", directory=DIRECTORY, homes=False, images=False, home_path="/home", keep=None
):
    """
    Make an archive of the hub while it goes on: configuration, databases, secrets, permissions, certificates, account
    files, and the recipes of environments.

    reason
        ``manual``, ``scheduled``, ``upgrade``, ``uninstall`` or ``restore``; it is in the archive's name.
    prefix
        Where the hub is installed.
    directory
        Where archives are kept, for root alone.
    homes, images
        Whether the homes below ``home_path``, and the images of environments, are in it too.
    keep
        Number of scheduled archives to keep; older ones are removed after a scheduled one.

    Returns ``{"path", "bytes", "sha256", "seconds", "parts": [names], "removed": [paths]}``. Raises
    CommandExecutionError with one sentence when there is no hub, no room, or the disk fails; nothing is left then.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.create homes=true
    """
    words = arguments(reason, prefix, directory, homes, images, home_path, keep or 0)
    tls = (__salt__["tljh_config.show"](prefix).get("https") or {}).get("tls") or {}
    words += [f"--tls-{name}={tls[name]}" for name in ("key", "cert") if tls.get(name)]
    return _run(prefix, words)


def list_(directory=DIRECTORY, prefix="/opt/tljh"):
    """
    Return the archives, newest first: ``[{"path", "host", "reason", "created" (ISO 8601, UTC), "bytes"}]``.

    directory
        Where they are kept.
    prefix
        Where the hub is, or was, installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.list
    """
    return _run(prefix, ["list", f"--directory={directory}"])


def verify(path, prefix="/opt/tljh"):
    """
    Read all of an archive and compare every member with its checksum: ``{"ok": bool, "problem": sentence or None}``,
    and for a good one what it says of itself (``created``, ``host``, ``reason``, ``parts``, ``versions``, ``sha256``,
    ``members``, ``this_machine``).

    path
        The archive.
    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.verify /var/opt/plasma/backups/plasma-hub-20261125T033000Z-scheduled.tar.gz
    """
    try:
        return {"ok": True, "problem": None, **_run(prefix, ["verify", str(path)])}
    except CommandExecutionError as exc:
        return {"ok": False, "problem": str(exc)}


def extract(path, into, parts, prefix="/opt/tljh"):
    """
    Verify an archive and write parts of it below a new directory of root's; return their numbers of members.

    path
        The archive.
    into
        A directory that does not exist yet.
    parts
        Names at the root of the archive, such as ``state``, or below it, such as ``homes/ada``.
    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.extract /srv/archive.tar.gz /root/looked-at '[config]'
    """
    if not parts:
        raise SaltInvocationError("parts must name something, such as [state].")
    return _run(prefix, ["extract", str(path), f"--into={into}", *(f"--part={part}" for part in parts)])


def _run(prefix, words):
    command = [*program(prefix), *words]
    if not pathlib.Path(command[-len(words) - 1]).is_dir():
        raise CommandExecutionError(f"No hub with the Plasma plugin is installed in {prefix}: apply the state tljh.")
    done = __salt__["cmd.run_all"](
        command, python_shell=False, ignore_retcode=True, timeout=_TIMEOUT, cwd="/", output_loglevel="quiet"
    )
    try:
        answer = json.loads(done["stdout"])
    except ValueError:
        last = (done["stderr"].strip() or done["stdout"].strip() or "no output").splitlines()[-1]
        raise CommandExecutionError(f"The backup program failed: {last}") from None
    if isinstance(answer, dict) and "error" in answer:
        raise CommandExecutionError(answer["error"])
    return answer


def health(directory=DIRECTORY, prefix="/opt/tljh"):
    """
    Return how backups are: ``{"last" (ISO 8601), "path", "age_hours", "timer" ("active", "inactive" or None), "next",
    "last_error", "problem"}``. The problem is a sentence with its mend, or None.

    directory
        Where archives are kept.
    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.health
    """
    found = dict.fromkeys(("last", "path", "age_hours", "timer", "next", "last_error", "problem"))
    try:
        archives = list_(directory, prefix)
    except CommandExecutionError:
        archives = []
    if archives:
        made = datetime.datetime.fromisoformat(archives[0]["created"])
        age = datetime.datetime.now(datetime.timezone.utc) - made
        found.update(last=archives[0]["created"], path=archives[0]["path"])
        found["age_hours"] = round(age.total_seconds() / 3600, 1)
    timer = _unit(TIMER, "LoadState,ActiveState,NextElapseUSecRealtime")
    if timer.get("LoadState") != "loaded":
        return found
    found.update(timer=timer["ActiveState"], next=timer.get("NextElapseUSecRealtime") or None)
    service = _unit(SERVICE, "Result,ExecMainStatus,ActiveState")
    if service.get("Result") not in ("success", None):
        found["last_error"] = _last_line()
        found["problem"] = (
            f"The last backup failed ({found['last_error']}): systemctl start {SERVICE}, once it is mended"
        )
    elif timer["ActiveState"] != "active":
        found["problem"] = f"Backups are scheduled, and their timer is stopped: systemctl start {TIMER}"
    return found


def _unit(name, properties):
    done = __salt__["cmd.run_stdout"](["systemctl", "show", f"--property={properties}", name], python_shell=False)
    return dict(line.split("=", 1) for line in done.splitlines() if "=" in line)


def _last_line():
    text = __salt__["cmd.run_stdout"](
        ["journalctl", "--no-pager", "--output=cat", "--lines=5", f"--unit={SERVICE}", "_COMM=python3"],
        python_shell=False,
    )
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("{")]
    return lines[-1].rstrip(".") if lines else "its journal says why"


def units(schedule, **options):
    """
    Return the texts of the timer and of the service, ``{name: text}``.

    schedule
        As systemd's OnCalendar.
    options
        What ``arguments`` takes.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.units '*-*-* 03:30:00'
    """
    command = [*program(options.get("prefix", "/opt/tljh")), *arguments("scheduled", **options)]
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
        What ``arguments`` takes.

    Raises CommandExecutionError when systemd does not understand the schedule.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.compare '*-*-* 03:30:00'
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
    timer = _unit(TIMER, "ActiveState,UnitFileState") if schedule and not changes else {}
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

        salt-ssh '*' plasma_backup.schedule '*-*-* 03:30:00' keep=7
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
        temporary = folder / f".{name}.new"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, folder / name)
    _systemctl("daemon-reload")
    _systemctl("enable", TIMER)
    _systemctl("restart", TIMER)
    return changes


def _systemctl(*words):
    done = __salt__["cmd.run_all"](["systemctl", *words], python_shell=False, ignore_retcode=True)
    if done["retcode"]:
        raise CommandExecutionError(f"systemctl {' '.join(words)} failed: {done['stderr'].strip()}")
