"""Keep the Docker engine running with the wanted settings, without ending anybody's server."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

import plasma_docker_undo
import plasma_engine

_KEY = "/etc/apt/keyrings/docker.asc"
_REPOSITORY = "/etc/apt/sources.list.d/docker.list"


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
        plasma_docker_undo.remember()
    except (CommandExecutionError, OSError) as exc:
        ret.update(result=False, comment=str(exc))
    return ret


def installed(name, source, packages, repository=None, key=None, key_hash=None):
    """
    A Docker engine is installed. One that is here already, from wherever, is kept.

    Not by ``unless`` of ``pkg.installed``: to evaluate that, Salt loads all of its modules, a second in every apply.

    name
        An identifier.
    source
        Where the engine comes from: ``docker-ce`` or ``distro``.
    packages
        Names of its packages.
    repository, key, key_hash
        Of ``docker-ce``: the line for APT, the address of the key that signs it, and the checksum of that.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "An engine from elsewhere is here, and is kept."}
    if plasma_engine.keeps_engine(source):
        return ret
    # Names of packages are known to APT only once it has been asked for them.
    steps = [("pkg.installed", {"pkgs": packages, "refresh": plasma_engine.engine() is None})]
    if repository:
        owner = {"user": "root", "group": "root", "mode": "0644", "makedirs": True}
        steps.insert(0, ("pkgrepo.managed", {"name": repository, "file": _REPOSITORY, "aptkey": False}))
        steps.insert(0, ("file.managed", {"name": _KEY, "source": key, "source_hash": key_hash, **owner}))
    for function, options in steps:
        done = __states__[function](**{"name": name, **options})
        ret["changes"].update(done["changes"])
        ret["comment"] = done["comment"]
        if done["result"] is not True:
            ret["result"] = done["result"]
        if done["result"] is False:
            break
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
            if plasma_engine.engine() is None:
                # Its package starts it, with the configuration that is written first: nothing is left to do here.
                ret["comment"] = "The Docker engine would be started by its package."
                return ret
            comment = "The Docker engine would be started or take over its configuration."
            ret.update(result=None, changes=changes, comment=comment)
            return ret
        ret["changes"] = __salt__["plasma_docker.ensure_running"](log_driver, live_restore, timeout=timeout)
        ret["comment"] = "The Docker engine took over its configuration."
    except CommandExecutionError as exc:
        ret.update(result=False, comment=str(exc))
    return ret
