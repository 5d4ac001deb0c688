"""
SSH, sessions, cron and at of the host: closed to people of the hub, open to those whom pillar names, and looked after
by a service that needs no Salt. Who is who is decided in ``plasma_doors``.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pathlib
import pwd
from collections.abc import Generator, Sequence
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_doors
import plasma_doors_files
import plasma_doors_rules
import plasma_files
import plasma_ssh_seen
import plasma_systemd
import plasma_users_leave

UNIT = "plasma-doors.service"
_UNIT_FILE = f"/etc/systemd/system/{UNIT}"
_UNIT_TEXT = """# Managed by Plasma on Salt (plasma.ssh).
[Unit]
Description=Keep SSH, sessions and jobs of this host to those they are open to (Plasma)
Before=systemd-user-sessions.service ssh.service sshd.service cron.service atd.service

[Service]
Type=notify
ExecStart=/usr/bin/python3 -I /usr/local/lib/plasma/doors.py keep
Restart=always
RestartSec=2
TimeoutStartSec=60
MemoryMax=256M
PrivateTmp=yes
ProtectHome=yes

[Install]
WantedBy=multi-user.target
"""
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


# What the SLS brings for the keeper.
_PROGRAMS = [
    f"/usr/local/lib/plasma/{name}.py" for name in ("doors", "plasma_doors", "plasma_doors_files", "plasma_doors_rules")
]
_LIMITS: dict[str, Any] = {"memory": "2G", "cpu": 2, "tasks": 1024}
Changes = dict[str, dict[str, Any]]


@contextlib.contextmanager
def _errors_of_salt() -> Generator[None]:
    """What the doors raise, which know no Salt, as CommandExecutionError."""
    try:
        yield
    except (RuntimeError, OSError) as exc:
        raise CommandExecutionError(str(exc)) from exc


def compare(
    users: Sequence[str] = (),
    groups: Sequence[str] = (),
    limits: dict[str, Any] | None = None,
    coming: dict[str, list[str]] | None = None,
) -> Changes:
    """
    Return how the doors differ from what is wanted, ``{what: {"old", "new"}}``, and who loses one.

    users, groups
        Login names, and names of groups, to whom SSH is open beside those who could become root anyway.
    limits
        ``{"memory": text such as "2G", "cpu": CPUs, "tasks": processes and threads}`` of what each account runs.
    coming
        ``{"users", "groups"}``: names among them that need not be there yet.

    Raises CommandExecutionError, with one sentence.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_ssh.compare '[anna]' '[]' '{memory: 2G, cpu: 2, tasks: 1024}'
    """
    with _errors_of_salt():
        return _compare(_wanted(users, groups, limits, coming))


def apply(
    users: Sequence[str] = (),
    groups: Sequence[str] = (),
    limits: dict[str, Any] | None = None,
    coming: dict[str, list[str]] | None = None,
) -> Changes:
    """
    Close the doors to everybody else, and have them kept so. The arguments are those of ``compare``.

    Returns the changes. Raises CommandExecutionError, with one sentence; sshd goes on with what it had then.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_ssh.apply '[anna]' '[]' '{memory: 2G, cpu: 2, tasks: 1024}'
    """
    failed = []
    with _errors_of_salt():
        config = _wanted(users, groups, limits, coming)
        changes = _compare(config)
        if not changes:
            return {}
        with plasma_doors.lock():
            path = pathlib.Path(plasma_doors.CONFIG)
            plasma_files.directory(path.parent, 0o700)
            plasma_files.write(path, json.dumps(config))
            plasma_files.write(_UNIT_FILE, _UNIT_TEXT, mode=0o644)
            who = plasma_doors.standing(config)
            # One door that does not close leaves no other one open; the keeper tries again.
            for close in (lambda: plasma_doors_files.put(config, who), lambda: plasma_doors_rules.put(who)):
                try:
                    close()
                except (RuntimeError, OSError) as exc:
                    failed.append(str(exc))
        for words in (("daemon-reload",), ("enable", UNIT), ("restart", UNIT)):
            plasma_systemd.check(*words)
    if failed:
        raise CommandExecutionError(" ".join(failed))
    return changes


def compare_removed() -> Changes:
    """
    Return what ``remove`` would take away, ``{what: {"old", "new"}}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_ssh.compare_removed
    """
    changes = plasma_doors_files.compare(None, {})
    found = [path for path, change in changes.items() if change["old"] is not None]
    found += filter(os.path.lexists, (_UNIT_FILE, plasma_doors.CONFIG, *_PROGRAMS))
    return {path: {"old": "present", "new": None} for path in found}


def remove() -> Changes:
    """
    Leave the doors as the server has them itself: who has a shell and a key or a password may log in again.

    Returns the changes. Raises CommandExecutionError.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_ssh.remove
    """
    with _errors_of_salt():
        changes = compare_removed()
        if not changes:
            return {}
        if os.path.exists(_UNIT_FILE):
            plasma_systemd.check("disable", "--now", UNIT)
        with plasma_doors.lock():
            pathlib.Path(plasma_doors.CONFIG).unlink(missing_ok=True)
            plasma_doors_files.put(None, plasma_doors.standing(None))
            plasma_doors_rules.remove()
        # The programs last: until now, systemd and PAM ask them.
        for path in (_UNIT_FILE, *_PROGRAMS):
            pathlib.Path(path).unlink(missing_ok=True)
        plasma_systemd.check("daemon-reload")
    return changes


def health() -> dict[str, Any]:
    """
    Return how the doors are: ``{"kept": bool, "open": [people to whom SSH is open], "privileged": [accounts that could
    become root, who have it always], "shut": number of accounts, "problem": a sentence with what mends it, or None}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_ssh.health
    """
    found = {"kept": False, "open": [], "privileged": [], "shut": 0, "problem": None}
    try:
        config = plasma_doors.read()
        if config is None:
            return found
        who = plasma_doors.standing(config)
        found.update(kept=True, open=who["open"], privileged=sorted(who["privileged"]), shut=len(who["shut"]))
        found["problem"] = _problem(config, who)
    except (RuntimeError, OSError) as exc:
        found["problem"] = f"It cannot be told who may log in over SSH ({str(exc).rstrip('.')}): state.apply ssh"
    return found


def _problem(config, who):
    # What is open comes before what would close it: whoever reads one sentence reads the worst.
    changed = sorted(plasma_doors_files.compare(config, who))
    sample = next(iter(who["shut"]), None)
    if sample and os.path.exists("/usr/sbin/sshd") and not plasma_doors_files.verdict(sample):
        see = ", ".join(changed) or "/etc/ssh/sshd_config"
        return f"sshd would let {sample} in, whom pillar shuts out, see {see}: state.apply ssh"
    if changed:
        return f"Doors of this host are not as pillar wants them, see {', '.join(changed)}: state.apply ssh"
    if not plasma_systemd.active(UNIT):
        return f"SSH of people is not looked after, as its keeper does not run: systemctl restart {UNIT}"
    if not plasma_doors_rules.in_place(who):
        return f"Processes of people reach the host's inner ports: systemctl restart {UNIT}"
    return None


def _wanted(users, groups, limits, coming):
    limits, coming = limits or _LIMITS, coming or {}
    for kind, names, look_up in (("users", users, pwd.getpwnam), ("groups", groups, grp.getgrnam)):
        for name in set(names) - set(coming.get(kind) or ()):
            try:
                look_up(name)
            except KeyError:
                raise CommandExecutionError(
                    f"plasma.ssh.open_to.{kind}: {name!r} is neither in pillar nor on this server."
                ) from None
    came_as = set()
    for uid in plasma_users_leave.protected():
        with contextlib.suppress(KeyError):
            came_as.add(pwd.getpwuid(uid).pw_name)
    config = {"users": sorted(set(users)), "groups": sorted(set(groups)), "came_as": []}
    # Who may become root anyway need not be named; two operators would otherwise take turns here.
    names = came_as - set(plasma_doors.standing(config)["privileged"])
    config["came_as"] = sorted(names) or (plasma_doors.read() or {}).get("came_as", [])
    memory = int(float(limits["memory"][:-1]) * _UNITS[limits["memory"][-1]])
    config["limits"] = {"memory": memory, "cpu": limits["cpu"], "tasks": limits["tasks"]}
    return config


def _compare(config):
    now = plasma_doors.read()
    who = plasma_doors.standing(config)
    changes = {}
    if now != config:
        for key in ("users", "groups", "limits"):
            old, new = now and now.get(key), config[key]
            if old != new:
                name = key if key == "limits" else f"open to {key}"
                changes[name] = {"old": old if now else "everybody" if key == "users" else None, "new": new}
        before = set(plasma_doors.standing(now)["shut"]) if now else set()
        lose = [name for name in who["shut"] if name not in before]
        if lose:
            uses = plasma_ssh_seen.uses(lose)
            named = [f"{name} ({', '.join(uses[name])})" if name in uses else name for name in lose]
            changes["shut out"] = {"old": None, "new": named}
        if not changes:
            changes["came as"] = {"old": now and now.get("came_as"), "new": config["came_as"]}
    for path, change in plasma_doors_files.compare(config, who).items():
        changes[path] = {"old": change["old"] and "another", "new": change["new"] and "written"}
    text = plasma_doors_files.read(_UNIT_FILE)
    if text != _UNIT_TEXT:
        changes[UNIT] = {"old": text and "another", "new": "written"}
    elif not plasma_systemd.active(UNIT):
        changes[UNIT] = {"old": "stopped", "new": "running"}
    return changes
