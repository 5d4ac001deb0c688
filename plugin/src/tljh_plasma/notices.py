"""Notices about a person's disk, on the hub's pages and in their JupyterLab; there, the operator's announcements, too.

Pages of users' servers are on the hub's own host, so JupyterHub lets their scripts ask neither hub nor services in the
person's name. JupyterLab's small extension of ours (``labextension/``) therefore asks its own server, which answers
with a file that the hub keeps for each person and mounts into their containers, read-only. It lies where Jupyter's
servers look for settings of pages (``/api/config/plasma_notice``): those are served to the person alone, and files of
extensions to everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from . import announcement, disk_quota
from .accounts import AccountError
from .disk_quota import Notice
from .settings import install_prefix

NAME = "plasma-notice"
FILE = "plasma_notice.json"
# In the container. JUPYTER_PATH and JUPYTER_CONFIG_PATH lead to the two (see entrypoint.sh).
EXTENSION = f"/opt/plasma/share/jupyter/labextensions/{NAME}"
TARGET = "/opt/plasma/etc/jupyter/serverconfig"
# Seconds that a page waits for the kernel, or for a directory service.
PATIENCE = 2

log = logging.getLogger(__name__)


def extension_files() -> list[tuple[str, bytes, int]]:
    """Return the extension's files: path without the leading slash, content, mode."""
    source = resources.files(__package__).joinpath("labextension")
    paths = ("package.json", "static/remoteEntry.js")
    return [(f"{EXTENSION.lstrip('/')}/{path}", source.joinpath(path).read_bytes(), 0o644) for path in paths]


def refresh(base: str, name: str, uid: int) -> str:
    """Bring a person's file up to date, and return the directory that holds it, which is to be mounted.

    Args:
        base: directory of all of them, in a place that is root's.
        name: login name.
        uid: their uid.

    Raises:
        OSError: it cannot be written.
    """
    directory = Path(base, str(uid))
    # Others can neither read nor list what is said to whom; in a container there is only the person's own.
    Path(base).mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o755, exist_ok=True)
    try:
        notice = disk_quota.notice_for(name)
    except AccountError:
        notice = None
    notice = notice or _announced()
    text, path = json.dumps(asdict(notice) if notice else {}), directory / FILE
    try:
        if path.read_text(encoding="utf-8") == text:
            return str(directory)
    except FileNotFoundError:
        pass
    beside = directory / f"{secrets.token_hex(8)}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            # Whatever the umask of the hub is.
            os.fchmod(descriptor, 0o644)
            file.write(text)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    return str(directory)


def _announced() -> Notice | None:
    """What the operator tells everybody; somebody whose disk is full has to know that first."""
    found = announcement.read(install_prefix() / "state")
    return Notice("warning", "Announcement", found.message) if found and found.everyone else None


def asked_for(user: Any) -> Callable[[], Awaitable[Notice | None]] | None:
    """Return what a page calls to get its visitor's notice; None where nobody is logged in.

    Args:
        user: the hub's user.
    """
    return partial(for_page, user.name) if user else None


async def for_page(name: str) -> Notice | None:
    """Return what a page of the hub is to tell somebody; nothing rather than a page that fails or takes long.

    Args:
        name: login name.
    """
    try:
        return await asyncio.wait_for(asyncio.to_thread(disk_quota.notice_for, name), PATIENCE)
    except AccountError:
        return None
    except Exception:
        log.exception("No notice for %r", name)
        return None
