"""What the operator tells people on every page: a file of the state directory, read anew each time.

Salt's execution module ``plasma_announce`` writes it. Nobody else can: a file that is not the hub's own user's, or that
others may write to, is not read. One that is broken in any other way shows nothing; a page never fails because of it.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "plasma-announcement.json"
MAX_BYTES = 8192
MAX_LENGTH = 500
LEVELS = ("info", "warning")
EVERYONE, ADMINISTRATORS = "everyone", "administrators"


@dataclass(frozen=True)
class Announcement:
    """What people are told.

    Attributes:
        message: text of one line, to be escaped where it is shown.
        level: "info" or "warning".
        everyone: whether it is for more people than administrators.
    """

    message: str
    level: str
    everyone: bool


def read(state_dir: Path) -> Announcement | None:
    """Return what there is to tell; None when there is nothing, its time is over, or the file is not to be trusted.

    Args:
        state_dir: the hub's state directory.
    """
    try:
        descriptor = os.open(Path(state_dir, FILE), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                return None
            data = file.read(MAX_BYTES + 1)
        found = json.loads(data.decode("utf-8")) if len(data) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
    return _checked(found)


def _checked(found: Any) -> Announcement | None:
    if not isinstance(found, dict):
        return None
    message, level, until = found.get("message"), found.get("level"), found.get("until")
    if not isinstance(message, str) or not 0 < len(message.strip()) <= len(message) <= MAX_LENGTH:
        return None
    if level not in LEVELS or found.get("for") not in (EVERYONE, ADMINISTRATORS):
        return None
    if until is not None and (not isinstance(until, (int, float)) or until <= time.time()):
        return None
    return Announcement(message, level, found["for"] == EVERYONE)


def visible(state_dir: Path, administrator: bool) -> Announcement | None:
    """Return what a visitor is told.

    Args:
        state_dir: the hub's state directory.
        administrator: whether the visitor administers the hub.
    """
    found = read(state_dir)
    return found if found and (found.everyone or administrator) else None


def shown_to(state_dir: Path) -> Callable[[Any], Announcement | None]:
    """Return what JupyterHub calls for every page, with its visitor or None.

    Args:
        state_dir: the hub's state directory.
    """
    return lambda user: visible(state_dir, bool(user and user.admin))
