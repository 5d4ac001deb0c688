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
# Groups of TLJH's own: they are for sudo and own no files, so their numbers, which its installer takes as they come,
# may change.
_HUBS = ("jupyterhub-admins", "jupyterhub-users")


def __virtual__():
    return __virtualname__


def missing(archive, about, prefix="/opt/tljh", home_path="/home", without=(), root="/"):
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

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_restore_people.missing /srv/archive.tar.gz '{parts: [hub, accounts], seen: ""}'
    """
    found = {"groups": {}, "users": {}, "members": {}, "homes": [], "renumbered": {}}
    if "accounts" not in about["parts"]:
        return found
    then, now = _accounts(archive, about, prefix), __salt__["plasma_users_files.read"](root=root)
    people = {
        name: row
        for name, row in _rows(then["passwd"]).items()
        if row[2].isdecimal() and int(row[2]) in _PEOPLE and name not in without
    }
    _same_ids("user", people, _rows(now["passwd"]))
    for name, row in people.items():
        if name not in _rows(now["passwd"]):
            shadow = _rows(then["shadow"]).get(name, [name, "!", *[""] * 7])
            found["users"][name] = {"passwd": row, "shadow": shadow}
    groups = _rows(then["group"])
    primary = {user["passwd"][3] for user in found["users"].values()}
    own = {name for name, row in groups.items() if row[2] in primary}
    wanted = {name for name, row in groups.items() if row[2].isdecimal() and int(row[2]) in _PEOPLE}
    # A group of somebody's own name who is left out is left out with them.
    wanted = {
        name for name in wanted - set(without) if name in own or name not in _rows(then["passwd"]) or name in people
    }
    here = _rows(now["group"])
    found["renumbered"] = _renumbered({name: groups[name][2] for name in own | wanted}, here)
    here = {name: [*row[:2], found["renumbered"].get(name, row[2]), *row[3:]] for name, row in here.items()}
    _same_ids("group", {name: groups[name] for name in (own | wanted).difference(_HUBS)}, here)
    there = {*found["users"], *_rows(now["passwd"])}
    for name in groups:
        row = groups[name]
        if name in _rows(now["group"]):
            members = [member for member in row[3].split(",") if member in found["users"]]
            if members:
                found["members"][name] = members
        elif name in own | wanted:
            found["groups"][name] = [*row[:3], ",".join(member for member in row[3].split(",") if member in there)]
    found["homes"] = [
        name
        for name, row in people.items()
        if name in about["homes"]
        and row[5] == os.path.join(home_path, name)
        and about["home_path"] == home_path
        and not os.path.lexists(os.path.join(root, row[5].lstrip("/")))
    ]
    return found


def _renumbered(then, now):
    """The numbers that the hub's own groups get here, so that nobody else's is theirs."""
    ids = {name: row[2] for name, row in now.items()}
    found = {}
    for name in _HUBS:
        if name not in ids:
            continue
        others = {number for other, number in {**then, **ids, **found}.items() if other != name}
        if then.get(name, ids[name]) != ids[name] and then[name] not in others:
            found[name] = then[name]
        elif ids[name] in {number for other, number in then.items() if other != name}:
            found[name] = next(str(number) for number in _PEOPLE if str(number) not in others)
        ids.update(found)
    return found


def _same_ids(kind, then, now):
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


def _accounts(archive, about, prefix):
    with tempfile.TemporaryDirectory(prefix="plasma-restore-") as place:
        into = os.path.join(place, "accounts-of-archive")
        __salt__["plasma_backup.extract"](archive, into, ["accounts"], prefix=prefix, seen=about["seen"])
        texts = {}
        for kind in ("passwd", "shadow", "group", "gshadow"):
            path = pathlib.Path(into, "accounts", kind)
            text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
            texts[kind] = __salt__["plasma_users_files.parse"](kind, text)
    return texts


def _rows(table):
    return table["rows"] if table else {}


def add(archive, about, found, prefix="/opt/tljh", home_path="/home", root="/"):
    """
    Add groups, accounts with their passwords, and homes. What is here already is left as it is.

    archive, about
        The archive, and what ``plasma_backup.verify`` said of it.
    found
        What ``missing`` returned.
    prefix, home_path
        Where the hub and the homes are.

    Returns ``{"users": [names], "homes": [names]}``. Raises CommandExecutionError when the accounts cannot be written.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_restore_people.add /srv/a.tar.gz '{seen: ""}' '{groups: {}, users: {}, homes: []}'
    """

    def edits(tables):
        wanted = {"passwd": {}, "shadow": {}, "group": {}, "gshadow": {}}
        for name, row in found["groups"].items():
            if name not in _rows(tables["group"]):
                wanted["group"][name] = row
                wanted["gshadow"][name] = [name, "!", "", row[3]]
        for name, number in found["renumbered"].items():
            row = _rows(tables["group"]).get(name)
            if row and row[2] != number:
                wanted["group"][name] = [*row[:2], number, *row[3:]]
        for name, members in found["members"].items():
            for kind in ("group", "gshadow"):
                row = wanted[kind].get(name) or (_rows(tables[kind]).get(name) if tables[kind] else None)
                if row:
                    present = [member for member in row[3].split(",") if member]
                    if set(members) - set(present):
                        wanted[kind][name] = [*row[:3], ",".join([*present, *(set(members) - set(present))])]
        for name, user in found["users"].items():
            for kind in ("passwd", "shadow"):
                if name not in _rows(tables[kind]):
                    wanted[kind][name] = user[kind]
        return wanted

    if any(found[kind] for kind in ("groups", "renumbered", "members", "users")):
        lock = __salt__["plasma_users_edit.lock"](root=root)
        try:
            __salt__["plasma_users_edit.change"](edits, root=root)
        finally:
            lock.close()
    return {"users": sorted(found["users"]), "homes": _homes(archive, about, found["homes"], prefix, home_path, root)}


def _homes(archive, about, names, prefix, home_path, root):
    """Unpack into a directory that nobody can enter, and put each home in its place by one rename."""
    if not names:
        return []
    parent = pathlib.Path(root, home_path.lstrip("/"))
    into = parent / f"{_NEW}{os.getpid()}"
    done = []
    try:
        wanted = [f"homes/{name}" for name in names]
        room = sum(about["homes"][name] for name in names)
        __salt__["plasma_backup.extract"](archive, str(into), wanted, prefix=prefix, seen=about["seen"], room=room)
        for name in names:
            unpacked = into / "homes" / name
            if unpacked.is_dir() and not os.path.lexists(parent / name):
                os.rename(unpacked, parent / name)
                done.append(name)
    finally:
        shutil.rmtree(into, ignore_errors=True)
    return done
