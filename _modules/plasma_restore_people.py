"""
People out of an archive: their groups, accounts and homes, where this server does not have them.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_restore_people"

# login.defs(5), UID_MIN and UID_MAX of every supported system: people, and no accounts of the system.
_PEOPLE = range(1000, 60000)
_NEW = ".plasma-restore-"


def __virtual__():
    return __virtualname__


def missing(archive, about, prefix="/opt/tljh", home_path="/home", root="/"):
    """
    Return who is in the archive and not here: ``{"groups": {name: [fields]}, "users": {name: {"passwd": [fields],
    "shadow": [fields]}}, "members": {group: [names]}, "homes": [names]}``.

    archive, about
        The archive, and what ``plasma_backup.verify`` said of it.
    prefix, home_path
        Where the hub and the homes are.

    Raises CommandExecutionError when the id of somebody, or of a group, belongs to somebody else here.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_restore_people.missing /srv/archive.tar.gz '{parts: [hub, accounts]}'
    """
    found = {"groups": {}, "users": {}, "members": {}, "homes": []}
    if "accounts" not in about["parts"]:
        return found
    then, now = _accounts(archive, prefix), __salt__["plasma_users_files.read"](root=root)
    ids = {row[2]: name for name, row in _rows(now["passwd"]).items()}
    gids = {row[2]: name for name, row in _rows(now["group"]).items()}
    for name, row in _rows(then["passwd"]).items():
        if not row[2].isdecimal() or int(row[2]) not in _PEOPLE or name in _rows(now["passwd"]):
            continue
        if row[2] in ids:
            raise CommandExecutionError(
                f"Nothing was changed. The id {row[2]} of {name} in the archive is that of {ids[row[2]]} here: their "
                "files would be each other's. Give one of them another id, or restore with people: false."
            )
        found["users"][name] = {"passwd": row, "shadow": _rows(then["shadow"]).get(name, [name, "!", *[""] * 7])}
    for name, row in _rows(then["group"]).items():
        members = [member for member in row[3].split(",") if member in found["users"]]
        primary = any(user["passwd"][3] == row[2] for user in found["users"].values())
        if name in _rows(now["group"]):
            if members:
                found["members"][name] = members
        elif primary or (row[2].isdecimal() and int(row[2]) in _PEOPLE):
            if row[2] in gids:
                raise CommandExecutionError(
                    f"Nothing was changed. The id {row[2]} of the group {name} in the archive is that of "
                    f"{gids[row[2]]} here: give one of them another id, or restore with people: false."
                )
            found["groups"][name] = row
    if "homes" in about["parts"]:
        found["homes"] = [
            name
            for name, row in _rows(then["passwd"]).items()
            if os.path.dirname(row[5]) == about["home_path"] == home_path
            and os.path.basename(row[5]) == name
            and row[2].isdecimal()
            and int(row[2]) in _PEOPLE
            and not os.path.lexists(os.path.join(root, row[5].lstrip("/")))
        ]
    return found


def _accounts(archive, prefix):
    with tempfile.TemporaryDirectory(prefix="plasma-restore-") as place:
        into = os.path.join(place, "accounts-of-archive")
        __salt__["plasma_backup.extract"](archive, into, ["accounts"], prefix=prefix)
        texts = {}
        for kind in ("passwd", "shadow", "group", "gshadow"):
            path = pathlib.Path(into, "accounts", kind)
            text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
            texts[kind] = __salt__["plasma_users_files.parse"](kind, text)
    return texts


def _rows(table):
    return table["rows"] if table else {}


def add(archive, found, prefix="/opt/tljh", home_path="/home", root="/"):
    """
    Add groups, accounts with their passwords, and homes. What is here already is left as it is.

    archive
        The archive.
    found
        What ``missing`` returned.
    prefix, home_path
        Where the hub and the homes are.

    Returns ``{"users": [names], "homes": [names]}``. Raises CommandExecutionError when the accounts cannot be written.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_restore_people.add /srv/archive.tar.gz '{groups: {}, users: {}, members: {}, homes: []}'
    """

    def edits(tables):
        wanted = {"passwd": {}, "shadow": {}, "group": {}, "gshadow": {}}
        for name, row in found["groups"].items():
            if name not in _rows(tables["group"]):
                wanted["group"][name] = row
                wanted["gshadow"][name] = [name, "!", "", row[3]]
        for name, members in found["members"].items():
            for kind in ("group", "gshadow"):
                row = _rows(tables[kind]).get(name) if tables[kind] else None
                if row:
                    present = [member for member in row[3].split(",") if member]
                    if set(members) - set(present):
                        wanted[kind][name] = [*row[:3], ",".join([*present, *(set(members) - set(present))])]
        for name, user in found["users"].items():
            for kind in ("passwd", "shadow"):
                if name not in _rows(tables[kind]):
                    wanted[kind][name] = user[kind]
        return wanted

    if found["groups"] or found["members"] or found["users"]:
        lock = __salt__["plasma_users_edit.lock"](root=root)
        try:
            __salt__["plasma_users_edit.change"](edits, root=root)
        finally:
            lock.close()
    return {"users": sorted(found["users"]), "homes": _homes(archive, found["homes"], prefix, home_path, root)}


def _homes(archive, names, prefix, home_path, root):
    """Unpack into a directory that nobody can enter, and put each home in its place by one rename."""
    if not names:
        return []
    parent = pathlib.Path(root, home_path.lstrip("/"))
    into = parent / f"{_NEW}{os.getpid()}"
    done = []
    try:
        __salt__["plasma_backup.extract"](archive, str(into), [f"homes/{name}" for name in names], prefix=prefix)
        for name in names:
            unpacked = into / "homes" / name
            if unpacked.is_dir() and not os.path.lexists(parent / name):
                os.rename(unpacked, parent / name)
                done.append(name)
    finally:
        shutil.rmtree(into, ignore_errors=True)
    return done
