"""
Groups of people: compare what the server has with what pillar wants, and bring it there in one change of the files.

Members are the business of ``plasma_users``. Groups of the system are never touched.
"""

from __future__ import annotations

import re

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_groups"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}", re.ASCII)


def __virtual__():
    return __virtualname__


def plan(current, groups, leaving=()):
    """
    Return what has to change, and change nothing. Pure.

    current
        The tables and ``defs`` of ``plasma_users_files.read``, ``memory`` of ``plasma_users_edit.recall``, and
        ``sources`` of ``plasma_users_seen``.

    groups
        List of ``{"name", "gid", "absent"}``; gid and absent may be missing.

    leaving
        Names of people who are to be removed after this: a group that is the primary group of nobody else waits for
        them, and goes with the next apply.

    Returns ``{"problems": [str], "edits": {kind: {name: [field] | None}}, "changes": {name: {"old", "new"}}}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_groups.plan '{}' '[{name: biology}]'
    """
    rows, passwd, defs = current["group"]["rows"], current["passwd"]["rows"], current["defs"]
    low, high = defs["GID_MIN"], defs["GID_MAX"]
    gids = {int(row[2]): name for name, row in rows.items() if _number(row, 2)}
    primary = {}
    for name, row in passwd.items():
        if _number(row, 3):
            primary.setdefault(int(row[3]), []).append(name)
    taken = {int(row[2]) for row in passwd.values() if _number(row, 2)} | set(primary)
    taken |= set(gids) | {int(uid) for uid in current["memory"]["uids"]}
    taken |= {int(gid) for gid in current["memory"]["gids"]}
    taken |= {note["gid"] for note in current["memory"]["making"].values()}
    wanted, problems, changes, asked = {}, [], {}, current["sources"]
    edits = {"group": {}, "gshadow": {}}

    def refuse(name, sentence):
        problems.append(f"group {name}: {sentence}")

    def put(name, row, shadow):
        edits["group"][name] = row
        if current["gshadow"]:
            edits["gshadow"][name] = shadow

    for group in groups:
        name, gid, row = group["name"], group.get("gid"), rows.get(group["name"])
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            refuse(repr(name), "is no name for a group")
        elif any(name in current[kind]["odd"] for kind in ("group", "gshadow") if current[kind]):
            refuse(name, "stands twice or in a damaged line in /etc/group or /etc/gshadow: mend it with vigr")
        elif row and not low <= int(row[2]) <= high:
            refuse(name, f"is a group of the system (gid {row[2]}): take another name")
        elif group.get("absent"):
            if row and int(row[2]) in primary:
                users = [user for user in primary[int(row[2])] if user not in leaving]
                more = f" and {len(users) - 3:,} more" if len(users) > 3 else ""
                if users:
                    refuse(name, f"is the primary group of {', '.join(users[:3])}{more}: remove or change those first")
            elif row:
                members = [member for member in row[3].split(",") if member]
                changes[name] = {"old": {"gid": int(row[2]), "members": members}, "new": None}
                put(name, None, None)
        elif row:
            if gid is not None and gid != int(row[2]):
                refuse(name, f"has the gid {row[2]}, which cannot become {gid}: files would be left to nobody")
        elif asked["group"](name):
            refuse(name, "is a group of another source (LDAP or the like): it is managed there")
        elif gid is not None:
            if not low <= gid <= high:
                refuse(name, f"gid {gid} is not between {low} and {high}")
            elif gid in gids or gid in primary:
                refuse(name, f"gid {gid} is that of {gids.get(gid) or primary[gid][0]}")
            elif wanted.setdefault(gid, name) != name:
                refuse(name, f"gid {gid} is wanted for {wanted[gid]} too")
            elif asked["gid"](gid):
                refuse(name, f"gid {gid} is that of a group of another source (LDAP or the like)")
    low = defs["GID_FIRST"]
    free = max((gid for gid in gids if low <= gid <= high), default=low - 1) + 1
    taken |= set(wanted)
    for group in groups:
        name = group["name"]
        if problems or group.get("absent") or name in rows:
            continue
        gid = group.get("gid")
        if gid is None:
            while free in taken or (free <= high and asked["gid"](free)):
                free += 1
            # As groupadd does it: above the highest one, and only at the end of the range where one is free.
            gaps = (one for one in range(low, high + 1) if one not in taken and not asked["gid"](one))
            gid = free if free <= high else next(gaps, None)
            if gid is None:
                refuse(name, f"no gid is free between {low} and {high}")
                continue
            taken.add(gid)
        put(name, [name, "x", str(gid), ""], [name, "!", "", ""])
        changes[name] = {"old": None, "new": {"gid": gid}}
    return {"problems": problems, "edits": {kind: found for kind, found in edits.items() if found}, "changes": changes}


def _number(row, place):
    return len(row) > place and row[place].isascii() and row[place].isdigit()


def compare(groups, leaving=(), root="/"):
    """
    Return ``{"problems": [str], "changes": {...}}`` that ``apply`` would run into and make; see ``plan``.

    groups
        List of entries as the completed pillar has them.

    leaving
        As for ``plan``.

    root
        Another directory than ``/`` holds the account files: for tests.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_groups.compare '[{name: biology, gid: 2000}]'
    """
    try:
        planned = plan(_read(root), groups, leaving)
    except OSError as exc:
        raise CommandExecutionError(f"{__salt__['plasma_users_edit.said'](exc)}.") from exc
    return {"problems": planned["problems"], "changes": {} if planned["problems"] else planned["changes"]}


def apply(groups, leaving=(), root="/"):
    """
    Make and remove groups, all in one change of each file.

    groups, leaving, root
        As for ``compare``.

    Returns the changes made, ``{name: {"old", "new"}}``. Raises CommandExecutionError with all the problems, one a
    line, before anything is changed, and when another program keeps the account files for itself.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_groups.apply '[{name: biology}]'
    """
    changes = {}

    def edits(tables):
        planned = plan({**tables, "memory": memory, "sources": sources}, groups, leaving)
        if planned["problems"]:
            raise CommandExecutionError("\n".join(planned["problems"]))
        changes.update(planned["changes"])
        return planned["edits"]

    sources, handle = __salt__["plasma_users_seen.sources"](root=root), None
    try:
        handle = __salt__["plasma_users_edit.lock"](root=root)
        memory = __salt__["plasma_users_edit.recall"](root=root)
        __salt__["plasma_users_edit.change"](edits, root=root)
    except OSError as exc:  # a disk that is full, or can only be read
        raise CommandExecutionError(f"{__salt__['plasma_users_edit.said'](exc)}.") from exc
    finally:
        if handle:
            handle.close()
    return changes


def _read(root):
    return {
        **__salt__["plasma_users_files.read"](root=root),
        "memory": __salt__["plasma_users_edit.recall"](root=root),
        "sources": __salt__["plasma_users_seen.sources"](root=root),
    }
