"""Cockpit behind the hub."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_cockpit_socket

_ERRORS = (CommandExecutionError, SaltInvocationError)


def allowed(name, prefix="/opt/tljh"):
    """
    HTTPS is on. Changes nothing: what follows requires this.

    A dry run in which the state https is still to come cannot tell, and says so.

    name
        Any description.

    prefix
        Where the hub is installed.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The hub speaks HTTPS."}
    try:
        refusal = __salt__["plasma_cockpit.refusal"](prefix=prefix)
    except _ERRORS as exc:
        refusal = str(exc)
    if refusal and __opts__["test"] and _https_is_applied_too():
        ret["comment"] = "HTTPS is not on yet: this needs the state https to succeed."
    elif refusal:
        ret.update(result=False, comment=refusal)
    return ret


def prepared(name, packages, prefix="/opt/tljh"):
    """
    Cockpit's configuration is Plasma's, and its socket is not a port, from the moment it is installed.

    name
        Any description.

    packages
        Names of the packages that are installed for it.

    prefix
        Where the hub is installed.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The configuration is in place."}
    try:
        changes = __salt__["plasma_cockpit.compare"](prefix=prefix)
        paths = ", ".join(sorted(changes))
        if changes and __opts__["test"]:
            ret.update(result=None, changes=changes, comment=f"{paths} would be written.")
        elif changes:
            changes = __salt__["plasma_cockpit.prepare"](packages, prefix=prefix)
            ret.update(changes=changes, comment=f"{paths} written.")
    except (*_ERRORS, OSError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def listening(name):
    """
    Cockpit listens on its Unix socket, now and after reboots.

    name
        Any description.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "Cockpit listens for the hub."}
    try:
        now = plasma_cockpit_socket.listening()
        if now is None and __opts__["test"]:
            ret["comment"] = "Cockpit's package makes it listen."
            return ret
        now = now or {"socket": False, "enabled": False}
        changes = {key: {"old": value, "new": True} for key, value in now.items() if not value}
        if changes and __opts__["test"]:
            ret.update(result=None, changes=changes, comment="Cockpit would listen for the hub.")
        elif changes:
            plasma_cockpit_socket.listen()
            ret.update(changes=changes, comment="Cockpit now listens for the hub.")
    except _ERRORS as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def disabled(name, prefix="/opt/tljh", timeout=120):
    """
    Nothing of the state cockpit is left, and what was here before it is back.

    name
        Any description.

    prefix
        Where the hub is installed.

    timeout
        Seconds for the reload of the hub.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "Cockpit is not offered by the hub."}
    try:
        changes = __salt__["plasma_cockpit.compare_disabled"](prefix=prefix)
        if not changes:
            return ret
        kept = __salt__["plasma_cockpit.kept_packages"]()
        stay = f" {', '.join(kept['kept'])} stay for {', '.join(kept['for'])}." if kept["kept"] else ""
        if __opts__["test"]:
            ret.update(result=None, changes=changes, comment=f"Cockpit would be taken away.{stay}")
        else:
            changes = __salt__["plasma_cockpit.disable"](prefix=prefix, timeout=timeout)
            ret.update(changes=changes, comment=f"Cockpit was taken away.{stay}")
    except (*_ERRORS, OSError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def _https_is_applied_too():
    """Whether a state of the folder https is part of this run (Salt gives all of them to every state)."""
    return any(str(low.get("__sls__", "")).split(".")[0] == "https" for low in __lowstate__)
