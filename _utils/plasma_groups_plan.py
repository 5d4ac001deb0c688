"""
What would have to change so that there are the groups that pillar wants; and which numbers are free, for people too.
As ``plasma_users_plan``, it reads and writes nothing; ``current`` is what ``plasma_users_observe.accounts`` returns.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from plasma_users_tables import ids, members

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,31}", re.ASCII)
ELSEWHERE = "another source (LDAP or the like)"


class Ids:
    """Which uids and gids are taken, and the free ones, for people and groups."""

    def __init__(self, current: dict[str, Any]):
        self.defs, self.sources, memory = current["defs"], current["sources"], current["memory"]
        self.uids, self.gids, self.primary = ids(current["passwd"]), ids(current["group"]), ids(current["passwd"], 3)
        # Numbers of people who left: there may be files left anywhere.
        self.spent_uids = {int(uid): name for uid, name in memory["uids"].items()}
        self.spent_gids = {int(gid): name for gid, name in memory["gids"].items()}
        self.making = {number for note in memory["making"].values() for number in (note["uid"], note["gid"])}
        self.reserved: dict[int, str] = current.get("seen", {}).get("reserved", {})
        self.claimed: dict[int, str] = {}  # by somebody in pillar, or given in this run
        self._candidates: dict[str, Iterator[int]] = {}

    def in_range(self, kind: str, number: int) -> bool:
        return self.defs[f"{kind}_MIN"] <= number <= self.defs[f"{kind}_MAX"]

    def range(self, kind: str) -> str:
        return f"between {self.defs[f'{kind}_MIN']} and {self.defs[f'{kind}_MAX']}"

    def free_gid(self, gid: int) -> bool:
        taken = gid in self.gids or gid in self.primary or self.sources["gid"](gid)
        return self.in_range("GID", gid) and not taken

    def _unused(self, number: int) -> bool:
        taken = (self.uids, self.claimed, self.reserved, self.spent_uids, self.spent_gids, self.making)
        return not any(number in numbers for numbers in taken) and not self.sources["uid"](number)

    def new(self, kind: str) -> int | None:
        """A number (``UID`` or ``GID``) that nobody has or had; None when there are none left.

        As useradd and groupadd do it: above the highest one, and only at the end of the range where one is free.
        """
        low, high = self.defs[f"{kind}_FIRST"], self.defs[f"{kind}_MAX"]
        if kind not in self._candidates:
            holders = self.uids if kind == "UID" else self.gids
            first = max((number for number in holders if low <= number <= high), default=low - 1) + 1
            self._candidates[kind] = itertools.chain(range(first, high + 1), range(low, first))
        found = (number for number in self._candidates[kind] if self._unused(number) and self.free_gid(number))
        return next(found, None)


def plan(current: dict[str, Any], groups: Iterable[dict], leaving: Collection[str] = ()) -> dict[str, Any]:
    """
    Return what has to change for the groups.

    groups
        List of ``{"name", "gid", "absent"}``; gid and absent may be missing.
    leaving
        Names of people who are to be removed after this: a group that is the primary group of nobody else waits for
        them, and goes with the next apply.

    Returns ``{"problems": [str], "edits": {kind: {name: [field] | None}}, "changes": {name: {"old", "new"}}}``. With
    problems, the rest must not be used.
    """
    numbers = Ids(current)
    problems = [
        f"group {group['name'] if is_name(group['name']) else repr(group['name'])}: {problem}"
        for group in groups
        for problem in _problems(current, numbers, group, leaving)
    ]
    edits: dict[str, dict[str, Any]] = {"group": {}, "gshadow": {}}
    changes: dict[str, Any] = {}
    for group in groups if not problems else ():
        name, row = group["name"], current["group"]["rows"].get(group["name"])
        if group.get("absent"):
            if row and int(row[2]) not in numbers.primary:
                changes[name] = {"old": {"gid": int(row[2]), "members": members(row)}, "new": None}
                edits["group"][name] = edits["gshadow"][name] = None
        elif not row:
            gid = numbers.new("GID") if group.get("gid") is None else group["gid"]
            if gid is None:
                first, last = current["defs"]["GID_FIRST"], current["defs"]["GID_MAX"]
                problems.append(f"group {name}: no gid is free between {first} and {last}")
                break
            changes[name] = {"old": None, "new": {"gid": gid}}
            edits["group"][name], edits["gshadow"][name] = [name, "x", str(gid), ""], [name, "!", "", ""]
    return {"problems": problems, "edits": {kind: rows for kind, rows in edits.items() if rows}, "changes": changes}


def is_name(name: Any) -> bool:
    """Whether it can be the name of an account or a group."""
    return isinstance(name, str) and bool(_NAME.fullmatch(name))


def _problems(current: dict, numbers: Ids, group: dict, leaving: Collection[str]) -> Iterator[str]:
    """What forbids a change of this group: one sentence."""
    name, gid, row = group["name"], group.get("gid"), current["group"]["rows"].get(group["name"])
    if not is_name(name):
        yield "is no name for a group"
    elif name in current["group"]["odd"] | current["gshadow"]["odd"]:
        yield "stands twice or in a damaged line in /etc/group or /etc/gshadow: mend it with vigr"
    elif row and not numbers.in_range("GID", int(row[2])):
        yield f"is a group of the system (gid {row[2]}): take another name"
    elif group.get("absent"):
        passwd = current["passwd"]["rows"].items()
        users = [user for user, fields in passwd if row and fields[3] == row[2] and user not in leaving]
        if users:
            more = f" and {len(users) - 3:,} more" if len(users) > 3 else ""
            yield f"is the primary group of {', '.join(users[:3])}{more}: remove or change those first"
    elif row:
        if gid not in (None, int(row[2])):
            yield f"has the gid {row[2]}, which cannot become {gid}: files would be left to nobody"
    elif current["sources"]["group"](name):
        yield f"is a group of {ELSEWHERE}: it is managed there"
    elif gid is not None:
        if not numbers.in_range("GID", gid):
            yield f"gid {gid} is not {numbers.range('GID')}"
        elif gid in numbers.gids or gid in numbers.primary:
            yield f"gid {gid} is that of {numbers.gids.get(gid) or numbers.primary[gid]}"
        elif numbers.claimed.setdefault(gid, name) != name:
            yield f"gid {gid} is wanted for {numbers.claimed[gid]} too"
        elif current["sources"]["gid"](gid):
            yield f"gid {gid} is that of a group of {ELSEWHERE}"
