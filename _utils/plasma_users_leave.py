"""
Take people off a server without losing what is theirs, and so that a killed run is finished by the next one.

``plan`` and ``edits`` decide, and are pure. The order of the work: the accounts are locked, so that nobody starts
anything anew; the hub stops their servers and forgets them; what still runs is ended; each home is put aside by one
rename; the accounts go from the four files in one change; what else has their name or uid (mail, crontab, jobs of at)
follows the home. What is under way is noted before it begins.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_hub_accounts
import plasma_run
import plasma_users_homes
import plasma_users_observe
import plasma_users_processes
import plasma_users_write
from plasma_files import at
from plasma_users_observe import parent
from plasma_users_tables import memberships, numeric

_LOCKED = "1"  # the account expired on 2 January 1970 (shadow(5)): no PAM service lets it in, with a key neither
_JOBS = "/var/spool/cron/atjobs"


def plan(
    current: dict[str, Any],
    users: Iterable[dict],
    protected: dict[int, str] | None = None,
    admins: Collection[str] = (),
    admins_now: Collection[str] = (),
) -> dict[str, Any]:
    """
    Return the accounts to remove, and what forbids it.

    current
        What ``plasma_users_observe.observe`` returns.
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
    """
    passwd, begun = current["passwd"]["rows"], current["memory"]["removing"]
    absent = [user for user in users if user.get("absent")]
    leaving = {user["name"]: user for user in absent if user["name"] in passwd}
    owners_of, groups = owners(current) if leaving else {}, memberships(current["group"], leaving)
    refused = {name: forbidden(name, current, owners_of, protected or {}) for name in leaving}
    problems = [f"user {name}: {problem}" for name, problem in refused.items() if problem]
    leavers = [_leaver(user, current, groups[name]) for name, user in leaving.items() if not refused[name]]
    if leaving:
        present = {*passwd, *(user["name"] for user in users if not user.get("absent"))} - set(leaving)
        problems += _without_admin(leaving, present, admins or admins_now, admins_now)
    killed = [user | begun[user["name"]] for user in absent if user["name"] in begun and user["name"] not in passwd]
    changes = {
        leaver["name"]: {"old": {"uid": leaver["uid"], "home": leaver["home"]}, "new": None}
        for leaver in [*leavers, *killed]
    }
    return {"problems": problems, "leavers": leavers, "changes": changes}


def owners(current: dict[str, Any]) -> dict[str, list[str]]:
    """Return the names of all accounts by uid, by home, and by every directory above a home."""
    owners: dict[str, list[str]] = {}
    for name, home in current["seen"]["paths"].items():
        owners.setdefault(current["passwd"]["rows"][name][2], []).append(name)
        while home:
            owners.setdefault(home, []).append(name)
            home = home.rpartition("/")[0]
    return owners


def forbidden(name: str, current: dict, owners: dict[str, list[str]], protected: dict[int, str]) -> str | None:
    """
    Return why an account must not be removed or renamed, or None.

    The arguments are those of ``plan``, with what ``owners`` returned.
    """
    passwd, defs, seen = current["passwd"], current["defs"], current["seen"]
    row, home = passwd["rows"][name], seen["paths"][name]
    if name in passwd["odd"] | current["shadow"]["odd"]:
        return "stands twice or in a damaged line in /etc/passwd or /etc/shadow: mend it with vipw"
    uid = int(row[2])
    if not defs["UID_MIN"] <= uid <= defs["UID_MAX"]:
        return f"is a system account on this server (uid {uid}), which is never touched"
    if uid in protected:
        return f"{protected[uid]}: apply as somebody else, or take `absent` or `was` away"
    shared = [other for other in owners[row[2]] if other != name]
    if shared:
        return f"shares the uid {uid} with {shared[0]}: mend that with usermod first"
    if not home:
        return f"has no absolute path as home in /etc/passwd ({row[5]!r}): mend that with usermod first"
    found, mounts = seen["homes"].get(home), seen["mounts"].get(home, ())
    fixed = [mount["point"] for mount in mounts if mount["owner"] is None]
    if fixed:
        return f"{fixed[0]} is mounted in the home: unmount it first"
    if found and found["kind"] == "symbolic link":
        return f"home {home} is a symbolic link: make it a directory or remove it first"
    if found and found["kind"] == "unreadable" and not mounts:
        return f"home {home} cannot be looked at: see what is the matter with it"
    if _has_home(uid, home, seen):
        inside = [other for other in owners[home] if other != name]
        if inside:
            return f"home {home} holds the home of {inside[0]} too: move that one first"
        wrong = seen["parents"].get(parent(home))
        if wrong:
            return f"home {home} cannot be moved safely: {wrong}"
    return None


def _has_home(uid: int, home: str, seen: dict[str, Any]) -> bool:
    """Whether there is a home to move. What somebody mounted over it shows what they like: that is looked at later."""
    found, mounts = seen["homes"].get(home), seen["mounts"].get(home, ())
    return plasma_users_observe.is_home(found, uid) or bool(found and any(mount["point"] == home for mount in mounts))


def _leaver(user: dict, current: dict[str, Any], groups: set[str]) -> dict[str, Any]:
    name, begun = user["name"], current["memory"]["removing"].get(user["name"])
    row, shadow = current["passwd"]["rows"][name], current["shadow"]["rows"].get(name)
    uid, home = int(row[2]), current["seen"]["paths"][name]
    return {
        "name": name,
        "uid": uid,
        "gid": int(row[3]),
        "home": home,
        "shell": row[6],
        "fullname": row[4].split(",")[0],
        "groups": sorted(groups),
        # A run that was killed may have written its own.
        "expire": begun.get("expire", "") if begun else shadow[7] if shadow else "",
        "move": _has_home(uid, home, current["seen"]),
        "remove_home": bool(user.get("remove_home")),
    }


def _without_admin(leaving: Iterable[str], present: set[str], admins: Collection[str], now: Collection[str]) -> list:
    """A hub whose last administrator leaves has nobody to let others in. Capitals do not matter there."""
    admins, now = {name.lower() for name in admins}, {name.lower() for name in now}
    names = sorted(name for name in leaving if name.lower() in admins | now)
    if not names or any(name.lower() in admins for name in present):
        return []
    return [
        f"user {', '.join(names)}: no administrator of the hub would be left with an account: name another one in "
        "plasma.admins first"
    ]


def edits(current: dict[str, Any], names: Iterable[str]) -> plasma_users_write.Edits:
    """
    Return the changes of the four files that take accounts away, ``{kind: {name: [field] | None}}``.

    Each goes with its memberships, and with its own group (the same name, nobody else in it), as userdel(8) does it.
    """
    names = set(names)
    found: dict[str, dict[str, list[str] | None]] = {
        kind: {name: None for name in names if name in current[kind]["rows"]} for kind in ("passwd", "shadow")
    }
    primary = {row[3] for name, row in current["passwd"]["rows"].items() if name not in names}
    for kind, fields in (("group", (3,)), ("gshadow", (2, 3))):
        found[kind] = {}
        for group, row in current[kind]["rows"].items():
            if group in current[kind]["odd"]:
                continue
            new = [_without(text, names) if field in fields else text for field, text in enumerate(row)]
            if group in names and _is_own_group(group, current, names, primary):
                found[kind][group] = None
            elif new != row:
                found[kind][group] = new
    return {kind: entries for kind, entries in found.items() if entries}


def _without(text: str, names: set[str]) -> str:
    return ",".join(name for name in text.split(",") if name not in names)


def _is_own_group(group: str, current: dict[str, Any], names: set[str], primary: set[str]) -> bool:
    """Whether a group is that of a leaver alone; a line in gshadow without its group is, too."""
    row, account = current["group"]["rows"].get(group), current["passwd"]["rows"].get(group)
    if not row:
        return True
    gid = account[3] if account else str(current["memory"]["removing"].get(group, {}).get("gid"))
    return gid == row[2] and not _without(row[3], names) and row[2] not in primary


def protected(root: str = "/") -> dict[int, str]:
    """
    Return ``{uid: why}`` of the accounts that this apply comes from: who lost theirs would be locked out.

    It is who called sudo, who logged in (``loginuid``), and who owns the directories that this module runs from.
    """
    uids = {directory.stat().st_uid for directory in pathlib.Path(__file__).resolve().parents}
    uids.update(int(value) for value in (os.environ.get("SUDO_UID", ""), _login_uid()) if numeric(value))
    return {uid: "is the account this apply comes from" for uid in uids if 0 < uid < 2**32 - 1}


def _login_uid() -> str:
    try:
        return pathlib.Path("/proc/self/loginuid").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def remove(leavers: list[dict], prefix: str = "/opt/tljh", timeout: float = 60, root: str = "/") -> dict[str, Any]:
    """
    Remove accounts; for ``plasma_users.apply``, which holds the lock.

    leavers
        What ``plan`` returned.
    prefix
        Where the hub is installed.
    timeout
        Seconds for the hub to stop their servers, and for their other processes to end.

    Returns ``{"archives": {name: path | None}, "failed": {name: sentence}}``: the accounts that are gone, and what
    remains to be done. Raises CommandExecutionError when the hub cannot stop a server. Accounts that are not gone then
    are locked, and the next run goes on.
    """
    if not leavers:
        return {"archives": {}, "failed": {}}
    memory = plasma_users_write.recall(root=root)
    notes = {leaver["name"]: _note(leaver, memory["removing"].get(leaver["name"]), root) for leaver in leavers}
    memory["removing"].update(notes)
    plasma_users_write.remember(memory, root=root)

    plasma_users_write.change(lambda tables: {"shadow": locked(tables["shadow"]["rows"], notes)}, root=root)
    plasma_hub_accounts.forget(list(notes), prefix=prefix, timeout=timeout)
    failed = dict(plasma_users_processes.end({note["uid"]: name for name, note in notes.items()}, timeout=timeout))
    # From here on each on their own: what is the matter with one keeps nobody else.
    for leaver in leavers:
        if leaver["move"]:
            _try(leaver["name"], failed, _put_aside, notes[leaver["name"]], root)
    for name, options in _subordinate_ids(notes, root).items():
        _try(name, failed, _drop_subordinate_ids, name, options, root)
    gone = [name for name in notes if name not in failed]
    drop(gone, root=root)
    done = finish(gone, root=root)
    return {"archives": done["archives"], "failed": {**failed, **done["failed"]}}


def _try(name: str, failed: dict[str, str], function: Callable, *arguments: Any) -> None:
    """Call a function unless something of this person failed before, and note whether it fails."""
    if name not in failed:
        try:
            function(*arguments)
        except (CommandExecutionError, OSError) as exc:
            failed[name] = plasma_users_write.describe(exc)


def _put_aside(note: dict[str, Any], root: str) -> None:
    plasma_users_homes.release(note["home"], note["uid"], root=root)
    plasma_users_homes.put_aside(note, root=root)


def _note(leaver: dict[str, Any], begun: dict[str, Any] | None, root: str) -> dict[str, Any]:
    note = {key: leaver[key] for key in leaver if key != "move"}
    if begun:
        return {**note, "archive": begun["archive"], "date": begun["date"]}
    archive = plasma_users_homes.free_archive(leaver["name"], leaver["uid"], leaver["home"], root=root)
    return {**note, "archive": archive, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def locked(rows: dict[str, list[str]], names: Iterable[str]) -> dict[str, list[str]]:
    """Return the changes of shadow that let these accounts in by no way."""
    unlocked = {name: rows[name] for name in names if name in rows and rows[name][7] != _LOCKED}
    return {name: [*row[:7], _LOCKED, *row[8:]] for name, row in unlocked.items()}


def drop(names: Iterable[str], root: str = "/") -> None:
    """Take accounts out of the four files; those whose removal has begun."""
    memory = plasma_users_write.recall(root=root)
    names = [name for name in names if name in memory["removing"]]
    order = plasma_users_write.REMOVING
    plasma_users_write.change(lambda tables: edits({**tables, "memory": memory}, names), order=order, root=root)


def finish(names: Iterable[str], root: str = "/") -> dict[str, Any]:
    """
    Do what is left when accounts are gone from the files: keep their mail and crontabs with their homes, or delete all
    of it where that was wanted, and note the uids as spent.

    names
        Of people whose removal has begun. Others are left alone.

    Returns ``{"archives": {name: path | None}, "failed": {name: sentence}}``; those who failed are in both, and the
    next run goes on with them.
    """
    memory = plasma_users_write.recall(root=root)
    notes = {name: memory["removing"][name] for name in names if name in memory["removing"]}
    if not notes:
        return {"archives": {}, "failed": {}}
    archives: dict[str, str | None] = {}
    failed: dict[str, str] = {}
    jobs = _jobs({note["uid"]: name for name, note in notes.items()}, root)
    for name, note in notes.items():
        belongings = [at(f"{directory}/{name}", root) for directory in plasma_users_observe.BELONGINGS]
        _try(name, failed, _archive_all, note, [*belongings, *jobs.get(name, ())], root)
        archives[name] = note["archive"] if plasma_users_observe.status(note["archive"], root=root) else None
        if name not in failed:
            memory["uids"][str(note["uid"])] = memory["gids"][str(note["gid"])] = name
            memory["forgotten"][name] = True
            del memory["removing"][name]
            memory["given"].pop(name, None)
    plasma_users_write.remember(memory, root=root)
    return {"archives": archives, "failed": failed}


def _archive_all(note: dict[str, Any], paths: Iterable[str], root: str) -> None:
    for path in paths:
        _archive(path, note, root)
    if note["remove_home"]:
        plasma_users_homes.delete(note["archive"], root=root)


def _archive(path: str, note: dict[str, Any], root: str) -> None:
    """Move one file into the archive of its owner; a link is removed, anything else than a file stays."""
    if os.path.islink(path):
        os.unlink(path)
    if not os.path.lexists(path) or not stat.S_ISREG(os.lstat(path).st_mode):
        return
    target = os.path.join(plasma_users_homes.open_archive(note, root=root), "-".join(pathlib.Path(path).parts[-2:]))
    # It is copied where the archive is on another file system.
    shutil.move(path, target, lambda source, to: shutil.copy2(source, to, follow_symlinks=False))


def _jobs(people: dict[int, str], root: str) -> dict[str, list[str]]:
    """What `at` was to run later has the uid of its owner, and would run as whoever gets that uid: paths by name."""
    found: dict[str, list[str]] = {}
    directory = at(_JOBS, root)
    for file in os.listdir(directory) if os.path.isdir(directory) else ():
        status = plasma_users_observe.status(f"{_JOBS}/{file}", root=root)
        if status and status["uid"] in people:
            found.setdefault(people[status["uid"]], []).append(os.path.join(directory, file))
    return found


def _subordinate_ids(names: Collection[str], root: str) -> dict[str, list[str]]:
    """Ranges of user namespaces, which useradd gives: their next owner would get files of these people."""
    options: dict[str, list[str]] = {}
    for kind, name, first, count in _ranges(root):
        if name in names and numeric(first) and numeric(count) and int(count):
            options.setdefault(name, []).extend([f"--del-{kind}s", f"{first}-{int(first) + int(count) - 1}"])
    return options


def _ranges(root: str) -> Iterator[list[str]]:
    for kind in ("subuid", "subgid"):
        path = pathlib.Path(root, "etc", kind)
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
            if line.count(":") == 2:
                yield [kind, *line.split(":")]


def _drop_subordinate_ids(name: str, options: list[str], root: str) -> None:
    done = plasma_run.run(["usermod", *options, *(["--root", root] if root != "/" else []), name], timeout=60)
    if done.returncode:
        raise CommandExecutionError(f"its subordinate ids could not be taken away: {done.last_line}")
