"""
The hub as it was before an upgrade: its environment, the plugin's source, the receipt, the units, and its data.

All of it lies in ``<prefix>/plasma/upgrade``, for root alone and on the same file system, so that putting it back is
a matter of renames. Each step of ``restore`` may be cut off and done again.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_lock
import plasma_run

UNITS_DIRECTORY = "/etc/systemd/system"
UNITS = ("jupyterhub.service", "traefik.service")
KEPT = "/var/backups/plasma"
# Room for what an upgrade brings beside the copy of what is there.
ROOM = 600 * 1024**2
LOCK_TIMEOUT = 600  # seconds to wait for an installation that runs
_COPYING = 3600  # seconds for one copy
# What is put back by renames, below the prefix.
_PARTS = ("hub", "plasma/plugin", "plasma/receipt.json")
_DATA = ("config", "state")
_MAGIC = b"SQLite format 3\0"
_SIBLINGS = ("", "-wal", "-shm", "-journal")
# Of the state directory: written by whatever version runs, and never to be older than they are.
_LIVE = (("rules",), ("acme.json",), ("plasma-announcement.json",))


def _snapshot(prefix: str) -> pathlib.Path:
    return pathlib.Path(prefix) / "plasma" / "upgrade"


def _guard(prefix: str) -> contextlib.AbstractContextManager:
    """The lock of installations: pip may go on in the environment after whoever started it was killed."""
    lock = pathlib.Path(prefix) / "plasma" / "install.lock"
    return plasma_lock.hold(lock, f"An installation has been running for {LOCK_TIMEOUT} seconds", LOCK_TIMEOUT)


def check_room(prefix: str = "/opt/tljh") -> None:
    """
    Raise CommandExecutionError unless there is room for the snapshot and the upgrade.

    prefix
        Where the hub is installed.
    """
    needed = ROOM
    for part in (*_PARTS, *_DATA):
        for folder, _, files in os.walk(os.path.join(prefix, part)):
            needed += sum(os.lstat(os.path.join(folder, name)).st_blocks * 512 for name in files)
    free = shutil.disk_usage(prefix).free
    if free < needed:
        raise CommandExecutionError(
            f"Nothing was changed: an upgrade that can be undone needs {needed / 1024**2:.0f} MB in {prefix}, and "
            f"{free / 1024**2:.0f} MB are free there. Make room, or upgrade without a way back: state.apply tljh."
        )


def take(prefix: str = "/opt/tljh", data_alone: bool = False) -> None:
    """
    Copy the hub that is installed, and its data, while it runs; what an interrupted call left is replaced.

    prefix
        Where the hub is installed.
    data_alone
        Whether to leave the hub itself out.

    Raises CommandExecutionError when the copy fails; nothing of the hub has changed then.
    """
    root, snapshot = pathlib.Path(prefix), _snapshot(prefix)
    drop(prefix)
    if not data_alone:
        check_room(prefix)
    with _guard(prefix):
        snapshot.mkdir(mode=0o700)
        for folder in ("units", "data"):
            (snapshot / folder).mkdir(0o700)
        copies = [(root / name, snapshot / "data" / name) for name in _DATA]
        if not data_alone:
            copies += [(root / part, snapshot / os.path.basename(part)) for part in _PARTS]
            names = [name for unit in UNITS for name in (unit, f"{unit}.d")]
            copies += [(pathlib.Path(UNITS_DIRECTORY, name), snapshot / "units" / name) for name in names]
        for original, copy in copies:
            if os.path.lexists(original):
                _copy(original, copy)
    for database in _databases(root / "state"):
        _copy_database(root / "state" / database, snapshot / "data" / "state" / database)
    os.sync()


def _copy(original: pathlib.Path, copy: pathlib.Path) -> None:
    done = plasma_run.run(
        ["cp", "--archive", "--reflink=auto", "--no-target-directory", "--", str(original), str(copy)],
        timeout=_COPYING,
    )
    # Files that come and go meanwhile, such as a database's journal, are none of ours.
    errors = [line for line in done.stderr.splitlines() if "No such file or directory" not in line]
    if done.returncode and (errors or not os.path.lexists(copy)):
        raise CommandExecutionError(
            f"Nothing was changed: {original} cannot be copied ({errors[0] if errors else 'gone'})."
        )


def _copy_database(original: pathlib.Path, copy: pathlib.Path) -> None:
    """A consistent copy while others write; cp may have caught one in the middle of that. Nobody else can read it."""
    for suffix in _SIBLINGS:
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with _reading(original) as source, contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    except sqlite3.Error as exc:
        raise CommandExecutionError(f"Nothing was changed: the database {original} cannot be copied ({exc}).") from exc
    _copy_owner(original, copy)


def _copy_owner(original: pathlib.Path, copy: pathlib.Path) -> None:
    status = original.stat()
    os.chown(copy, status.st_uid, status.st_gid)
    shutil.copymode(original, copy)


def _reading(path: pathlib.Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60))


def _databases(folder: pathlib.Path) -> list[str]:
    """The names of the SQLite files of a state directory, sorted; copies of upgrades are not among them."""

    def is_database(path: pathlib.Path) -> bool:
        if path.is_symlink() or not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC

    return [path.name for path in sorted(folder.glob("*.sqlite")) if is_database(path)]


def revisions(prefix: str = "/opt/tljh") -> dict[str, str | None]:
    """
    Return the revision of each database's tables, ``{name of the file: revision or None}``, as Alembic has noted it.

    prefix
        Where the hub is installed.
    """
    folder = pathlib.Path(prefix) / "state"
    return {name: (_tables(folder / name) or (None,))[0] for name in _databases(folder)}


def _tables(path: pathlib.Path) -> tuple[str | None, list] | None:
    """(revision, definitions of all tables); None for what cannot be read."""
    try:
        with _reading(path) as database:
            tables = database.execute("SELECT name, sql FROM sqlite_master ORDER BY name, sql").fetchall()
            noted = any(name == "alembic_version" for name, _ in tables)
            row = database.execute("SELECT version_num FROM alembic_version").fetchone() if noted else None
    except sqlite3.Error:
        return None
    return row[0] if row else None, tables


def restore(prefix: str = "/opt/tljh") -> dict[str, Any]:
    """
    Put the hub of the snapshot back while its units are stopped. Databases that have other tables now, settings and
    secrets that have changed, get their former content; what they had goes to ``/var/backups/plasma``.

    prefix
        Where the hub is installed.

    Returns ``{"data": [names of files that were put back], "kept": directory with what they had, or None}``. Raises
    CommandExecutionError when something cannot be put back; another call goes on from there.
    """
    root, snapshot = pathlib.Path(prefix), _snapshot(prefix)
    units = snapshot / "units"
    with _guard(prefix):
        try:
            (snapshot / "failed").mkdir(0o700, exist_ok=True)
            for part in _PARTS:
                place, copy = root / part, snapshot / os.path.basename(part)
                if os.path.lexists(copy):
                    if os.path.lexists(place):
                        os.rename(place, snapshot / "failed" / f"{place.name}-{time.time_ns()}")
                    os.rename(copy, place)
            for copy in sorted(path for path in units.rglob("*") if not path.is_dir() or path.is_symlink()):
                _replace(copy, pathlib.Path(UNITS_DIRECTORY, copy.relative_to(units)), 0o755)
            return _restore_data(root, snapshot / "data")
        except OSError as exc:
            raise CommandExecutionError(f"{exc.filename} cannot be put back: {exc.strerror}.") from exc


def _replace(copy: pathlib.Path, place: pathlib.Path, mode: int) -> None:
    """Put a copy in the place of a file, at once; its directory is made with this mode."""
    plasma_files.directory(place.parent, mode)
    temporary = place.with_name(f".{place.name}.plasma")
    shutil.copy2(copy, temporary, follow_symlinks=False)
    if not copy.is_symlink():
        _copy_owner(copy, temporary)
    os.replace(temporary, place)


def _restore_data(root: pathlib.Path, data: pathlib.Path) -> dict[str, Any]:
    kept = pathlib.Path(KEPT) / time.strftime("upgrade-%Y%m%dT%H%M%SZ", time.gmtime())
    names = []
    for name in _changed(root, data):
        place, aside = root / name, kept / name
        if os.path.lexists(place):
            for folder in (kept.parent, kept, aside.parent):
                plasma_files.directory(folder, 0o700)
            for suffix in _SIBLINGS:
                if os.path.lexists(file := place.with_name(place.name + suffix)):
                    shutil.move(file, aside.with_name(aside.name + suffix))
        _replace(data / name, place, 0o700)
        names.append(name)
    return {"data": names, "kept": str(kept) if kept.exists() else None}


def _changed(root: pathlib.Path, data: pathlib.Path) -> Iterator[str]:
    """Relative paths of the files of the snapshot that the other version has left different."""
    known = _databases(data / "state")
    for name in known:
        # A version that has the same tables reads what was written meanwhile; logins are not undone for nothing.
        now = root / "state" / name
        if not now.exists() or _tables(now) != _tables(data / "state" / name):
            yield f"state/{name}"
    for copy in sorted(data.rglob("*")):
        name = copy.relative_to(data)
        live = name.parts[0] == "state" and (name.parts[1:2] in _LIVE or name.name.startswith(tuple(known)))
        if live or copy.is_symlink() or not copy.is_file() or "__pycache__" in copy.parts:
            continue
        now = root / name
        if not now.is_file() or now.read_bytes() != copy.read_bytes():
            yield str(name)


def keep_data(prefix: str = "/opt/tljh") -> str | None:
    """
    Move the snapshot's copy of the data to ``/var/backups/plasma`` and return where it is; for upgrades of which there
    is no archive.

    prefix
        Where the hub is installed.
    """
    data = _snapshot(prefix) / "data"
    if not data.exists():
        return None
    kept = pathlib.Path(KEPT) / time.strftime("before-upgrade-%Y%m%dT%H%M%SZ", time.gmtime())
    plasma_files.directory(kept.parent, 0o700)
    shutil.move(data, kept)
    kept.chmod(0o700)
    return str(kept)


def drop(prefix: str = "/opt/tljh") -> bool:
    """
    Remove the snapshot; returns whether there was one.

    prefix
        Where the hub is installed.
    """
    if not _snapshot(prefix).exists():
        return False
    shutil.rmtree(_snapshot(prefix))
    return True
