"""Groups of people on the server."""

from __future__ import annotations

import shlex

from salt.exceptions import CommandExecutionError


def managed(name, groups, leaving=None):
    """
    These groups are there, with these ids, and those with ``absent`` are not. Others are left alone.

    name
        Any description.

    groups
        List of ``{name, gid, absent}``; gid and absent may be missing. A group that is somebody's primary group is not
        removed, and the id of a group is not changed. Everything that is refused is said before anything is changed.

    leaving
        Names of people whom ``plasma_users.managed`` removes after this: a group that is absent and the primary group
        of such people alone goes with the next apply.

    .. code-block:: yaml

        groups-managed:
          plasma_groups.managed:
            - groups:
                - {name: biology, gid: 2000}
                - {name: physics, absent: true}
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The groups are as wanted."}
    try:
        if __opts__["test"]:
            found = __salt__["plasma_groups.compare"](groups, leaving or [])
            if found["problems"]:
                raise CommandExecutionError("\n".join(found["problems"]))
            ret["changes"] = found["changes"]
        else:
            ret["changes"] = __salt__["plasma_groups.apply"](groups, leaving or [])
    except CommandExecutionError as exc:
        ret.update(result=False, changes={}, comment=str(exc))
        return ret
    if ret["changes"]:
        created = sum(change["old"] is None for change in ret["changes"].values())
        verb = "would be " if __opts__["test"] else ""
        parts = ((created, "made"), (len(ret["changes"]) - created, "removed"))
        ret["comment"] = ", ".join(f"{count:,} {verb}{what}" for count, what in parts if count) + "."
        ret["result"] = None if __opts__["test"] else True
    return ret


def known(name, groups, joining=False):
    """
    This server knows these groups, of a directory or another source of accounts. Nothing is changed.

    name
        Any description.

    groups
        List of names, as the source has them.

    joining
        Whether the server is joined to a directory by the same run: a dry run then says nothing of groups that it does
        not know yet.

    .. code-block:: yaml

        groups-known:
          plasma_groups.known:
            - groups: [students of maths]
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "All groups of other sources are known here."}
    missing = __salt__["plasma_groups.unknown"](groups)
    if not missing:
        return ret
    first, more = missing[0], f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
    if joining and __opts__["test"]:
        ret["comment"] = f"The group {first}{more} is not known yet; it is looked up when the directory is joined."
        return ret
    ret.update(
        result=False,
        comment=f"The group {first!r}{more} of pillar is not known to this server: declare it in plasma.groups, or "
        f"write it as its directory does (`getent group {shlex.quote(first)}` on the server has to show it).",
    )
    return ret
