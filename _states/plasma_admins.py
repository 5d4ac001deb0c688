"""The hub's administrators."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_admins"

UNMANAGED = (
    "Pillar names no administrators, so those that the hub has stay as they are: an empty list revokes nobody. To "
    "revoke somebody, name the others."
)
NO_HUB = "No hub is installed here yet: the state tljh names its administrators when it installs it."


def __virtual__():
    return __virtualname__


def managed(name, admins=None, prefix="/opt/tljh", timeout=120):
    """
    These people, and nobody else, administer the hub: in config.yaml, and in the database of the hub that runs. Servers
    go on; the hub is reloaded once at most.

    name
        Any description.

    admins
        List of all administrators. An empty one manages nothing: the last administrator cannot be revoked.

    prefix
        Where the hub is installed.

    timeout
        Seconds for the reload; see the execution function ``plasma_admins.apply``.

    .. code-block:: yaml

        admins:
          plasma_admins.managed:
            - admins: [ada, '20231234']
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": UNMANAGED}
    if admins in (None, []):
        return ret
    try:
        changes = __salt__["plasma_admins.compare"](admins, prefix=prefix)
        if changes is None:
            ret["comment"] = NO_HUB
            return ret
        others = __salt__["plasma_admins.without_account"](admins)
        listed = ", ".join(sorted(admins))
        if not changes:
            ret["comment"] = f"The hub is administered by {listed}.{_warning(others)}"
        elif __opts__["test"]:
            ret.update(result=None, changes=changes)
            ret["comment"] = f"The hub would be administered by {listed}.{_warning(others)}"
        else:
            done = __salt__["plasma_admins.apply"](admins, prefix=prefix, timeout=timeout)
            reloaded = f" The hub was reloaded in {done['seconds']:.1f} seconds." if done["reloaded"] else ""
            ret["changes"] = done["changes"]
            ret["comment"] = f"The hub is now administered by {listed}.{reloaded}{_warning(others)}"
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def _warning(others):
    if not others:
        return ""
    return f" No account of this server, so no login, yet: {', '.join(others)}."
