"""
The files of the hub that everything hangs on: its three databases and its configuration. Whether they can be used, and
what brings a damaged one back. The hub notices little of it: it answers while every login fails.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_files
import plasma_hub_containers
import plasma_systemd
import tljh_service
import tljh_settings

HUB, PERMISSIONS, ENVIRONMENTS = "jupyterhub.sqlite", "plasma.sqlite", "tljh_repo2docker.sqlite"
# What is in each, and tables without which it is none of ours: SQLite takes an empty file for an empty database.
DATABASES = {
    HUB: ("in which the hub keeps who is logged in and which servers run", ("users", "spawners", "api_tokens")),
    PERMISSIONS: ("which says who may start which environment", ("permissions", "descriptions")),
    ENVIRONMENTS: ("which says how environments were built", ("images",)),
}
BESIDE = ("", "-journal", "-wal", "-shm")
BUSY = 5  # seconds to wait for somebody who writes


def health(prefix="/opt/tljh"):
    """
    Return which of the hub's files cannot be used, ``{"problems": [sentence with the mend]}``. Nothing is changed.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_databases.health
    """
    found = []
    state = pathlib.Path(prefix) / "state"
    config = pathlib.Path(prefix) / "config" / "config.yaml"
    if (state / HUB).exists() and not (config.is_file() and config.stat().st_size):
        found.append(f"{config} is missing or empty: the hub lets nobody in with its next start: `state.apply tljh`")
    for name, (what, _) in DATABASES.items():
        why = damage(name, prefix)
        if why:
            found.append(f"{name}, {what}, {why}: `plasma_databases.mend {name}`")
    return {"problems": found}


def damage(name, prefix="/opt/tljh"):
    """
    Return what is wrong with a database in a few words, None when it can be used, or was never made.

    name
        ``jupyterhub.sqlite``, ``plasma.sqlite`` or ``tljh_repo2docker.sqlite``.
    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_databases.damage jupyterhub.sqlite
    """
    path = _path(name, prefix)
    if not path.exists():
        # A hub makes all three with its first start.
        began = any((path.parent / other).exists() for other in (*DATABASES, "kept"))
        return "is gone" if began else None
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=BUSY)) as database:
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables.issuperset(DATABASES[name][1]):
                return "is empty"
            verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as exc:
        if "locked" in str(exc) or "busy" in str(exc):
            return None
        return f"cannot be read ({exc})"
    except sqlite3.DatabaseError as exc:
        return f"is damaged ({exc})"
    return None if verdict == "ok" else "is damaged (" + " ".join(str(verdict).split())[:200] + ")"


def mend(name, prefix="/opt/tljh", afresh=False, timeout=120):
    """
    Bring a damaged database back and start the hub again. The damaged file is put aside, in ``state/damaged``.

    ``jupyterhub.sqlite`` is made anew: people log in again, and their servers, which the hub no longer knows, are
    stopped; homes, permissions and environments stay. ``tljh_repo2docker.sqlite`` too: what is lost are the logs of
    builds. ``plasma.sqlite`` comes from the copy that is made at every change of permissions. An older state of any of
    them is in the backups (``state.apply restore``).

    name
        ``jupyterhub.sqlite``, ``plasma.sqlite`` or ``tljh_repo2docker.sqlite``.
    prefix
        Where the hub is installed.
    afresh
        Do without the copy of ``plasma.sqlite``: environments are then as open as ``plasma.permissions.default`` says.
    timeout
        Seconds for the hub to answer.

    Returns ``{"mended": bool, "aside": path or None, "stopped": {person: [servers]}, "comment": sentence}``. Raises
    CommandExecutionError when there is no copy, or the hub does not answer afterwards; SaltInvocationError for another
    name.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_databases.mend jupyterhub.sqlite
    """
    path = _path(name, prefix)
    why = damage(name, prefix)
    if why is None:
        return {"mended": False, "aside": None, "stopped": {}, "comment": f"{path} can be used: nothing was changed."}
    copy = path.parent / "kept" / name
    if name == PERMISSIONS and not copy.exists() and not afresh:
        raise CommandExecutionError(
            f"{path} {why}, and there is no copy of it: restore a backup (state.apply restore), or make it afresh with "
            f"`plasma_databases.mend {name} afresh=True`, after which environments are as open as "
            "plasma.permissions.default says."
        )
    _stop()
    # The hub refuses to make a file anew of which there is a copy.
    aside, stopped = _put_aside(path, *([copy] if name == PERMISSIONS and afresh else [])), {}
    if name == PERMISSIONS and not afresh:
        plasma_files.write(path, copy.read_bytes())
    if name == HUB:
        people = {container["user"] for container in plasma_hub_containers.owned()}
        stopped = plasma_hub_containers.remove(sorted(people)) if people else {}
    plasma_systemd.run("reset-failed", *tljh_service.UNITS)
    plasma_systemd.check("start", tljh_service.HUB)
    outcome = tljh_settings.ready(prefix, timeout)
    if not outcome["ready"]:
        lines = "\n".join(outcome["journal"])
        raise CommandExecutionError(f"{path} was replaced, and the hub does not answer: {outcome['problem']}.\n{lines}")
    return {
        "mended": True,
        "aside": aside,
        "stopped": stopped,
        "comment": f"{path} {why}; it was replaced, and the hub answers.",
    }


def _path(name, prefix):
    if name not in DATABASES:
        raise SaltInvocationError(f"name must be one of {', '.join(DATABASES)}, not {name!r}.")
    return pathlib.Path(prefix) / "state" / name


def _put_aside(path, *others):
    """Move a database, with what SQLite keeps beside it, and other files into a directory of its own; returns that."""
    places = [*(path.with_name(path.name + end) for end in BESIDE), *others]
    present = [place for place in places if place.exists()]
    if not present:
        return None
    folder = path.parent / "damaged" / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns() % 10**9:09d}"
    plasma_files.directory(folder, 0o700)
    for place in present:
        os.replace(place, folder / (f"copy-{place.name}" if place in others else place.name))
    return str(folder)


def _stop():
    """Stop the hub; one that lost its database waits for it until systemd loses patience."""
    if plasma_systemd.run("stop", tljh_service.HUB, timeout=15).returncode:
        plasma_systemd.check("kill", "--signal=SIGKILL", tljh_service.HUB)
        plasma_systemd.check("stop", tljh_service.HUB)
