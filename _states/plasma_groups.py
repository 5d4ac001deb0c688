"""Groups of people on the server."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_groups"


def __virtual__():
    return __virtualname__


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
