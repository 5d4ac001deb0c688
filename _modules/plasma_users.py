"""
Accounts of people, by the thousand: compare all of them in memory, act on the differences in one change of the files.

The parts: ``plasma_users_files`` and ``plasma_users_seen`` read, ``plasma_users_plan`` and ``plasma_users_leavers``
decide (pure), ``plasma_users_edit`` changes the account files, ``plasma_users_homes``, ``plasma_users_mounts``,
``plasma_users_processes`` and ``plasma_users_removal`` do the rest.
Accounts that pillar does not name are left alone. Passwords arrive as hashes, and neither those nor anything made from
them is in what functions here return.
"""

from __future__ import annotations

import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_users"

_POLICIES = ("on_create", "enforce")


def __virtual__():
    return __virtualname__


def problems(users, groups=(), home_path="/home", password_policy="on_create", admins=(), prefix="/opt/tljh", root="/"):
    """
    Return everything that keeps ``apply`` from doing its work, one sentence each; nothing is changed.

    The arguments are those of ``compare``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users.problems '[{name: games}]'
    """
    return compare(users, groups, home_path, password_policy, admins, prefix, root)["problems"]


def compare(users, groups=(), home_path="/home", password_policy="on_create", admins=(), prefix="/opt/tljh", root="/"):
    """
    Return what ``apply`` would change, and change nothing.

    users, groups
        Lists of entries as the completed pillar has them. Groups that are not there yet are taken as made: the state
        ``plasma_groups.managed`` comes first.

    home_path
        Where the homes of new accounts are made.

    password_policy
        ``on_create`` sets a password where nobody has ever set one; ``enforce`` always keeps the one of pillar. A
        user's own ``password_policy`` goes first.

    admins
        Administrators of the hub; empty, they stay those of its config.yaml. When one leaves, another one must have an
        account.

    prefix
        Where the hub is installed.

    root
        Another directory than ``/`` holds the server: for tests.

    Returns ``{"problems": [str], "changes": {name: {"old", "new"}}, "counts": {"named", "created", "changed",
    "removed", "unmanaged"}, "pending": [names of people whose removal was begun, and whom pillar no longer names]}``.
    Raises CommandExecutionError when the notes of earlier runs are damaged or something cannot be read.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users.compare '[{name: anna, groups: [biology]}]' groups='[{name: biology}]'
    """
    try:
        current, _ = _observed(users, home_path, root)
        planned = _plan(current, users, groups, home_path, password_policy)
        leaving = _leaving(current, users, admins, prefix, root)
        stale = _stale(current, users, prefix)
    except OSError as exc:
        raise CommandExecutionError(f"{__salt__['plasma_users_edit.said'](exc)}.") from exc
    found = planned["problems"] + leaving["problems"] + stale["problems"]
    changes = {} if found else _with_hub({**planned["changes"], **leaving["changes"]}, stale)
    return {
        "problems": found,
        "changes": changes,
        "counts": _counts(current, users, changes),
        "pending": _pending(current["memory"], current, users),
    }


def apply(users, groups=(), home_path="/home", password_policy="on_create", admins=(), prefix="/opt/tljh", root="/"):
    """
    Make, change and remove accounts.

    The arguments are those of ``compare``.

    Returns ``{"changes", "counts", "pending"}`` as ``compare`` does, with ``"archives": {name: path | None}`` of the
    removed ones and ``"error": None``, or what went wrong; ``changes`` are those made all the same. Raises
    CommandExecutionError with all the problems, one a line, before anything is changed, and when another program keeps
    the account files for itself.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users.apply '[{name: anna, absent: true}]'
    """
    done = {"changes": {}, "archives": {}, "errors": []}
    arguments = (users, groups, home_path, password_policy, admins, prefix, root)
    handle = None
    try:
        handle = __salt__["plasma_users_edit.lock"](root=root)
        _apply(done, *arguments)
    except OSError as exc:  # a disk that is full, or can only be read
        done["errors"].append(f"{__salt__['plasma_users_edit.said'](exc)}.")
    finally:
        if handle:
            handle.close()
    current = done.pop("current", None)
    found = {"changes": done["changes"], "archives": done["archives"], "error": " ".join(done["errors"]) or None}
    if not current:
        raise CommandExecutionError(found["error"])
    return {**found, "counts": _counts(current, users, found["changes"]), "pending": done.get("pending", [])}


def _apply(done, users, groups, home_path, password_policy, admins, prefix, root):
    """Do the work, and note in ``done`` what is done, step by step."""
    current, begun = _observed(users, home_path, root)
    leaving = _leaving(current, users, admins, prefix, root)
    first = _plan(current, users, groups, home_path, password_policy)
    stale = _stale(current, users, prefix)
    _refuse(first["problems"] + leaving["problems"] + stale["problems"])
    memory, state = current["memory"], {"planned": first}
    done["current"] = current

    # What a killed run left, before anybody new gets the names.
    if begun:
        __salt__["plasma_users_removal.drop"](begun, root=root)
        _removed(done, leaving, __salt__["plasma_users_removal.finish"](begun, root=root))
        memory = __salt__["plasma_users_edit.recall"](root=root)
    if memory["making"]:
        unfinished = {path for name, path in current["seen"]["paths"].items() if name in memory["making"]}
        __salt__["plasma_users_homes.clear"](unfinished - {""}, root=root)
    _forget(done, stale, prefix)

    if first["edits"] or first["homes"]:
        noted = _noted(memory, first, users, current, stale, making={**memory["making"], **first["making"]})
        # Memberships that are about to go stay noted until they are gone.
        noted["given"] = _union(memory["given"], noted["given"])
        _remember(memory, noted, root)
        memory = noted

        def look(tables=None):
            seen = __salt__["plasma_users_seen.observe"](
                users, home_path=home_path, root=root, tables=tables, memory=memory
            )
            return _plan(seen, users, groups, home_path, password_policy)

        def edits(tables):
            state["planned"] = planned = look(tables)
            _refuse(planned["problems"])
            if planned["edits"]:
                state["changes"] = planned["changes"]
                # Others may have taken ids meanwhile: what is written next is noted before.
                making = {**memory["making"], **planned["making"]}
                _remember(memory, {**memory, "making": making}, root)
                memory["making"] = making
            return planned["edits"]

        try:
            __salt__["plasma_users_edit.change"](edits, root=root)
        except OSError:
            wanted, left = state.get("changes", {}), look()["changes"]
            done["changes"].update({name: change for name, change in wanted.items() if name not in left})
            raise
        made = {**first["changes"], **state.get("changes", {})}
        done["changes"].update(_with_hub(made, {"new": stale["new"], "gone": []}))
        try:
            __salt__["plasma_users_homes.make"](state["planned"]["homes"], root=root)
        except (CommandExecutionError, OSError) as exc:
            done["errors"].append(f"{__salt__['plasma_users_edit.said'](exc)}.")
    noted = _noted(memory, state["planned"], users, current, stale, making={})
    for entry in users:  # a removal that pillar took back
        if not entry.get("absent"):
            noted["removing"].pop(entry["name"], None)
    _remember(memory, noted, root)
    done["pending"] = _pending(noted, current, users)

    # Whatever was the matter with the homes of others: who is to leave leaves.
    try:
        _removed(done, leaving, __salt__["plasma_users_removal.remove"](leaving["leavers"], prefix=prefix, root=root))
    except CommandExecutionError as exc:
        done["errors"].append(str(exc))


def _removed(done, leaving, found):
    done["archives"].update(found["archives"])
    gone = {name: change for name, change in leaving["changes"].items() if name in found["archives"]}
    done["changes"].update(gone)
    failed = [f"user {name}: {sentence}." for name, sentence in sorted(found["failed"].items())]
    more = [f"{len(failed) - 10:,} more could not be removed."] if len(failed) > 10 else []
    done["errors"].extend([*failed[:10], *more])


def _stale(current, users, prefix):
    """
    Whom the hub still knows though there is no account: one that was deleted by hand. The next of that name would get
    the rights, tokens and servers. The hub is asked for people who get an account, and once for people who are to be
    absent; then it is noted that it knows them no more. Somebody who was never there leaves nothing: such are the
    administrators that pillar has just named.
    """
    passwd, memory = current["passwd"]["rows"], current["memory"]
    names = {True: [], False: []}
    for entry in users:
        if entry["name"] not in passwd:
            names[bool(entry.get("absent"))].append(entry["name"])
    new = names[False]
    gone = [name for name in names[True] if name not in memory["forgotten"] and name not in memory["removing"]]
    found = {"new": [], "gone": [], "asked": [], "problems": [], "error": None}
    if not (new or gone):
        return found
    try:
        answer = __salt__["plasma_hub_api.users"](prefix=prefix)
        known = {name.lower() for name in answer}
        heirs = {name.lower() for name, person in answer.items() if person["seen"] or person["servers"]}
    except CommandExecutionError as exc:
        more = f" and {len(new) - 3:,} more" if len(new) > 3 else ""
        said = f"somebody who had the name before may be known to the hub, which cannot be asked. {exc}"
        return {
            **found,
            "problems": [f"user {', '.join(map(str, new[:3]))}{more}: {said}"] if new else [],
            "error": str(exc),
        }
    # The hub knows people in lower case; of two accounts that differ in nothing else, it knows one.
    here = {name.lower() for name in passwd}
    return {
        **found,
        "new": [name for name in new if str(name).lower() in heirs - here],
        "gone": [name for name in gone if name.lower() in known - here],
        "asked": gone,
    }


def _forget(done, stale, prefix):
    names = sorted({name.lower() for name in [*stale["new"], *stale["gone"]]})
    if stale["error"]:
        done["errors"].append(stale["error"])
    if not names:
        return
    try:
        __salt__["plasma_hub_api.forget"](names, prefix=prefix, timeout=60)
    except CommandExecutionError as exc:
        if stale["new"]:
            raise
        done["errors"].append(str(exc))
        stale.update(gone=[], asked=[])
    done["changes"].update(_with_hub({}, {"new": [], "gone": stale["gone"]}))


def _with_hub(changes, stale):
    """The changes with what the hub is to forget."""
    found = dict(changes)
    for name in stale["new"]:
        found[name] = {**found[name], "new": {**found[name]["new"], "hub": "forgotten"}}
    for name in stale["gone"]:
        found[name] = {"old": {"hub": "known"}, "new": {"hub": "forgotten"}}
    return found


def _pending(memory, current, users):
    """Whose removal was begun, so that they are locked, and whom pillar names no more."""
    named = {entry["name"] for entry in users}
    return sorted(name for name in memory["removing"] if name not in named and name in current["passwd"]["rows"])


def _observed(users, home_path, root):
    """What is there, and the names of people whose removal was killed when their accounts were gone already.

    Whatever the files still have of those is taken as gone: that comes first.
    """
    current = __salt__["plasma_users_seen.observe"](users, home_path=home_path, root=root)
    begun = [name for name in current["memory"]["removing"] if name not in current["passwd"]["rows"]]
    if begun:
        edited = __salt__["plasma_users_files.edited"]
        edits = __salt__["plasma_users_leavers.edits"](current, begun)
        current.update({kind: edited(current[kind], entries) for kind, entries in edits.items()})
    return current, begun


def _refuse(found):
    if found:
        raise CommandExecutionError("\n".join(found))


def _plan(current, users, groups, home_path, password_policy):
    if password_policy not in _POLICIES:
        raise CommandExecutionError(f"password_policy must be {' or '.join(_POLICIES)}, not {password_policy!r}.")
    present = [group for group in groups if not group.get("absent")]
    made = __salt__["plasma_groups.plan"](current, present)["edits"]
    edited = __salt__["plasma_users_files.edited"]
    with_groups = {**current, **{kind: edited(current[kind], entries) for kind, entries in made.items()}}
    today = int(time.time()) // 86400
    return __salt__["plasma_users_plan.plan"](with_groups, users, groups, home_path, password_policy, today)


def _leaving(current, users, admins, prefix, root):
    known = {entry["name"] for entry in users if entry.get("absent")} & set(current["passwd"]["rows"])
    protected = __salt__["plasma_users_removal.protected"](root=root) if known else {}
    now = _admins_now(prefix) if known else ()
    return __salt__["plasma_users_leavers.plan"](current, users, protected=protected, admins=admins, admins_now=now)


def _admins_now(prefix):
    """Who administers the hub: by config.yaml, which its next start reads, and by its database, which decides now."""
    names = {str(name) for name in __salt__["tljh_config.get"]("users.admin", prefix=prefix) or ()}
    try:
        names.update(__salt__["plasma_hub_api.administrators"](prefix=prefix) or ())
    except CommandExecutionError:
        pass  # it does not answer; where somebody leaves, that is told when it is to forget them
    return sorted(names)


def _noted(memory, planned, users, current, stale, making):
    """The notes after a run. Memberships of people whom pillar no longer names stay while they have an account."""
    named = {entry["name"] for entry in users}
    others = {
        name: given
        for name, given in memory["given"].items()
        if name not in named and name in current["passwd"]["rows"]
    }
    absent = {entry["name"] for entry in users if entry.get("absent")}
    return {
        **memory,
        "given": {**others, **planned["given"]},
        "making": making,
        "removing": dict(memory["removing"]),
        "forgotten": {name: True for name in sorted({*memory["forgotten"], *stale["asked"]} & absent)},
    }


def _union(one, other):
    return {name: sorted({*one.get(name, ()), *other.get(name, ())}) for name in {*one, *other}}


def _remember(memory, noted, root):
    if noted != memory:
        __salt__["plasma_users_edit.remember"](noted, root=root)


def _counts(current, users, changes):
    passwd, defs = current["passwd"]["rows"], current["defs"]
    named = {entry["name"] for entry in users}
    created = [name for name, change in changes.items() if change["old"] is None]
    removed = [name for name, change in changes.items() if change["new"] is None]
    unmanaged = [
        name
        for name, row in passwd.items()
        if name not in named
        and len(row) == 7
        and row[2].isascii()
        and row[2].isdigit()
        and defs["UID_MIN"] <= int(row[2]) <= defs["UID_MAX"]
    ]
    return {
        "named": sum(not entry.get("absent") for entry in users),
        "created": len(created),
        "changed": len(changes) - len(created) - len(removed),
        "removed": len(removed),
        "unmanaged": len(unmanaged),
    }


def archives(directory="/home"):
    """
    Return what is kept of removed people, ``[{"name", "uid", "path"}]``.

    directory
        Where their homes were.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users.archives
    """
    return __salt__["plasma_users_seen.archives"](directory)
