"""
The Docker engine, asked over its own socket.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import urllib.parse
from typing import Any

from salt.exceptions import CommandExecutionError

SOCKET = "/var/run/docker.sock"
_PACKAGES = {"docker-ce": "docker-ce", "distro": "docker.io"}
_DPKG_LISTS = "/var/lib/dpkg/info"


class NoAnswer(CommandExecutionError):
    """The engine does not answer: it is stopped, busy, or there is none."""


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over the engine's Unix socket."""

    def __init__(self, path: str, timeout: float):
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connection(path: str | None = None, timeout: float = 10) -> http.client.HTTPConnection:
    """
    Return a connection to the engine, which is made with the first request.

    path
        The engine's socket, when it is not the usual one.
    timeout
        Seconds to wait for an answer.
    """
    return _SocketConnection(path or SOCKET, timeout)


def ask(
    method: str,
    target: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
    *,
    path: str | None = None,
    timeout: float = 60,
) -> tuple[int, bytes]:
    """
    Send one request to the engine and return the HTTP status and the content of its answer.

    method, target, body, headers
        As for ``http.client``.
    path, timeout
        As for ``connection``.

    Raises NoAnswer, a CommandExecutionError, with a sentence that says what to do.
    """
    engine_api = connection(path, timeout)
    try:
        engine_api.request(method, target, body, headers or {})
        answer = engine_api.getresponse()
        return answer.status, answer.read()
    except TimeoutError:
        raise NoAnswer(f"Docker does not answer within {timeout:.0f} seconds: see systemctl status docker.") from None
    except (OSError, http.client.HTTPException) as exc:
        raise NoAnswer("Docker does not answer: start it with: systemctl start docker.") from exc
    finally:
        engine_api.close()


def request(
    method: str, target: str, *, missing: tuple[int, ...] = (404,), path: str | None = None, timeout: float = 60
) -> Any:
    """
    Send one request to the engine and return its answer, which is JSON; None for an empty one.

    missing
        HTTP statuses for which None is returned: the thing is gone, or (409) somebody else is removing it.
    method, target, path, timeout
        As for ``ask``.

    Raises NoAnswer as ``ask`` does, and CommandExecutionError for every other status from 400 on.
    """
    status, content = ask(method, target, path=path, timeout=timeout)
    if status in missing:
        return None
    if status >= 400:
        raise CommandExecutionError(f"Docker did not do what it was asked for (HTTP status {status}).")
    try:
        return json.loads(content) if content else None
    except ValueError as exc:
        raise NoAnswer("Docker does not answer as it should: restart it with: systemctl restart docker.") from exc


def filters(**values: list[str]) -> str:
    """
    Return filters as a part of a request's target: ``filters(label=["a", "b"])`` takes what has both.

    values
        By the name of a filter, what it lets through.
    """
    return f"filters={urllib.parse.quote(json.dumps(values))}"


def info(path: str | None = None, timeout: float = 10) -> dict[str, Any]:
    """
    Return what the running engine says of itself: ``{"version", "log_driver", "live_restore", "root",
    "runtimes"}``.

    An empty dict means that no engine answers.

    path
        The engine's socket.
    timeout
        Seconds to wait for an answer.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.info
    """
    try:
        answer = json.loads(ask("GET", "/info", path=path, timeout=timeout)[1])
    except (NoAnswer, ValueError):
        return {}
    return {
        "version": answer.get("ServerVersion", ""),
        "log_driver": answer.get("LoggingDriver", ""),
        "live_restore": bool(answer.get("LiveRestoreEnabled")),
        "root": answer.get("DockerRootDir", ""),
        "runtimes": sorted(answer.get("Runtimes") or {}),
    }


def engine() -> str | None:
    """
    Return where the installed engine comes from: ``docker-ce``, ``distro``, ``other`` or None when there is none.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.engine
    """
    if not shutil.which("dockerd"):
        # A snap's daemon is not in the path, but it answers.
        return "other" if info() else None
    return next((source for source, package in _PACKAGES.items() if _brings_engine(package)), "other")


def _brings_engine(package: str) -> bool:
    """Whether this package is installed: one that was removed, but not purged, still has a list, of its conffiles."""
    try:
        with open(os.path.join(_DPKG_LISTS, f"{package}.list"), encoding="utf-8") as files:
            return any(line.rstrip().endswith("/dockerd") for line in files)
    except FileNotFoundError:
        return False


def keeps_engine(source: str) -> bool:
    """
    Return True when an engine from elsewhere than ``source`` is installed, which is kept as it is.

    source
        ``docker-ce`` or ``distro``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.keeps_engine docker-ce
    """
    return engine() not in (None, source)
