"""
Backups of the hub: made, listed, looked at, and brought back.

The work is done by a program of the standard library alone, which lies on the server beside the hub's plugin, so that
a timer can run it without Salt, and so that it works while the hub's own environment does not. This module calls it.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import re

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_backup"
__func_alias__ = {"list_": "list"}

DIRECTORY = "/var/opt/plasma/backups"
TIMER, SERVICE = "plasma-backup.timer", "plasma-backup.service"  # plasma_backup_timer makes them
_PYTHON = "/usr/bin/python3"
_NAME = re.compile(r"plasma-[A-Za-z0-9.-]+-(\d{8}T\d{6}Z)-[a-z]+\.tar\.gz")
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
    return _run(prefix, arguments(reason, prefix, directory, homes, images, home_path, keep or 0))


def list_(directory=DIRECTORY, prefix="/opt/tljh"):
    """
    Return the archives, newest first: ``[{"path", "host", "reason", "created" (ISO 8601, UTC), "bytes", "versions",
    "provider", "parts", "this_machine"}]``; of one that is damaged at its beginning, only the first five.

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


def extract(path, into, parts, prefix="/opt/tljh", seen="", room=0):
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
    seen
        What ``verify`` said under this name: the archive is not read again to be verified while it is that file.
    room
        Bytes that will be written; refused when they are not free.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.extract /srv/archive.tar.gz /root/looked-at '[config]'
    """
    if not parts:
        raise SaltInvocationError("parts must name something, such as [state].")
    words = ["extract", str(path), f"--into={into}", f"--seen={seen}", f"--room={int(room)}"]
    return _run(prefix, [*words, *(f"--part={part}" for part in parts)])


def load(path, prefix="/opt/tljh", seen=""):
    """
    Give the engine those images of an archive that it does not have; return their tags.

    path, prefix, seen
        As for ``extract``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.load /srv/archive.tar.gz
    """
    return _run(prefix, ["load", str(path), f"--seen={seen}"])


def restore(path, prefix="/opt/tljh", what=("hub",), **options):
    """
    Bring an archive back: see ``plasma_restore``, which does it.

    path
        The archive.
    prefix
        Where the hub is installed.
    what
        ``hub`` (configuration, databases, secrets), ``people`` (accounts and homes that are missing), ``images``.
    options
        What ``plasma_restore.apply`` takes besides, such as ``other_machine`` and ``timeout``.

    Returns ``{"changes", "comment", "kept"}``. Raises CommandExecutionError with one sentence.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.restore /var/opt/plasma/backups/plasma-hub-20261125T033000Z-manual.tar.gz
    """
    parts = {name: name in what for name in ("hub", "people", "images")}
    if not any(parts.values()):
        raise SaltInvocationError("what must name hub, people or images.")
    options = {key: value for key, value in options.items() if not key.startswith("__")}
    return __salt__["plasma_restore.apply"](path, prefix=prefix, **parts, **options)


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


def health(directory=DIRECTORY):
    """
    Return how backups are: ``{"last" (ISO 8601), "path", "age_hours", "timer" ("active", "inactive" or None), "next",
    "last_error", "problem"}``. The problem is a sentence with its mend, or None.

    directory
        Where archives are kept.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.health
    """
    found = dict.fromkeys(("last", "path", "age_hours", "timer", "next", "last_error", "problem"))
    # By their names alone: whoever asks how a server is may ask often, and a hub need not be there.
    made = [
        (match[1], path) for path in pathlib.Path(directory).glob("plasma-*") if (match := _NAME.fullmatch(path.name))
    ]
    if made:
        time, path = max(made)
        last = datetime.datetime.strptime(time, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
        age = datetime.datetime.now(datetime.timezone.utc) - last
        found.update(last=last.isoformat(), path=str(path), age_hours=round(age.total_seconds() / 3600, 1))
    timer = unit(TIMER, "LoadState,ActiveState,NextElapseUSecRealtime")
    if timer.get("LoadState") != "loaded":
        return found
    found.update(timer=timer["ActiveState"], next=timer.get("NextElapseUSecRealtime") or None)
    service = unit(SERVICE, "Result,ExecMainStatus,ActiveState")
    if service.get("Result") not in ("success", None):
        found["last_error"] = _last_line()
        found["problem"] = (
            f"The last backup failed ({found['last_error']}): systemctl start {SERVICE}, once it is mended"
        )
    elif timer["ActiveState"] != "active":
        found["problem"] = f"Backups are scheduled, and their timer is stopped: systemctl start {TIMER}"
    return found


def unit(name, properties):
    """
    Return properties of a unit of systemd, ``{property: text}``.

    name
        The unit.
    properties
        Their names, with commas.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.unit plasma-backup.timer ActiveState
    """
    done = __salt__["cmd.run_stdout"](["systemctl", "show", f"--property={properties}", name], python_shell=False)
    return dict(line.split("=", 1) for line in done.splitlines() if "=" in line)


def _last_line():
    text = __salt__["cmd.run_stdout"](
        ["journalctl", "--no-pager", "--output=cat", "--lines=5", f"--unit={SERVICE}", "_COMM=python3"],
        python_shell=False,
    )
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("{")]
    return lines[-1].rstrip(".") if lines else "its journal says why"
