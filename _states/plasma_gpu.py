"""GPUs of NVIDIA for servers."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

import plasma_gpu_engine


def known(name, timeout=90):
    """
    The Docker engine can give GPUs to servers; it is reloaded or restarted only when it cannot, which ends no server.

    name
        An identifier.
    timeout
        Seconds to wait for the engine.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The Docker engine can give GPUs to servers."}
    try:
        changes = __salt__["plasma_gpu.compare"]()
        if changes and __opts__["test"]:
            comment = "The Docker engine would come to know the runtime of NVIDIA."
            ret.update(result=None, changes=changes, comment=comment)
        elif changes:
            changes = __salt__["plasma_gpu.make_known"](timeout=timeout)
            ret.update(changes=changes, comment="The Docker engine knows the runtime of NVIDIA now.")
    except CommandExecutionError as exc:
        ret.update(result=False, comment=str(exc))
    return ret


def disabled(name):
    """
    The toolkit that the state gpu brought is gone, and the engine does not know it any more. One that somebody else
    installed stays.

    name
        An identifier.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The state gpu has left nothing here."}
    try:
        changes = __salt__["plasma_gpu.leftovers"]()
        if changes and __opts__["test"]:
            ret.update(result=None, changes=changes, comment=f"{plasma_gpu_engine.PACKAGE} would be removed.")
        elif changes:
            __salt__["plasma_gpu.withdraw"]()
            changes |= __salt__["pkg.remove"](plasma_gpu_engine.PACKAGE)
            __salt__["plasma_gpu.forget"]()
            ret.update(changes=changes, comment=f"{plasma_gpu_engine.PACKAGE} is removed.")
    except CommandExecutionError as exc:
        ret.update(result=False, comment=str(exc))
    return ret
