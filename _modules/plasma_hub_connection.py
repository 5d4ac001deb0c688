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
import re
import stat
import threading
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_hub_connection"

TOKEN_FILE = "plasma-operator.token"
GLANCE = 0.01  # seconds between two looks at a connection that nobody has accepted yet
ANSWER = 30  # seconds for one answer; the hub takes 10 before it says that a stop goes on
_START = "start it with: systemctl start jupyterhub"


class _Older(CommandExecutionError):
    """The hub is of an older release. Modules of Salt share no classes, so callers look at the attribute."""

    older = True


def __virtual__():
    return __virtualname__


def connect(prefix="/opt/tljh", answer=None):
    """
    Return an object that asks the hub; None where there is no hub. Its ``ask(method, path, body, also=())`` returns
    ``(status, content)``, ``base`` is what paths are below.

    prefix
        Where the hub is installed.

    answer
        Seconds for one answer, None for 30.

    Raises CommandExecutionError when the hub is stopped, or its plugin is too old; that one has an attribute ``older``,
    which is true.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_connection.connect  # not from the command line: what it returns is an object
    """
    root = pathlib.Path(prefix)
    if not (root / "hub" / "bin" / "python3").exists():
        return None
    token = _token(root / "state" / TOKEN_FILE)
    running = __salt__["tljh_service.running"]()
    if not token:
        if not running and not (root / "state" / "jupyterhub.sqlite").exists():
            return None
        raise _Older(
            f"The hub in {prefix} has no token for its operator, being of an older release or having lost the file: "
            "apply the state tljh, which brings one."
        )
    if not running:
        raise CommandExecutionError(f"The hub in {prefix} is stopped, so it cannot be asked: {_START}.")
    return _Hub(prefix, __salt__["tljh_config.show"](prefix), token, answer or ANSWER)


def _token(path):
    """Read the token; None when there is none. What others may have written or read is not used."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise CommandExecutionError(f"{path} cannot be read: {exc.strerror}.") from exc
    try:
        status = os.fstat(descriptor)
        text = os.read(descriptor, 256).decode("ascii", errors="replace") if stat.S_ISREG(status.st_mode) else ""
    finally:
        os.close(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o077 or not re.fullmatch(r"[0-9a-f]{64}", text):
        raise CommandExecutionError(
            f"{path} is not a token that root alone can read: restart the hub, which makes another one."
        )
    return text


class _Hub:
    """The hub's API behind the proxy, at the address that config.yaml says."""

    def __init__(self, prefix, config, token, answer):
        self.prefix, self.config, self.token, self.answer = prefix, config, token, answer
        unconnected, path = __salt__["tljh_service.connection"](config, answer)
        self.address, self.port, self.base = unconnected.host, int(unconnected.port), f"{path}/"
        # One connection for each thread: thousands of them would take longer than the answers.
        self.kept = threading.local()

    def _connect(self):
        """Connect, to root's program alone, which is looked up before and after, so that nobody slips in between."""
        connection, _ = __salt__["tljh_service.connection"](self.config, self.answer)
        connection.auto_open = 0  # never again without these looks
        try:
            self._check_listeners()
            connection.connect()
            self._check_peer(connection.sock)
            # The proxy hands the token on: to root's programs alone, too.
            __salt__["plasma_hub_ports.check"](self.prefix)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_listeners(self):
        """Raise when somebody else listens on the proxy's port; whether root does."""
        found = __salt__["plasma_hub_sockets.listeners"](self.address, self.port)
        self._refuse(uid for uid in found if uid != os.geteuid())
        return bool(found)

    def _check_peer(self, ours):
        """Raise unless root's program has accepted this connection and still listens."""
        end, local, remote = time.monotonic() + ANSWER, ours.getsockname(), ours.getpeername()
        while True:
            uid = __salt__["plasma_hub_sockets.peer"](local, remote)
            self._refuse([uid] if uid not in (None, os.geteuid()) else ())
            # Whoever accepts and then listens no more is not the proxy, or it is one that ends.
            if self._check_listeners() and uid is not None:
                return
            if time.monotonic() >= end:
                raise TimeoutError("timed out: no program of root's took the connection")
            time.sleep(GLANCE)

    def _refuse(self, uids):
        for uid in uids:
            raise CommandExecutionError(
                f"Port {self.port} of {self.address} is not the hub's proxy but belongs to uid {uid}, so nothing was "
                "sent there: end that program and start the proxy with: systemctl start traefik."
            )

    def ask(self, method, path, body=None, accept="application/json", also=()):
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
            found = json.loads(content) if content else None
        except ValueError:
            found = None
        if status in also or status == 204 or (200 <= status < 300 and found is not None):
            return status, found
        if status == 403:
            raise CommandExecutionError(
                "The hub does not accept its operator's token: restart it with: systemctl restart jupyterhub."
            )
        said = f", {found['message'].rstrip('.')}" if isinstance(found, dict) and found.get("message") else ""
        raise CommandExecutionError(
            f"The hub did not do what it was asked for (HTTP status {status}{said}): see journalctl -u jupyterhub."
        )

    def _send(self, method, path, body, accept):
        headers = {"Authorization": f"token {self.token}", "Accept": accept}
        text = None if body is None else json.dumps(body)
        if text is not None:
            headers["Content-Type"] = "application/json"
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
