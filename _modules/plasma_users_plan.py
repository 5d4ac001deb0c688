"""
What would have to change so that people have the accounts that pillar wants. Everything here is pure: it reads and
writes nothing, but compares tables of ``plasma_users_files`` with what is wanted, and answers with new entries.

``current`` is what ``plasma_users_seen.observe`` returns: the tables, ``defs``, the notes of earlier runs (``memory``)
and what was ``seen`` on the server.
"""

from __future__ import annotations

import re

__virtualname__ = "plasma_users_plan"

# What stands in shadow where nobody has ever set a password. `!` before a hash is a lock that somebody put there.
_NO_PASSWORD = ("", "*", "!", "!*", "!!")
_NO_TEXT = re.compile(r"[:\x00-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}", re.ASCII)


def __virtual__():
    return __virtualname__


def plan(current, users, groups=(), home_path="/home", password_policy="on_create", today=0):
    """
    Return what has to change for the users that are to be there; those with ``absent`` are left out.

    current
        See above.

    users, groups
        Lists of entries as the completed pillar has them. Membership in these groups is exact for these users.

    home_path
        Where homes of new accounts are made.

    password_policy
        ``on_create`` or ``enforce``; a user's own ``password_policy`` goes first.

    today
        Days since 1970, for the date of a password's change.

    Returns ``{"problems": [str], "edits": {kind: {name: [field] | None}}, "homes": [{"name", "uid", "gid", "path",
    "mode", "archive"}], "changes": {name: {"old", "new"}}, "making": {name: {"uid", "gid"}} of accounts that are made,
    "given": {name: [group]}}``. With problems, the rest must not be used.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_plan.plan '{}' '[]'
    """
    work = _Work(current, home_path, password_policy, today)
    present = [entry for entry in users if not entry.get("absent")]
    for entry in present:
        work.check(entry)
    if not work.problems:
        for entry in present:
            if entry["name"] not in work.passwd:
                work.claim(entry)
        for entry in present:
            row = work.passwd.get(entry["name"])
            if row:
                work.change(entry, row)
            elif not work.problems:
                work.create(entry)
    if not work.problems:
        work.join(present, {group["name"] for group in groups})
        work.clear()
    return {
        "problems": work.problems,
        "edits": {kind: edits for kind, edits in work.edits.items() if edits},
        "homes": work.homes,
        "changes": work.changes,
        "making": work.making,
        "given": work.given,
    }


class _Work:
    """One planning: the sets that allocation needs, and the results."""

    def __init__(self, current, home_path, policy, today):
        self.current, self.seen, self.defs = current, current["seen"], current["defs"]
        self.home_path, self.policy, self.today = home_path.rstrip("/"), policy, str(today)
        self.tables = {kind: current[kind] for kind in ("passwd", "shadow", "group", "gshadow") if current[kind]}
        self.passwd, self.shadow = current["passwd"]["rows"], current["shadow"]["rows"]
        self.group = current["group"]["rows"]
        self.edits = {"passwd": {}, "shadow": {}, "group": {}, "gshadow": {}}
        self.problems, self.homes, self.changes = [], [], {}
        self.making, self.given = {}, {}
        self.uids = {int(row[2]): name for name, row in self.passwd.items() if _numbers(row, 2)}
        self.gids = {int(row[2]): name for name, row in self.group.items() if _numbers(row, 2)}
        self.primary = {int(row[3]) for row in self.passwd.values() if _numbers(row, 3)}
        self.owners = {path: name for name, path in self.seen["paths"].items() if name in self.passwd}  # home: name
        self.spent = {int(uid) for uid in current["memory"]["uids"]}
        self.spent_gids = {int(gid): name for gid, name in current["memory"]["gids"].items()}
        self.asked = current["sources"]
        self.claimed, self.claims = {}, {}  # uid: name, name: (uid, gid)
        low, high = self.defs["UID_FIRST"], self.defs["UID_MAX"]
        # Looked through once, by all that need one.
        self.uid_gaps = iter(range(low, high + 1))
        self.gid_gaps = iter(range(self.defs["GID_FIRST"], self.defs["GID_MAX"] + 1))
        self.next = max((uid for uid in self.uids if low <= uid <= high), default=low - 1) + 1

    def refuse(self, name, sentence):
        self.problems.append(f"user {name}: {sentence}")

    def report(self, name, old, new):
        entry = self.changes.setdefault(name, {"old": {}, "new": {}})
        entry["old"].update(old)
        entry["new"].update(new)

    # What can be wrong, for each user on its own.

    def check(self, entry):
        name, home = entry["name"], entry.get("home")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self.refuse(repr(name), "is no name for an account")
            return
        odd = [key for key in ("shell", "fullname", "home", "password_hash") if _NO_TEXT.search(entry.get(key) or "")]
        if odd:
            self.refuse(name, f"{' and '.join(odd)} has a colon or a control character")
            return
        if "," in (entry.get("fullname") or ""):
            self.refuse(name, "fullname has a comma, which separates the fields of the account's description")
        if home and (not home.startswith("/") or home == "/" or {"", ".", ".."} & set(home[1:].split("/"))):
            self.refuse(name, f"home {home} must be an absolute path without . and .. and without a slash at its end")
        if entry.get("shell") and not self.seen["shells"].get(entry["shell"]):
            self.refuse(name, f"shell {entry['shell']} is no program on this server: install it or name another one")
        for kind, table in self.tables.items():
            if name in table["odd"]:
                self.refuse(name, f"stands twice or in a damaged line in /etc/{kind}: mend it with vipw or vigr")
        for group in entry.get("groups") or ():
            if group not in self.group:
                self.refuse(
                    name, f"group {group} does not exist on this server: install what brings it or leave it out"
                )
            elif group in self.current["group"]["odd"]:
                self.refuse(name, f"group {group} stands twice or in a damaged line in /etc/group: mend it with vigr")
        row = self.passwd.get(name)
        if row:
            self.check_existing(entry, row)
        else:
            self.check_new(entry)
        if not row or (home and home != self.home(row)):
            path = home or f"{self.home_path}/{name}"
            other = self.owners.setdefault(path, name)
            if other != name:
                self.refuse(name, f"home {path} is that of {other}")

    def check_existing(self, entry, row):
        name, uid = entry["name"], int(row[2]) if _numbers(row, 2) else -1
        if not self.defs["UID_MIN"] <= uid <= self.defs["UID_MAX"]:
            self.refuse(name, f"is a system account on this server (uid {row[2]}): take another name")
            return
        wanted = entry.get("uid")
        if wanted is not None and wanted != uid:
            self.refuse(name, f"has the uid {uid}, which cannot become {wanted}: files would be left to nobody")
        home, has = entry.get("home"), self.home(row)
        if home and home != has and not self.moved(uid, has, home):
            self.refuse(name, f"home is {row[5]}, and its files are not moved to {home}: move them, or leave out home")
        if not has and not home:
            self.refuse(name, f"has no absolute path as home in /etc/passwd ({row[5]!r}): mend that with usermod first")
        elif has != "/nonexistent" and self.seen["homes"].get(home or has) is None:
            self.check_parent(name, home or has)

    def home(self, row):
        return self.seen["paths"].get(row[0], row[5])

    def moved(self, uid, old, new):
        """Whether somebody has moved a home already: then the account may follow."""
        found = self.seen["homes"].get(new)
        return (
            self.seen["homes"].get(old) is None and bool(found) and (found["kind"], found["uid"]) == ("directory", uid)
        )

    def check_new(self, entry):
        name = entry["name"]
        if name in self.seen["elsewhere"]:
            self.refuse(name, "is an account of another source (LDAP or the like): it is managed there")
        elif name not in self.group and self.asked["group"](name):
            self.refuse(
                name, "is a group of another source (LDAP or the like), which would be mixed up with the own one"
            )
        note = self.current["memory"]["making"].get(name)
        row = self.group.get(name)
        if row and not (
            note and row[2] == str(note["gid"]) and row[3] in ("", name) and int(row[2]) not in self.primary
        ):
            self.refuse(
                name, f"a group {name} (gid {row[2]}) exists and would become the user's own: rename one of the two"
            )
        home = entry.get("home") or f"{self.home_path}/{name}"
        found = self.seen["homes"].get(home)
        self.check_parent(name, home)
        if found and found["kind"] != "directory":
            what = "cannot be looked at" if found["kind"] == "unreadable" else f"is a {found['kind']}: move it away"
            self.refuse(name, f"home {home} {what}")
        uid = entry.get("uid")
        if uid is not None:
            self.check_uid(name, uid, f"uid {uid}", home)
        if found and found["kind"] == "directory":
            if uid is not None and uid != found["uid"]:
                self.refuse(name, f"home {home} exists and belongs to uid {found['uid']}, not {uid}: move it away")
            elif uid is None:
                self.check_uid(name, found["uid"], f"home {home} exists and its owner, uid {found['uid']},", home)

    def check_parent(self, name, home):
        wrong = self.seen["parents"].get(home.rpartition("/")[0] or "/")
        if wrong:
            self.refuse(name, f"home {home} cannot be made safely: {wrong}")

    def check_uid(self, name, uid, what, home):
        low, high = self.defs["UID_MIN"], self.defs["UID_MAX"]
        if not low <= uid <= high:
            self.refuse(name, f"{what} is not between {low} and {high}")
        elif uid in self.uids:
            self.refuse(name, f"{what} is that of {self.uids[uid]}")
        elif self.claimed.setdefault(uid, name) != name:
            self.refuse(name, f"{what} is wanted for {self.claimed[uid]} too")
        elif self.seen["reserved"].get(uid, name) not in (name, home):
            self.refuse(name, f"{what} is still that of {self.seen['reserved'][uid]}, whose files it would get")
        elif self.asked["uid"](uid):
            self.refuse(name, f"{what} is that of an account of another source (LDAP or the like)")

    # Ids of new accounts: first those that are given, then the free ones.

    def claim(self, entry):
        name = entry["name"]
        found = self.seen["homes"].get(entry.get("home") or f"{self.home_path}/{name}")
        note = self.current["memory"]["making"].get(name)
        uid = entry.get("uid") if entry.get("uid") is not None else found["uid"] if found else None
        gid = None
        if uid is None and note and note["uid"] not in self.uids and note["uid"] not in self.claimed:
            uid, gid = note["uid"], note["gid"]
        if found and self.free_gid(found["gid"]):
            gid = found["gid"]
        if name in self.group:  # made by a run that did not get further
            gid = int(self.group[name][2])
        if uid is not None:
            self.claimed[uid] = name
        self.claims[name] = (uid, gid)

    def free_gid(self, gid):
        taken = gid in self.gids or gid in self.primary
        return not taken and self.defs["GID_MIN"] <= gid <= self.defs["GID_MAX"] and not self.asked["gid"](gid)

    def fresh_gid(self, gid):
        """One that nobody has, and nobody who was removed had."""
        return gid not in self.spent_gids and gid not in self.claimed and self.free_gid(gid)

    def free_uid(self, uid):
        taken = uid in self.uids or uid in self.claimed or uid in self.seen["reserved"] or uid in self.spent
        return not taken and uid not in self.spent_gids and self.free_gid(uid) and not self.asked["uid"](uid)

    def ids(self, name):
        """The uid and gid of a new account, or None when there are none left."""
        uid, gid = self.claims.get(name, (None, None))
        if uid is None:
            # As useradd does it: above the highest one, and only at the end of the range where one is free.
            while self.next <= self.defs["UID_MAX"] and not self.free_uid(self.next):
                self.next += 1
            uid = self.next
            if uid > self.defs["UID_MAX"]:
                uid = next((one for one in self.uid_gaps if self.free_uid(one)), None)
                if uid is None:
                    return None
        if gid is None or not (self.free_gid(gid) or self.group.get(name)):
            gaps = (one for one in self.gid_gaps if self.fresh_gid(one))
            same = self.free_gid(uid) and self.spent_gids.get(uid, name) == name
            gid = uid if same else next(gaps, None)
        self.uids[uid], self.gids[gid] = name, name
        return None if gid is None else (uid, gid)

    # The entries.

    def create(self, entry):
        name, ids = entry["name"], self.ids(entry["name"])
        if ids is None:
            self.refuse(name, f"no uid is free between {self.defs['UID_FIRST']} and {self.defs['UID_MAX']}")
            return
        uid, gid = ids
        home = entry.get("home") or f"{self.home_path}/{name}"
        shell = entry.get("shell") or "/bin/bash"
        hashed = entry.get("password_hash")
        ages = [self.defs[key] for key in ("PASS_MIN_DAYS", "PASS_MAX_DAYS", "PASS_WARN_AGE")]
        self.edits["passwd"][name] = [name, "x", str(uid), str(gid), entry.get("fullname") or "", home, shell]
        self.edits["shadow"][name] = [name, hashed or "!", self.today, *ages, "", "", ""]
        self.edits["group"][name] = [name, "x", str(gid), ""]
        self.edits["gshadow"][name] = [name, "!", "", ""]
        self.making[name] = {"uid": uid, "gid": gid}
        new = {"uid": uid, "home": home, "groups": sorted(entry.get("groups") or ())}
        self.changes[name] = {"old": None, "new": {**new, **({"password": "set"} if hashed else {})}}
        if self.seen["homes"].get(home) is None:
            self.make_home(name, uid, gid, home)

    def make_home(self, name, uid, gid, path):
        archive = self.current["memory"]["removing"].get(name, {}).get("archive")
        mode = self.defs["HOME_MODE"]
        self.homes.append({"name": name, "uid": uid, "gid": gid, "path": path, "mode": mode, "archive": archive})

    def change(self, entry, row):
        name, new = entry["name"], list(row)
        home = self.home(row)
        for key, place, has in (("home", 5, home), ("shell", 6, row[6])):
            if entry.get(key) and entry[key] != has:
                new[place] = entry[key]
                self.report(name, {key: row[place]}, {key: entry[key]})
        home = entry.get("home") or home
        said, *rest = row[4].split(",")
        if entry.get("fullname") and entry["fullname"] != said:
            new[4] = ",".join([entry["fullname"], *rest])
            self.report(name, {"fullname": said}, {"fullname": entry["fullname"]})
        self.password(entry, new)
        if new != row:
            self.edits["passwd"][name] = new
        if home != "/nonexistent" and self.seen["homes"].get(home) is None and _numbers(row, 3):
            self.make_home(name, int(row[2]), int(row[3]), home)
            self.report(name, {"home": None}, {"home": home})

    def password(self, entry, row):
        """Set the password where that is wanted; ``row`` is the new entry of passwd."""
        name, hashed = entry["name"], entry.get("password_hash")
        shadow = self.shadow.get(name)
        ages = [self.defs[key] for key in ("PASS_MIN_DAYS", "PASS_MAX_DAYS", "PASS_WARN_AGE")]
        new = list(shadow) if shadow else [name, "!", self.today, *ages, "", "", ""]
        has = (shadow[1] if shadow else "!") if row[1] == "x" else row[1]
        policy = entry.get("password_policy") or self.policy
        if hashed and hashed != has and (policy == "enforce" or has in _NO_PASSWORD):
            row[1], new[1], new[2] = "x", hashed, self.today
            self.report(name, {}, {"password": "set" if has in _NO_PASSWORD else "changed"})
        # A run that was to remove this account locked it, and did not get to the end.
        begun = self.current["memory"]["removing"].get(name)
        if begun and shadow and new[7] != begun.get("expire", ""):
            self.report(name, {"expires": new[7]}, {"expires": begun.get("expire", "")})
            new[7] = begun.get("expire", "")
        if new != shadow and (shadow or hashed == new[1]):
            self.edits["shadow"][name] = new

    # Membership, for all users in one pass over the groups.

    def join(self, present, managed):
        names = {entry["name"] for entry in present}
        has = {name: set() for name in names}
        for group, row in self.group.items():
            if len(row) == 4 and row[3]:
                for member in row[3].split(","):
                    if member in names:
                        has[member].add(group)
        by_gid = {row[2]: group for group, row in self.group.items() if len(row) == 4}
        adds, drops = {}, {}
        for entry in present:
            name, wanted = entry["name"], set(entry.get("groups") or ())
            given = set(self.current["memory"]["given"].get(name) or ())
            row = self.passwd.get(name)
            primary = by_gid.get(row[3]) if row else None
            added = wanted - has[name] - {primary}
            dropped = {group for group in has[name] - wanted if group in managed or group in given}
            for group in added:
                adds.setdefault(group, []).append(name)
            for group in dropped:
                drops.setdefault(group, set()).add(name)
            if name not in self.making and (added or dropped):
                after = (has[name] | added) - dropped
                self.report(name, {"groups": sorted(has[name])}, {"groups": sorted(after)})
            # All of them, those from before too: what pillar named once goes when it stops to.
            ours = sorted(wanted - {primary})
            if ours:
                self.given[name] = ours
        for group in sorted({*adds, *drops}):
            for kind in ("group", "gshadow"):
                self.members(kind, group, adds.get(group, ()), drops.get(group, ()))

    def members(self, kind, group, added, dropped):
        row = self.edits[kind].get(group) or self.tables.get(kind, {"rows": {}})["rows"].get(group)
        if not row or len(row) != 4:
            return
        members = [member for member in row[3].split(",") if member and member not in dropped]
        members += [name for name in added if name not in members]
        self.edits[kind][group] = [*row[:3], ",".join(members)]

    def clear(self):
        """Take away what a killed run had written of accounts that nobody wants any more."""
        notes = self.current["memory"]["making"]
        left = {name for name in notes if name not in self.passwd and name not in self.making}
        for kind in ("group", "gshadow") if left else ():
            for group, row in self.tables.get(kind, {"rows": {}})["rows"].items():
                if len(row) == 4 and left.intersection(row[3].split(",")):
                    self.members(kind, group, (), left)
        for name in left:
            row, note = self.group.get(name), notes[name]
            if name in self.shadow:
                self.edits["shadow"][name] = None
            if not row or (row[2:] == [str(note["gid"]), ""] and note["gid"] not in self.primary):
                for kind in ("group", "gshadow"):
                    if kind in self.tables and name in self.tables[kind]["rows"]:
                        self.edits[kind][name] = None


def _numbers(row, place):
    return len(row) > place and row[place].isascii() and row[place].isdigit()
