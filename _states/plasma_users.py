"""Accounts of people on the server."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

import plasma_hub_installed
import plasma_words

_IGNORED = (
    "The password in pillar was edited and is not set: {} (password_policy is on_create, which leaves people the one "
    "they have). With `password_policy: enforce` for these users, the next apply sets it."
)
_SHOWN = 50  # problems in one comment
# More accounts than that are told in one line each: salt-ssh reads some 70 kilobytes a second of what a server answers,
# and five thousand detailed changes are longer under way than all of the work takes.
_DETAILED = 100


def managed(name, users, groups=None, home_path="/home", password_policy="on_create", admins=None, prefix="/opt/tljh"):
    """
    These people have accounts as described, and those with ``absent`` have none. Others are left alone.

    name
        Any description.

    users
        List of entries as the completed pillar has them: ``name``, ``groups``, ``shell`` and, where set,
        ``password_hash``, ``password_policy``, ``uid``, ``fullname``, ``home``, ``absent`` and ``remove_home``.

    groups
        List of the groups that ``plasma_groups.managed`` keeps: in these, exactly the users who name them are members,
        as far as they stand in ``users``.

    home_path
        Where the homes of new accounts are made.

    password_policy
        ``on_create`` or ``enforce``.

    admins
        Administrators of the hub; empty, they stay as they are. The last one cannot be removed.

    prefix
        Where the hub is installed.

    Everything that is refused is said before anything is changed. Changes are ``{user: {"old", "new"}}``, with ``set``
    or ``changed`` in the place of a password; of more than a hundred users ``{"created": {"old": None, "new": {user:
    uid}}, "changed": {"old": None, "new": {user: what}}, "removed": {"old": {user: uid}, "new": None}}``.

    .. code-block:: yaml

        users-managed:
          plasma_users.managed:
            - users:
                - {name: anna, groups: [biology], shell: /bin/bash}
                - {name: ben, absent: true}
            - groups: [{name: biology}]
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    arguments = (users, groups or [], home_path, password_policy, admins or [], prefix)
    try:
        # Whoever leaves would go on at a hub that is not asked.
        if misplaced := plasma_hub_installed.misplaced(prefix):
            raise CommandExecutionError(misplaced)
        if __opts__["test"]:
            found = __salt__["plasma_users.compare"](*arguments)
            if found["problems"]:
                raise CommandExecutionError("\n".join(found["problems"]))
        else:
            found = __salt__["plasma_users.apply"](*arguments)
    except CommandExecutionError as exc:
        ret.update(result=False, comment=_shortened(str(exc)))
        return ret
    ret["changes"] = found["changes"] if len(found["changes"]) <= _DETAILED else _briefly(found["changes"])
    ret["comment"] = _comment(found["counts"], bool(found["changes"]), __opts__["test"])
    if found["changes"] and __opts__["test"]:
        ret["result"] = None
    directories = {path.rpartition("/")[0] for path in found.get("archives", {}).values() if path}
    if directories:
        ret["comment"] += f" What they had is kept in {', '.join(sorted(directories))}."
    if found.get("pending"):
        ret["comment"] += (
            f" Locked since a removal was begun: {', '.join(found['pending'])}. Name them in pillar, with "
            "`absent: true` to go on, without it to unlock them."
        )
    if ignored := found.get("ignored"):
        ret["warnings"] = [_IGNORED.format(plasma_words.some(ignored))]
    if found.get("error"):
        ret.update(result=False, comment=f"{found['error']} {ret['comment']}" if found["changes"] else found["error"])
    return ret


def _briefly(changes):
    created = {name: change["new"]["uid"] for name, change in changes.items() if change["old"] is None}
    removed = {name: change["old"]["uid"] for name, change in changes.items() if change["new"] is None}
    told = {**created, **removed}
    others = {name: ", ".join(change["new"]) for name, change in changes.items() if name not in told}
    brief = {
        "created": {"old": None, "new": created},
        "changed": {"old": None, "new": others},
        "removed": {"old": removed, "new": None},
    }
    return {key: change for key, change in brief.items() if change["old"] or change["new"]}


def _shortened(text):
    lines = text.splitlines()
    if len(lines) <= _SHOWN:
        return text
    return "\n".join([*lines[:_SHOWN], f"and {len(lines) - _SHOWN:,} more"])


def _comment(counts, changed, test):
    left = {0: "", 1: " 1 other account was left alone."}.get(
        counts["unmanaged"], f" {counts['unmanaged']:,} other accounts were left alone."
    )
    if not changed and counts["named"] == 1:
        return f"The account is as wanted.{left}"
    if not changed:
        return f"All {counts['named']:,} accounts are as wanted.{left}" if counts["named"] else f"Nothing to do.{left}"
    verb = "would be " if test else ""
    parts = [f"{counts[key]:,} {verb}{key}" for key in ("created", "changed", "removed") if counts[key]]
    return f"{', '.join(parts)}.{left}"
