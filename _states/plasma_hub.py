"""The hub, installed and at the wanted versions."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_hub_installed
import plasma_hub_installer


def installed(name, hub_provider, version="", source=None, http=None, timeout=1800):
    """
    The hub below this prefix is complete, at the locked packages and with the plugin of this tree.

    Where packages come from (``plasma:hub:sources``) is read from pillar: addresses of mirrors and proxies may hold a
    login, and what is an argument of a state is shown by Salt.

    name
        The hub's prefix.
    hub_provider, version, source, http, timeout
        See the execution function ``plasma_hub_installer.install``.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The hub is installed as wanted."}
    try:
        sources = ((__pillar__.get("plasma") or {}).get("hub") or {}).get("sources") or {}
        changes = plasma_hub_installed.compare(
            hub_provider,
            prefix=name,
            version=version,
            source=source,
            traefik=plasma_hub_installed.traefik_origin(sources),
        )
        if not changes:
            return ret
        if __opts__["test"]:
            ret["result"] = None
            ret["changes"] = changes
            ret["comment"] = f"The hub would be {_what(changes)}."
            return ret
        ret["changes"] = plasma_hub_installer.install(
            hub_provider, prefix=name, version=version, source=source, sources=sources, http=http, timeout=timeout
        )
        if ret["changes"]:
            ret["comment"] = f"The hub was {_what(ret['changes'])}."
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret["result"] = False
        ret["changes"] = {}
        ret["comment"] = str(exc)
        # Without this, Salt would call mod_watch after a failure too, and take its result instead.
        ret["skip_watch"] = True
    return ret


def _what(changes):
    if set(changes) == {"restart"}:
        return "restarted, as an interrupted run left it with what was installed before"
    if set(changes) == {"traefik"}:
        return "mended: Traefik, the program of its proxy, was gone, changed or from another place"
    return f"installed or upgraded: {', '.join(sorted(changes))}"


def mod_watch(name, **kwargs):
    """
    Called by Salt when the plugin's copied source changed and ``installed`` itself changed nothing.

    That is so in a dry run, where the copy still holds the old source: the hub would take the new one.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The hub is installed as wanted."}
    if __opts__["test"]:
        ret["result"] = None
        ret["changes"] = {"plugin": {"old": "installed", "new": "changed source"}}
        ret["comment"] = "The plugin would be reinstalled from its changed source."
    return ret
