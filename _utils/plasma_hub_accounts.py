"""
The running hub: who is known to it, who administers it, and how people leave it. It is asked through
``plasma_hub_connection``, which says what "no hub" means.

A hub that knows people and does not answer is an error: what it would still let in cannot be told.
"""

from __future__ import annotations

import concurrent.futures
import time
import urllib.parse

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_hub_connection
import plasma_hub_containers
import plasma_hub_installed
import tljh_settings

PAGE = 200  # users in one answer
WORKERS = 8  # requests at a time: the hub has one thread, but stopping is waiting
ROUNDS = 5  # looks at who is busy, or tries to delete somebody, before that is an error
SETTLE = 3  # seconds after which a container of a start that was broken off is there, if at all
POLL = 0.5  # seconds between two looks at a server that stops
_PAGES = "application/jupyterhub-pagination+json"


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
    names = checked_names(names)
    if not isinstance(admin, bool):
        raise SaltInvocationError(f"admin must be true or false, not {admin!r}.")
    hub = _hub(prefix)
    if not hub:
        raise CommandExecutionError(plasma_hub_installed.absent(prefix, "runs"))
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
    names = checked_names(names)
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


def rename(moves, prefix="/opt/tljh", timeout=60):
    """
    Let the hub know people by other names, with their rights, groups and tokens of programs: their servers are stopped
    before, and their sessions end. The lists of config.yaml and the permissions of their own groups follow.

    moves
        List of ``{"old", "new", "group", "hub"}``: whether a group of the old name gets the new one, and whether the
        hub knew the old name before the first attempt.

    prefix
        Where the hub is installed.

    timeout
        Seconds for the servers of one person.

    Returns the new names of those whom the hub knew. Raises CommandExecutionError when a server cannot be stopped, or
    the hub does not answer or is too old.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users.compare '[{name: hanna, was: anna}]'
    """
    hub, olds = _hub(prefix), [move["old"] for move in moves]
    if not hub:
        _remove_containers(olds, timeout, {})
        return []
    names = {move["old"]: move["new"] for move in moves}
    for key in ("users.admin", "users.allowed", "users.banned"):
        listed = tljh_settings.get(key, prefix=prefix) or []
        changed = list(dict.fromkeys(names.get(str(name), name) for name in listed))
        if changed != listed:
            tljh_settings.update({key: changed}, prefix=prefix)
    known = _stop_all(hub, olds, timeout)
    _remove_containers(olds, timeout, {})
    done = []
    for move in moves:
        old, new = move["old"], move["new"]
        # A record of the new name is theirs when they had one and it is gone; or else that of somebody who is gone.
        if new in known and (old in known or not move["hub"]):
            hub.stop_servers(new, timeout)
            hub.delete(new, timeout)
        # The permissions of the group are there without the person, too, and when an earlier attempt got half-way.
        if old in known or move["group"]:
            hub.ask("PATCH", "plasma/people", {"old": old, "new": new, "group": move["group"]})
        if old in known:
            done.append(new)
    return done


def _stop_all(hub, names, timeout):
    """Stop all servers of these people, those too that start meanwhile; everybody whom the hub knows then."""
    for _ in range(ROUNDS):
        known = hub.users()
        busy = [name for name in names if known.get(name, {}).get("servers")]
        if not busy:
            return known
        _each(busy, lambda one: hub.stop_servers(one, timeout))
    raise CommandExecutionError(
        f"Servers of {busy[0]} are started again and again, so nothing was done: lock the account, or where it is "
        "locked apply the state tljh, whose hub starts nothing for such accounts."
    )


def _remove_containers(names, timeout, stopped):
    """Remove what is left of servers, and note those that were running."""
    for name, left in plasma_hub_containers.remove(names, timeout=timeout).items():
        stopped.setdefault(name, set()).update(left)


def _unname(names, prefix):
    """Take people out of the administrators of config.yaml: whoever gets the name next would be one from the start."""
    named = tljh_settings.get("users.admin", prefix=prefix) or []
    kept = [name for name in named if str(name) not in names]
    if kept != named:
        tljh_settings.update({"users.admin": kept}, prefix=prefix)


def _each(names, function):
    """Call a function with each name, several at a time; ``{name: what it returned}``. The first error is raised."""
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        tasks = {name: pool.submit(function, name) for name in names}
        try:
            return {name: task.result() for name, task in tasks.items()}
        except BaseException:
            for task in tasks.values():
                task.cancel()
            raise


def checked_names(names):
    """
    Return a list of login names without repetitions. Raises SaltInvocationError when it is none.
    """
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name for name in names):
        raise SaltInvocationError("names must be a list of names; put those of digits alone in quotes.")
    return list(dict.fromkeys(names))


def _hub(prefix):
    """Return the hub below this prefix, to be asked about people; None where there is none that knows anybody."""
    connection = plasma_hub_connection.connect(prefix)
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
            for user in page["items"]:
                found[user["name"]] = {
                    "admin": bool(user.get("admin")),
                    "servers": sorted(user.get("servers") or {}),
                    "seen": bool(user.get("last_activity")),
                }
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
                    "seconds, so nothing was done: see journalctl -u jupyterhub."
                )
            for server, seen in servers.items():
                if server in (".", "..") or seen.get("pending") == "spawn":
                    # Such a name cannot be part of an address; the hub sees within half a minute that it has ended.
                    # A start fails without its container. JupyterHub 5 would list for ever one that it is told to stop.
                    plasma_hub_containers.remove([name], timeout=timeout)
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
