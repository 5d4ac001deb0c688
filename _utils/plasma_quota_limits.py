"""
Limits of users and groups: read all at once, compared in memory, set in one batch.

Numbers of users and groups are used throughout, so that names of digits are no trap. Blocks are 1 KiB (setquota(8)).
Keys that nobody asks for are left as they are (Salt's own ``quota.set`` sets them to no limit). What was set here is
noted in /var/lib/plasma/quota-limits.json, root's alone, so that it can be taken back from who is no longer named.
"""

from __future__ import annotations

import csv
import grp
import os
import pathlib
import pwd
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_accounts
import plasma_files
import plasma_mounts
import plasma_quota_fs
import plasma_quota_fstab
import plasma_quota_kernel
import plasma_quota_setup
import plasma_run

NOTES = pathlib.Path("/var/lib/plasma/quota-limits.json")
KEYS = ("soft", "hard", "inodes_soft", "inodes_hard")
BLOCK = 1024
# Columns of repquota(8) as CSV.
_COLUMNS = {
    "soft": "BlockSoftLimit",
    "hard": "BlockHardLimit",
    "inodes_soft": "FileSoftLimit",
    "inodes_hard": "FileHardLimit",
    "used": "BlockUsed",
    "inodes_used": "FileUsed",
    "grace": "BlockGrace",
    "inodes_grace": "FileGrace",
}
_WEEK = 604800  # the grace time of linux/quota.h, MAX_DQ_TIME
_GRACE_MAX = 2**31 - 1


def blocks(limits: dict[str, int]) -> dict[str, int]:
    """
    Return limits in the units of the tables: bytes become blocks of 1 KiB, rounded up, as fractions would come back
    different; 0 stays no limit.

    limits
        ``{soft, hard: bytes, inodes_soft, inodes_hard: files}``, any of them. Raises SaltInvocationError for others.
    """
    for key, value in limits.items():
        if key not in KEYS or isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise SaltInvocationError(
                f"The limit {key}: {value!r} is none of {', '.join(KEYS)} with a whole number of bytes or files."
            )
    return {key: -(-value // _unit(key)) for key, value in limits.items()}


def plan(current: dict[int, dict[str, int]], wanted: dict[int, dict[str, int]]) -> dict[int, dict[str, int]]:
    """
    Return what has to be set: ``{id: {all four keys}}`` for those who differ, keys that are not wanted as they are.

    current, wanted
        ``{id: {key: number}}`` in the units of ``blocks``; an id that is not in ``current`` has no limit.
    """
    before = {number: {key: current.get(number, {}).get(key, 0) for key in KEYS} for number in wanted}
    after = {number: {**before[number], **limits} for number, limits in wanted.items()}
    return {number: limits for number, limits in after.items() if limits != before[number]}


def read(mount_point: str, kind: str) -> dict[int, dict[str, int]]:
    """
    Return all that the tables of a file system say, by id:
    ``{id: {soft, hard, inodes_soft, inodes_hard, used, inodes_used, grace, inodes_grace}}``.

    mount_point
        A mount point whose quotas are on.
    kind
        ``user`` or ``group``.

    Space is in blocks of 1 KiB; grace is the second (since 1970) at which a soft limit becomes a hard one, 0 when it is
    not exceeded. Raises CommandExecutionError when they cannot be read.
    """
    command = ["repquota", f"--{kind}", "--verbose", "--no-names", "--raw-grace", "--output=csv", mount_point]
    done = plasma_run.run(command, timeout=600)
    if done.returncode:
        raise CommandExecutionError(f"The quotas of {mount_point} cannot be read: {done.last_line}.")
    table = {}
    for row in csv.DictReader(done.stdout.splitlines()):
        name = row.get(kind.title()) or ""
        if name.startswith("#") and name[1:].isdigit():
            # Less than nothing is used for a moment when a table is older than the files.
            table[int(name[1:])] = {key: max(0, int(row[column] or 0)) for key, column in _COLUMNS.items()}
    return table


def compare(
    home_path: str,
    assigned: Sequence[dict[str, Any]] = (),
    groups: Sequence[dict[str, Any]] = (),
    default: dict[str, int] | None = None,
    unmanaged: bool = False,
    grace: dict[str, int | None] | None = None,
    device: str | None = None,
    members: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """
    Return what ``apply`` would do, and change nothing. Where quotas are not on yet, nobody has a limit.

    home_path, device
        See ``plasma_quota.discover``.
    assigned
        List of ``{limits: {soft, hard, inodes_soft, inodes_hard}, users: [names]}``; bytes and files, 0 for no limit.
    groups
        List of ``{name, limits}``: limits of what all files of a group take together.
    default, unmanaged
        With ``unmanaged``, these limits also hold for people whom ``assigned`` does not name.
    members
        List of ``{group, limits}``: limits of each member of a group of a directory, of those whom the group names and
        those who have a home already; of several such groups the largest counts, and ``assigned`` counts before them.
    grace
        ``{block, inode}`` in seconds: how long soft limits may be exceeded. None leaves it as it is.

    Returns ``{"changes": {"user NAME"|"group NAME"|"grace ...": {"old", "new"}}, "missing": [those of its keys that
    have no account or group], "mount_point", "on", "batch": {"user"|"group": {id: limits}}, "grace": {...},
    "file_system", "notes"}``. Raises CommandExecutionError as ``plasma_quota.compare`` does, SaltInvocationError for
    limits of the system's accounts.
    """
    volume = plasma_quota_setup.supported(home_path, device)
    accounts = {entry.pw_name: entry for entry in [*plasma_accounts.owners(home_path), *pwd.getpwall()]}
    # Those of the default first: who is named has the limits that come later.
    others = _others(accounts.values(), volume["numbers"]) if unmanaged and default else ()
    requests: list[tuple[str, str, dict[str, int]]] = [
        *(("user", name, default or {}) for name in others),
        *(("user", name, limits) for name, limits in _members(accounts, members or ()).items()),
        *(("user", name, part["limits"]) for part in assigned or () for name in part["users"]),
        *(("group", group["name"], group["limits"]) for group in groups or ()),
    ]
    wanted: dict[str, dict[int, dict[str, int]]] = {"user": {}, "group": {}}
    names: dict[str, dict[int, str]] = {"user": {}, "group": {}}
    changes, missing = {}, []
    for kind, name, asked in requests:
        limits = blocks(asked)
        try:
            number = grp.getgrnam(name).gr_gid if kind == "group" else (accounts.get(name) or pwd.getpwnam(name)).pw_uid
        except KeyError:
            missing.append(f"{kind} {name}")
            changes[f"{kind} {name}"] = _change({}, limits)
            continue
        if not plasma_accounts.person(number, kind):
            raise SaltInvocationError(
                f"plasma quota of the {kind} {name}: its number {number} is one of the system's accounts; limits are "
                f"for numbers from {plasma_accounts.FIRST} to {plasma_accounts.LAST}, and those of directories. Take "
                "the quota out."
            )
        wanted[kind][number], names[kind][number] = limits, name
    file_system = volume["uuid"] or volume["device"]
    notes = _notes().get(file_system, {})
    batch, remembered = {}, {}
    for kind in ("user", "group"):
        noted = notes.get(kind, {})
        readable = volume["state"][kind] != "off" and plasma_quota_kernel.tools()
        current = read(volume["mount_point"], kind) if readable else {}
        batch[kind] = plan(current, {**wanted[kind], **_taken_back(wanted[kind], noted, current)})
        for number, new in batch[kind].items():
            name = names[kind].get(number) or noted.get(str(number), {}).get("name") or f"#{number}"
            changes[f"{kind} {name}"] = _change(current.get(number, {}), new)
        remembered[kind] = {
            str(number): {"name": names[kind][number], "limits": limits} for number, limits in wanted[kind].items()
        }
    times = {}
    for kind, (old, new) in _grace(volume["device"], grace or {}).items():
        times[kind] = new
        changes.update(
            {f"grace {kind} {key}": {"old": old.get(key), "new": new[key]} for key in new if new[key] != old.get(key)}
        )
    return {
        "changes": changes,
        "missing": missing,
        "mount_point": volume["mount_point"],
        "on": volume["on"],
        "batch": batch,
        "grace": times,
        "file_system": file_system,
        "notes": None if notes == remembered else (notes, remembered),
    }


def apply(home_path: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    """
    Set the limits that differ, in one batch for users and one for groups, and take those back that were set here for
    somebody who is no longer named.

    home_path and everything else
        See ``compare``.

    Returns ``{"changes": {...}, "missing": [names without an account or group]}``. Raises CommandExecutionError when
    quotas are not on, or cannot be set.
    """
    with plasma_quota_fstab.lock():
        todo = compare(home_path, *arguments, **options)
        point, notes = todo["mount_point"], todo["notes"]
        if not todo["on"]:
            raise CommandExecutionError(
                f"Quotas of {point} are not on: apply the state quotas, which switches them on."
            )
        if notes:
            # Before they are set, and until then beside the old ones: what is set can always be taken back.
            _remember(todo["file_system"], _both(*notes))
        for kind, batch in todo["batch"].items():
            if batch:
                lines = (f"{number} {' '.join(str(limits[key]) for key in KEYS)}\n" for number, limits in batch.items())
                _set(f"--{kind}", "--batch", point, stdin="".join(lines))
        for kind, times in todo["grace"].items():
            _set(f"--{kind}", "--edit-period", str(times["block"]), str(times["inode"]), point)
        if notes:
            _remember(todo["file_system"], notes[1])
        return {
            "changes": {key: change for key, change in todo["changes"].items() if key not in todo["missing"]},
            "missing": [key.partition(" ")[2] for key in todo["missing"]],
        }


def _unit(key: str) -> int:
    return 1 if key.startswith("inodes") else BLOCK


def _others(accounts: Iterable[pwd.struct_passwd], numbers: str) -> Iterator[str]:
    """People with a home on this file system; never the one who is logged in by SSH."""
    mounts = plasma_mounts.mounts()
    for account in accounts:
        if plasma_accounts.person(account.pw_uid) and account.pw_name != os.environ.get("SUDO_USER"):
            # The mount by its name: homes are not looked into.
            mount = plasma_mounts.holder(account.pw_dir, mounts)
            if mount and mount["device"] == numbers:
                yield account.pw_name


def _members(accounts: dict[str, Any], parts: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """The limits of everybody who is in a group of a directory, the largest of each kind; 0 is none: the largest."""
    found: dict[str, dict[str, int]] = {}
    for part in parts:
        group = part["group"]
        known = {*accounts, *filter(_account, plasma_accounts.listed(group))}
        for name in sorted(plasma_accounts.members_among(known, [group])):
            has = found.setdefault(name, {})
            for key, value in part["limits"].items():
                has[key] = 0 if 0 in (value, has.get(key, value)) else max(value, has.get(key, value))
    return found


def _account(name: str) -> bool:
    """Whether a member whom a group names is a person with an account."""
    try:
        return plasma_accounts.person(pwd.getpwnam(name).pw_uid)
    except (KeyError, ValueError):
        return False


def _taken_back(
    wanted: dict[int, dict[str, int]], noted: dict[str, Any], current: dict[int, dict[str, int]]
) -> dict[int, dict[str, int]]:
    """No limit where one is as it was set here and is no longer asked for, with what else is wanted of that id."""
    limits = {}
    for number, note in noted.items():
        now, asked = current.get(int(number), {}), wanted.get(int(number), {})
        back = {key: 0 for key, value in note["limits"].items() if key not in asked and value and now.get(key) == value}
        if back:
            limits[int(number)] = {**back, **asked}
    return limits


def _both(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The notes of before and after, while it is not sure which of them hold."""
    both = {kind: {**before.get(kind, {}), **notes} for kind, notes in after.items()}
    for kind, notes in after.items():
        for number in notes.keys() & before.get(kind, {}).keys():
            limits = {**before[kind][number]["limits"], **notes[number]["limits"]}
            both[kind][number] = {**notes[number], "limits": limits}
    return both


def _change(old: dict[str, int], new: dict[str, int]) -> dict[str, dict[str, int]]:
    """Old and new in bytes and files, of the keys that differ."""
    keys = [key for key in KEYS if key in new and new[key] != old.get(key, 0)]
    return {
        when: {key: limits.get(key, 0) * _unit(key) for key in keys} for when, limits in (("old", old), ("new", new))
    }


def _grace(device: str, grace: dict[str, int | None]) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
    """``{user|group: (old, new)}`` where the time to exceed soft limits differs; None leaves a time as it is."""
    asked = {key: seconds for key, seconds in grace.items() if seconds is not None}
    for key, seconds in asked.items():
        whole = isinstance(seconds, int) and not isinstance(seconds, bool)
        if key not in ("block", "inode") or not whole or not 0 < seconds <= _GRACE_MAX:
            raise SaltInvocationError(
                f"The grace time {key}: {seconds!r} must be from 1 to {_GRACE_MAX} seconds, for block or inode."
            )
    times = {
        kind: (old or {}, {**(old or {"block": _WEEK, "inode": _WEEK}), **asked})
        for kind, old in (plasma_quota_fs.grace(device) if asked else {}).items()
    }
    return {kind: (old, new) for kind, (old, new) in times.items() if new != old}


def _set(*arguments: str, stdin: str = "") -> None:
    done = plasma_run.run(["setquota", *arguments], timeout=600, stdin=stdin)
    if done.returncode:
        raise CommandExecutionError(
            f"setquota failed: {done.last_line}. What was set before that is kept; apply again."
        )


def _notes() -> dict[str, Any]:
    return plasma_files.read_note(NOTES, "it says whose limits were set; move it away, and apply again") or {}


def _remember(file_system: str, notes: dict[str, Any]) -> None:
    plasma_files.write_note(NOTES, {**_notes(), file_system: notes})
