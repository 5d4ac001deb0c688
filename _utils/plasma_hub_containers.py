"""
Containers of people's servers, which the plugin labels with their owner. The engine is asked over its own socket, so
this works where the hub is stopped or gone, too.

The label decides, never the name of a container: that of ``anna2`` begins like the one of ``anna``.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_engine
from plasma_engine import filters

# The plugin's policy.LABEL_USER and policy.LABEL_SERVER.
LABEL_USER, LABEL_SERVER = "org.plasma.user", "org.plasma.server"
GRACE = 10  # seconds in which a server may end by itself
POLL = 0.5


def owned(names: Collection[str] | None = None, path: str | None = None) -> list[dict[str, Any]]:
    """
    Return people's containers, running or not: ``[{"id", "user", "server", "running"}]``. Empty where no engine is
    installed.

    names
        Login names; None for everybody's.

    path
        The engine's socket, when it is not the usual one.

    Raises CommandExecutionError when an engine is installed and does not answer.
    """
    containers = [
        {
            "id": container["Id"],
            "user": container["Labels"][LABEL_USER],
            "server": container["Labels"].get(LABEL_SERVER, ""),
            "running": container.get("State") in ("running", "paused", "restarting"),
        }
        for container in request("GET", f"/containers/json?all=1&{filters(label=[LABEL_USER])}", path) or ()
    ]
    return [container for container in containers if names is None or container["user"] in names]


def remove(names: Collection[str], path: str | None = None, timeout: float = 60) -> dict[str, list[str]]:
    """
    Stop and remove all containers of these people's servers. Their files are on the host and stay.

    names
        List of login names.

    path
        The engine's socket, when it is not the usual one.

    timeout
        Seconds for all of them; those that run get ten of them to end by themselves.

    Returns ``{name: [server names]}`` of those that were running. Raises CommandExecutionError when an engine is
    installed and does not answer, or a container stays; SaltInvocationError for wrong arguments.
    """
    if isinstance(names, str):
        raise SaltInvocationError("names must be a list of names.")
    stopped: dict[str, set[str]] = {}
    deadline = time.monotonic() + float(timeout)
    while left := owned(set(names), path):
        if time.monotonic() >= deadline:
            raise CommandExecutionError(
                f"The container {left[0]['id'][:12]} of {left[0]['user']} cannot be removed, so nobody was removed: "
                "see journalctl -u docker."
            )
        for container in left:
            if container["running"]:
                stopped.setdefault(container["user"], set()).add(container["server"])
                request("POST", f"/containers/{container['id']}/stop?t={GRACE}", path)
            request("DELETE", f"/containers/{container['id']}?force=1&v=1", path)
        time.sleep(POLL)
    return {name: sorted(servers) for name, servers in stopped.items()}


def request(method: str, target: str, path: str | None = None) -> Any:
    """
    Return what the engine answers; None where no engine is installed, or the thing is gone or being removed.

    method, target, path
        As for ``plasma_engine.request``.

    Raises CommandExecutionError when an engine is installed and does not answer, or refuses.
    """
    try:
        # 404: gone; 409: somebody else is removing it. The next look tells.
        return plasma_engine.request(method, target, missing=(404, 409), path=path, timeout=120)
    except plasma_engine.NoAnswer as exc:
        if plasma_engine.engine() is None:
            return None
        raise CommandExecutionError(
            "Docker is installed and does not answer, so servers that may still run cannot be stopped: start it with: "
            "systemctl start docker."
        ) from exc
