"""An upgrade of the hub that can be undone: prepared before the state tljh does its work, settled after it."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_upgrade_plan

_CONTEXT = "plasma_upgrade.planned"
_FAILED_BEFORE = "One or more requisite failed"


def prepared(
    name,
    hub_provider,
    version="",
    source=None,
    tree="salt://tljh/plugin",
    directory="/var/opt/plasma/backups",
    message=None,
    wait=0,
    install_timeout=1800,
):
    """
    Where this tree would change the hub, there is a way back: an archive of its data, and a snapshot of all of it.
    People are told.

    name
        The hub's prefix.
    hub_provider, version, source
        See the execution function ``plasma_upgrade_plan.plan``.
    tree
        The tree's folder that is compared. It has to be named in the SLS: that is what makes salt-ssh send it.
    directory, message, wait, install_timeout
        See the execution function ``plasma_upgrade.prepare``.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The hub is at the versions of this tree."}
    try:
        planned = plasma_upgrade_plan.plan(
            __salt__["cp.cache_dir"],
            hub_provider,
            prefix=name,
            version=version,
            source=source,
            saltenv=_saltenv(),
        )
        unfinished = __salt__["plasma_upgrade.open_upgrade"](name)
        if planned["kind"] == "new" and not unfinished:
            ret["comment"] = "No hub is installed here yet, so there is nothing to go back to: this installs it."
            return ret
        if planned["kind"] == "nothing":
            # One that is open and complete is settled at the end of this run.
            return ret
        text = _versions(planned)
        net = "the interrupted upgrade's own" if unfinished else "backup and snapshot"
        if planned["kind"] == "broken" and not unfinished:
            net = "backup alone"
            text += " What is installed does not work, so there is nothing to go back to but its data."
        ret["changes"] = {"way back": {"old": None, "new": net}}
        if __opts__["test"]:
            ret["result"] = None
            ret["comment"] = f"The hub would be upgraded. {text}"
            if planned["kind"] == "upgrade":
                __context__[_CONTEXT] = planned["packages"]
            return ret
        done = __salt__["plasma_upgrade.prepare"](
            prefix=name,
            planned=planned,
            directory=directory,
            message=message,
            wait=wait,
            install_timeout=install_timeout,
        )
        if done["backup"]:
            text += f" Its data of before is in {done['backup']}."
        elif not unfinished:
            text += " The installed version makes no archives: its data is kept with the snapshot."
        ret["comment"] = f"The hub is upgraded. {text}"
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def _versions(planned):
    changes = planned["packages"]
    listed = ", ".join(f"{name} {change['old'] or '(new)'} -> {change['new']}" for name, change in changes.items())
    jumps = f" Major versions change: {', '.join(planned['jumps'])}." if planned["jumps"] else ""
    return f"{listed}.{jumps}"


def _saltenv():
    return __opts__.get("saltenv") or "base"


def settled(name, hub_provider, version="", source=None, tree="salt://tljh/plugin", timeout=120):
    """
    No upgrade is left open: one that works is done, and another one is undone. Does nothing while none is open.

    name
        The hub's prefix.
    hub_provider, version, source, timeout
        See the execution function ``plasma_upgrade.settle``.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "No upgrade is open."}
    try:
        unfinished = __salt__["plasma_upgrade.open_upgrade"](name)
        if __opts__["test"]:
            planned = __context__.get(_CONTEXT)
            if planned:
                ret.update(result=None, changes=planned, comment="The upgrade would be settled.")
            elif unfinished:
                ret["result"] = None
                ret["changes"] = {"upgrade": {"old": unfinished["status"], "new": "settled"}}
                ret["comment"] = "An interrupted upgrade would be settled, or undone where its version does not work."
            return ret
        if not unfinished:
            return ret
        done = __salt__["plasma_upgrade.settle"](
            hub_provider,
            prefix=name,
            version=version,
            source=source,
            saltenv=_saltenv(),
            timeout=timeout,
            failures=_failures(),
        )
        ret["comment"] = done["comment"]
        ret["changes"] = done["changes"] or {"upgrade": {"old": unfinished["status"], "new": done["outcome"]}}
        if done["outcome"] == "rolled-back":
            ret.update(result=False, changes={})
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def _failures():
    """Comments of the states of this run that failed themselves, in the order they ran."""
    failed = [state for state in __running__.values() if state.get("result") is False]
    failed.sort(key=lambda state: state.get("__run_num__", 0))
    return [str(state["comment"]) for state in failed if _FAILED_BEFORE not in str(state.get("comment"))]


def rolled_back(name, timeout=120):
    """
    The upgrade that is open is undone; nothing happens while none is open.

    name
        The hub's prefix.
    timeout
        Seconds that the former hub may take to answer.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "No upgrade is open."}
    try:
        unfinished = __salt__["plasma_upgrade.open_upgrade"](name)
        if not unfinished:
            return ret
        ret["changes"] = {"upgrade": {"old": unfinished["status"], "new": "rolled-back"}}
        if __opts__["test"]:
            ret.update(result=None, comment=f"The upgrade of {unfinished['begun']} would be undone.")
            return ret
        ret["comment"] = __salt__["plasma_upgrade.roll_back"](name, timeout=timeout)["comment"]
    except (CommandExecutionError, SaltInvocationError) as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret
