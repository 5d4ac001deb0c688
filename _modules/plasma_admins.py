"""
Who administers the hub: ``users.admin`` of config.yaml, which makes administrators when the hub starts, and the role in
the hub's database, which is what decides and which no start of the hub takes away again.

https://github.com/jupyterhub/jupyterhub/issues/4854 and 4827: a name that leaves ``admin_users`` stays administrator.

First the file, then the database. Whatever is interrupted, the next run sees what is missing: the file or a reload that
it owes (``tljh_config.pending``), or the role.
"""

from __future__ import annotations

import pwd

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_accounts
import plasma_hub_accounts
import plasma_hub_installed
import tljh_settings

KEY = "users.admin"


def compare(names, prefix="/opt/tljh", groups=()):
    """
    Return what ``apply`` would change, ``{what: {"old", "new"}}``, and None where there is no hub yet.

    names
        List of all administrators there are to be.

    prefix
        Where the hub is installed.

    groups
        List of groups whose members are administrators, too. Who of them the hub knows as one stays one.

    Keys of the result: ``users.admin`` (the file), ``reload`` (an interrupted run owes one), ``administrators`` (the
    role in the hub's database, sorted). Raises CommandExecutionError when the hub does not answer, its plugin is too
    old or config.yaml is invalid; SaltInvocationError for names that are none.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_admins.compare '[ada]'
    """
    names = _names(names, groups)
    current = plasma_hub_accounts.administrators(prefix=prefix)
    if current is None:
        return None
    wanted = _wanted(names, groups, current)
    changes = dict(tljh_settings.compare({KEY: names}, prefix=prefix))
    due = tljh_settings.pending(prefix=prefix)
    if due and not changes:
        changes["reload"] = {"old": None, "new": due}
    if set(current) != wanted:
        changes["administrators"] = {"old": current, "new": sorted(wanted)}
    return changes


def apply(names, prefix="/opt/tljh", timeout=120, groups=()):
    """
    Make these people, and nobody else, administrators of the hub. It is reloaded once, and only when config.yaml
    changes; servers go on. Whoever is revoked loses the rights of their sessions and tokens at once.

    names
        List of all administrators there are to be; empty only with ``groups``. They need no account on the server.

    prefix
        Where the hub is installed.

    groups
        As for ``compare``.

    timeout
        Seconds for the reload. When the hub does not come back with the new file, the old one is restored, and the
        database stays as it was.

    Returns ``{"changes": as ``compare`` does, "reloaded": bool, "seconds": float}``. Raises CommandExecutionError where
    there is no hub, for what ``compare`` and ``tljh_config.apply`` raise, and when somebody is still administrator
    afterwards; SaltInvocationError for names that are none.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_admins.apply '[ada, "20231234"]'
    """
    names = _names(names, groups)
    changes = compare(names, prefix, groups)
    if changes is None:
        raise CommandExecutionError(plasma_hub_installed.absent(prefix, "runs"))
    done = tljh_settings.apply({KEY: names}, prefix=prefix, timeout=timeout)
    current = set(plasma_hub_accounts.administrators(prefix=prefix))
    wanted = _wanted(names, groups, current)
    # In this order, so that there is no moment without an administrator.
    for people, admin in ((wanted - current, True), (current - wanted, False)):
        if people:
            current = set(plasma_hub_accounts.set_admin(sorted(people), admin, prefix=prefix))
    if current != wanted:
        raise CommandExecutionError(
            f"The hub's administrators are {', '.join(sorted(current)) or 'nobody'} and not "
            f"{', '.join(sorted(wanted))}: see journalctl -u jupyterhub."
        )
    return {"changes": changes, "reloaded": bool(done["reloaded"]), "seconds": done["seconds"]}


def without_account(names):
    """
    Return those of the names that no account of this server has. They can be administrators, and cannot log in.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_admins.without_account '[ada]'
    """
    missing = []
    for name in plasma_hub_accounts.checked_names(names):
        try:
            pwd.getpwnam(name)
        except KeyError:
            missing.append(name)
    return missing


def _names(names, groups=()):
    names = plasma_hub_accounts.checked_names(names)
    if not names and not groups:
        raise SaltInvocationError("names is empty: that would leave the hub without an administrator.")
    return names


def _wanted(names, groups, current):
    """Those who are to be administrators, as the hub knows them: the named, and whoever is one by a group."""
    return {plasma_accounts.canonical(name) for name in names} | plasma_accounts.members_among(current, groups)
