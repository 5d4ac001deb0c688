"""
Care for the disks of the server: the timer that removes what builds left in the Docker engine, and how full disks are.

The work itself is done by /usr/local/lib/plasma/prune.py, which needs neither Salt nor a hub.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_prune"

PROGRAM = "/usr/local/lib/plasma/prune.py"
NOTE = "/var/lib/plasma/prune.json"
TIMER, SERVICE = "plasma-prune.timer", "plasma-prune.service"
UNITS = "/etc/systemd/system"
# File systems that are on this server, so that asking how full they are cannot hang. Others are left out.
_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs", "overlay", "tmpfs"}


def __virtual__():
    return __virtualname__


def units(schedule, min_age=72):
    """
    Return the texts of timer and service, ``{name: text}``.

    schedule
        When, as systemd's OnCalendar.
    min_age
        Hours that leftovers are kept.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prune.units daily
    """
    head = "# Managed by Plasma on Salt.\n[Unit]\n"
    return {
        TIMER: f"{head}Description=When leftovers of Docker builds are removed (Plasma)\n\n[Timer]\n"
        f"OnCalendar={schedule}\nPersistent=true\nRandomizedDelaySec=60\n\n[Install]\nWantedBy=timers.target\n",
        SERVICE: f"{head}Description=Remove leftovers of Docker builds (Plasma)\nAfter=docker.service\n\n[Service]\n"
        f"Type=oneshot\nExecStart=/usr/bin/python3 -I {PROGRAM} --min-age={int(min_age)} --note={NOTE}\n"
        "Nice=10\nIOSchedulingClass=idle\nNoNewPrivileges=yes\nPrivateTmp=yes\nProtectHome=yes\n",
    }


def compare(schedule=None, min_age=72, directory=UNITS):
    """
    Return how the timer differs from what is wanted, as ``{what: {"old", "new"}}``.

    schedule
        As systemd's OnCalendar; None: there is to be no timer.
    min_age
        Hours that leftovers are kept.
    directory
        Where units are: for tests.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prune.compare daily
    """
    wanted = units(schedule, min_age) if schedule else {TIMER: None, SERVICE: None}
    changes = {}
    for name, text in wanted.items():
        current = _text(pathlib.Path(directory, name))
        if current != text:
            changes[name] = {"old": current and _brief(current), "new": text and _brief(text)}
    if not schedule and os.path.exists(PROGRAM):
        changes[PROGRAM] = {"old": "installed", "new": None}
    if schedule and not changes:
        timer = _show(TIMER, "ActiveState,UnitFileState")
        if timer.get("ActiveState") != "active" or timer.get("UnitFileState") != "enabled":
            changes["timer"] = {"old": timer.get("ActiveState"), "new": "active"}
    return changes


def schedule(schedule=None, min_age=72, directory=UNITS):
    """
    Make the timer, change it, or remove it with its program; the arguments are those of ``compare``.

    Returns the changes. Raises CommandExecutionError when systemd refuses.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prune.schedule daily
    """
    changes = compare(schedule, min_age, directory)
    if not changes:
        return {}
    if schedule:
        for name, text in units(schedule, min_age).items():
            __salt__["plasma_files.write"](pathlib.Path(directory, name), text, mode=0o644)
        _systemctl("daemon-reload")
        _systemctl("enable", TIMER)
        _systemctl("restart", TIMER)
        return changes
    if pathlib.Path(directory, TIMER).exists():
        _systemctl("disable", "--now", TIMER)
    for path in (pathlib.Path(directory, TIMER), pathlib.Path(directory, SERVICE), pathlib.Path(PROGRAM)):
        path.unlink(missing_ok=True)
    _systemctl("daemon-reload")
    return changes


def run():
    """
    Remove leftovers now, as the timer does it; returns what ``health`` returns then.

    Raises CommandExecutionError when there is no timer, or when it fails.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prune.run
    """
    if not os.path.exists(PROGRAM):
        raise CommandExecutionError(
            "Leftovers of builds are not looked after: set plasma.docker.prune.enabled, then apply the state docker."
        )
    done = _run("start", SERVICE, timeout=1800)
    found = health()
    if done.returncode:
        raise CommandExecutionError(found["problem"] or f"It failed: see journalctl -u {SERVICE}.")
    return found


def health():
    """
    Return how the care for the engine's disk is: ``{"timer": "active" | "inactive" | None, "next", "last" (ISO 8601 of
    the last run), "freed" (bytes), "images" (removed by it), "problem" (one sentence with the command that mends it, or
    None)}``. Without a timer nothing is wrong: pillar asks for none.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prune.health
    """
    found = dict.fromkeys(("timer", "next", "last", "freed", "images", "problem"))
    try:
        note = json.loads(pathlib.Path(NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        note = {}
    found.update(last=note.get("at"), freed=note.get("freed"), images=note.get("images"))
    try:
        timer = _show(TIMER, "LoadState,ActiveState,NextElapseUSecRealtime")
    except CommandExecutionError:
        return found
    if timer.get("LoadState") != "loaded":
        return found
    found.update(timer=timer["ActiveState"], next=timer.get("NextElapseUSecRealtime") or None)
    if timer["ActiveState"] != "active":
        found["problem"] = f"Leftovers of builds are not removed, as the timer is stopped: systemctl start {TIMER}"
    elif note.get("error"):
        found["problem"] = f"Leftovers of builds were not removed: {note['error']}"
    return found


def disks(paths=("/", "/opt/tljh", "/var/lib/docker", "/home"), warn_at=85):
    """
    Return how full the file systems of these paths are, each once: ``[{"path", "mount", "size" and "free" (bytes),
    "percent" (used, as df counts it), "full" (whether that is warn_at or more)}]``. File systems of other machines and
    paths that are not there are left out.

    paths
        List of paths.
    warn_at
        Percent.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prune.disks warn_at=90
    """
    mounts, found = __salt__["plasma_quota_fs.mounts"](), {}
    for path in paths:
        holders = [mount for mount in mounts if f"{path}/".startswith(mount["target"].rstrip("/") + "/")]
        # The longest; of several on one another, the last.
        holder = max(enumerate(holders), key=lambda pair: (len(pair[1]["target"]), pair[0]), default=(0, None))[1]
        if not holder or holder["type"] not in _LOCAL or holder["device"] in found:
            continue
        try:
            status = os.statvfs(path)
        except OSError:
            continue
        used, free = status.f_blocks - status.f_bfree, status.f_bavail
        if not used + free:
            continue
        percent = -(-100 * used // (used + free))
        found[holder["device"]] = {
            "path": path,
            "mount": holder["target"],
            "size": status.f_blocks * status.f_frsize,
            "free": free * status.f_frsize,
            "percent": percent,
            "full": percent >= warn_at,
        }
    return list(found.values())


def _text(path):
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _brief(text):
    """What of a unit may differ."""
    lines = [line for line in text.splitlines() if line.startswith(("OnCalendar=", "ExecStart="))]
    return lines[0] if lines else "another unit"


def _show(unit, properties):
    done = _run("show", f"--property={properties}", unit)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def _systemctl(*words):
    done = _run(*words)
    if done.returncode:
        raise CommandExecutionError(f"systemctl {' '.join(words)} failed: {done.stderr.strip()}.")


def _run(*words, timeout=60):
    try:
        return subprocess.run(
            ["systemctl", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CommandExecutionError(f"systemctl {words[0]} cannot be run: {exc}.") from exc
