"""
Accounts and groups of any source that the server asks (``nsswitch.conf``), as the hub's plugin sees them.

What is here is what ``accounts.py`` of the plugin does at the hub: keep the two together.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Collection, Iterable

PASSWD, GROUP = "/etc/passwd", "/etc/group"
# Of systemd's services, and "nobody" and "none" in 16 and 32 bits.
RESERVED = (range(61184, 65536), range(2**32 - 2, 2**32))
FIRST, LAST = 1000, 60000  # login.defs(5), UID_MIN and UID_MAX of every supported system


def canonical(name: str) -> str:
    """Return the name that the account database has for the account of a name, as the hub knows it; else lower case."""
    for one in dict.fromkeys((name, name.lower())):
        try:
            return pwd.getpwnam(one).pw_name
        except (KeyError, ValueError):
            continue
    return name.lower()


def person(number: int, kind: str = "user") -> bool:
    """
    Return whether an id may be that of a person or of a group of people.

    number
        The id: up to 60000 for those of this server's own files, of any size for those of a directory.
    kind
        ``user`` or ``group``.
    """
    if number in _rows(PASSWD if kind == "user" else GROUP).values():
        return FIRST <= number <= LAST
    return number >= FIRST and not any(number in numbers for numbers in RESERVED)


def owners(home_path: str) -> list[pwd.struct_passwd]:
    """
    Return the accounts that homes in a directory belong to: those of directories are listed nowhere else.

    home_path
        Where the homes are. Nothing in them is looked at, and no link is followed.
    """
    try:
        uids = {entry.stat(follow_symlinks=False).st_uid for entry in os.scandir(home_path) if entry.is_dir()}
    except OSError:
        return []
    found = []
    for uid in sorted(filter(person, uids)):
        try:
            found.append(pwd.getpwuid(uid))
        except KeyError:
            continue
    return found


def members_among(names: Iterable[str], groups: Collection[str]) -> set[str]:
    """Return those of the people who are in one of the groups, whichever source knows that."""
    numbers = {name: gid for name in groups for gid in _gid(name)}
    return {name for name in names if numbers and _gids(name).intersection(numbers.values())}


def listed(group: str) -> list[str]:
    """Return the members that a group itself names; many directories name none."""
    try:
        return list(grp.getgrnam(group).gr_mem)
    except (KeyError, ValueError):
        return []


def _gid(name: str) -> list[int]:
    try:
        return [grp.getgrnam(name).gr_gid]
    except (KeyError, ValueError):
        return []


def _gids(name: str) -> set[int]:
    """The groups of somebody, but for those of this server's files that do not name them."""
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        return set()
    own = _rows(PASSWD)
    found = set()
    for gid in {*os.getgrouplist(entry.pw_name, entry.pw_gid)}:
        local = gid in _rows(GROUP).values()
        if not local or (gid == entry.pw_gid and entry.pw_name in own) or entry.pw_name in grp.getgrgid(gid).gr_mem:
            found.add(gid)
    return found


def _rows(path: str) -> dict[str, int]:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return {name: int(number) for name, number in re.findall(r"^([^:\n]+):[^:\n]*:(\d+)(?::|$)", file.read(), re.M)}
