"""
The hub's service of environments, asked as root with the operator's token through ``plasma_hub_connection``.

What is sent may hold credentials of repositories: it stands in the body of a request to root's own proxy and nowhere
else, and no error says anything of it.
"""

from __future__ import annotations

import time
import urllib.parse
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_hub_connection

SERVICE = "services/plasma/"
ANSWER = 90  # seconds for one answer: the engine takes its time for removing an image of many gigabytes
UNKNOWN = {
    "former": None,
    "previous": False,
    "build_seconds": None,
    "last_used": "",
    "used_by": 0,
}  # what services of former releases do not say
_LISTS = ("environments", "permissions")  # what every service that states can ask has
RETRY = 1  # seconds between two tries while the service starts
_OLD = "The hub's service does not accept its operator's token: apply the state tljh, which brings the one that does."
_NONE = "The hub in {} has no service of environments that states can ask: apply the state tljh, which brings it."


class _Older(CommandExecutionError):
    """The hub is of an older release. Modules of Salt share no classes, so callers look at the attribute."""

    older = True


def items(prefix: str = "/opt/tljh", timeout: float = 60) -> list[dict[str, Any]] | None:
    """
    Return the environments that the hub has, as its service lists them; None where there is no hub. Each is a dict with
    ``image``, ``name``, ``repo``, ``ref``, ``commit``, ``reference``, ``base``, ``limits``, ``opens``, ``gpus``,
    ``description``, ``groups``, ``status``, ``has_image``, ``source``, ``users``, ``buildargs``, ``message``, ``size``,
    ``former`` (the image that is kept beside it, or None), ``previous`` (whether the older of the two is in use),
    ``build_seconds``, ``last_used``, ``used_by`` (a number of people) and more.

    prefix
        Where the hub is installed.

    timeout
        Seconds to wait for a service that is about to start.

    Raises CommandExecutionError when the hub or its service does not answer, or is too old; that one has an attribute
    ``older``, which is true.
    """
    answer = ask("GET", "environments", prefix=prefix, timeout=timeout)
    return None if answer is None else [{**UNKNOWN, **item} for item in answer["environments"]]


def groups(prefix: str = "/opt/tljh", timeout: float = 60) -> list[str] | None:
    """
    Return the names of the groups that environments can be given to at this moment, sorted; None where there is no hub.

    prefix, timeout
        As for ``items``.
    """
    answer = ask("GET", "permissions", prefix=prefix, timeout=timeout)
    if answer is None:
        return None
    return sorted(group["name"] for group in answer["groups"] if group["exists"] and group["configured"])


def log_tail(image: str, lines: int = 20, prefix: str = "/opt/tljh", timeout: float = 60) -> list[str]:
    """
    Return the last lines of the log of an environment's latest build, without secrets, as a list.

    image
        Name and tag of the environment's image.

    lines
        How many, at most 1000.

    prefix, timeout
        As for ``items``.
    """
    path = f"{_path(image)}/log/tail?lines={int(lines)}"
    return (ask("GET", path, prefix=prefix, timeout=timeout) or {}).get("lines", [])


def ask(method, path, body=None, prefix="/opt/tljh", timeout=60, also=()):
    """
    Ask the service for something and return its answer, a dict; None where there is no hub.

    method, path
        The request; the path is below ``api/`` of the service.

    body
        A dict, or None. Never give one with credentials on a command line.

    prefix, timeout
        As for ``items``.

    also
        Statuses of refusals that are returned, as dicts with ``status`` and ``message``, and not raised.

    Raises CommandExecutionError with the service's own sentence when it refuses, and as ``items`` does.
    """
    hub = plasma_hub_connection.connect(prefix, ANSWER)
    if hub is None:
        return None
    hub.base = f"{hub.base.removesuffix('hub/api/')}{SERVICE}api/"
    end = time.monotonic() + timeout
    while True:
        # Where the proxy knows no service, the hub gets the request, and answers or sends elsewhere.
        status, content = hub.ask(method, path, body, also=range(300, 600))
        if isinstance(content, dict):
            break
        # Until it answers in JSON it has not started, or the proxy does not know of it yet.
        if time.monotonic() >= end:
            if status < 400 or status == 404:
                raise _Older(_NONE.format(prefix))
            raise CommandExecutionError(
                f"The hub's service of environments does not answer (HTTP status {status}): see journalctl -u "
                "jupyterhub."
            )
        time.sleep(RETRY)
    if status < 300 or status in also:
        return content
    if status == 403:
        raise _Older(_OLD)
    if status == 404 and path in _LISTS:
        raise _Older(_NONE.format(prefix))
    raise CommandExecutionError(str(content.get("message") or f"HTTP status {status}."))


def change(method, image, body=None, part="", prefix="/opt/tljh", timeout=60, also=()):
    """
    Change, build or remove one environment: ``ask`` with its image in the path.

    method
        ``PATCH``, ``POST`` or ``DELETE``.

    image
        Name and tag of the environment's image.

    body, prefix, timeout, also
        As for ``ask``.

    part
        ``build`` to build it again, ``archive`` to give its image up.
    """
    path = f"{_path(image)}/{part}" if part else _path(image)
    return ask(method, path, body, prefix=prefix, timeout=timeout, also=also)


def _path(image):
    return f"environments/{urllib.parse.quote(image, safe='')}"
