"""The hub's administrators."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_hub_installed
import plasma_words

UNMANAGED = (
    "Pillar names no administrators, so those that the hub has stay as they are: an empty list revokes nobody. To "
    "revoke somebody, name the others."
)
_NO_ACCOUNT = (
    "Administrators of pillar who cannot log in, as this server has no account of that name: {}. Correct plasma.admins "
    "or make the account."
)
NO_HUB = "No hub is installed here yet: the state tljh names its administrators when it installs it."


def managed(name, admins=None, prefix="/opt/tljh", timeout=120, groups=None, coming=()):
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

    groups
        List of groups whose members administer the hub, too: the hub sees to that when they come. Administrators of the
        hub who are in one of these are left alone.

    coming
        Those of them whom an earlier state of this run gives an account: a dry run does not miss it.

    .. code-block:: yaml

        admins:
          plasma_admins.managed:
            - admins: [ada, '20231234']
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": UNMANAGED}
    admins, groups = admins or [], groups or []
    if not admins and not groups:
        return ret
    try:
        if misplaced := plasma_hub_installed.misplaced(prefix):
            raise CommandExecutionError(misplaced)
        changes = __salt__["plasma_admins.compare"](admins, prefix=prefix, groups=groups)
        if changes is None:
            ret["comment"] = NO_HUB
            return ret
        others = __salt__["plasma_admins.without_account"](admins)
        if others := [name for name in others if not (__opts__["test"] and name in coming)]:
            ret["warnings"] = [_NO_ACCOUNT.format(plasma_words.some(others))]
        listed = ", ".join([*sorted(admins), *(f"members of {group}" for group in sorted(groups))])
        if not changes:
            ret["comment"] = f"The hub is administered by {listed}."
        elif __opts__["test"]:
            ret.update(result=None, changes=changes)
            ret["comment"] = f"The hub would be administered by {listed}."
        else:
            done = __salt__["plasma_admins.apply"](admins, prefix=prefix, timeout=timeout, groups=groups)
            reloaded = f" The hub was reloaded in {done['seconds']:.1f} seconds." if done["reloaded"] else ""
            ret["changes"] = done["changes"]
            ret["comment"] = f"The hub is now administered by {listed}.{reloaded}"
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret
