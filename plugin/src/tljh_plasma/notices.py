"""Notices about a person's disk and servers, on the hub's pages and in JupyterLab; there, the operator's ones, too.

Pages of users' servers are on the hub's own host, so JupyterHub lets their scripts ask neither hub nor services in the
person's name. JupyterLab's small extension of ours (``labextension/``) therefore asks its own server, which answers
with a file that the hub keeps for each person and mounts into their containers, read-only. It lies where Jupyter's
servers look for settings of pages (``/api/config/plasma_notice``): those are served to the person alone, and files of
extensions to everybody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from . import announcement, disk_quota, memory
from .accounts import AccountError
from .disk_quota import Notice
from .replace import directory as make_directory
from .replace import replace
from .settings import install_prefix

NAME = "plasma-notice"
FILE = "plasma_notice.json"
# In the container. JUPYTER_PATH and JUPYTER_CONFIG_PATH lead to the two (see entrypoint.sh).
EXTENSION = f"/opt/plasma/share/jupyter/labextensions/{NAME}"
TARGET = "/opt/plasma/etc/jupyter/serverconfig"
# Seconds that a page waits for the kernel, or for a directory service.
PATIENCE = 2

log = logging.getLogger(__name__)
# Servers of one person share a file.
_writing = threading.Lock()


def extension_files() -> list[tuple[str, bytes, int]]:
    """Return the extension's files: path without the leading slash, content, mode."""
    source = resources.files("tljh_plasma").joinpath("labextension")
    paths = ("package.json", "static/remoteEntry.js")
    return [(f"{EXTENSION.lstrip('/')}/{path}", source.joinpath(path).read_bytes(), 0o644) for path in paths]


def refresh(base: str, name: str, uid: int, server: str = "", told: Iterable[Notice] = ()) -> str:
    """Bring a person's file up to date, and return the directory that holds it, which is to be mounted.

    Args:
        base: directory of all of them, in a place that is root's.
        name: login name.
        uid: their uid.
        server: path at which one of their servers is found; what was told in others stays as it is.
        told: what is to be told in that one alone.

    Raises:
        OSError: it cannot be written.
    """
    directory = Path(base, str(uid))
    # Others can neither read nor list what is said to whom; in a container there is only the person's own.
    make_directory(Path(base), 0o700)
    make_directory(directory)
    try:
        notice = disk_quota.notice_for(name)
    except AccountError:
        notice = None
    notice = notice or _announced()
    path = directory / FILE
    with _writing:
        before = _read(path)
        servers = before.get("servers", {}) | {server: [asdict(one) for one in told]}
        servers = {address: some for address, some in servers.items() if some}
        content = {**(asdict(notice) if notice else {}), **({"servers": servers} if servers else {})}
        if content != before or not path.exists():
            replace(path, json.dumps(content), 0o644)
    return str(directory)


def _read(path: Path) -> dict[str, Any]:
    """Return what a file says; it is root's, and of this version or the one before."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


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
    # Why a server is gone that they are looking for.
    if ended := memory.ended(name):
        return ended
    try:
        return await asyncio.wait_for(asyncio.to_thread(disk_quota.notice_for, name), PATIENCE)
    except AccountError:
        return None
    except Exception:
        log.exception("No notice for %r", name)
        return None
