"""Refuse a server that cannot take Plasma, before anything on it changes."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_preflight"


def __virtual__():
    return __virtualname__


def passed(name, hub_provider, prefix="/opt/tljh", min_disk="10G", min_memory="1G", ports=(80,), controller_time=None):
    """
    Fail, naming everything that is wrong, when this server cannot take Plasma. Never changes anything.

    name
        An identifier.
    hub_provider, prefix, min_disk, min_memory, ports, controller_time
        See the execution function ``plasma_preflight.problems``.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "This server is fit for Plasma."}
    try:
        problems = __salt__["plasma_preflight.problems"](
            hub_provider,
            prefix=prefix,
            min_disk=min_disk,
            min_memory=min_memory,
            ports=ports,
            controller_time=controller_time,
        )
    except (CommandExecutionError, SaltInvocationError) as exc:
        problems = [str(exc)]
    if problems:
        ret["result"] = False
        ret["comment"] = "Nothing was changed. This server cannot take Plasma:\n" + "\n".join(
            f"- {problem}" for problem in problems
        )
    return ret
