"""Settings of the hub in config.yaml, and a hub that answers."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError, SaltInvocationError

import tljh_settings

_CLOSED = "plasma.network."
_CLOSED_WORDS = (
    "User servers and builds no longer reach private addresses but those that plasma.network names: databases and Git "
    "servers of your own network have to be there."
)


def managed(name, settings, unset=None, prefix="/opt/tljh", reload="auto", timeout=120):
    """
    Keys of config.yaml have these values, and the running hub was reloaded with them.

    name
        Any description.

    settings
        Nested or dotted mapping of keys to values; keys that are not named are left alone. Lists and empty mappings
        are values that replace what is there.

    unset
        Dotted key, or list of them, that must not be set.

    prefix
        Where the hub is installed.

    reload
        ``auto``, ``hub``, ``proxy`` or ``none``; see the execution function ``tljh_config.apply``.

    timeout
        Seconds for the reload. When the hub does not come back in time, the previous file is restored and reloaded.

    .. code-block:: yaml

        hub-settings:
          tljh_config.managed:
            - settings:
                limits: {memory: 2G, cpu: 2}
                users.admin: [ada, '20231234']
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The settings are in place."}
    try:
        if reload not in ("auto", "hub", "proxy", "none"):  # also said by a dry run
            raise SaltInvocationError(f"reload must be auto, hub, proxy or none, not {reload!r}.")
        # In the dry run of an upgrade, the plugin that is installed judges settings of one that is to come.
        compare = tljh_settings.differing if __opts__["test"] and _plugin_to_come() else tljh_settings.compare
        changes = compare(settings, prefix=prefix, unset=unset or ())
        due = tljh_settings.due(prefix=prefix) if reload != "none" and not changes else None
        if due:
            # An earlier run was interrupted between the write and the reload, or files of the hub were lost.
            changes = {"reload": {"old": None, "new": due}}
        if not changes:
            return ret
        keys = f"Reload of the {due}" if due else ", ".join(sorted(changes))
        if __opts__["test"]:
            ret.update(result=None, changes=changes, comment=f"{keys} would be {'done' if due else 'changed'}.")
            ret["comment"] += _closing(changes)
            return ret
        done = tljh_settings.apply(settings, prefix=prefix, unset=unset or (), reload=reload, timeout=timeout)
        ret["changes"] = done["changes"] or changes
        ret["comment"] = f"{keys} {'was done' if due else 'changed'}."
        ret["comment"] += _closing(changes)
        if done["reloaded"]:
            ret["comment"] += f" The {done['reloaded']} was reloaded in {done['seconds']:.1f} seconds."
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def _plugin_to_come():
    """Whether a state of this dry run, before this one, would bring another plugin."""
    return any(key.startswith("plasma_hub_|-") and done["result"] is None for key, done in __running__.items())


def _closing(changes):
    """What to tell about a server that has been there: where it is new, so is all the rest."""
    new = [key for key, change in changes.items() if isinstance(change, dict) and change.get("old") is None]
    return f" {_CLOSED_WORDS}" if new and all(key.startswith(_CLOSED) for key in new) else ""


def ready(name, prefix="/opt/tljh", timeout=60):
    """
    The hub answers through the proxy. Changes nothing; waits for it.

    name
        Any description.

    prefix
        Where the hub is installed.

    timeout
        Seconds to wait at most. A hub that failed or crashes again and again is not waited for.

    .. code-block:: yaml

        hub-ready:
          tljh_config.ready:
            - timeout: 120
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    try:
        outcome = tljh_settings.ready(prefix=prefix, timeout=0 if __opts__["test"] else timeout)
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, comment=str(exc))
        return ret
    if outcome["ready"]:
        ret["comment"] = f"JupyterHub {outcome['version']} answers."
    elif __opts__["test"]:
        ret.update(result=None, comment=f"Would wait for the hub to answer: {outcome['problem']}.")
    else:
        ret.update(
            result=False, comment="\n".join([f"The hub is not ready: {outcome['problem']}.", *outcome["journal"]])
        )
    return ret
