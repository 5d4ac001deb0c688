"""
What would have to change so that there are the accounts that pillar wants. Everything here is pure: it reads and writes
nothing, but compares tables of ``plasma_users_tables`` with what is wanted, and answers with new entries.

``current`` is what ``plasma_users_observe.observe`` returns.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from plasma_groups_plan import ELSEWHERE, Ids, is_name
from plasma_users_observe import is_home, parent, wanted_home
from plasma_users_tables import home_path as path_in
from plasma_users_tables import members, memberships, numeric

# What stands in shadow where nobody has ever set a password. `!` before a hash is a lock that somebody put there.
_NO_PASSWORD = ("", "*", "!", "!*", "!!")
_NO_TEXT = re.compile(r"[:\x00-\x1f\x7f]")
_KINDS = ("passwd", "shadow", "group", "gshadow")


def plan(
    current: dict[str, Any],
    users: Iterable[dict],
    groups: Iterable[dict] = (),
    home_path: str = "/home",
    password_policy: str = "on_create",
    today: int = 0,
) -> dict[str, Any]:
    """
    Return what has to change for the users that are to be there; those with ``absent`` are left out.

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
    """
    work = _People(current, home_path, password_policy, today)
    present = [user for user in users if not user.get("absent")]
    problems = [
        f"user {user['name'] if is_name(user['name']) else repr(user['name'])}: {problem}"
        for user in present
        for problem in work.problems(user)
    ]
    new = [] if problems else [user for user in present if user["name"] not in work.passwd]
    chosen = {user["name"]: work.chosen_ids(user) for user in new}  # all of them, before any number is free
    for user in present if not problems else ():
        if user["name"] in work.passwd:
            work.change(user)
        elif not work.create(user, *chosen[user["name"]]):
            first, last = current["defs"]["UID_FIRST"], current["defs"]["UID_MAX"]
            problems.append(f"user {user['name']}: no uid is free between {first} and {last}")
            break
    if not problems:
        work.join_groups(present, {group["name"] for group in groups})
        work.clear_leftovers()
    return {
        "problems": problems,
        "edits": {kind: edits for kind, edits in work.edits.items() if edits},
        "homes": work.homes,
        "changes": work.changes,
        "making": work.making,
        "given": work.given,
    }


class _People:
    """One planning for people: what is there, and the results."""

    def __init__(self, current: dict[str, Any], place: str, policy: str, today: int):
        self.current, self.seen, self.defs, self.memory = current, current["seen"], current["defs"], current["memory"]
        self.passwd, self.shadow, self.group, _ = (current[kind]["rows"] for kind in _KINDS)
        self.home_path, self.policy = place, policy
        self.numbers = Ids(current)
        self.owners = {path: name for name, path in self.seen["paths"].items()}  # of homes
        ages = [self.defs[key] for key in ("PASS_MIN_DAYS", "PASS_MAX_DAYS", "PASS_WARN_AGE")]
        self.new_shadow = [str(today), *ages, "", "", ""]
        self.edits: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
        self.homes: list[dict[str, Any]] = []
        self.changes: dict[str, Any] = {}
        self.making: dict[str, dict[str, int]] = {}
        self.given: dict[str, list[str]] = {}

    def report(self, name: str, old: dict[str, Any], new: dict[str, Any]) -> None:
        change = self.changes.setdefault(name, {"old": {}, "new": {}})
        change["old"].update(old)
        change["new"].update(new)

    # What can be wrong with each user.

    def problems(self, user: dict) -> Iterator[str]:
        name, home, fullname = user["name"], user.get("home"), user.get("fullname") or ""
        if not is_name(name):
            yield "is no name for an account"
            return
        odd = [key for key in ("shell", "fullname", "home", "password_hash") if _NO_TEXT.search(user.get(key) or "")]
        if odd:
            yield f"{' and '.join(odd)} has a colon or a control character"
            return
        if "," in fullname:
            yield "fullname has a comma, which separates the fields of the account's description"
        if home and (not home.startswith("/") or home == "/" or {"", ".", ".."} & set(home[1:].split("/"))):
            yield f"home {home} must be an absolute path without . and .. and without a slash at its end"
        if user.get("shell") and not self.seen["shells"].get(user["shell"]):
            yield f"shell {user['shell']} is no program on this server: install it or name another one"
        for kind in _KINDS:
            if name in self.current[kind]["odd"]:
                yield f"stands twice or in a damaged line in /etc/{kind}: mend it with vipw or vigr"
        for group in user.get("groups") or ():
            if group not in self.group:
                yield f"group {group} does not exist on this server: install what brings it or leave it out"
            elif group in self.current["group"]["odd"]:
                yield f"group {group} stands twice or in a damaged line in /etc/group: mend it with vigr"
        exists = name in self.passwd
        yield from self.existing_problems(user) if exists else self.new_problems(user)
        if not exists or (home and home != self.seen["paths"][name]):
            path = wanted_home(user, self.home_path)
            if self.owners.setdefault(path, name) != name:
                yield f"home {path} is that of {self.owners[path]}"

    def existing_problems(self, user: dict) -> Iterator[str]:
        name, row, wanted = user["name"], self.passwd[user["name"]], user.get("uid")
        uid = int(row[2]) if numeric(row[2]) else -1
        if not self.numbers.in_range("UID", uid):
            yield f"is a system account on this server (uid {row[2]}): take another name"
            return
        if wanted not in (None, uid):
            yield f"has the uid {uid}, which cannot become {wanted}: files would be left to nobody"
        homes, has, home = self.seen["homes"], self.seen["paths"][name], user.get("home")
        yield from self.lost_problems(user, has)
        # Where somebody has moved a home already, the account may follow.
        if home and home != has and (homes.get(has) is not None or not is_home(homes.get(home), uid)):
            yield f"home is {row[5]}, and its files are not moved to {home}: move them, or leave out home"
        if not has and not home:
            yield f"has no absolute path as home in /etc/passwd ({row[5]!r}): mend that with usermod first"
        elif has != "/nonexistent" and homes.get(home or has) is None:
            yield from self.parent_problems(home or has)

    def lost_problems(self, user: dict, has: str) -> Iterator[str]:
        """A home that is gone, where another one of the name is in the place of pillar's homes: it may be the same."""
        place = wanted_home({"name": user["name"]}, self.home_path)
        if user.get("home") or not has or has == place or self.seen["homes"].get(has) is not None:
            return
        found = self.seen["homes"].get(place)
        if found:
            whose = f"belongs to uid {found['uid']}" if found["kind"] == "directory" else f"is a {found['kind']}"
            yield (
                f"home {has} is gone, and {place}, where pillar has homes, {whose}: give it to the account (chown), or "
                "move it away"
            )

    def parent_problems(self, home: str) -> Iterator[str]:
        wrong = self.seen["parents"].get(parent(home))
        if wrong:
            yield f"home {home} cannot be made safely: {wrong}"

    def new_problems(self, user: dict) -> Iterator[str]:
        name, uid, sources = user["name"], user.get("uid"), self.current["sources"]
        row, note = self.group.get(name), self.memory["making"].get(name)
        if numeric(name) and (int(name) in self.numbers.uids or sources["uid"](int(name))):
            yield "is the uid of another account too, which programs would mix up: take another name"
        if name in self.seen["elsewhere"]:
            yield f"is an account of {ELSEWHERE}: it is managed there"
        elif not row and sources["group"](name):
            yield f"is a group of {ELSEWHERE}, which would be mixed up with the own one"
        # A killed run may have made the group.
        if row and not (note and self.is_leftover(row, note, name)):
            yield f"a group {name} (gid {row[2]}) exists and would become the user's own: rename one of the two"
        home = wanted_home(user, self.home_path)
        found = self.seen["homes"].get(home)
        yield from self.parent_problems(home)
        if uid is not None:
            yield from self.uid_problems(name, uid, f"uid {uid}", home)
        if not found:
            return
        if found["kind"] == "unreadable":
            yield f"home {home} cannot be looked at"
        elif found["kind"] != "directory":
            yield f"home {home} is a {found['kind']}: move it away"
        elif uid is None:
            yield from self.uid_problems(
                name, found["uid"], f"home {home} exists and its owner, uid {found['uid']},", home
            )
        elif uid != found["uid"]:
            yield f"home {home} exists and belongs to uid {found['uid']}, not {uid}: move it away"

    def is_leftover(self, row: list[str], note: dict[str, int], *allowed: str) -> bool:
        """Whether a group is what a killed run had made for an account: nobody's, but for these members."""
        return row[2] == str(note["gid"]) and row[3] in ("", *allowed) and note["gid"] not in self.numbers.primary

    def uid_problems(self, name: str, uid: int, what: str, home: str) -> Iterator[str]:
        numbers = self.numbers
        if not numbers.in_range("UID", uid):
            yield f"{what} is not {numbers.range('UID')}"
        elif uid in numbers.uids:
            yield f"{what} is that of {numbers.uids[uid]}"
        elif numbers.claimed.setdefault(uid, name) != name:
            yield f"{what} is wanted for {numbers.claimed[uid]} too"
        elif numbers.reserved.get(uid, name) not in (name, home):
            yield f"{what} is still that of {numbers.reserved[uid]}, whose files it would get"
        elif numbers.sources["uid"](uid):
            yield f"{what} is that of an account of {ELSEWHERE}"

    # New accounts.

    def chosen_ids(self, user: dict) -> tuple[int | None, int | None]:
        """The uid and gid that pillar, a home that exists or a killed run have chosen for a new account."""
        name, uid, gid, numbers = user["name"], user.get("uid"), None, self.numbers
        home, note = self.seen["homes"].get(wanted_home(user, self.home_path)), self.memory["making"].get(user["name"])
        if home:
            uid = home["uid"]
            gid = home["gid"] if numbers.free_gid(home["gid"]) else None
        elif uid is None and note and note["uid"] not in numbers.uids and note["uid"] not in numbers.claimed:
            uid, gid = note["uid"], note["gid"]
        if name in self.group:  # made by a run that did not get further
            gid = int(self.group[name][2])
        if uid is not None:
            numbers.claimed[uid] = name
        return uid, gid

    def create(self, user: dict, uid: int | None, gid: int | None) -> bool:
        """Plan a new account; False when no number is left for it."""
        name, numbers = user["name"], self.numbers
        uid = numbers.new("UID") if uid is None else uid
        if uid is not None and (gid is None or not (numbers.free_gid(gid) or name in self.group)):
            same = numbers.free_gid(uid) and numbers.spent_gids.get(uid, name) == name
            gid = uid if same else numbers.new("GID")
        if uid is None or gid is None:
            return False
        numbers.uids[uid] = numbers.gids[gid] = name
        home, hashed = wanted_home(user, self.home_path), user.get("password_hash")
        shell = user.get("shell") or "/bin/bash"
        self.edits["passwd"][name] = [name, "x", str(uid), str(gid), user.get("fullname") or "", home, shell]
        self.edits["shadow"][name] = [name, hashed or "!", *self.new_shadow]
        self.edits["group"][name] = [name, "x", str(gid), ""]
        self.edits["gshadow"][name] = [name, "!", "", ""]
        self.making[name] = {"uid": uid, "gid": gid}
        new = {"uid": uid, "home": home, "groups": sorted(user.get("groups") or ())}
        self.changes[name] = {"old": None, "new": {**new, **({"password": "set"} if hashed else {})}}
        self.make_home(name, uid, gid, home)
        return True

    def make_home(self, name: str, uid: int, gid: int, path: str) -> bool:
        """Plan a home where there is none."""
        if self.seen["homes"].get(path) is not None:
            return False
        archive, mode = self.memory["removing"].get(name, {}).get("archive"), self.defs["HOME_MODE"]
        self.homes.append({"name": name, "uid": uid, "gid": gid, "path": path, "mode": mode, "archive": archive})
        return True

    # Accounts that exist.

    def change(self, user: dict) -> None:
        name, row, has = user["name"], self.passwd[user["name"]], self.seen["paths"][user["name"]]
        new, (fullname, *rest) = list(row), row[4].split(",")
        # Where all homes were moved, the accounts follow.
        moved = has if has and has != path_in(row) else None
        for key, field, old, to in (("home", 5, has, user.get("home")), ("shell", 6, row[6], user.get("shell"))):
            to = moved if key == "home" and moved else to
            if to and (to != old or to == moved):
                new[field] = to
                self.report(name, {key: row[field]}, {key: to})
        if user.get("fullname") and user["fullname"] != fullname:
            new[4] = ",".join([user["fullname"], *rest])
            self.report(name, {"fullname": fullname}, {"fullname": user["fullname"]})
        self.change_shadow(user, new)
        if new != row:
            self.edits["passwd"][name] = new
        home = user.get("home") or has
        if home != "/nonexistent" and self.make_home(name, int(row[2]), int(row[3]), home):
            self.report(name, {"home": None}, {"home": home})

    def change_shadow(self, user: dict, row: list[str]) -> None:
        """Set the password where that is wanted, and unlock; ``row`` is the new entry of passwd."""
        name, hashed, shadow = user["name"], user.get("password_hash"), self.shadow.get(user["name"])
        new = list(shadow or [name, "!", *self.new_shadow])
        has = new[1] if row[1] == "x" else row[1]
        policy = user.get("password_policy") or self.policy
        if hashed and hashed != has and (policy == "enforce" or has in _NO_PASSWORD):
            row[1], new[1], new[2] = "x", hashed, self.new_shadow[0]
            self.report(name, {}, {"password": "set" if has in _NO_PASSWORD else "changed"})
        # A run that was to remove this account locked it, and did not get to the end.
        begun = self.memory["removing"].get(name)
        if begun and shadow and new[7] != begun.get("expire", ""):
            self.report(name, {"expires": new[7]}, {"expires": begun.get("expire", "")})
            new[7] = begun.get("expire", "")
        if new != shadow and (shadow or hashed == new[1]):
            self.edits["shadow"][name] = new

    # Membership.

    def join_groups(self, present: list[dict], managed: set[str]) -> None:
        """Plan memberships, for all users in one pass over the groups."""
        has = memberships(self.current["group"], [user["name"] for user in present])
        by_gid = {row[2]: group for group, row in self.group.items()}
        added: dict[str, list[str]] = {}
        dropped: dict[str, list[str]] = {}
        for user in present:
            name, ours = user["name"], managed.union(self.memory["given"].get(user["name"], ()))
            primary = {by_gid.get(self.passwd[name][3])} if name in self.passwd else set()
            wanted = set(user.get("groups") or ())
            new, old = wanted - has[name] - primary, (has[name] - wanted) & ours
            for groups, all_groups in ((new, added), (old, dropped)):
                for group in groups:
                    all_groups.setdefault(group, []).append(name)
            if name not in self.making and (new or old):
                self.report(name, {"groups": sorted(has[name])}, {"groups": sorted((has[name] | new) - old)})
            # All of them, those from before too: what pillar named once goes when it stops to.
            if wanted - primary:
                self.given[name] = sorted(wanted - primary)
        for group in sorted({*added, *dropped}):
            self.change_members(group, added.get(group, ()), dropped.get(group, ()))

    def change_members(self, group: str, added: Collection[str], dropped: Collection[str]) -> None:
        for kind in ("group", "gshadow"):
            row = self.edits[kind].get(group) or self.current[kind]["rows"].get(group)
            if row and group not in self.current[kind]["odd"]:
                names = [*(name for name in members(row) if name not in dropped), *added]
                self.edits[kind][group] = [*row[:3], ",".join(dict.fromkeys(names))]

    def clear_leftovers(self) -> None:
        """Take away what a killed run had written of accounts that nobody wants any more."""
        notes = self.memory["making"]
        left = {name for name in notes if name not in self.passwd and name not in self.making}
        for group in {**self.group, **self.current["gshadow"]["rows"]} if left else ():
            rows = [self.current[kind]["rows"].get(group) for kind in ("group", "gshadow")]
            if any(row and left.intersection(members(row)) for row in rows):
                self.change_members(group, (), left)
        for name in left:
            row = self.group.get(name)
            kinds = ("shadow", "group", "gshadow") if not row or self.is_leftover(row, notes[name]) else ("shadow",)
            for kind in kinds:
                if name in self.current[kind]["rows"]:
                    self.edits[kind][name] = None
