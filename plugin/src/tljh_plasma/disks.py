"""What administrators are told, on the hub's pages, about disks of the server that are nearly full.

Only disks of this machine are looked at: to ask for one of another machine, which does not answer, takes for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from .disk_quota import Notice, size
from .settings import Settings

MOUNTS = Path("/proc/self/mountinfo")
# Docker's default; where an administrator moved it, the disk is another one, and `plasma.status` knows.
DOCKER_ROOT = "/var/lib/docker"
LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs", "overlay", "tmpfs"}
# Seconds for which an answer holds, and that a page waits for one.
FRESH = 60
PATIENCE = 2

log = logging.getLogger(__name__)


def mounts(text: str) -> list[tuple[str, str, str]]:
    """Return what is mounted as (target, device, type), later mounts later, from the text of mountinfo (proc(5))."""
    found = []
    for line in text.splitlines():
        fields = line.split(" ")
        # Space, tab, line break and backslash stand as octal numbers.
        target = re.sub(r"\\([01][0-7]{2})", lambda match: chr(int(match[1], 8)), fields[4])
        found.append((target, fields[2], fields[fields.index("-") + 1]))
    return found


def holder(path: str, mounted: list[tuple[str, str, str]]) -> tuple[str, str, str] | None:
    """Return the mount that holds a path, by names alone: nothing is asked that might not answer."""
    holding = [mount for mount in mounted if f"{path}/".startswith(mount[0].rstrip("/") + "/")]
    return max(reversed(holding), key=lambda mount: len(mount[0]), default=None)


def full(paths: list[str], warn_at: int) -> list[tuple[str, int, int]]:
    """Return the disks of these paths that are full to a percentage, as (mounted at, percent, bytes free).

    Args:
        paths: absolute paths. Those that are not there are passed over.
        warn_at: percent, as ``df`` counts.
    """
    mounted, seen, found = mounts(MOUNTS.read_text(encoding="utf-8", errors="replace")), set(), []
    for path in paths:
        mount = holder(path, mounted)
        if mount is None or mount[1] in seen or mount[2] not in LOCAL:
            continue
        try:
            status = os.statvfs(path)
        except OSError:
            continue
        seen.add(mount[1])
        used, free = status.f_blocks - status.f_bfree, status.f_bavail
        percent = -(-100 * used // (used + free)) if used + free else 0
        if percent >= warn_at:
            found.append((mount[0], percent, free * status.f_frsize))
    return found


def notice(found: list[tuple[str, int, int]]) -> Notice | None:
    """Return what is to be told about disks; None when there are none."""
    if not found:
        return None
    disks = " ".join(
        f"The disk of {target} is {percent} % full, {size(free)} are free." for target, percent, free in found
    )
    advice = "Remove environments that nobody uses, or ask people to tidy up: when it is full, nobody can save."
    return Notice("warning", "A disk of the server is nearly full", f"{disks} {advice}")


class Watch:
    """Looks at the disks at most once a minute, however many pages are asked for."""

    def __init__(self, settings: Settings) -> None:
        self.paths = ["/", str(settings.state_dir), DOCKER_ROOT, settings.homes]
        self.warn_at = settings.disk_warn_at
        self._seen: Notice | None = None
        self._until = 0.0

    def asked_for(self, user: Any) -> Callable[[], Awaitable[Notice | None]] | None:
        """Return what a page calls to get the notice; None for everybody but administrators.

        Args:
            user: the hub's user.
        """
        return self.for_page if user and user.admin else None

    async def for_page(self) -> Notice | None:
        """Return the notice; nothing rather than a page that fails or takes long."""
        if time.monotonic() < self._until:
            return self._seen
        self._until = time.monotonic() + FRESH
        try:
            found = await asyncio.wait_for(asyncio.to_thread(full, self.paths, self.warn_at), PATIENCE)
            self._seen = notice(found)
        except Exception:
            log.exception("The disks could not be looked at")
            self._seen = None
        return self._seen
