"""
The running hub: who is known to it, who administers it, and how people leave it. It is asked as root, with the
operator's token that the plugin keeps in the hub's state directory (see the plugin's ``operators``), through the
proxy's own address. The token goes to a program of root's that listens there and to nothing else: while the proxy is
down, any user may listen on a port above 1023.

"No hub" means that none is installed below the prefix, or that it was never started, so that it knows nobody. A hub
that knows people and does not answer is an error: what it would still let in cannot be told.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import http.client
import json
import os
import pathlib
import re
import stat
import threading
import time
import urllib.parse

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_hub_api"

TOKEN_FILE = "plasma-operator.token"
PAGE = 200  # users in one answer
WORKERS = 8  # requests at a time: the hub has one thread, but stopping is waiting
ROUNDS = 5  # looks at who is busy, or tries to delete somebody, before that is an error
SETTLE = 3  # seconds after which a container of a start that was broken off is there, if at all
POLL = 0.5  # seconds between two looks at a server that stops
GLANCE = 0.01  # seconds between two looks at a connection that nobody has accepted yet
ANSWER = 30  # seconds for one answer; the hub takes 10 before it says that a stop goes on
_PAGES = "application/jupyterhub-pagination+json"
_START = "start it with: systemctl start jupyterhub"


class _Older(CommandExecutionError):
    """The hub is of an older release. Modules of Salt share no classes, so callers look at the attribute."""

    older = True


def __virtual__():
    return __virtualname__


def users(prefix="/opt/tljh"):
    """
    Return everybody whom the hub knows, ``{name: {"admin": bool, "servers": [names of those that run or are about to
    start or stop], "seen": bool}}``; the default server's name is empty, and seen are those who have ever been there.
    ``{}`` where there is no hub.

    prefix
        Where the hub is installed.

    Raises CommandExecutionError when the hub does not answer, or its plugin is too old.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_api.users
    """
    hub = _hub(prefix)
    return hub.users() if hub else {}


def administrators(prefix="/opt/tljh"):
    """
    Return the names of the hub's administrators, sorted, by the role in its database, which is what decides. None where
    there is no hub.

    prefix
        Where the hub is installed.

    Raises CommandExecutionError when the hub does not answer, or its plugin is too old.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_api.administrators
    """
    hub = _hub(prefix)
    return hub.ask("GET", "plasma/administrators")[1]["administrators"] if hub else None


def set_admin(names, admin, prefix="/opt/tljh"):
    """
    Make people administrators of the hub, or ordinary users, at once and without a reload. Sessions and tokens that
    they have lose the rights, too. Somebody whom the hub does not know is made known to it, or is none already.

    names
        List of names.

    admin
        Whether they are to be administrators.

    prefix
        Where the hub is installed.

    Returns the names of all administrators afterwards, sorted. Raises CommandExecutionError where there is no hub, it
    does not answer, or its plugin is too old; SaltInvocationError for wrong arguments.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_api.set_admin '[ada]' true
    """
    names = _names(names)
    if not isinstance(admin, bool):
        raise SaltInvocationError(f"admin must be true or false, not {admin!r}.")
    hub = _hub(prefix)
    if not hub:
        raise CommandExecutionError(f"No hub with the Plasma plugin runs in {prefix}: apply the state tljh.")
    return hub.ask("PATCH", "plasma/administrators", {"grant" if admin else "revoke": names})[1]["administrators"]


def connection(prefix="/opt/tljh", answer=ANSWER):
    """
    Return an object that asks the hub, for modules that ask it for something else than people; None where there is no
    hub. Its ``ask(method, path, body, also=())`` returns ``(status, content)``, ``base`` is what paths are below.

    prefix
        Where the hub is installed.

    answer
        Seconds for one answer.

    Raises CommandExecutionError when the hub is stopped, or its plugin is too old; that one has an attribute ``older``,
    which is true.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_api.connection  # not from the command line: what it returns is an object
    """
    return _hub(prefix, answer)


def forget(names, prefix="/opt/tljh", timeout=60):
    """
    Take people who are about to be removed out of the hub: their rights, every server of theirs, and then all that the
    hub knows of them (tokens, sessions, names of servers). Containers of theirs that are left after that are stopped
    and removed, whichever hub started them. Files are not touched. Let their accounts expire before (``usermod
    --expiredate 1``), or they log in and start servers again meanwhile; the plugin looks at that date at every start.

    names
        List of login names. Those whom the hub does not know are no error.

    prefix
        Where the hub is installed.

    timeout
        Seconds for the servers of one person, and for the containers that are left.

    Returns ``{"stopped": {name: [server names]}, "forgotten": [names]}``; forgotten are those whom the hub knew. Raises
    CommandExecutionError when a server cannot be stopped, with nobody forgotten unless it started while they were being
    forgotten, or when the hub does not answer; SaltInvocationError for wrong arguments.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_api.forget '[anna]'
    """
    names = _names(names)
    if not names:
        return {"stopped": {}, "forgotten": []}
    hub, stopped, forgotten = _hub(prefix), {}, []
    if hub:
        _unname(names, prefix)
        hub.ask("PATCH", "plasma/administrators", {"revoke": names})
        known = _stop_all(hub, names, timeout)
        gone = _each([name for name in names if name in known], lambda one: hub.delete(one, timeout))
        forgotten = sorted(name for name, was_there in gone.items() if was_there)
        stopped = hub.stopped
    _remove_containers(names, timeout, stopped)
    if hub and hub.broken_off:
        # Docker may still be making the container of a start that nobody waits for any more.
        time.sleep(SETTLE)
        _remove_containers(sorted(hub.broken_off), timeout, stopped)
    return {"stopped": {name: sorted(found) for name, found in stopped.items()}, "forgotten": forgotten}


def _stop_all(hub, names, timeout):
    """Stop all servers of these people, those too that start meanwhile; everybody whom the hub knows then."""
    for _ in range(ROUNDS):
        known = hub.users()
        busy = [name for name in names if known.get(name, {}).get("servers")]
        if not busy:
            return known
        _each(busy, lambda one: hub.stop_servers(one, timeout))
    raise CommandExecutionError(
        f"Servers of {busy[0]} are started again and again, so nobody was removed: lock the account, or where it is "
        "locked apply the state tljh, whose hub starts nothing for such accounts."
    )


def _remove_containers(names, timeout, stopped):
    for name, left in __salt__["plasma_hub_containers.remove"](names, timeout=timeout).items():
        stopped.setdefault(name, set()).update(left)


def _unname(names, prefix):
    """Take people out of the administrators of config.yaml: whoever gets the name next would be one from the start."""
    named = __salt__["tljh_config.get"]("users.admin", prefix=prefix) or []
    kept = [name for name in named if str(name) not in names]
    if kept != named:
        __salt__["tljh_config.update"]({"users.admin": kept}, prefix=prefix)


def _each(names, function):
    """Call a function with each name, several at a time; ``{name: what it returned}``. The first error is raised."""
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        # Salt knows by the context which module asks: without a copy of it a thread has no __salt__.
        tasks = {name: pool.submit(contextvars.copy_context().run, function, name) for name in names}
        try:
            return {name: task.result() for name, task in tasks.items()}
        except BaseException:
            for task in tasks.values():
                task.cancel()
            raise


def _names(names):
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise SaltInvocationError("names must be a list of names; put those of digits alone in quotes.")
    return list(dict.fromkeys(names))


def _user(model):
    return {
        "admin": bool(model.get("admin")),
        "servers": sorted(model.get("servers") or {}),
        "seen": bool(model.get("last_activity")),
    }


def _hub(prefix, answer=None):
    """Return the hub below this prefix, to be asked; None where there is none that knows anybody."""
    root = pathlib.Path(prefix)
    if not (root / "hub" / "bin" / "python3").exists():
        return None
    token = _token(root / "state" / TOKEN_FILE)
    running = __salt__["tljh_service.running"]()
    if not token:
        if not running and not (root / "state" / "jupyterhub.sqlite").exists():
            return None
        raise _Older(
            f"The hub in {prefix} has made no token for its operator: it is of an older release, so apply the state "
            "tljh first."
        )
    if not running:
        raise CommandExecutionError(f"The hub in {prefix} is stopped, so it cannot be asked: {_START}.")
    return _Hub(__salt__["tljh_config.show"](prefix), token, answer or ANSWER)


def _token(path):
    """Read the token; None when there is none. What others may have written or read is not used."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise CommandExecutionError(f"{path} cannot be read: {exc.strerror}.") from exc
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        text = file.read(256).decode("ascii", errors="replace") if stat.S_ISREG(status.st_mode) else ""
    if status.st_uid != os.geteuid() or status.st_mode & 0o077 or not re.fullmatch(r"[0-9a-f]{64}", text):
        raise CommandExecutionError(
            f"{path} is not a token that root alone can read: restart the hub, which makes another one."
        )
    return text


class _Hub:
    """The hub's API behind the proxy, at the address that config.yaml says."""

    def __init__(self, config, token, answer):
        self.config, self.token, self.answer = config, token, answer
        unconnected, path = __salt__["tljh_service.connection"](config, answer)
        self.address, self.port, self.base = unconnected.host, int(unconnected.port), f"{path}/"
        # One connection for each thread: thousands of them would take longer than the answers.
        self.kept = threading.local()
        self.stopped = {}  # name: names of servers
        self.broken_off = set()  # whose servers were starting when they were stopped

    def _connect(self):
        """Connect, to root's program alone, which is looked up before and after, so that nobody slips in between."""
        connection, _ = __salt__["tljh_service.connection"](self.config, self.answer)
        connection.auto_open = 0  # never again without these looks
        try:
            self._check_listeners()
            connection.connect()
            self._check_peer(connection.sock)
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

    def users(self):
        """Everybody, page by page."""
        found, offset = {}, 0
        while offset is not None:
            query = urllib.parse.urlencode({"offset": offset, "limit": PAGE})
            page = self.ask("GET", f"users?{query}", accept=_PAGES)[1]
            found.update({user["name"]: _user(user) for user in page["items"]})
            offset = (page["_pagination"]["next"] or {}).get("offset")
        return found

    def stop_servers(self, name, timeout):
        """Stop all servers of somebody and wait until they are gone; those that ran are noted."""
        path, end = f"users/{_quoted(name)}", time.monotonic() + float(timeout)
        while True:
            servers = (self.ask("GET", path, also=(404,))[1] or {}).get("servers") or {}
            if not servers:
                return
            self.stopped.setdefault(name, set()).update(servers)
            if any(seen.get("pending") not in (None, False, "stop") for seen in servers.values()):
                self.broken_off.add(name)
            if time.monotonic() >= end:
                which = min(servers)
                raise CommandExecutionError(
                    f"The server {f'{which!r} ' if which else ''}of {name} does not stop within {float(timeout):.0f} "
                    "seconds, so nobody was removed: see journalctl -u jupyterhub."
                )
            for server, seen in servers.items():
                if server in (".", "..") or seen.get("pending") == "spawn":
                    # Such a name cannot be part of an address; the hub sees within half a minute that it has ended.
                    # A start fails without its container. JupyterHub 5 would list for ever one that it is told to stop.
                    __salt__["plasma_hub_containers.remove"]([name], timeout=timeout)
                elif seen.get("pending") != "stop":
                    # 202: it goes on; 400 and 500: it starts or stops just now; 404: gone.
                    place = f"{path}/servers/{_quoted(server)}" if server else f"{path}/server"
                    self.ask("DELETE", place, also=(202, 400, 404, 500))
            time.sleep(POLL)

    def delete(self, name, timeout):
        """Delete somebody from the hub; whether it knew them. What has started since the last look is stopped."""
        for left in reversed(range(ROUNDS)):
            # The hub refuses with 400 while the default server stops, and with 500 while any other runs or starts.
            status = self.ask("DELETE", f"users/{_quoted(name)}", also=(400, 404, 500) if left else (404,))[0]
            if status not in (400, 500):
                break
            self.broken_off.add(name)
            time.sleep(POLL)
            self.stop_servers(name, timeout)
        return status != 404


def _quoted(name):
    return urllib.parse.quote(name, safe="")
