"""Leave the package manager idle and with nothing half-done."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError


def settled(name, timeout=600):
    """
    Wait for other users of apt and dpkg, and finish packages that an interrupted run left half-configured.

    name
        An identifier.
    timeout
        Seconds to wait for the locks.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "No package is left half-done."}
    try:
        pending = __salt__["plasma_apt.unsettled"]()
        if __opts__["test"]:
            if pending:
                comment = f"These packages would be finished: {', '.join(pending)}."
                ret.update(result=None, changes=_changes(pending), comment=comment)
            return ret
        # The holder of the lock may itself be the reason why packages are unfinished: look again after it.
        __salt__["plasma_apt.wait"](timeout=timeout)
        if __salt__["plasma_apt.unsettled"]():
            finished = __salt__["plasma_apt.settle"]()
            ret["changes"] = _changes(finished)
            ret["comment"] = f"These packages were finished: {', '.join(finished)}."
    except CommandExecutionError as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret


def _changes(packages):
    return {package: {"old": "half-done", "new": "installed"} for package in packages}
