"""
People out of an archive: their groups, accounts and homes, where this server does not have them.
"""

from __future__ import annotations

import functools
import grp
import os
import pathlib
import shutil
import tempfile
from collections.abc import Collection
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_backup_program
import plasma_users_rename
import plasma_users_tables
import plasma_users_write

# login.defs(5), UID_MIN and UID_MAX of every supported system: people, and no accounts of the system.
_PEOPLE = range(1000, 60000)
# Groups of TLJH's own: they are for sudo and own no files, so their numbers, which its installer takes as they come,
# may change.
_HUBS = ("jupyterhub-admins", "jupyterhub-users")


def missing(
    archive: str,
    about: dict[str, Any],
    prefix: str = "/opt/tljh",
    home_path: str = "/home",
    without: Collection[str] = (),
    root: str = "/",
) -> dict[str, Any]:
    """
    Return who is in the archive and not here: ``{"groups": {name: [fields]}, "users": {name: {"passwd": [fields],
    "shadow": [fields]}}, "members": {group: [names]}, "homes": [names], "renumbered": {group: id}}``; the last
    are groups of the hub whose number here the archive has for somebody else, or which have another one there.

    archive, about
        The archive, and what ``plasma_backup.verify`` said of it.
    prefix, home_path
        Where the hub and the homes are.
    without
        Names of people who are left out.

    Raises CommandExecutionError when somebody, or a group, has another id here, or their id is somebody else's here.
    """
    if "accounts" not in about["parts"]:
        return {"groups": {}, "users": {}, "members": {}, "homes": [], "renumbered": {}}
    then = _accounts(archive, about, prefix)
    tables = plasma_users_tables.read(root=root)
    now = _rows(tables)
    # Who has another name since then is here.
    renamed = plasma_users_rename.former(tables, root)
    without = {
        *without,
        *(name for name, note in renamed.items() if then["passwd"].get(name, [""] * 3)[2] == str(note["uid"])),
    }
    people = {name: row for name, row in then["passwd"].items() if _of_people(row) and name not in without}
    _check_ids("user", people, now["passwd"])
    users = {
        name: {"passwd": row, "shadow": then["shadow"].get(name, [name, "!", *[""] * 7])}
        for name, row in people.items()
        if name not in now["passwd"]
    }
    # A group of somebody's own name who is left out is left out with them, unless somebody else's files are its.
    primary = {user["passwd"][3] for user in users.values()}
    wanted = {
        name: row
        for name, row in then["group"].items()
        if row[2] in primary
        or (_of_people(row) and name not in without and (name not in then["passwd"] or name in people))
    }
    renumbered = _renumbered({name: row[2] for name, row in wanted.items()}, now["group"])
    here = {name: [*row[:2], renumbered.get(name, row[2]), *row[3:]] for name, row in now["group"].items()}
    _check_ids("group", {name: row for name, row in wanted.items() if name not in _HUBS}, here)
    members = {name: row[3].split(",") for name, row in then["group"].items()}
    joining = {name: [member for member in members[name] if member in users] for name in members if name in here}
    return {
        "groups": {
            name: [*row[:3], ",".join(member for member in members[name] if member in users or member in now["passwd"])]
            for name, row in wanted.items()
            if name not in here
        },
        "users": users,
        "members": {name: names for name, names in joining.items() if names},
        "homes": [
            name
            for name, row in people.items()
            if name in about["homes"]
            and row[5] == os.path.join(home_path, name)
            and about["home_path"] == home_path
            and not os.path.lexists(os.path.join(root, row[5].lstrip("/")))
        ],
        "renumbered": renumbered,
    }


def add(
    archive: str,
    about: dict[str, Any],
    found: dict[str, Any],
    prefix: str = "/opt/tljh",
    home_path: str = "/home",
    root: str = "/",
) -> dict[str, list[str]]:
    """
    Add groups, accounts with their passwords, and homes. What is here already is left as it is.

    archive, about
        The archive, and what ``plasma_backup.verify`` said of it.
    found
        What ``missing`` returned.
    prefix, home_path
        Where the hub and the homes are.

    Returns ``{"users": [names], "homes": [names]}``. Raises CommandExecutionError when the accounts cannot be written.
    """
    if any(found[kind] for kind in ("groups", "renumbered", "members", "users")):
        with plasma_users_write.lock(root=root):
            plasma_users_write.change(functools.partial(_edits, found), root=root)
    return {"users": sorted(found["users"]), "homes": _homes(archive, about, found["homes"], prefix, home_path, root)}


def _edits(found: dict[str, Any], tables: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    """The rows that are to be added or changed, by kind of table, of tables as they are now."""
    now = _rows(tables)
    wanted: dict[str, dict[str, list[str]]] = {"passwd": {}, "shadow": {}, "group": {}, "gshadow": {}}
    for name, user in found["users"].items():
        wanted.update({kind: {**wanted[kind], name: row} for kind, row in user.items() if name not in now[kind]})
    for name, row in found["groups"].items():
        if name not in now["group"]:
            wanted["group"][name], wanted["gshadow"][name] = row, [name, "!", "", row[3]]
    for name, number in found["renumbered"].items():
        row = now["group"].get(name)
        if row and row[2] != number:
            wanted["group"][name] = [*row[:2], number, *row[3:]]
    for name, members in found["members"].items():
        for kind in ("group", "gshadow"):
            row = wanted[kind].get(name) or now[kind].get(name)
            if row:
                present = [member for member in row[3].split(",") if member]
                joining = [member for member in members if member not in present]
                if joining:
                    wanted[kind][name] = [*row[:3], ",".join([*present, *joining])]
    return wanted


def _of_people(row: list[str]) -> bool:
    return row[2].isdecimal() and int(row[2]) in _PEOPLE


def _renumbered(then: dict[str, str], now: dict[str, list[str]]) -> dict[str, str]:
    """The numbers that the hub's own groups get here, so that nobody else's is theirs."""
    ids = {name: row[2] for name, row in now.items()}
    new = {}
    for name in (name for name in _HUBS if name in ids):
        taken_then = {number for other, number in then.items() if other != name}
        taken = taken_then | {number for other, number in ids.items() if other != name}
        if then.get(name, ids[name]) != ids[name] and then[name] not in taken:
            ids[name] = new[name] = then[name]
        elif ids[name] in taken_then:
            ids[name] = new[name] = next(
                str(number) for number in _PEOPLE if str(number) not in taken and not _elsewhere(number)
            )
    return new


def _elsewhere(number: int) -> bool:
    """Whether another source of groups, such as a directory, has a number."""
    try:
        return bool(grp.getgrgid(number))
    except KeyError:
        return False


def _check_ids(kind: str, then: dict[str, list[str]], now: dict[str, list[str]]) -> None:
    """Files belong to numbers, so nobody may get another one, or somebody else's."""
    holders = {row[2]: name for name, row in now.items()}
    for name, row in then.items():
        here = now.get(name)
        if here and here[2] != row[2]:
            problem = f"has the id {here[2]} here and {row[2]} in the archive"
        elif not here and row[2] in holders:
            problem = f"has the id {row[2]} in the archive, which is that of {holders[row[2]]} here"
        else:
            continue
        raise CommandExecutionError(
            f"Nothing was changed. The {kind} {name} {problem}: files of one would be the other's. Change the id here, "
            f"or leave people out: pillar='{{restore: {{archive: ..., without: [{name}]}}}}'"
        )


def _accounts(archive: str, about: dict[str, Any], prefix: str) -> dict[str, dict[str, list[str]]]:
    """The rows of the account files in the archive, by kind and name."""
    with tempfile.TemporaryDirectory(prefix="plasma-restore-") as directory:
        into = pathlib.Path(directory, "accounts-of-archive")
        plasma_backup_program.extract(archive, str(into), ["accounts"], prefix=prefix, seen=about["seen"])
        rows = {}
        for kind in ("passwd", "shadow", "group"):
            path = into / "accounts" / kind
            text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
            rows[kind] = plasma_users_tables.parse(kind, text)["rows"]
        return rows


def _rows(tables: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    """The rows by kind of table and name; none of a table that is not there."""
    return {kind: (tables.get(kind) or {"rows": {}})["rows"] for kind in plasma_users_tables.FIELDS}


def _homes(archive: str, about: dict[str, Any], names: list[str], prefix: str, home_path: str, root: str) -> list[str]:
    """Unpack into a directory that nobody can enter, and put each home in its place by one rename."""
    if not names:
        return []
    parent = pathlib.Path(root, home_path.lstrip("/"))
    into = parent / f".plasma-restore-{os.getpid()}"
    restored = []
    try:
        parts = [f"homes/{name}" for name in names]
        room = sum(about["homes"][name] for name in names)
        plasma_backup_program.extract(archive, str(into), parts, prefix=prefix, seen=about["seen"], room=room)
        for name in names:
            if (into / "homes" / name).is_dir() and not os.path.lexists(parent / name):
                os.rename(into / "homes" / name, parent / name)
                restored.append(name)
    finally:
        shutil.rmtree(into, ignore_errors=True)
    return restored
