"""Keep the Docker engine running with the wanted settings, without ending anybody's server."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_docker"


def __virtual__():
    return __virtualname__


def config_usable(name, log_driver="journald"):
    """
    Fail, saying why, when the engine's configuration file cannot take the wanted settings. Never changes anything.

    name
        The file, ``/etc/docker/daemon.json``.
    log_driver
        Default logging driver of containers.
    """
    problem = __salt__["plasma_docker.config_problem"](log_driver, path=name)
    comment = problem or "The file can take the settings."
    return {"name": name, "changes": {}, "result": problem is None, "comment": comment}


def remembered(name):
    """
    What the engine's configuration says before it is changed for the first time is noted, so that the state
    docker.disabled can give it back. Never changes the configuration.

    name
        An identifier.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "What the configuration said at first is noted."}
    if __opts__["test"]:
        return ret
    try:
        __salt__["plasma_docker_undo.remember"]()
    except (CommandExecutionError, OSError) as exc:
        ret.update(result=False, comment=str(exc))
    return ret


def running(name, log_driver="journald", live_restore=True, timeout=90):
    """
    The engine answers and works with these settings; it is reloaded or restarted only when it does not.

    name
        An identifier.
    log_driver
        Default logging driver of containers.
    live_restore
        Whether containers go on running while the engine restarts.
    timeout
        Seconds to wait for the engine to answer.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The Docker engine runs as configured."}
    try:
        changes = __salt__["plasma_docker.compare"](log_driver, live_restore)
        if not changes:
            return ret
        if __opts__["test"]:
            if __salt__["plasma_docker.engine"]() is None:
                # Its package starts it, with the configuration that is written first: nothing is left to do here.
                ret["comment"] = "The Docker engine would be started by its package."
                return ret
            ret["result"] = None
            ret["changes"] = changes
            ret["comment"] = "The Docker engine would be started or take over its configuration."
            return ret
        ret["changes"] = __salt__["plasma_docker.ensure_running"](log_driver, live_restore, timeout=timeout)
        ret["comment"] = "The Docker engine took over its configuration."
    except CommandExecutionError as exc:
        ret["result"] = False
        ret["comment"] = str(exc)
    return ret
