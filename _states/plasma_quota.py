"""Disk quotas: on, with the limits of pillar, or off again."""

from __future__ import annotations

from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_quota_fstab
import plasma_quota_limits
import plasma_quota_setup

MANY = 50  # changes that are shown one by one


def enabled(name: str, home_path: str = "/home", device: str | None = None) -> dict[str, Any]:
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
        changes = plasma_quota_setup.compare(home_path, device=device)
        if not changes:
            return ret
        if __opts__["test"]:
            comment = f"Quotas would be switched on where {home_path} is."
            return {**ret, "result": None, "changes": changes, "comment": comment}
        done = plasma_quota_setup.enable(home_path, device=device)
    except (CommandExecutionError, SaltInvocationError) as exc:
        return {**ret, "result": False, "comment": str(exc)}
    comment = done["reboot"] or f"Quotas were switched on where {home_path} is."
    return {**ret, "result": not done["reboot"], "changes": done["changes"], "comment": comment}


def limits(
    name: str,
    home_path: str = "/home",
    assigned: list[dict[str, Any]] | None = None,
    groups: list[dict[str, Any]] | None = None,
    default: dict[str, int] | None = None,
    unmanaged: bool = False,
    grace: dict[str, int | None] | None = None,
    device: str | None = None,
    members: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """
    Users and groups have these limits; others keep theirs, but for those that were set here before.

    name
        Any description.
    home_path, assigned, groups, default, unmanaged, grace, device, members
        See the function ``compare`` of ``_utils/plasma_quota_limits.py``.

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
    wanted: dict[str, Any] = {"default": default, "unmanaged": unmanaged, "grace": grace, "device": device}
    wanted.update(assigned=assigned or [], groups=groups or [], members=members or [])
    try:
        todo = plasma_quota_limits.compare(home_path, **wanted)
        if __opts__["test"]:
            if todo["changes"]:
                comment = f"{_counted(todo['changes'])} would be set."
                ret.update(result=None, changes=_grouped(todo["changes"]), comment=comment)
            return ret
        if not todo["changes"] and not todo["notes"] and todo["on"]:
            return ret
        done = plasma_quota_limits.apply(home_path, **wanted)
    except (CommandExecutionError, SaltInvocationError) as exc:
        return {**ret, "result": False, "comment": str(exc)}
    if done["changes"]:
        ret.update(changes=_grouped(done["changes"]), comment=f"{_counted(done['changes'])} were set.")
    missing = done["missing"]
    if missing:
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        ret.update(result=False, comment=f"There is no account or group {names} here: apply the state users first.")
    return ret


def disabled(name: str) -> dict[str, Any]:
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
        points = sorted(plasma_quota_fstab.noted())
        if not points:
            return ret
        if __opts__["test"]:
            comment = f"Quotas of {', '.join(points)} would be switched off, and fstab put back."
            return {
                **ret,
                "result": None,
                "changes": {p: {"old": "on", "new": "off"} for p in points},
                "comment": comment,
            }
        done = plasma_quota_setup.disable()
    except (CommandExecutionError, SaltInvocationError) as exc:
        return {**ret, "result": False, "comment": str(exc)}
    comment = " ".join(["Quotas were switched off, and fstab put back.", *done["notes"]])
    return {**ret, "changes": done["changes"], "comment": comment}


def _counted(changes: dict[str, Any]) -> str:
    counts = {kind: sum(key.startswith(kind) for key in changes) for kind in ("user", "group")}
    words = [f"the limits of {count} {kind}{'s' * (count != 1)}" for kind, count in counts.items() if count]
    if len(changes) > sum(counts.values()):
        words.append("grace times")
    text = " and ".join(words)
    return text[:1].upper() + text[1:]


def _grouped(changes: dict[str, Any]) -> dict[str, Any]:
    """Those whose limits change in the same way stand together, when there are many: they would fill the screen."""
    if len(changes) <= MANY:
        return changes
    groups: dict[tuple[str, str], list[str]] = {}
    for key, change in changes.items():
        groups.setdefault((key.split()[0], str(change)), []).append(key)
    grouped = {}
    for (kind, _), keys in groups.items():
        if kind == "grace" or len(keys) <= 3:
            grouped.update({key: changes[key] for key in keys})
        else:
            first, second, last = (keys[index].partition(" ")[2] for index in (0, 1, -1))
            grouped[f"{len(keys)} {kind}s: {first}, {second} ... {last}"] = changes[keys[0]]
    return grouped
