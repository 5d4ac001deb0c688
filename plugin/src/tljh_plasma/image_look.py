"""What has to be known of an image before a container is made of it: account files, volumes, and links.

A container of it is made without mounts, never started, and removed; its files are those of the image.

Links matter because the engine mounts homes first and then makes what is missing on the way to its other mounts, as
root, and along the links that an image has: with ``/opt`` a link into a home, directories of root's would appear there.
A home that an image leads to ``/etc`` would get the account files. So the targets of all mounts are looked up.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import docker

# What the engine itself mounts or writes, and where our own files go.
ALWAYS = (
    *("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/passwd", "/etc/group"),
    *("/dev/shm", "/dev/pts", "/dev/mqueue", "/proc", "/sys/fs/cgroup"),
)
MINIMAL_PASSWD = "root:x:0:0:root:/root:/bin/sh\n"
MINIMAL_GROUP = "root:x:0:\n"
# An image's own account files are small; more than this is not read.
MAX_SIZE = 1024 * 1024
CACHED_IMAGES = 256
STATUS = "X-Docker-Container-Path-Stat"


class LedAstray(Exception):
    """An image cannot be used; the text says which path leads where."""


@dataclass
class Image:
    """What is known of an image.

    Attributes:
        passwd: its /etc/passwd.
        group: its /etc/group.
        volumes: directories that it wants on a disk of their own, and whether there is anything in them.
        links: where links lead, all of them followed; an empty text for a path that is no link.
    """

    passwd: str = ""
    group: str = ""
    volumes: dict[str, bool] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


class Looks:
    """Looks into images, and remembers what was there: an image of one id never changes."""

    def __init__(self) -> None:
        self._known: dict[str, Image] = {}
        self._lock = threading.Lock()

    def into(self, client: docker.APIClient, image_id: str, paths: Iterable[str]) -> Image:
        """Return what is known of an image.

        Args:
            client: a docker-py API client.
            image_id: the image's id.
            paths: absolute paths whose links have to be known.

        Raises:
            docker.errors.DockerException: there is no such image, or the engine does not answer.
        """
        with self._lock:
            image = self._known.pop(image_id, None) or Image()
            self._known[image_id] = image
            if len(self._known) > CACHED_IMAGES:
                del self._known[next(iter(self._known))]
        if not image.passwd:
            wanted = client.inspect_image(image_id)["Config"].get("Volumes") or {}
            image.volumes = dict.fromkeys(sorted(wanted), True)
        missing = _with_parents([*paths, *image.volumes]) - image.links.keys()
        if missing or not image.passwd:
            # Without mounts: looking would already make what is missing otherwise.
            container = client.create_container(image_id, command=["true"], entrypoint=[], network_disabled=True)["Id"]
            try:
                image.links.update({path: _link(client, container, path) for path in missing})
                if not image.passwd:
                    image.volumes = {path: not _is_empty(client, container, path) for path in image.volumes}
                    image.group = _read(client, container, "/etc/group") or MINIMAL_GROUP
                    image.passwd = _read(client, container, "/etc/passwd") or MINIMAL_PASSWD
            finally:
                client.remove_container(container, v=True, force=True)
        return image


def _with_parents(paths: Iterable[str]) -> set[str]:
    """Return paths and all directories above them, without the root."""
    return {str(part) for path in map(PurePosixPath, paths) for part in (path, *path.parents)} - {"/"}


def _link(client: docker.APIClient, container: str, path: str) -> str:
    answer = client.head(client._url("/containers/{0}/archive", container), params={"path": path}, timeout=30)
    if answer.status_code == 404:
        return ""
    answer.raise_for_status()
    return json.loads(base64.b64decode(answer.headers[STATUS])).get("linkTarget", "")


def _beginning(client: docker.APIClient, container: str, path: str) -> tarfile.TarFile | None:
    """Return the beginning of a path's content as a tar archive; None when there is no such path."""
    try:
        stream, _ = client.get_archive(container, path)
    except docker.errors.NotFound:
        return None
    data = io.BytesIO()
    for piece in stream:
        data.write(piece)
        if data.tell() > MAX_SIZE:
            break
    stream.close()
    data.seek(0)
    return tarfile.open(fileobj=data, mode="r:")


def _read(client: docker.APIClient, container: str, path: str) -> str:
    archive = _beginning(client, container, path)
    member = archive and archive.next()
    if not member or not member.isreg() or member.size > MAX_SIZE // 2:
        return ""
    return archive.extractfile(member).read().decode("utf-8", errors="replace")


def _is_empty(client: docker.APIClient, container: str, path: str) -> bool:
    archive = _beginning(client, container, path)
    # The first one is the directory itself.
    return not (archive and archive.next() and archive.next())


def within(path: str, other: str) -> bool:
    """Whether a path is another one or below it."""
    return PurePosixPath(path).is_relative_to(other)


def led(path: str, links: dict[str, str]) -> str:
    """Return where a path leads.

    Args:
        path: absolute path.
        links: where the links of the image lead, all of them followed.
    """
    pure = PurePosixPath(path)
    for part in (pure, *pure.parents):
        if links.get(str(part)):
            return str(PurePosixPath(links[str(part)], pure.relative_to(part)))
    return path


def check(targets: Iterable[str], image: Image, home: str) -> None:
    """Make sure that nothing of root's ends up in a home.

    Args:
        targets: where the hub mounts or writes something, beside the home.
        image: the image, with the links of all targets.
        home: where the home is mounted.

    Raises:
        LedAstray: a link of the image leads there, or it wants a volume there.
    """
    outside = [target for target in targets if not within(target, home)]
    for path in [*outside, *(volume for volume in image.volumes if volume != home)]:
        found = led(path, image.links)
        if within(found, home) or within(found, led(home, image.links)):
            raise LedAstray(f"it has {path} in the home {home}, at {found}")
