"""
Accounts of people, by the thousand: compare all of them in memory, act on the differences in one change of the files.

The parts: ``plasma_users_files`` and ``plasma_users_seen`` read, ``plasma_users_plan`` and ``plasma_users_leavers``
decide (pure), ``plasma_users_edit`` changes the account files, ``plasma_users_homes`` and ``plasma_users_removal`` do
the rest.
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
    "removed", "unmanaged"}}``. Raises CommandExecutionError when the notes of earlier runs are damaged.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users.compare '[{name: anna, groups: [biology]}]' groups='[{name: biology}]'
    """
    current, _ = _observed(users, home_path, root)
    planned = _plan(current, users, groups, home_path, password_policy)
    leaving = _leaving(current, users, admins, prefix, root)
    found = planned["problems"] + leaving["problems"]
    changes = {} if found else {**planned["changes"], **leaving["changes"]}
    return {"problems": found, "changes": changes, "counts": _counts(current, users, changes)}


def apply(users, groups=(), home_path="/home", password_policy="on_create", admins=(), prefix="/opt/tljh", root="/"):
    """
    Make, change and remove accounts.

    The arguments are those of ``compare``.

    Returns ``{"changes", "counts"}`` as ``compare`` does, with ``"archives": {name: path | None}`` of the removed ones
    and ``"error": None``, or the sentence that says why the work ended early; ``changes`` are those made by then.
    Raises CommandExecutionError with all the problems, one a line, before anything is changed, and when another program
    keeps the account files for itself.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users.apply '[{name: anna, absent: true}]'
    """
    handle = __salt__["plasma_users_edit.lock"](root=root)
    try:
        return _apply(users, groups, home_path, password_policy, admins, prefix, root)
    finally:
        handle.close()


def _apply(users, groups, home_path, password_policy, admins, prefix, root):
    current, begun = _observed(users, home_path, root)
    leaving = _leaving(current, users, admins, prefix, root)
    first = _plan(current, users, groups, home_path, password_policy)
    _refuse(first["problems"] + leaving["problems"])
    memory, changes, state, error = current["memory"], first["changes"], {"planned": first}, None

    # What a killed run left, before anybody new gets the names.
    archives = {}
    if begun:
        __salt__["plasma_users_removal.drop"](begun, root=root)
        archives = __salt__["plasma_users_removal.finish"](begun, root=root)
        memory = __salt__["plasma_users_edit.recall"](root=root)
    if memory["making"]:
        rows = current["passwd"]["rows"]
        unfinished = {rows[name][5] for name in memory["making"] if name in rows}
        __salt__["plasma_users_homes.clear"](unfinished, root=root)

    if first["edits"] or first["homes"]:
        noted = _noted(memory, first, users, current, making={**memory["making"], **first["making"]})
        # Memberships that are about to go stay noted until they are gone.
        noted["given"] = _union(memory["given"], noted["given"])
        _remember(memory, noted, root)
        memory = noted

        def edits(tables):
            seen = __salt__["plasma_users_seen.observe"](
                users, home_path=home_path, root=root, tables=tables, memory=memory
            )
            state["planned"] = planned = _plan(seen, users, groups, home_path, password_policy)
            _refuse(planned["problems"])
            if planned["edits"]:
                changes.update(planned["changes"])
                # Others may have taken ids meanwhile: what is written next is noted before.
                making = {**memory["making"], **planned["making"]}
                _remember(memory, {**memory, "making": making}, root)
                memory["making"] = making
            return planned["edits"]

        __salt__["plasma_users_edit.change"](edits, root=root)
        try:
            __salt__["plasma_users_homes.make"](state["planned"]["homes"], root=root)
        except CommandExecutionError as exc:
            error = str(exc)
    done = _noted(memory, state["planned"], users, current, making={})
    for entry in users:  # a removal that pillar took back
        if not entry.get("absent"):
            done["removing"].pop(entry["name"], None)
    _remember(memory, done, root)

    if not error:
        try:
            archives.update(__salt__["plasma_users_removal.remove"](leaving["leavers"], prefix=prefix, root=root))
        except CommandExecutionError as exc:
            error = str(exc)
    changes = {**changes, **{name: change for name, change in leaving["changes"].items() if name in archives}}
    return {"changes": changes, "counts": _counts(current, users, changes), "archives": archives, "error": error}


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
    now = (__salt__["tljh_config.get"]("users.admin", prefix=prefix) or ()) if known else ()
    return __salt__["plasma_users_leavers.plan"](current, users, protected=protected, admins=admins, admins_now=now)


def _noted(memory, planned, users, current, making):
    """The notes after a run. Memberships of people whom pillar no longer names stay while they have an account."""
    named = {entry["name"] for entry in users}
    others = {
        name: given
        for name, given in memory["given"].items()
        if name not in named and name in current["passwd"]["rows"]
    }
    return {**memory, "given": {**others, **planned["given"]}, "making": making, "removing": dict(memory["removing"])}


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
