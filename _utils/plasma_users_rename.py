"""
Give people another name: the account, its own group, its memberships, its home, what else is known by the name (mail,
crontab, subordinate ids), and the hub's record of the person. The uid stays, so files, disk quotas and archives do.

``plan`` and ``edits`` decide, and are pure. The order of the work: what is under way is noted; the account is locked;
the hub stops the servers and then knows the person by the new name; what still runs is ended, for it would go on with
the old home; the home moves by one rename; the four files change. A run that is killed is finished by the next one,
also where pillar names nobody of the two any more: half a rename is no account to leave alone. What pillar says of
these people may not contradict it, or there would be two accounts of one person, or the wrong one would go.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_hub_accounts
import plasma_users_homes
import plasma_users_leave
import plasma_users_observe
import plasma_users_processes
import plasma_users_tables
import plasma_users_write
from plasma_files import at
from plasma_users_observe import parent

_FIELDS = {"group": (3,), "gshadow": (2, 3)}  # lists of names


def plan(
    current: dict[str, Any], users: Iterable[dict], protected: dict[int, str] | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """
    Return the renames to do, and what forbids some.

    current
        What ``plasma_users_observe.observe`` returns.
    users
        List of entries as the completed pillar has them; those with ``was`` may be renamed.
    protected
        ``{uid: why}`` of accounts that must stay.

    Returns ``([{"old", "new", "uid", "home", "moved", "group", "expire"}], [sentence])``: the homes before and after,
    whether the own group has the name, and the account's expiry date. A rename that was begun comes first, as it was
    noted.
    """
    users = list(users)
    passwd, begun = current["passwd"]["rows"], current["memory"]["renaming"]
    moves, problems = list(begun.values()), [*_contradictions(users, begun), *_second(users, current)]
    wanted = [
        user
        for user in users
        if user.get("was") and not user.get("absent") and user["name"] not in begun and user["was"] in passwd
    ]
    owners = plasma_users_leave.owners(current) if wanted else {}
    for user in wanted:
        move = _move(user, current)
        problem = _forbidden(user, move, current, owners, protected or {})
        if problem:
            problems.append(f"user {user['name']}: was {user['was']}, who {problem}")
        else:
            moves.append(move)
    return moves, problems


def _contradictions(users: Iterable[dict], begun: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What pillar has of somebody whose rename was begun, and that means somebody else."""
    by_old = {move["old"]: move for move in begun.values()}
    for user in users:
        name, was = user["name"], user.get("was")
        expected = begun[name]["old"] if name in begun else None
        move = by_old.get(name)
        if was and was != expected:
            move = move or by_old.get(was) or begun.get(was) or begun.get(name)
        if move:
            old, new = move["old"], move["new"]
            yield (
                f"user {name}: {old} is being renamed to {new} since an earlier run: apply "
                f"`{{name: {new}, was: {old}}}` first, in the place of this entry"
            )


def _second(users: list[dict], current: dict[str, Any]) -> Iterator[str]:
    """Who would become a second person, for pillar has a name that somebody had before: a rename taken back, say."""
    passwd, begun = current["passwd"]["rows"], current["memory"]["renaming"]
    notes, named = _former(current["memory"]["renamed"], passwd), {user["name"]: user.get("was") for user in users}
    for user in users if notes else ():
        name, was = user["name"], user.get("was")
        if user.get("absent") or name in passwd or name in begun or was in passwd:
            continue
        if note := notes.get(was):
            new = note["new"]
            yield (
                f"user {name}: was {was}, who became {new} here: write `{{name: {name}, was: {new}}}` to rename {new}, "
                "or take `was` away to make somebody else"
            )
            continue
        note = notes.get(name)
        # Where pillar says who the other one is, or a number, it means somebody else.
        apart = note and (named.get(note["new"], name) != name or note["new"] in named.values())
        if note and not apart and user.get("uid") in (None, note["uid"]):
            new = note["new"]
            yield (
                f"user {name}: became {new} here, and would be made anew with an empty home: write "
                f"`{{name: {name}, was: {new}}}` to undo the rename, or, for somebody else of the name {name}, "
                f"`{{name: {new}}}` beside it, or a `uid` in it"
            )


def _move(user: dict, current: dict[str, Any]) -> dict[str, Any]:
    old, new = user["was"], user["name"]
    row, shadow = current["passwd"]["rows"][old], current["shadow"]["rows"].get(old)
    group, home = current["group"]["rows"].get(old), current["seen"]["paths"][old]
    named = home.rpartition("/")[2] == old
    return {
        "old": old,
        "new": new,
        "uid": int(row[2]) if plasma_users_tables.numeric(row[2]) else -1,
        "home": home,
        "moved": user.get("home") or (f"{parent(home).rstrip('/')}/{new}" if named else home),
        "group": bool(group and group[2] == row[3]),
        "expire": shadow[7] if shadow else "",
    }


def _forbidden(user: dict, move: dict, current: dict, owners: dict, protected: dict[int, str]) -> str | None:
    """Why somebody is not renamed, or None."""
    new, seen = move["new"], current["seen"]
    for name in (move["old"], new):
        if name in current["memory"]["removing"]:
            return (
                f"cannot become {new} while the removal of {name} is not finished: apply "
                f"`{{name: {name}, absent: true}}` first, or `{{name: {name}}}` to keep the account"
            )
    if new in current["passwd"]["rows"]:
        return f"exists beside {new}: remove one of the two accounts, or take `was` away"
    if user.get("uid") not in (None, move["uid"]):
        return f"has the uid {move['uid']}, which cannot become {user['uid']}: files would be left to nobody"
    found = plasma_users_leave.forbidden(move["old"], current, owners, protected)
    if found:
        return found
    if new in seen["elsewhere"]:
        return f"cannot get the name {new}, which another source (LDAP or the like) has"
    row = current["group"]["rows"].get(new)
    if move["group"] and row:
        return f"cannot get the name {new}, which the group of gid {row[2]} has: rename one of the two"
    for there, wanted in _belongings(move["old"], new):
        if there in seen["belongings"] and wanted in seen["belongings"]:
            return f"has {there}, and {wanted} exists beside it: move one of them away"
    home, moved = move["home"], move["moved"]
    if moved == home:
        return None
    if parent(moved) != parent(home):
        return f"has the home {home}, which stays in its directory: leave out `home`, or move it by hand before"
    there = seen["homes"].get(moved)
    if there is not None and (seen["homes"].get(home) is not None or not _is_home(there, move["uid"])):
        return f"cannot get the home {moved}, which exists: move it away"
    return None


def _is_home(found: dict | None, uid: int) -> bool:
    return plasma_users_observe.is_home(found, uid)


def edits(tables: dict[str, Any], moves: Iterable[dict[str, Any]]) -> plasma_users_write.Edits:
    """Return the changes of the four files that give accounts their new names, ``{kind: {name: [field] | None}}``."""
    moves = list(moves)
    new = {move["old"]: move["new"] for move in moves}
    found: dict[str, dict[str, list[str] | None]] = {kind: {} for kind in plasma_users_tables.FIELDS}
    for move in moves:
        for kind, places in (("passwd", {5: move["moved"]}), ("shadow", {7: move["expire"]})):
            row = tables[kind]["rows"].get(move["old"])
            if row:
                found[kind][move["old"]] = None
                found[kind][move["new"]] = [
                    places.get(place, text) if place else move["new"] for place, text in enumerate(row)
                ]
    own = {move["old"] for move in moves if move["group"]}
    for kind, fields in _FIELDS.items():
        for group, row in tables[kind]["rows"].items():
            if group in tables[kind]["odd"]:
                continue
            changed = [_renamed(text, new) if place in fields else text for place, text in enumerate(row)]
            if group in own:
                found[kind][group] = None
                found[kind][new[group]] = [new[group], *changed[1:]]
            elif changed != row:
                found[kind][group] = changed
    return {kind: rows for kind, rows in found.items() if rows}


def _renamed(text: str, new: dict[str, str]) -> str:
    return ",".join(new.get(name, name) for name in text.split(","))


def after(current: dict[str, Any], moves: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return ``current`` as it is when these renames are done."""
    moves = list(moves)
    if not moves:
        return current
    changed = edits(current, moves)
    tables = {
        kind: plasma_users_tables.edited(current[kind], changed.get(kind, {})) for kind in plasma_users_tables.FIELDS
    }
    paths = {name: plasma_users_tables.home_path(row) for name, row in tables["passwd"]["rows"].items()}
    homes = dict(current["seen"]["homes"])
    for move in moves:
        if move["moved"] != move["home"] and homes.get(move["home"]) is not None:
            homes[move["moved"]], homes[move["home"]] = homes[move["home"]], None
    seen = {**current["seen"], "paths": paths, "homes": homes}
    return {**current, **tables, "seen": seen, "memory": _noted(current["memory"], moves)}


def _noted(memory: dict[str, Any], moves: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The notes with the new names, and with nothing under way."""
    moves = list(moves)
    names = {move["old"]: move["new"] for move in moves}
    given = {names.get(name, name): groups for name, groups in memory["given"].items()}
    marks = {names.get(name, name): mark for name, mark in memory["marks"].items()}
    left = {name: note for name, note in memory["renaming"].items() if name not in names.values()}
    renamed = {
        **{old: {**note, "new": names.get(note["new"], note["new"])} for old, note in memory["renamed"].items()},
        **{move["old"]: {"new": move["new"], "uid": move["uid"]} for move in moves},
    }
    return {**memory, "given": given, "marks": marks, "renaming": left, "renamed": renamed}


def former(tables: dict[str, Any], root: str = "/") -> dict[str, dict[str, Any]]:
    """
    Return ``{former name: {"new", "uid"}}`` of accounts whose former name nobody has now: archives have them by that.

    tables
        What ``plasma_users_tables.read`` returns.
    """
    return _former(plasma_users_write.recall(root=root)["renamed"], tables["passwd"]["rows"])


def _former(notes: dict[str, dict[str, Any]], passwd: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    return {
        old: note
        for old, note in notes.items()
        if old not in passwd and note["new"] in passwd and passwd[note["new"]][2] == str(note["uid"])
    }


def told(moves: Iterable[dict[str, Any]], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``{name: {"old", "new"}}`` with the new names, and with what else changes for the same people."""
    found = dict(changes)
    for move in moves:
        more = found.get(move["new"]) or {"old": {}, "new": {}}
        old, new = {"name": move["old"], "home": move["home"]}, {"name": move["new"], "home": move["moved"]}
        found[move["new"]] = {"old": {**old, **more["old"]}, "new": {**new, **more["new"]}}
    return found


def rename(moves: list[dict[str, Any]], prefix: str = "/opt/tljh", timeout: float = 60, root: str = "/") -> dict:
    """
    Rename people; for ``plasma_users.apply``, which holds the lock.

    moves
        What ``plan`` returned.
    prefix
        Where the hub is installed.
    timeout
        Seconds for the hub to stop their servers, and for their other processes to end.

    Returns ``{"done": [move], "failed": {new name: sentence}}``. Raises CommandExecutionError when the hub cannot be
    asked. Accounts that are not renamed then are locked, and the next run goes on.
    """
    memory = plasma_users_write.recall(root=root)
    new = [move for move in moves if "hub" not in move]
    # Asked before anything is changed: later, a record of the new name may be theirs or that of somebody who is gone.
    known = plasma_hub_accounts.users(prefix=prefix) if new else {}
    moves = [{"hub": move["old"] in known, **move} for move in moves]
    memory["renaming"].update({move["new"]: move for move in moves})
    plasma_users_write.remember(memory, root=root)
    names = [name for move in moves for name in (move["old"], move["new"])]
    plasma_users_write.change(
        lambda tables: {"shadow": plasma_users_leave.locked(tables["shadow"]["rows"], names)}, root=root
    )
    plasma_hub_accounts.rename(moves, prefix=prefix, timeout=timeout)
    failed = dict(plasma_users_processes.end({move["uid"]: move["new"] for move in moves}, timeout=timeout))
    for move in moves:
        if move["new"] not in failed:
            try:
                _move_files(move, root)
            except (CommandExecutionError, OSError) as exc:
                failed[move["new"]] = plasma_users_write.describe(exc)
    done = [move for move in moves if move["new"] not in failed]
    plasma_users_write.change(lambda tables: _unlocked(tables, done), root=root)
    plasma_users_write.remember(_noted(plasma_users_write.recall(root=root), done), root=root)
    return {"done": done, "failed": failed}


def _unlocked(tables: dict[str, Any], moves: list[dict[str, Any]]) -> plasma_users_write.Edits:
    """The changes of the files, and the end of the lock where a killed run had changed shadow already."""
    found = {kind: dict(rows) for kind, rows in edits(tables, moves).items()}
    for move in moves:
        row = tables["shadow"]["rows"].get(move["new"])
        if row and row[7] != move["expire"] and move["old"] not in tables["shadow"]["rows"]:
            found.setdefault("shadow", {})[move["new"]] = [*row[:7], move["expire"], *row[8:]]
    return found


def _move_files(move: dict[str, Any], root: str) -> None:
    plasma_users_homes.release(move["home"], move["uid"], root=root)
    if move["moved"] != move["home"]:
        _move_home(move, root)
    for old, new in (map(lambda path: at(path, root), pair) for pair in _belongings(move["old"], move["new"])):
        if os.path.lexists(old) and not os.path.islink(old):
            if os.path.lexists(new):
                raise CommandExecutionError(f"{new} exists beside {old}: move one of them away")
            os.rename(old, new)
    _move_subordinate_ids(move["old"], move["new"], root)


def _move_home(move: dict[str, Any], root: str) -> None:
    """Rename a home, along directories that nobody but root can change; one that has moved already stays."""
    if not _is_home(plasma_users_observe.status(move["home"], root=root), move["uid"]):
        return
    if plasma_users_observe.status(move["moved"], root=root) is not None:
        raise CommandExecutionError(f"{move['moved']} exists beside {move['home']}: move one of them away")
    os.rename(at(move["home"], root), at(move["moved"], root))


def _belongings(old: str, new: str) -> Iterator[tuple[str, str]]:
    """Paths of what has the name of its owner, before and after."""
    for directory in plasma_users_observe.BELONGINGS:
        yield f"{directory}/{old}", f"{directory}/{new}"


def _move_subordinate_ids(old: str, new: str, root: str) -> None:
    """Ranges of user namespaces. usermod(8) knows those of accounts that there are, and one of the two is none."""
    for kind in ("subuid", "subgid"):
        path = pathlib.Path(root, "etc", kind)
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines(True) if path.exists() else []
        changed = [new + line.removeprefix(old) if line.startswith(f"{old}:") else line for line in lines]
        if changed != lines:
            plasma_files.write(path, "".join(changed), 0o644)
