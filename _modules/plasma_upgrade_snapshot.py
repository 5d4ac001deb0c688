"""
The hub as it was before an upgrade: its environment, the plugin's source, the receipt, the units, and its data.

All of it lies in ``<prefix>/plasma/upgrade``, for root alone and on the same file system, so that putting it back is
a matter of renames. Each step of ``restore`` may be cut off and done again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import shutil
import sqlite3
import stat
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_upgrade_snapshot"

UNITS_DIRECTORY = "/etc/systemd/system"
UNITS = ("jupyterhub.service", "traefik.service")
KEPT = "/var/backups/plasma"
# Room for what an upgrade brings beside the copy of what is there.
ROOM = 600 * 1024**2
_MAGIC = b"SQLite format 3\0"
_SIBLINGS = ("-wal", "-shm", "-journal")
# Of the state directory: written by whatever version runs, and never to be older than they are.
_LIVE = ("rules", "acme.json", "plasma-announcement.json")


def __virtual__():
    return __virtualname__


def _paths(prefix):
    root = pathlib.Path(prefix)
    ours = root / "plasma"
    snapshot = ours / "upgrade"
    return {
        "root": root,
        "snapshot": snapshot,
        "data": snapshot / "data",
        "aside": snapshot / "failed",
        "guard": ours / "install.lock",
        # What is put back by renames: (copy, place).
        "parts": [
            (snapshot / "hub", root / "hub"),
            (snapshot / "plugin", ours / "plugin"),
            (snapshot / "receipt.json", ours / "receipt.json"),
        ],
    }


@contextlib.contextmanager
def _guard(paths, timeout=600):
    """Hold the lock of installations: pip may go on in the environment after whoever started it was killed."""
    descriptor = os.open(paths["guard"], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + timeout
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise CommandExecutionError(
                        f"An installation has been running for {timeout} seconds: see who holds {paths['guard']} with "
                        f"`fuser -v {paths['guard']}`."
                    ) from None
                time.sleep(0.5)
        yield
    finally:
        os.close(descriptor)


def size(prefix="/opt/tljh"):
    """
    Return the bytes that a snapshot may take, without those that the file system may share.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade_snapshot.size
    """
    paths = _paths(prefix)
    places = [place for _, place in paths["parts"]] + [paths["root"] / "config", paths["root"] / "state"]
    total = 0
    for place in places:
        for folder, _, files in os.walk(place):
            total += sum(os.lstat(os.path.join(folder, name)).st_blocks * 512 for name in files)
    return total


def check_room(prefix="/opt/tljh"):
    """
    Raise CommandExecutionError unless there is room for the snapshot and the upgrade.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade_snapshot.check_room
    """
    needed = size(prefix) + ROOM
    status = os.statvfs(_paths(prefix)["root"])
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise CommandExecutionError(
            f"Nothing was changed: an upgrade that can be undone needs {needed / 1024**2:.0f} MB in {prefix}, and "
            f"{free / 1024**2:.0f} MB are free there. Make room, or upgrade without a way back: state.apply tljh."
        )


def take(prefix="/opt/tljh", data_alone=False):
    """
    Copy the hub that is installed, and its data, while it runs; what an interrupted call left is replaced.

    prefix
        Where the hub is installed.
    data_alone
        Whether to leave the hub itself out.

    Raises CommandExecutionError when the copy fails; nothing of the hub has changed then.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade_snapshot.take
    """
    paths = _paths(prefix)
    drop(prefix)
    if not data_alone:
        check_room(prefix)
    with _guard(paths):
        paths["snapshot"].mkdir(mode=0o700)
        (paths["snapshot"] / "units").mkdir()
        paths["data"].mkdir()
        for copy, place in [] if data_alone else paths["parts"]:
            if place.exists():
                _copy(place, copy)
        for unit in () if data_alone else UNITS:
            for name in (unit, f"{unit}.d"):
                if os.path.lexists(place := pathlib.Path(UNITS_DIRECTORY, name)):
                    _copy(place, paths["snapshot"] / "units" / name)
        for name in ("config", "state"):
            _copy(paths["root"] / name, paths["data"] / name)
    for database in databases(prefix):
        _copy_database(paths["root"] / "state" / database, paths["data"] / "state" / database)
    os.sync()


def _copy(place, copy):
    done = __salt__["cmd.run_all"](
        ["cp", "--archive", "--reflink=auto", "--no-target-directory", "--", str(place), str(copy)],
        python_shell=False,
        ignore_retcode=True,
    )
    # Files that come and go meanwhile, such as a database's journal, are none of ours.
    errors = [line for line in done["stderr"].splitlines() if "No such file or directory" not in line]
    if done["retcode"] and (errors or not os.path.lexists(copy)):
        raise CommandExecutionError(
            f"Nothing was changed: {place} cannot be copied ({errors[0] if errors else 'gone'})."
        )


def _copy_database(place, copy):
    """A consistent copy while others write; cp may have caught one in the middle of that."""
    for suffix in ("", *_SIBLINGS):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
    status = place.stat()
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            contextlib.closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True, timeout=60)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as exc:
        raise CommandExecutionError(f"Nothing was changed: the database {place} cannot be copied ({exc}).") from exc
    os.chown(copy, status.st_uid, status.st_gid)
    copy.chmod(stat.S_IMODE(status.st_mode))


def databases(prefix="/opt/tljh"):
    """
    Return the names of the SQLite files of the hub's state directory, sorted; copies of upgrades are not among them.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade_snapshot.databases
    """
    return _databases(_paths(prefix)["root"] / "state")


def _databases(folder):
    found = []
    for path in sorted(folder.glob("*.sqlite")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(len(_MAGIC)) == _MAGIC:
                    found.append(path.name)
    return found


def revisions(prefix="/opt/tljh"):
    """
    Return the revision of each database's tables, ``{name of the file: revision or None}``, as Alembic has noted it.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade_snapshot.revisions
    """
    folder = _paths(prefix)["root"] / "state"
    return {name: (_tables(folder / name) or [None])[0] for name in _databases(folder)}


def _tables(path):
    """[revision, definitions of all tables]; None for what cannot be read."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as database:
            made = database.execute("SELECT name, sql FROM sqlite_master ORDER BY name, sql").fetchall()
            noted = any(name == "alembic_version" for name, _ in made)
            rows = database.execute("SELECT version_num FROM alembic_version").fetchall() if noted else []
    except sqlite3.Error:
        return None
    return [rows[0][0] if rows else None, made]


def restore(prefix="/opt/tljh"):
    """
    Put the hub of the snapshot back while its units are stopped. Databases that have other tables now, settings and
    secrets that have changed, get their former content; what they had goes to ``/var/backups/plasma``.

    prefix
        Where the hub is installed.

    Returns ``{"data": [names of files that were put back], "kept": directory with what they had, or None}``. Raises
    CommandExecutionError when something cannot be put back; another call goes on from there.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade_snapshot.restore  # part of: plasma_upgrade.roll_back
    """
    paths = _paths(prefix)
    with _guard(paths):
        try:
            paths["aside"].mkdir(exist_ok=True)
            for copy, place in paths["parts"]:
                if os.path.lexists(copy):
                    if os.path.lexists(place):
                        os.rename(place, paths["aside"] / f"{place.name}-{time.time_ns()}")
                    os.rename(copy, place)
            for unit in sorted((paths["snapshot"] / "units").iterdir()):
                _replace_unit(unit, pathlib.Path(UNITS_DIRECTORY, unit.name))
            return _restore_data(paths)
        except OSError as exc:
            raise CommandExecutionError(f"{exc.filename} cannot be put back: {exc.strerror}.") from exc


def _replace_unit(copy, place):
    if copy.is_dir():
        for file in sorted(copy.iterdir()):
            place.mkdir(mode=0o755, exist_ok=True)
            _replace_unit(file, place / file.name)
        return
    temporary = place.with_name(f".{place.name}.plasma")
    shutil.copy2(copy, temporary, follow_symlinks=False)
    os.replace(temporary, place)


def _restore_data(paths):
    kept = pathlib.Path(KEPT) / time.strftime("upgrade-%Y%m%dT%H%M%SZ", time.gmtime())
    done = []
    for name in _changed(paths):
        place, copy = paths["root"] / name, paths["data"] / name
        if os.path.lexists(place):
            aside = kept / name
            for folder in (kept.parent, kept, aside.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for suffix in ("", *_SIBLINGS):
                if os.path.lexists(found := place.with_name(place.name + suffix)):
                    shutil.move(found, aside.with_name(aside.name + suffix))
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.plasma")
        shutil.copy2(copy, temporary)
        status = copy.stat()
        os.chown(temporary, status.st_uid, status.st_gid)
        os.replace(temporary, place)
        done.append(name)
    return {"data": done, "kept": str(kept) if kept.exists() else None}


def _changed(paths):
    """Relative paths of the files of the snapshot that the other version has left different."""
    known = _databases(paths["data"] / "state")
    for name in known:
        now = paths["root"] / "state" / name
        # A version that has the same tables reads what was written meanwhile; logins are not undone for nothing.
        if not now.exists() or _tables(now) != _tables(paths["data"] / "state" / name):
            yield f"state/{name}"
    for part in ("config", "state"):
        folder = paths["data"] / part
        for copy in sorted(folder.rglob("*")):
            relative = copy.relative_to(folder)
            live = part == "state" and (relative.parts[0] in _LIVE or relative.name.startswith(tuple(known)))
            if live or copy.is_symlink() or not copy.is_file() or "__pycache__" in relative.parts:
                continue
            now = paths["root"] / part / relative
            if not now.is_file() or now.read_bytes() != copy.read_bytes():
                yield f"{part}/{relative}"


def keep_data(prefix="/opt/tljh"):
    """
    Move the snapshot's copy of the data to ``/var/backups/plasma`` and return where it is; for upgrades of which there
    is no archive.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade_snapshot.keep_data
    """
    data = _paths(prefix)["data"]
    if not data.exists():
        return None
    kept = pathlib.Path(KEPT) / time.strftime("before-upgrade-%Y%m%dT%H%M%SZ", time.gmtime())
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.move(data, kept)
    kept.chmod(0o700)
    return str(kept)


def drop(prefix="/opt/tljh"):
    """
    Remove the snapshot; returns whether there was one.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_upgrade_snapshot.drop  # part of: plasma_upgrade.settle
    """
    snapshot = _paths(prefix)["snapshot"]
    if not snapshot.exists():
        return False
    shutil.rmtree(snapshot)
    return True
