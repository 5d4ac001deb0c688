"""
The connection to the running hub. It is asked as root, with the operator's token that the plugin keeps in the hub's
state directory (see the plugin's ``operators``), through the proxy's own address. The token goes to a program of root's
that listens there and to nothing else: while the proxy is down, any user may listen on a port above 1023. The same
holds for where the proxy leads such requests: the hub and its services.

"No hub" means that none is installed below the prefix, or that it was never started, so that it knows nobody.
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Container
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_hub_ports
import plasma_hub_secrets
import plasma_listeners
import tljh_service
import tljh_settings

TOKEN_FILE = "plasma-operator.token"
GLANCE = 0.01  # seconds between two looks at a connection that nobody has accepted yet
ANSWER = 30  # seconds for one answer; the hub takes 10 before it says that a stop goes on


class Outdated(CommandExecutionError):
    """The hub is of an older release. Callers look at the attribute ``older``."""

    older = True


def connect(prefix: str = "/opt/tljh", answer: float | None = None) -> Hub | None:
    """
    Return an object that asks the hub; None where there is no hub. Its ``ask(method, path, body, also=())`` returns
    ``(status, content)``, ``base`` is what paths are below.

    prefix
        Where the hub is installed.

    answer
        Seconds for one answer, None for 30.

    Raises CommandExecutionError when the hub is stopped, or its plugin is too old; that one has an attribute ``older``,
    which is true.
    """
    root = pathlib.Path(prefix)
    if not (root / "hub" / "bin" / "python3").exists():
        return None
    token = _token(root / "state" / TOKEN_FILE)
    running = tljh_service.running()
    if not token:
        if not running and not (root / "state" / "jupyterhub.sqlite").exists():
            return None
        raise Outdated(
            f"The hub in {prefix} has no token for its operator, being of an older release or having lost the file: "
            "apply the state tljh, which brings one."
        )
    if not running:
        raise CommandExecutionError(
            f"The hub in {prefix} is stopped, so it cannot be asked: start it with: systemctl start jupyterhub."
        )
    return Hub(prefix, tljh_settings.show(prefix), token, answer or ANSWER)


def _token(path: pathlib.Path) -> str | None:
    """The operator's token; None when there is none. What others may have written or read is not used."""
    try:
        token = plasma_hub_secrets.read_secret(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise CommandExecutionError(f"{path} cannot be read: {exc.strerror}.") from exc
    if not token:
        raise CommandExecutionError(
            f"{path} is not a token that root alone can read: restart the hub, which makes another one."
        )
    return token


class Hub:
    """The hub's API behind the proxy, at the address that config.yaml says."""

    def __init__(self, prefix: str, config: dict[str, Any], token: str, answer: float):
        self.prefix, self.config, self.token, self.answer = prefix, config, token, answer
        unconnected, path = tljh_service.connection(config, answer)
        self.address, self.port, self.base = unconnected.host, int(unconnected.port), f"{path}/"
        # One connection for each thread: thousands of them would take longer than the answers.
        self.kept = threading.local()

    def _connect(self) -> http.client.HTTPConnection:
        """Connect, to root's program alone, which is looked up before and after, so that nobody slips in between."""
        connection, _ = tljh_service.connection(self.config, self.answer)
        connection.auto_open = 0  # never again without these looks
        try:
            self._check_listeners()
            connection.connect()
            self._check_peer(connection.sock)
            # The proxy hands the token on: to root's programs alone, too.
            plasma_hub_ports.check(self.prefix)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_listeners(self) -> bool:
        """Raise when somebody else listens on the proxy's port; whether root does."""
        uids = plasma_listeners.listeners(self.address, self.port)
        self._refuse(uids)
        return bool(uids)

    def _check_peer(self, ours: socket.socket) -> None:
        """Raise unless root's program has accepted this connection and still listens."""
        deadline, local, remote = time.monotonic() + ANSWER, ours.getsockname(), ours.getpeername()
        while True:
            uid = plasma_listeners.peer(local, remote)
            self._refuse([] if uid is None else [uid])
            # Whoever accepts and then listens no more is not the proxy, or it is one that ends.
            if self._check_listeners() and uid is not None:
                return
            if time.monotonic() >= deadline:
                raise TimeoutError("timed out: no program of root's took the connection")
            time.sleep(GLANCE)

    def _refuse(self, uids: list[int]) -> None:
        for uid in uids:
            if uid != os.geteuid():
                raise CommandExecutionError(
                    f"Port {self.port} of {self.address} is not the hub's proxy but belongs to uid {uid}, so nothing "
                    "was sent there: end that program and start the proxy with: systemctl start traefik."
                )

    def ask(
        self, method: str, path: str, body: Any = None, accept: str = "application/json", also: Container[int] = ()
    ) -> tuple[int, Any]:
        """Return (status, content) of an answer; an error status that is not in *also* is raised."""
        try:
            status, content = self._send(method, path, body, accept)
        except (OSError, http.client.HTTPException) as exc:
            why = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
            raise CommandExecutionError(
                f"The hub does not answer at {self.address}:{self.port} ({why}): see systemctl status jupyterhub and "
                "traefik."
            ) from exc
        try:
            answer = json.loads(content) if content else None
        except ValueError:
            answer = None
        if status in also or status == 204 or (200 <= status < 300 and answer is not None):
            return status, answer
        if status == 403:
            raise CommandExecutionError(
                "The hub does not accept its operator's token: restart it with: systemctl restart jupyterhub."
            )
        why = f", {answer['message'].rstrip('.')}" if isinstance(answer, dict) and answer.get("message") else ""
        raise CommandExecutionError(
            f"The hub did not do what it was asked for (HTTP status {status}{why}): see journalctl -u jupyterhub."
        )

    def _send(self, method: str, path: str, body: Any, accept: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"token {self.token}", "Accept": accept, "Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        while True:
            connection = kept = getattr(self.kept, "connection", None)
            try:
                connection = self.kept.connection = kept or self._connect()
                connection.request(method, self.base + path, text, headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as exc:
                if connection:
                    connection.close()
                self.kept.connection = None
                # The proxy ends connections that were idle. Doing any of these requests twice does no harm.
                if not kept or isinstance(exc, TimeoutError):
                    raise
