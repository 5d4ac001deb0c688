"""
Who is to leave, and whether that is allowed. Pure; the work is that of ``plasma_users_removal``.
"""

from __future__ import annotations

__virtualname__ = "plasma_users_leavers"


def __virtual__():
    return __virtualname__


def plan(current, users, protected=None, admins=(), admins_now=()):
    """
    Return the accounts to remove, and what forbids it.

    current
        What ``plasma_users_seen.observe`` returns.

    users
        List of entries as the completed pillar has them; those with ``absent`` leave. An administrator whom the same
        list makes is one that stays.

    protected
        ``{uid: why}`` of accounts that must stay.

    admins
        Names of the hub's administrators after this run; empty, they are those of now. Who administers the hub may only
        leave when one of these has an account then.

    admins_now
        Names of the hub's administrators before it.

    Returns ``{"problems": [str], "leavers": [{"name", "uid", "gid", "home", "shell", "fullname", "groups", "expire",
    "move", "remove_home"}], "changes": {name: {"old", "new"}}}``; ``move`` says whether there is a home of theirs.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_leavers.plan '{}' '[{name: anna, absent: true}]'
    """
    passwd, memory = current["passwd"]["rows"], current["memory"]
    gone = [entry for entry in users if entry.get("absent")]
    found = [entry for entry in gone if entry["name"] in passwd]
    problems, leavers, changes = [], [], {}
    if found:
        names = {entry["name"] for entry in found}
        people = _people(current, names)
        for entry in found:
            sentence = _forbidden(entry["name"], current, people, names, protected or {})
            if sentence:
                problems.append(f"user {entry['name']}: {sentence}")
                continue
            leaver = _leaver(entry, current, people)
            leavers.append(leaver)
            changes[entry["name"]] = {"old": {"uid": leaver["uid"], "home": leaver["home"]}, "new": None}
        problems += _without_admin(names, users, passwd, admins or admins_now, admins_now)
    for entry in gone:
        begun = memory["removing"].get(entry["name"])
        if begun and entry["name"] not in passwd:
            changes[entry["name"]] = {"old": {"uid": begun["uid"], "home": begun["home"]}, "new": None}
    return {"problems": problems, "leavers": leavers, "changes": changes}


def edits(current, names):
    """
    Return the changes of the four files that take accounts away, ``{kind: {name: [field] | None}}``.

    Each goes with its memberships, and with its own group (the same name, nobody else in it), as userdel(8) does it.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_leavers.edits '{}' '[anna]'
    """
    names = set(names)
    found = {kind: {} for kind in ("passwd", "shadow", "gshadow", "group")}
    for kind in ("passwd", "shadow"):
        found[kind] = {name: None for name in names if name in current[kind]["rows"]}
    primary = {row[3] for name, row in current["passwd"]["rows"].items() if name not in names and len(row) == 7}
    for kind in ("group", "gshadow"):
        if not current[kind]:
            continue
        for group, row in current[kind]["rows"].items():
            if len(row) != 4:
                continue
            kept = (
                [_without(field, names) for field in row[2:]]
                if kind == "gshadow"
                else [row[2], _without(row[3], names)]
            )
            if group in names and _own(group, current, names, primary):
                found[kind][group] = None
            elif kept != row[2:]:
                found[kind][group] = [*row[:2], *kept]
    return {kind: entries for kind, entries in found.items() if entries}


def _without(members, names):
    return ",".join(name for name in members.split(",") if name not in names) if members else members


def _own(group, current, names, primary):
    """Whether a group is that of a leaver alone."""
    row, account = current["group"]["rows"].get(group), current["passwd"]["rows"].get(group)
    if not row:
        return True  # a line in gshadow without its group
    members = _without(row[3], names)
    mine = (
        account[3] == row[2] if account else current["memory"]["removing"].get(group, {}).get("gid", -1) == _int(row[2])
    )
    return mine and not members and row[2] not in primary


def _int(field):
    return int(field) if field.isascii() and field.isdigit() else None


def _people(current, names):
    """Of all accounts: who has which uid, who has which home, who is in which groups."""
    uids, homes, groups = {}, {}, {name: [] for name in names}
    for name, row in current["passwd"]["rows"].items():
        if len(row) == 7:
            uids.setdefault(row[2], []).append(name)
            homes.setdefault(current["seen"]["paths"][name], []).append(name)
    # Homes in homes: every directory above some home.
    above = {}
    for home, owners in homes.items():
        parent = home.rpartition("/")[0]
        while parent:
            above.setdefault(parent, owners[0])
            parent = parent.rpartition("/")[0]
    for group, row in current["group"]["rows"].items():
        if len(row) == 4 and row[3]:
            for member in row[3].split(","):
                if member in groups:
                    groups[member].append(group)
    return {"uids": uids, "homes": homes, "above": above, "groups": groups}


def _forbidden(name, current, people, names, protected):
    """Why an account must not be removed, or None."""
    row, defs, seen = current["passwd"]["rows"][name], current["defs"], current["seen"]
    if name in current["passwd"]["odd"] or name in current["shadow"]["odd"] or _int(row[2]) is None:
        return "stands twice or in a damaged line in /etc/passwd or /etc/shadow: mend it with vipw"
    uid, home = int(row[2]), seen["paths"][name]
    if not defs["UID_MIN"] <= uid <= defs["UID_MAX"]:
        return f"is a system account on this server (uid {uid}), which is never removed"
    if uid in protected:
        return f"{protected[uid]} and cannot be removed: apply as somebody else, or take `absent` away"
    shared = [other for other in people["uids"][row[2]] if other != name]
    if shared:
        return f"shares the uid {uid} with {shared[0]}: mend that with usermod first"
    if not home:
        return f"has no absolute path as home in /etc/passwd ({row[5]!r}): mend that with usermod first"
    found, mounts = seen["homes"].get(home), seen["mounts"].get(home, ())
    fixed = [mount["point"] for mount in mounts if mount["owner"] is None]
    if fixed:
        return f"{fixed[0]} is mounted in the home: unmount it first"
    if not found:
        return None
    if found["kind"] == "symbolic link":
        return f"home {home} is a symbolic link: make it a directory or remove it first"
    if found["kind"] == "unreadable" and not mounts:
        return f"home {home} cannot be looked at: see what is the matter with it"
    if _theirs(found, uid, home, mounts):
        inside = people["above"].get(home) or next((one for one in people["homes"][home] if one != name), None)
        if inside:
            return f"home {home} holds the home of {inside} too: move that one first"
        wrong = seen["parents"].get(home.rpartition("/")[0] or "/")
        if wrong:
            return f"home {home} cannot be moved safely: {wrong}"
    return None


def _theirs(found, uid, home, mounts):
    """Whether there is a home to move. What somebody mounted over it shows what they like: that is looked at later."""
    return bool(found) and (
        (found["kind"], found["uid"]) == ("directory", uid) or any(mount["point"] == home for mount in mounts)
    )


def _leaver(entry, current, people):
    name = entry["name"]
    row, shadow = current["passwd"]["rows"][name], current["shadow"]["rows"].get(name)
    home = current["seen"]["paths"][name]
    found, mounts = current["seen"]["homes"].get(home), current["seen"]["mounts"].get(home, ())
    begun = current["memory"]["removing"].get(name)
    return {
        "name": name,
        "uid": int(row[2]),
        "gid": int(row[3]),
        "home": home,
        "shell": row[6],
        "fullname": row[4].split(",")[0],
        "groups": sorted(people["groups"][name]),
        # A run that was killed may have written its own.
        "expire": begun.get("expire", "") if begun else shadow[7] if shadow else "",
        "move": _theirs(found, int(row[2]), home, mounts),
        "remove_home": bool(entry.get("remove_home")),
    }


def _without_admin(names, users, passwd, admins, admins_now):
    """A hub whose last administrator leaves has nobody to let others in."""
    # The hub knows people in lower case.
    admins, admins_now = {name.lower() for name in admins}, {name.lower() for name in admins_now}
    leaving = sorted(name for name in names if name.lower() in admins | admins_now)
    made = {entry["name"] for entry in users if not entry.get("absent")}
    if not leaving or any(name.lower() in admins for name in {*passwd, *made} - names):
        return []
    return [
        f"user {', '.join(leaving)}: no administrator of the hub would be left with an account: name another one in "
        "plasma.admins first"
    ]
