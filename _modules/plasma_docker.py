"""
The Docker engine: which one is installed, what it is doing, and how to change it without losing containers.

The engine is asked over its own socket, so that what is compared is what it does and not what its
configuration file says.
"""

from __future__ import annotations

import time
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_docker_undo
import plasma_public
import plasma_systemd
from plasma_docker_daemon import daemon_problems, health
from plasma_engine import engine, info, keeps_engine

plasma_public.offer(globals(), daemon_problems, engine, health, info, keeps_engine)


def config_problem(log_driver="journald", path="/etc/docker/daemon.json"):
    """
    Return why the engine could not start with this file once the wanted settings are in it, or None.

    log_driver
        Default logging driver of containers that the file is going to name.
    path
        The engine's configuration file.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.config_problem journald
    """
    try:
        config = plasma_docker_undo.read(path) or {}
    except CommandExecutionError as exc:
        return str(exc)
    current = config.get("log-driver", "json-file")
    if config.get("log-opts") and current != log_driver:
        # Options belong to one driver: with those of another, the daemon refuses to start.
        return (
            f"{path} has log-opts for the driver {current!r}: remove them, "
            f"or set plasma.docker.log_driver to {current!r}."
        )
    return None


def compare(log_driver="journald", live_restore=True):
    """
    Return how the running engine differs from what is wanted, as ``{setting: {"old", "new"}}``.

    log_driver
        Default logging driver of containers.
    live_restore
        Whether containers go on running while the engine restarts.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.compare journald
    """
    changes: dict[str, Any] = {}
    if not plasma_systemd.enabled("docker.service"):
        changes["at_boot"] = {"old": "disabled", "new": "enabled"}
    current = info()
    if not current:
        return {**changes, "engine": {"old": "stopped", "new": "running"}}
    for key, value in (("log_driver", log_driver), ("live_restore", live_restore)):
        if current[key] != value:
            changes[key] = {"old": current[key], "new": value}
    return changes


def ensure_running(log_driver="journald", live_restore=True, timeout=90):
    """
    Bring the engine to the wanted settings, which its configuration file must hold already; return the changes.

    ``live-restore`` is taken over by a reload, and only then, if still needed, is the engine restarted: a
    restart without it would end every user's server
    (https://docs.docker.com/engine/daemon/live-restore/).

    log_driver, live_restore
        See ``compare``.
    timeout
        Seconds to wait for the engine to answer.

    Raises ``CommandExecutionError`` with the journal's last lines when the engine does not come up as asked, or when
    its unit cannot be enabled.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.ensure_running journald
    """
    before = compare(log_driver, live_restore)
    if "at_boot" in before and not _systemctl("enable"):
        raise CommandExecutionError(
            "docker.service cannot be enabled: see `systemctl status docker.service` (a masked unit needs "
            "`systemctl unmask docker.service`), and apply again."
        )
    if not before.keys() - {"at_boot"}:
        return before
    if "engine" in before:
        _systemctl("start")
    elif "live_restore" in before:
        _systemctl("reload")
        _wait(log_driver, live_restore, 10, {"live_restore"})
    left = _wait(log_driver, live_restore, timeout if "engine" in before else 1)
    if left:
        _systemctl("restart")
        left = _wait(log_driver, live_restore, timeout)
    if left:
        journal = plasma_systemd.journal("docker.service", 15)
        raise CommandExecutionError(
            f"Docker did not come up as configured ({', '.join(sorted(left))} differ): look at "
            f"/etc/docker/daemon.json and at `journalctl -u docker`, whose last lines are:\n{journal}"
        )
    return before


def _systemctl(action):
    if action in ("start", "restart"):
        # Its unit allows three starts a minute: after a few changes in a row there would be no engine at all.
        plasma_systemd.run("reset-failed", "docker.service")
    # A failed start is explained by the caller, with the journal; a failed reload is followed by a restart.
    return plasma_systemd.run(action, "docker.service").returncode == 0


def _wait(log_driver, live_restore, timeout, settings=("engine", "log_driver", "live_restore")):
    """Wait until these settings are as wanted; those that are not when the time is over."""
    deadline = time.monotonic() + timeout
    while (left := compare(log_driver, live_restore).keys() & set(settings)) and time.monotonic() <= deadline:
        time.sleep(0.2)
    return left
