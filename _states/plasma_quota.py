"""Disk quotas: on, with the limits of pillar, or off again."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_quota"

MANY = 50  # changes that are shown one by one


def __virtual__():
    return __virtualname__


def enabled(name, home_path="/home", device=None):
    """
    Quotas of users and groups are on where the homes are, and will be after a reboot.

    name
        Any description.
    home_path
        Where the homes are, or will be.
    device
        The device that is expected to hold them; see the execution function ``plasma_quota.discover``.

    Where only a reboot helps, the result is False and says so: everything is prepared then.

    .. code-block:: yaml

        quotas-enabled:
          plasma_quota.enabled:
            - home_path: /home
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": f"Quotas are on where {home_path} is."}
    try:
        changes = __salt__["plasma_quota.compare"](home_path, device=device)
        if not changes:
            return ret
        if __opts__["test"]:
            ret.update(result=None, changes=changes, comment=f"Quotas would be switched on where {home_path} is.")
            return ret
        done = __salt__["plasma_quota.enable"](home_path, device=device)
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, comment=str(exc))
        return ret
    ret["changes"] = done["changes"]
    if done["reboot"]:
        ret.update(result=False, comment=done["reboot"])
    else:
        ret["comment"] = f"Quotas were switched on where {home_path} is."
    return ret


def limits(name, home_path="/home", assigned=None, groups=None, default=None, unmanaged=False, grace=None, device=None):
    """
    Users and groups have these limits; others keep theirs, but for those that were set here before.

    name
        Any description.
    home_path, assigned, groups, default, unmanaged, grace, device
        See the execution function ``plasma_quota_limits.compare``.

    Accounts that do not exist are predicted by a dry run; otherwise they are the reason for the result False, after the
    limits of all others were set.

    .. code-block:: yaml

        quotas-limits:
          plasma_quota.limits:
            - assigned:
                - limits: {soft: 10737418240, hard: 12884901888}
                  users: [ada, grace]
            - grace: {block: 604800, inode: null}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The limits are set."}
    wanted = {
        "assigned": assigned or [],
        "groups": groups or [],
        "default": default,
        "unmanaged": unmanaged,
        "grace": grace,
        "device": device,
    }
    try:
        todo = __salt__["plasma_quota_limits.compare"](home_path, **wanted)
        if __opts__["test"]:
            if todo["changes"]:
                comment = f"{_counted(todo['changes'])} would be set."
                ret.update(result=None, changes=_grouped(todo["changes"]), comment=comment)
            return ret
        if not todo["changes"] and not todo["notes"] and todo["on"]:
            return ret
        done = __salt__["plasma_quota_limits.apply"](home_path, **wanted)
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, comment=str(exc))
        return ret
    ret["changes"] = _grouped(done["changes"])
    if done["changes"]:
        ret["comment"] = f"{_counted(done['changes'])} were set."
    if done["missing"]:
        names = ", ".join(done["missing"][:5]) + (
            f" and {len(done['missing']) - 5} more" if len(done["missing"]) > 5 else ""
        )
        ret.update(result=False, comment=f"There is no account or group {names} here: apply the state users first.")
    return ret


def disabled(name):
    """
    Quotas that were switched on here are off, and fstab is as it was before. Limits stay in the tables.

    name
        Any description.

    .. code-block:: yaml

        quotas-disabled:
          plasma_quota.disabled: []
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "No quotas were switched on here."}
    try:
        noted = __salt__["plasma_quota_edit.noted"]()
        if not noted:
            return ret
        if __opts__["test"]:
            ret["result"] = None
            ret["changes"] = {point: {"old": "on", "new": "off"} for point in noted}
            ret["comment"] = f"Quotas of {', '.join(sorted(noted))} would be switched off, and fstab put back."
            return ret
        done = __salt__["plasma_quota.disable"]()
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, comment=str(exc))
        return ret
    ret["changes"] = done["changes"]
    ret["comment"] = " ".join(["Quotas were switched off, and fstab put back.", *done["notes"]])
    return ret


def _counted(changes):
    counts = {sort: sum(key.startswith(sort) for key in changes) for sort in ("user", "group")}
    words = [f"the limits of {count} {sort}{'s' * (count != 1)}" for sort, count in counts.items() if count]
    if len(changes) > sum(counts.values()):
        words.append("grace times")
    text = " and ".join(words)
    return text[:1].upper() + text[1:]


def _grouped(changes):
    """Whose limits change in the same way stand together, when there are many: they would fill the screen."""
    if len(changes) <= MANY:
        return changes
    groups = {}
    for key, change in changes.items():
        groups.setdefault((key.split()[0], str(change)), []).append((key, change))
    found = {}
    for (sort, _), members in groups.items():
        names = [key for key, _ in members]
        if sort == "grace" or len(names) <= 3:
            found.update(members)
        else:
            names = [key.partition(" ")[2] for key in names]
            found[f"{len(names)} {sort}s: {names[0]}, {names[1]} ... {names[-1]}"] = members[0][1]
    return found
