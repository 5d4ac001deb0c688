"""
Containers of people's servers, which the plugin labels with their owner. The engine is asked over its own socket, so
this works where the hub is stopped or gone, too.

The label decides, never the name of a container: that of ``anna2`` begins like the one of ``anna``.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_hub_containers"

SOCKET = "/var/run/docker.sock"
# The plugin's policy.LABEL_USER and policy.LABEL_SERVER.
LABEL_USER, LABEL_SERVER = "org.plasma.user", "org.plasma.server"
GRACE = 10  # seconds in which a server may end by itself
POLL = 0.5


def __virtual__():
    return __virtualname__


def owned(names=None, path=SOCKET):
    """
    Return people's containers, running or not: ``[{"id", "user", "server", "running"}]``. Empty where no engine is
    installed.

    names
        List of login names; None for everybody's.

    path
        The engine's socket.

    Raises CommandExecutionError when an engine is installed and does not answer.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_containers.owned
    """
    filters = urllib.parse.quote(json.dumps({"label": [LABEL_USER]}))
    answer = _ask(path, "GET", f"/containers/json?all=1&filters={filters}")
    found = [
        {
            "id": container["Id"],
            "user": container["Labels"][LABEL_USER],
            "server": container["Labels"].get(LABEL_SERVER, ""),
            "running": container.get("State") in ("running", "paused", "restarting"),
        }
        for container in answer or ()
    ]
    return [container for container in found if names is None or container["user"] in names]


def remove(names, path=SOCKET, timeout=60):
    """
    Stop and remove all containers of these people's servers. Their files are on the host and stay.

    names
        List of login names.

    path
        The engine's socket.

    timeout
        Seconds for all of them; those that run get ten of them to end by themselves.

    Returns ``{name: [server names]}`` of those that were running. Raises CommandExecutionError when an engine is
    installed and does not answer, or a container stays; SaltInvocationError for wrong arguments.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_containers.remove '[anna]'
    """
    if isinstance(names, str):
        raise SaltInvocationError("names must be a list of names.")
    names, stopped, end = set(names), {}, time.monotonic() + float(timeout)
    while True:
        left = owned(names, path)
        if not left:
            return {name: sorted(servers) for name, servers in stopped.items()}
        if time.monotonic() >= end:
            raise CommandExecutionError(
                f"The container {left[0]['id'][:12]} of {left[0]['user']} cannot be removed, so nobody was removed: "
                "see journalctl -u docker."
            )
        for container in left:
            if container["running"]:
                stopped.setdefault(container["user"], set()).add(container["server"])
                _ask(path, "POST", f"/containers/{container['id']}/stop?t={GRACE}")
            _ask(path, "DELETE", f"/containers/{container['id']}?force=1&v=1")
        time.sleep(POLL)


def _ask(path, method, target):
    """The content of the engine's answer; None where no engine is installed, or the container is gone or busy."""
    connection = __salt__["plasma_docker.connection"](path, GRACE + 30)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        content = answer.read()
        # 404: gone; 409: somebody else is removing it. The next look tells.
        if answer.status in (404, 409):
            return None
        if answer.status >= 400:
            raise CommandExecutionError(f"Docker did not do what it was asked for (HTTP status {answer.status}).")
        return json.loads(content) if content else None
    except (OSError, http.client.HTTPException, ValueError) as exc:
        if __salt__["plasma_docker.engine"]() is None:
            return None
        raise CommandExecutionError(
            "Docker is installed and does not answer, so servers that may still run cannot be stopped: start it with: "
            "systemctl start docker."
        ) from exc
    finally:
        connection.close()
