"""
Limits of users and groups: read all at once, compared in memory, set in one batch.

Numbers of users and groups are used throughout, so that names of digits are no trap. Blocks are 1 KiB (setquota(8)).
Keys that nobody asks for are left as they are (Salt's own ``quota.set`` sets them to no limit). What was set here is
noted in /var/lib/plasma/quota-limits.json, root's alone, so that it can be taken back from who is no longer named.
"""

from __future__ import annotations

import contextlib
import csv
import grp
import json
import os
import pathlib
import pwd

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_quota_limits"

NOTES = pathlib.Path("/var/lib/plasma/quota-limits.json")
KEYS = ("soft", "hard", "inodes_soft", "inodes_hard")
PEOPLE = range(1000, 60001)  # login.defs(5): UID_MIN to UID_MAX, without nobody
_BLOCK = 1024
_ENV = {"LC_ALL": "C"}
_GRACE_MAX = 2**31 - 1


def __virtual__():
    return __virtualname__


def blocks(limits):
    """
    Return limits in the units of the tables: bytes become blocks of 1 KiB, rounded up, as fractions would come back
    different; 0 stays no limit.

    limits
        ``{soft, hard: bytes, inodes_soft, inodes_hard: files}``, any of them. Raises SaltInvocationError for others.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_limits.blocks '{soft: 10737418240}'
    """
    for key, value in limits.items():
        if key not in KEYS or isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
            raise SaltInvocationError(
                f"The limit {key}: {value!r} is none of {', '.join(KEYS)} with a whole number of bytes or files."
            )
    return {key: value if key.startswith("inodes") else -(-value // _BLOCK) for key, value in limits.items()}


def plan(current, wanted):
    """
    Return what has to be set: ``{id: {all four keys}}`` for those who differ, keys that are not wanted as they are.

    current, wanted
        ``{id: {key: number}}`` in the units of ``blocks``; an id that is not in ``current`` has no limit.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_limits.plan '{}' '{1001: {soft: 1024}}'
    """
    found = {}
    for number, limits in wanted.items():
        now = {key: current.get(number, {}).get(key, 0) for key in KEYS}
        new = {**now, **limits}
        if new != now:
            found[number] = new
    return found


def read(mount_point, sort):
    """
    Return all that the tables of a file system say, by id:
    ``{id: {soft, hard, inodes_soft, inodes_hard, used, inodes_used, grace, inodes_grace}}``.

    mount_point
        A mount point whose quotas are on.
    sort
        ``user`` or ``group``.

    Space is in blocks of 1 KiB; grace is the second (since 1970) at which a soft limit becomes a hard one, 0 when it is
    not exceeded. Raises CommandExecutionError when they cannot be read.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_limits.read /home user
    """
    command = ["repquota", f"--{sort}", "--verbose", "--no-names", "--raw-grace", "--output=csv", mount_point]
    done = __salt__["cmd.run_all"](command, python_shell=False, env=_ENV, timeout=600, output_loglevel="quiet")
    if done["retcode"]:
        raise CommandExecutionError(f"The quotas of {mount_point} cannot be read: {_last(done)}.")
    found = {}
    for row in csv.DictReader(done["stdout"].splitlines()):
        name = next(iter(row.values()))
        if not (name or "").startswith("#") or not name[1:].isdigit():
            continue
        found[int(name[1:])] = {
            "soft": int(row["BlockSoftLimit"]),
            "hard": int(row["BlockHardLimit"]),
            "inodes_soft": int(row["FileSoftLimit"]),
            "inodes_hard": int(row["FileHardLimit"]),
            # Less than nothing is used for a moment when a table is older than the files.
            "used": max(0, int(row["BlockUsed"])),
            "inodes_used": max(0, int(row["FileUsed"])),
            "grace": int(row["BlockGrace"] or 0),
            "inodes_grace": int(row["FileGrace"] or 0),
        }
    return found


def compare(home_path, assigned=(), groups=(), default=None, unmanaged=False, grace=None, device=None):
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
    grace
        ``{block, inode}`` in seconds: how long soft limits may be exceeded. None leaves it as it is.

    Returns ``{"changes": {"user NAME"|"group NAME"|"grace ...": {"old", "new"}}, "missing": [names without an account
    or group], "mount_point", "batch": {sort: {id: limits}}, "grace": {sort: {...}}, "file_system", "notes"}``. Raises
    CommandExecutionError as ``plasma_quota.compare`` does, SaltInvocationError for limits of the system's accounts.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_limits.compare /home '[{limits: {hard: 1073741824}, users: [ada]}]'
    """
    found = __salt__["plasma_quota.discover"](home_path, device)
    if not found["supported"]:
        raise CommandExecutionError(found["reason"])
    people = {entry.pw_name: entry for entry in pwd.getpwall()}
    wanted = {"user": {}, "group": {}}
    names = {"user": {}, "group": {}}
    missing = []
    for part in assigned or ():
        limits = blocks(part["limits"])
        for name in part["users"]:
            account = people.get(name) or _looked_up(pwd.getpwnam, name)
            if account is None:
                missing.append(("user", name, limits))
                continue
            _refuse_system("user", name, account.pw_uid)
            wanted["user"][account.pw_uid], names["user"][account.pw_uid] = limits, name
    for part in groups or ():
        limits, group = blocks(part["limits"]), _looked_up(grp.getgrnam, part["name"])
        if group is None:
            missing.append(("group", part["name"], limits))
            continue
        _refuse_system("group", part["name"], group.gr_gid)
        wanted["group"][group.gr_gid], names["group"][group.gr_gid] = limits, part["name"]
    if unmanaged and default:
        limits = blocks(default)
        for account in _others(people.values(), set(wanted["user"]), found):
            wanted["user"][account.pw_uid], names["user"][account.pw_uid] = limits, account.pw_name
    notes = _notes().get(found["uuid"] or found["device"], {})
    changes, batch, remembered = {}, {}, {}
    for sort in ("user", "group"):
        current = read(found["mount_point"], sort) if found["state"][sort] != "off" and _tools() else {}
        batch[sort] = plan(current, _with_dropped(wanted[sort], notes.get(sort, {}), current))
        for number, new in batch[sort].items():
            name = names[sort].get(number) or notes.get(sort, {}).get(str(number), {}).get("name") or f"#{number}"
            changes[f"{sort} {name}"] = _change(current.get(number, {}), new)
        remembered[sort] = {
            str(number): {"name": names[sort][number], "limits": limits} for number, limits in wanted[sort].items()
        }
    for sort, name, limits in missing:
        changes[f"{sort} {name}"] = _change({}, limits)
    times = _grace(found, grace or {})
    for sort, (old, new) in times.items():
        for key in new:
            if new[key] != old.get(key):
                changes[f"grace {sort} {key}"] = {"old": old.get(key), "new": new[key]}
    return {
        "changes": changes,
        "missing": [name for _, name, _ in missing],
        "mount_point": found["mount_point"],
        "on": found["on"],
        "batch": batch,
        "grace": {sort: new for sort, (_, new) in times.items()},
        "file_system": found["uuid"] or found["device"],
        "notes": None if notes == remembered else (notes, remembered),
    }


def apply(home_path, assigned=(), groups=(), default=None, unmanaged=False, grace=None, device=None):
    """
    Set the limits that differ, in one batch for users and one for groups, and take those back that were set here for
    somebody who is no longer named.

    home_path, assigned, groups, default, unmanaged, grace, device
        See ``compare``.

    Returns ``{"changes": {...}, "missing": [names without an account or group]}``. Raises CommandExecutionError when
    quotas are not on, or cannot be set.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_limits.apply /home '[{limits: {hard: 1073741824}, users: [ada]}]'
    """
    with __salt__["plasma_quota_edit.locked"]():
        todo = compare(home_path, assigned, groups, default, unmanaged, grace, device)
        if not todo["on"]:
            raise CommandExecutionError(
                f"Quotas of {todo['mount_point']} are not on: apply the state quotas, which switches them on."
            )
        if todo["notes"]:
            # Before they are set, and until then beside the old ones: what is set can always be taken back.
            _remember(todo["file_system"], _both(*todo["notes"]))
        for sort, batch in todo["batch"].items():
            if batch:
                lines = "".join(
                    f"{number} {' '.join(str(limits[key]) for key in KEYS)}\n" for number, limits in batch.items()
                )
                _set([f"--{sort}", "--batch", todo["mount_point"]], stdin=lines, stdin_raw_newlines=True)
        for sort, times in todo["grace"].items():
            _set([f"--{sort}", "--edit-period", str(times["block"]), str(times["inode"]), todo["mount_point"]])
        if todo["notes"]:
            _remember(todo["file_system"], todo["notes"][1])
        absent = {f"{sort} {name}" for sort in ("user", "group") for name in todo["missing"]}
        return {
            "changes": {key: change for key, change in todo["changes"].items() if key not in absent},
            "missing": todo["missing"],
        }


def _looked_up(function, name):
    with contextlib.suppress(KeyError):
        return function(name)
    return None


def _refuse_system(sort, name, number):
    if number not in PEOPLE:
        raise SaltInvocationError(
            f"plasma quota of the {sort} {name}: its number {number} is one of the system's accounts; limits are for "
            f"numbers from {PEOPLE.start} to {PEOPLE.stop - 1}. Take the quota out."
        )


def _others(accounts, named, found):
    """People with a home on this file system whom nobody names; never the one who is logged in by SSH."""
    mounts = __salt__["plasma_quota_fs.mounts"]()
    for account in accounts:
        if account.pw_uid in named or account.pw_uid not in PEOPLE or account.pw_name == os.environ.get("SUDO_USER"):
            continue
        # The mount by its name: homes are not looked into.
        holds = max(
            (mount for mount in mounts if (account.pw_dir + "/").startswith(mount["target"].rstrip("/") + "/")),
            key=lambda mount: len(mount["target"]),
            default=None,
        )
        if holds and holds["device"] == found["numbers"]:
            yield account


def _with_dropped(wanted, notes, current):
    """What is wanted, and no limit where one is as it was set here and is no longer asked for."""
    found = dict(wanted)
    for number, note in notes.items():
        now, asked = current.get(int(number), {}), wanted.get(int(number), {})
        back = {key: 0 for key, value in note["limits"].items() if key not in asked and value and now.get(key) == value}
        if back:
            found[int(number)] = {**back, **asked}
    return found


def _both(before, after):
    """The notes of before and after, while it is not sure which of them hold."""
    both = {}
    for sort, notes in after.items():
        both[sort] = {**before.get(sort, {}), **notes}
        for number, note in notes.items():
            earlier = before.get(sort, {}).get(number, {"limits": {}})
            both[sort][number] = {**note, "limits": {**earlier["limits"], **note["limits"]}}
    return both


def _change(old, new):
    """Old and new in bytes and files, of the keys that differ."""
    keys = [key for key in KEYS if key in new and new[key] != old.get(key, 0)]

    def said(limits):
        return {key: limits.get(key, 0) * (1 if key.startswith("inodes") else _BLOCK) for key in keys}

    return {"old": said(old), "new": said(new)}


def _grace(found, grace):
    """``{sort: (old, new)}`` where the time to exceed soft limits differs; times of which nothing is said stay."""
    asked = {key: seconds for key, seconds in grace.items() if seconds is not None}
    for key, seconds in asked.items():
        if key not in ("block", "inode") or isinstance(seconds, bool) or not isinstance(seconds, int):
            raise SaltInvocationError(f"The grace time {key}: {seconds!r} must be seconds for block or inode.")
        if not 0 < seconds <= _GRACE_MAX:
            raise SaltInvocationError(f"The grace time {key}: {seconds} must be from 1 to {_GRACE_MAX} seconds.")
    if not asked:
        return {}
    times = {}
    for sort, old in __salt__["plasma_quota_fs.grace"](found["device"]).items():
        new = {**(old or {"block": 604800, "inode": 604800}), **asked}
        if new != old:
            times[sort] = (old or {}, new)
    return times


def _tools():
    return "quota" not in __salt__["plasma_quota_kernel.packages"]("ext4")


def _set(arguments, **options):
    done = __salt__["cmd.run_all"](
        ["setquota", *arguments], python_shell=False, env=_ENV, timeout=600, output_loglevel="quiet", **options
    )
    if done["retcode"]:
        raise CommandExecutionError(f"setquota failed: {_last(done)}. What was set before that is kept; apply again.")


def _last(done):
    lines = (done["stderr"].strip() or done["stdout"].strip() or f"code {done['retcode']}").splitlines()
    return lines[-1].rstrip(".")


def _notes():
    try:
        return json.loads(NOTES.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise CommandExecutionError(
            f"{NOTES}, which says whose limits were set, cannot be read: move it away, and apply again."
        ) from None


def _remember(file_system, notes):
    NOTES.parent.mkdir(mode=0o755, exist_ok=True)
    new = NOTES.with_name(NOTES.name + ".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w", encoding="utf-8") as file:
        json.dump({**_notes(), file_system: notes}, file, separators=(",", ":"), sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    new.replace(NOTES)
