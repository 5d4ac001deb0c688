"""Refuse a server that cannot take Plasma, before anything on it changes."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_lock

# The site, where nothing else is applied than this.
_EVERYTHING = ("trust", "docker", "utils", "gpu", "tljh", "cockpit", "environments")
_LOCK = "salt://tljh/plugin/requirements.txt"


def passed(
    name,
    hub_provider,
    prefix="/opt/tljh",
    min_disk="10G",
    min_memory="1G",
    http=None,
    https=None,
    controller_time=None,
    home_path="/home",
):
    """
    Fail, naming everything that is wrong, when this server cannot take Plasma, or cannot reach what the other states of
    this run are going to fetch. Never changes anything.

    name
        An identifier.
    hub_provider, prefix, min_disk, min_memory, http, https, controller_time, home_path
        See the execution function ``plasma_preflight.problems``.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "This server is fit for Plasma."}
    try:
        limits = {"min_disk": min_disk, "min_memory": min_memory, "http": http, "https": https}
        limits |= {"controller_time": controller_time, "home_path": home_path}
        problems = __salt__["plasma_preflight.problems"](hub_provider, prefix=prefix, **limits)
        # Not arguments of the state, which Salt shows: addresses of mirrors and proxies may hold a login.
        if plasma := __pillar__.get("plasma"):
            lock = (__salt__["cp.hash_file"](_LOCK) or {}).get("hsum")
            found = __salt__["plasma_preflight.unreachable"](plasma, _parts(), lock=lock)
            problems += found["problems"]
            missing = __salt__["plasma_gpu.missing"](plasma)
            found["warnings"] += filter(None, [missing])
            # Salt shows and counts an empty list as a warning.
            ret |= {"warnings": found["warnings"]} if found["warnings"] else {}
    except (CommandExecutionError, SaltInvocationError) as exc:
        problems = [str(exc)]
    if problems:
        ret["result"] = False
        ret["comment"] = "Nothing was changed. This server cannot take Plasma:\n" + "\n".join(
            f"- {problem}" for problem in problems
        )
    return ret


def turn(name):
    """
    Fail while another apply changes this server, wherever it comes from. Salt itself refuses none of salt-ssh's: one
    that was interrupted goes on here, unseen. The server is this run's until its process ends.

    name
        An identifier.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "No other apply runs on this server."}
    if __opts__["test"]:
        return ret
    try:
        # A minion with threads for its jobs does not end with this run.
        plasma_lock.take_turn(keep=__opts__.get("multiprocessing", True))
    except CommandExecutionError as exc:
        ret.update(result=False, comment=f"Nothing was changed. {exc}")
    return ret


def _parts():
    """The folders of the states that are applied (Salt gives all of them to every state)."""
    names = {str(low.get("__sls__", "")) for low in __lowstate__}
    folders = {name.partition(".")[0] for name in names if not name.endswith(".disabled")} - {"preflight"}
    return sorted(folders or _EVERYTHING)
