"""
Care for the disks of the server: the timer that removes what builds left in the Docker engine, and how full disks are.

The work itself is done by /usr/local/lib/plasma/prune.py, which needs neither Salt nor a hub.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_mounts
import plasma_systemd
import plasma_timer

PROGRAM = "/usr/local/lib/plasma/prune.py"
NOTE = "/var/lib/plasma/prune.json"
SERVICE = "plasma-prune.service"
# File systems that are on this server, so that asking how full they are cannot hang. Others are left out.
_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs", "overlay", "tmpfs"}


def timer(schedule: str | None, min_age: int = 72) -> plasma_timer.Timer:
    """
    Return the timer that removes leftovers of builds.

    schedule
        As systemd's OnCalendar; None: no timer, and no program either.
    min_age
        Hours that leftovers are kept.
    """
    return plasma_timer.Timer(
        name="plasma-prune",
        schedule=schedule,
        key="plasma.docker.prune.schedule",
        comment="# Managed by Plasma on Salt.",
        description="When leftovers of Docker builds are removed (Plasma)",
        service="[Unit]\nDescription=Remove leftovers of Docker builds (Plasma)\nAfter=docker.service\n\n[Service]\n"
        f"Type=oneshot\nExecStart=/usr/bin/python3 -I {PROGRAM} --min-age={int(min_age)} --note={NOTE}\n"
        "Nice=10\nIOSchedulingClass=idle\nNoNewPrivileges=yes\nPrivateTmp=yes\nProtectHome=yes\n",
        program=PROGRAM,
    )


def run() -> dict[str, Any]:
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
    done = plasma_systemd.run("start", SERVICE, timeout=1800)
    state = health()
    if done.returncode:
        raise CommandExecutionError(state["problem"] or f"It failed: see journalctl -u {SERVICE}.")
    return state


def health() -> dict[str, Any]:
    """
    Return how the care for the engine's disk is: ``{"timer": "active" | "inactive" | None, "next", "last" (ISO 8601 of
    the last run), "freed" (bytes), "images" (removed by it), "problem" (one sentence with the command that mends it, or
    None)}``. Without a timer nothing is wrong: pillar asks for none.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prune.health
    """
    try:
        note = json.loads(pathlib.Path(NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        note = {}
    state = plasma_timer.state("plasma-prune")
    problem = None
    if state["timer"] not in (None, "active"):
        problem = "Leftovers of builds are not removed, as the timer is stopped: systemctl start plasma-prune.timer"
    elif state["timer"] and note.get("error"):
        problem = f"Leftovers of builds were not removed: {note['error']}"
    freed, images = note.get("freed"), note.get("images")
    return {**state, "last": note.get("at"), "freed": freed, "images": images, "problem": problem}


def disks(
    paths: Sequence[str] = ("/", "/opt/tljh", "/var/lib/docker", "/home"), warn_at: int = 85
) -> list[dict[str, Any]]:
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
    mounts, disks = plasma_mounts.mounts(), {}
    for path in paths:
        mount = plasma_mounts.holder(path, mounts)
        if not mount or mount["type"] not in _LOCAL or mount["device"] in disks:
            continue
        try:
            status = os.statvfs(path)
        except OSError:
            continue
        used, free = status.f_blocks - status.f_bfree, status.f_bavail
        if used + free:
            percent = -(-100 * used // (used + free))
            disks[mount["device"]] = {
                "path": path,
                "mount": mount["target"],
                "size": status.f_blocks * status.f_frsize,
                "free": free * status.f_frsize,
                "percent": percent,
                "full": percent >= warn_at,
            }
    return list(disks.values())
