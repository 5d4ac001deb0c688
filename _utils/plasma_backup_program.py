"""
Backups of the hub: made, listed, looked at, and brought back.

The work is done by a program of the standard library alone, which lies on the server beside the hub's plugin, so that
a timer can run it without Salt, and so that it works while the hub's own environment does not. This module calls it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import re
from collections.abc import Generator, Sequence
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_hub_installed
import plasma_run
import plasma_systemd
import plasma_timer

DIRECTORY = "/var/opt/plasma/backups"
SERVICE = "plasma-backup.service"
_PYTHON = "/usr/bin/python3"
_NAME = re.compile(r"plasma-[A-Za-z0-9.-]+-(\d{8}T\d{6}Z)-[a-z]+\.tar\.gz")
# Where the program is while it is that of a tree, and what was verified, by the file's signature: Salt's process is
# one for each run, and reading all of a large archive takes minutes.
_BORROWED: list[str] = []
_VERIFIED: dict[tuple[Any, ...], dict[str, Any]] = {}
_TIMEOUT = 6 * 3600  # of one call: homes may be large


def program(prefix: str = "/opt/tljh") -> list[str]:
    """
    Return the command line of the program that makes backups.

    prefix
        Where the hub is installed.
    """
    return [_PYTHON, "-I", "-B", str(pathlib.Path(prefix) / "plasma" / "plugin" / "src" / "tljh_plasma" / "backup")]


@contextlib.contextmanager
def borrowed(plugin: str) -> Generator[None]:
    """
    Within a ``with``, the program is the one of this plugin: for a server that has no hub yet.

    plugin
        Directory with the plugin's source.
    """
    _BORROWED.append(str(pathlib.Path(plugin, "src", "tljh_plasma", "backup")))
    try:
        yield
    finally:
        _BORROWED.pop()


def timer(schedule: str | None, prefix: str = "/opt/tljh", **options: Any) -> plasma_timer.Timer:
    """
    Return the timer that makes scheduled backups.

    schedule
        As systemd's OnCalendar; None: no timer.
    prefix, options
        See ``create``.
    """
    command = [*program(prefix), *_arguments("scheduled", prefix, **options)]
    line = " ".join('"' + word.replace("%", "%%").replace("$", "$$") + '"' for word in command)
    return plasma_timer.Timer(
        name="plasma-backup",
        schedule=schedule,
        key="plasma.backup.schedule",
        comment="# Managed by Plasma on Salt (plasma.backup).",
        description="Backups of the hub (Plasma)",
        service=f"[Unit]\nDescription=Backup of the hub (Plasma)\n\n[Service]\nType=oneshot\nExecStart={line}\n"
        "UMask=0077\nNice=10\nIOSchedulingClass=idle\nPrivateTmp=yes\n",
    )


def create(
    reason: str = "manual",
    prefix: str = "/opt/tljh",
    directory: str = DIRECTORY,
    homes: bool = False,
    images: bool = False,
    home_path: str = "/home",
    keep: int | None = None,
) -> dict[str, Any]:
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
    return _run(prefix, _arguments(reason, prefix, directory, homes, images, home_path, keep))


def list_(directory: str = DIRECTORY, prefix: str = "/opt/tljh") -> list[dict[str, Any]]:
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


def verify(path: str, prefix: str = "/opt/tljh") -> dict[str, Any]:
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
        status = os.stat(path)
        signature = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except OSError:
        signature = ()  # the program says why
    try:
        answer = _VERIFIED.get(signature) or _run(prefix, ["verify", str(path)])
    except CommandExecutionError as exc:
        return {"ok": False, "problem": str(exc)}
    if signature:
        _VERIFIED[signature] = answer
    return {"ok": True, "problem": None, **answer}


def extract(
    path: str, into: str, parts: Sequence[str], prefix: str = "/opt/tljh", seen: str = "", room: int = 0
) -> dict[str, int]:
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


def load(path: str, prefix: str = "/opt/tljh", seen: str = "") -> list[str]:
    """
    Give the engine those images of an archive that it does not have; return their tags.

    path, prefix, seen
        As for ``extract``.
    """
    return _run(prefix, ["load", str(path), f"--seen={seen}"])


def health(directory: str = DIRECTORY) -> dict[str, Any]:
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
    paths = pathlib.Path(directory).glob("plasma-*")
    archives = [(match[1], path) for path in paths if (match := _NAME.fullmatch(path.name))]
    if archives:
        time, path = max(archives)
        last = datetime.datetime.strptime(f"{time}+0000", "%Y%m%dT%H%M%SZ%z")
        age = datetime.datetime.now(datetime.timezone.utc) - last
        found.update(last=last.isoformat(), path=str(path), age_hours=round(age.total_seconds() / 3600, 1))
    found.update(plasma_timer.state("plasma-backup"))
    if not found["timer"]:
        return found
    if plasma_systemd.show(SERVICE, "Result").get("Result", "success") != "success":
        found["last_error"] = _last_line()
        found["problem"] = (
            f"The last backup failed ({found['last_error']}): systemctl start {SERVICE}, once it is mended"
        )
    elif found["timer"] != "active":
        found["problem"] = "Backups are scheduled, and their timer is stopped: systemctl start plasma-backup.timer"
    return found


def _arguments(
    reason: str,
    prefix: str,
    directory: str = DIRECTORY,
    homes: bool = False,
    images: bool = False,
    home_path: str = "/home",
    keep: int | None = None,
) -> list[str]:
    """What the program is called with to make a backup."""
    words = ["create", f"--prefix={prefix}", f"--directory={directory}", f"--reason={reason}"]
    flags = {f"--home-path={home_path}": True, "--homes": homes, "--images": images, f"--keep={keep}": keep}
    return [*words, *(word for word, wanted in flags.items() if wanted)]


def _run(prefix: str, words: Sequence[str]) -> Any:
    command = [*program(prefix)[:-1], *(_BORROWED[-1:] or program(prefix)[-1:])]
    if not pathlib.Path(command[-1]).is_dir():
        raise CommandExecutionError(plasma_hub_installed.absent(prefix))
    done = plasma_run.run([*command, *words], timeout=_TIMEOUT)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise CommandExecutionError(f"The backup program failed: {done.last_line}.") from None
    if isinstance(answer, dict) and "error" in answer:
        raise CommandExecutionError(answer["error"])
    return answer


def _last_line() -> str:
    text = plasma_systemd.journal(SERVICE, 5, "_COMM=python3")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("{")]
    return lines[-1].rstrip(".") if lines else "its journal says why"
