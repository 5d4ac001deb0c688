"""Where links of an image would take what the engine makes as root: into somebody's home.

The engine mounts homes first and then makes what is missing on the way to its other mounts, as root, and along the
links that an image has: with ``/opt`` a link into a home, directories of root's appear there. A home that an image
leads to ``/etc`` would get the account files. So the places of all mounts are looked up in the image before a container
with mounts is made of it.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

# What the engine itself mounts or writes, and where our own files go.
ALWAYS = (
    *("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/passwd", "/etc/group"),
    *("/dev/shm", "/dev/pts", "/dev/mqueue", "/proc", "/sys/fs/cgroup"),
)
CACHED_IMAGES = 256
STATUS = "X-Docker-Container-Path-Stat"


class LedAstray(Exception):
    """An image cannot be used; the text says which place leads where."""


def ways(places: Iterable[str]) -> list[str]:
    """Return places and all directories above them, without the root, each once."""
    found = {
        str(part)
        for place in places
        for path in [PurePosixPath(place)]
        for part in (path, *path.parents)
        if str(part) != "/"
    }
    return sorted(found)


def led(place: str, links: dict[str, str]) -> str:
    """Return where a place is once links are followed.

    Args:
        place: absolute path.
        links: where the links of the image lead, all of them followed.
    """
    path = PurePosixPath(place)
    for part in (path, *path.parents):
        if links.get(str(part)):
            return str(PurePosixPath(links[str(part)], path.relative_to(part)))
    return str(path)


def check(places: Iterable[str], volumes: Iterable[str], home: str, links: dict[str, str]) -> None:
    """Make sure that nothing of root's ends up in a home.

    Args:
        places: where the hub mounts or writes something, beside the home.
        volumes: where the image itself wants volumes.
        home: where the home is mounted.
        links: where the links of the image lead.

    Raises:
        LedAstray: a link of the image leads there, or it wants a volume there.
    """
    homes = {home, led(home, links)}
    wanted = [(place, not PurePosixPath(place).is_relative_to(home)) for place in places]
    for place, matters in [*wanted, *((place, place != home) for place in volumes)]:
        found = PurePosixPath(led(place, links))
        if matters and any(found.is_relative_to(one) for one in homes):
            raise LedAstray(f"it has {place} in the home {home}, at {found}")


class ImageLinks:
    """Looks up links of images, and remembers them: an image of one id never changes."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, client: Any, image_id: str, places: Iterable[str]) -> dict[str, str]:
        """Return where links on the way to ``places`` lead; an empty text where there is no link.

        Args:
            client: a docker-py API client.
            image_id: the image's id.
            places: absolute paths.
        """
        with self._lock:
            known = self._known.setdefault(image_id, {})
            self._known.move_to_end(image_id)
            while len(self._known) > CACHED_IMAGES:
                self._known.popitem(last=False)
        missing = [path for path in ways(places) if path not in known]
        if missing:
            # Without mounts, and never started: looking would already make what is missing otherwise.
            container = client.create_container(image_id, command=["true"], entrypoint=[], network_disabled=True)["Id"]
            try:
                known.update({path: _link(client, container, path) for path in missing})
            finally:
                client.remove_container(container, v=True, force=True)
        return dict(known)


def _link(client: Any, container: str, path: str) -> str:
    answer = client.head(client._url("/containers/{0}/archive", container), params={"path": path}, timeout=30)
    if answer.status_code == 404:
        return ""
    answer.raise_for_status()
    return json.loads(base64.b64decode(answer.headers[STATUS])).get("linkTarget", "")
