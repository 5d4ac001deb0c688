"""
The running hub: who is known to it, who administers it, and how people leave it. It is asked through
``plasma_hub_connection``, which says what "no hub" means.

A hub that knows people and does not answer is an error: what it would still let in cannot be told.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import time
import urllib.parse

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_hub_api"

PAGE = 200  # users in one answer
WORKERS = 8  # requests at a time: the hub has one thread, but stopping is waiting
ROUNDS = 5  # looks at who is busy, or tries to delete somebody, before that is an error
SETTLE = 3  # seconds after which a container of a start that was broken off is there, if at all
POLL = 0.5  # seconds between two looks at a server that stops
_PAGES = "application/jupyterhub-pagination+json"


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


def _hub(prefix):
    """Return the hub below this prefix, to be asked about people; None where there is none that knows anybody."""
    connection = __salt__["plasma_hub_connection.connect"](prefix)
    return _Hub(connection) if connection else None


class _Hub:
    """People at the hub."""

    def __init__(self, connection):
        self.ask = connection.ask
        self.stopped = {}  # name: names of servers
        self.broken_off = set()  # whose servers were starting when they were stopped

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
