"""
SSH, sessions, cron and at of the host: closed to people of the hub, open to those whom pillar names, and looked after
by a service that needs no Salt. Who is who is decided in ``plasma_doors``.
"""

from __future__ import annotations

import grp
import json
import os
import pathlib
import pwd
import subprocess

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_ssh"

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


def __virtual__():
    return __virtualname__


def compare(users=(), groups=(), limits=None, coming=None):
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
    try:
        return _compare(_wanted(users, groups, limits, coming))
    except (RuntimeError, OSError) as exc:
        raise CommandExecutionError(str(exc)) from exc


def apply(users=(), groups=(), limits=None, coming=None):
    """
    Close the doors to everybody else, and have them kept so. The arguments are those of ``compare``.

    Returns the changes. Raises CommandExecutionError, with one sentence; sshd goes on with what it had then.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_ssh.apply '[anna]' '[]' '{memory: 2G, cpu: 2, tasks: 1024}'
    """
    failed = []
    try:
        config = _wanted(users, groups, limits, coming)
        changes = _compare(config)
        if not changes:
            return {}
        with __salt__["plasma_doors.lock"]():
            path = pathlib.Path(_config_file())
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            __salt__["plasma_files.write"](path, json.dumps(config))
            __salt__["plasma_files.write"](pathlib.Path(_UNIT_FILE), _UNIT_TEXT, mode=0o644)
            who = __salt__["plasma_doors.standing"](config)
            # One door that does not close leaves no other one open; the keeper tries again.
            for close in (
                lambda: __salt__["plasma_doors_files.put"](config, who),
                lambda: __salt__["plasma_doors_rules.put"](who),
            ):
                try:
                    close()
                except (RuntimeError, OSError) as exc:
                    failed.append(str(exc))
        for words in (("daemon-reload",), ("enable", UNIT), ("restart", UNIT)):
            _systemctl(*words)
    except (RuntimeError, OSError) as exc:
        raise CommandExecutionError(str(exc)) from exc
    if failed:
        raise CommandExecutionError(" ".join(failed))
    return changes


def compare_removed():
    """
    Return what ``remove`` would take away, ``{what: {"old", "new"}}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_ssh.compare_removed
    """
    who = {"first": 1000, "bound": [[1000, 60000]], "free_uids": []}
    found = {
        path: {"old": "present", "new": None}
        for path, change in __salt__["plasma_doors_files.compare"](None, who).items()
        if change["old"] is not None
    }
    for path in (_UNIT_FILE, _config_file(), *_programs()):
        if os.path.lexists(path):
            found[path] = {"old": "present", "new": None}
    return found


def remove():
    """
    Leave the doors as the server has them itself: who has a shell and a key or a password may log in again.

    Returns the changes. Raises CommandExecutionError.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_ssh.remove
    """
    try:
        changes = compare_removed()
        if not changes:
            return {}
        if os.path.exists(_UNIT_FILE):
            _systemctl("disable", "--now", UNIT)
        with __salt__["plasma_doors.lock"]():
            pathlib.Path(_config_file()).unlink(missing_ok=True)
            __salt__["plasma_doors_files.put"](None, __salt__["plasma_doors.standing"](None))
            __salt__["plasma_doors_rules.remove"]()
        # The programs last: until now, systemd and PAM ask them.
        for path in (_UNIT_FILE, *_programs()):
            pathlib.Path(path).unlink(missing_ok=True)
        _systemctl("daemon-reload")
    except (RuntimeError, OSError) as exc:
        raise CommandExecutionError(str(exc)) from exc
    return changes


def health():
    """
    Return how the doors are: ``{"kept": bool, "open": [people to whom SSH is open], "privileged": [accounts that could
    become root, who have it always], "shut": number of accounts, "problem": a sentence with what mends it, or None}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_ssh.health
    """
    found = {"kept": False, "open": [], "privileged": [], "shut": 0, "problem": None}
    try:
        config = __salt__["plasma_doors.read"]()
        if config is None:
            return found
        who = __salt__["plasma_doors.standing"](config)
        found.update(kept=True, open=who["open"], privileged=sorted(who["privileged"]), shut=len(who["shut"]))
        found["problem"] = _problem(config, who)
    except (RuntimeError, OSError) as exc:
        found["problem"] = f"It cannot be told who may log in over SSH ({str(exc).rstrip('.')}): state.apply ssh"
    return found


def _problem(config, who):
    # What is open comes before what would close it: whoever reads one sentence reads the worst.
    changed = sorted(__salt__["plasma_doors_files.compare"](config, who))
    sample = next(iter(who["shut"]), None)
    if sample and os.path.exists("/usr/sbin/sshd") and not __salt__["plasma_doors_files.verdict"](sample):
        see = ", ".join(changed) or "/etc/ssh/sshd_config"
        return f"sshd would let {sample} in, whom pillar shuts out, see {see}: state.apply ssh"
    if changed:
        return f"Doors of this host are not as pillar wants them, see {', '.join(changed)}: state.apply ssh"
    if not _active():
        return f"SSH of people is not looked after, as its keeper does not run: systemctl restart {UNIT}"
    if not __salt__["plasma_doors_rules.in_place"](who):
        return f"Processes of people reach the host's inner ports: systemctl restart {UNIT}"
    return None


def _wanted(users, groups, limits, coming):
    limits, coming = limits or {"memory": "2G", "cpu": 2, "tasks": 1024}, coming or {}
    for kind, names, known in (("users", users, pwd.getpwnam), ("groups", groups, grp.getgrnam)):
        for name in set(names) - set(coming.get(kind) or ()):
            try:
                known(name)
            except KeyError:
                raise CommandExecutionError(
                    f"plasma.ssh.open_to.{kind}: {name!r} is neither in pillar nor on this server."
                ) from None
    came_as = []
    for uid in __salt__["plasma_users_removal.protected"]():
        try:
            came_as.append(pwd.getpwuid(uid).pw_name)
        except KeyError:
            continue
    config = {"users": sorted(set(users)), "groups": sorted(set(groups)), "came_as": []}
    # Who may become root anyway need not be named; two operators would otherwise take turns here.
    names = set(came_as) - set(__salt__["plasma_doors.standing"](config)["privileged"])
    config["came_as"] = sorted(names) or (__salt__["plasma_doors.read"]() or {}).get("came_as", [])
    config["limits"] = {
        "memory": int(float(limits["memory"][:-1]) * _UNITS[limits["memory"][-1]]),
        "cpu": limits["cpu"],
        "tasks": limits["tasks"],
    }
    return config


def _compare(config):
    now = __salt__["plasma_doors.read"]()
    who = __salt__["plasma_doors.standing"](config)
    changes = {}
    if now != config:
        for key in ("users", "groups", "limits"):
            old, new = now and now.get(key), config[key]
            if old != new:
                name = key if key == "limits" else f"open to {key}"
                changes[name] = {"old": old if now else "everybody" if key == "users" else None, "new": new}
        before = set(__salt__["plasma_doors.standing"](now)["shut"]) if now else set()
        lose = [name for name in who["shut"] if name not in before]
        if lose:
            used = __salt__["plasma_ssh_seen.uses"](lose)
            changes["shut out"] = {"old": None, "new": [_who(name, used.get(name)) for name in lose]}
        if not changes:
            changes["came as"] = {"old": now and now.get("came_as"), "new": config["came_as"]}
    for path, change in __salt__["plasma_doors_files.compare"](config, who).items():
        changes[path] = {"old": change["old"] and "another", "new": change["new"] and "written"}
    try:
        text = pathlib.Path(_UNIT_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        text = None
    if text != _UNIT_TEXT:
        changes[UNIT] = {"old": text and "another", "new": "written"}
    elif not _active():
        changes[UNIT] = {"old": "stopped", "new": "running"}
    return changes


def _who(name, uses):
    return f"{name} ({', '.join(uses)})" if uses else name


def _config_file():
    return "/var/lib/plasma/doors.json"


def _programs():
    names = ("doors.py", "plasma_doors.py", "plasma_doors_files.py", "plasma_doors_rules.py")
    return [f"/usr/local/lib/plasma/{name}" for name in names]


def _active():
    return subprocess.run(["systemctl", "is-active", "--quiet", UNIT], check=False, timeout=30).returncode == 0


def _systemctl(*words):
    done = __salt__["plasma_doors.run"]("systemctl", *words)
    if done.returncode:
        raise RuntimeError(f"systemctl {' '.join(words)} failed: {done.stderr.strip() or 'no output'}.")
