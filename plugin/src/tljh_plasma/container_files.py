"""Files that the hub puts into one container before it starts: account entries, the entrypoint, JupyterLab's extension.

The container runs as the person from its first process on, so nothing inside can add the account. Instead the
image's /etc/passwd and /etc/group, with the person's entries added, go into the created container as a tar archive,
together with the entrypoint and the extension that shows notices. They belong to this one container: nothing is shared
with another.
"""

from __future__ import annotations

import io
import tarfile
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from . import notices
from .accounts import Account, Group

# An image's own account files are small; more than this is not read.
MAX_SIZE = 1024 * 1024
CACHED_IMAGES = 256
# Accounts under which repo2docker and the Jupyter images run; the person takes over their shell.
IMAGE_USERS = ("jovyan", "joyvan", "rstudio")
MINIMAL_PASSWD = "root:x:0:0:root:/root:/bin/sh\n"
MINIMAL_GROUP = "root:x:0:\n"


@dataclass(frozen=True)
class AccountFiles:
    """/etc/passwd and /etc/group."""

    passwd: str
    group: str


def _lines(text: str, fields: int) -> list[list[str]]:
    return [line.split(":") for line in text.splitlines() if line.count(":") == fields - 1]


def passwd_with(text: str, account: Account) -> str:
    """Return a passwd file with an account's entry, which replaces entries of the same name or uid.

    Args:
        text: the image's /etc/passwd.
        account: the person's account on the host.
    """
    entries = _lines(text, 7)
    shell = next((entry[6] for entry in entries if entry[0] in IMAGE_USERS and entry[6]), "/bin/sh")
    kept = [entry for entry in entries if entry[0] != account.name and entry[2] != str(account.uid)]
    kept.append([account.name, "x", str(account.uid), str(account.group.gid), account.name, account.home, shell])
    return "".join(":".join(entry) + "\n" for entry in kept)


def group_with(text: str, account: Account) -> str:
    """Return a group file with an account's groups, which replace groups of the same name or gid.

    The image's remaining groups lose the account as a member: membership comes from the host alone.

    Args:
        text: the image's /etc/group.
        account: the person's account on the host.
    """
    groups: list[Group] = [account.group, *account.groups]
    names = {group.name for group in groups}
    gids = {str(group.gid) for group in groups}
    kept = []
    for entry in _lines(text, 4):
        if entry[0] in names or entry[2] in gids:
            continue
        members = [member for member in entry[3].split(",") if member and member != account.name]
        kept.append([*entry[:3], ",".join(members)])
    for group in groups:
        member = "" if group is account.group else account.name
        kept.append([group.name, "x", str(group.gid), member])
    return "".join(":".join(entry) + "\n" for entry in kept)


def archive(files: Iterable[tuple[str, bytes, int]], directories: Iterable[str]) -> bytes:
    """Return a tar archive of files that belong to root.

    Args:
        files: (path without leading slash, content, mode).
        directories: directories on the way, parents first. Naming them makes the engine replace a symbolic link by
            a directory instead of writing through it.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for directory in directories:
            info = tarfile.TarInfo(directory)
            info.type = tarfile.DIRTYPE
            info.mode = 0o755
            tar.addfile(info)
        for path, content, mode in files:
            info = tarfile.TarInfo(path)
            info.size = len(content)
            info.mode = mode
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def entrypoint_script() -> bytes:
    """Return the entrypoint script."""
    return resources.files(__package__).joinpath("entrypoint.sh").read_bytes()


def _read(client: Any, container: str, path: str, fallback: str) -> str:
    """Read a regular file of a container that was never started, so its content is the image's."""
    import docker

    try:
        stream, status = client.get_archive(container, path)
    except docker.errors.NotFound:
        return fallback
    if status.get("size", 0) > MAX_SIZE or status.get("linkTarget"):
        stream.close()
        return fallback
    data = b"".join(stream)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = tar.next()
        if member is None or not member.isreg():
            return fallback
        file = tar.extractfile(member)
        return file.read().decode("utf-8", errors="replace") if file else fallback


class ContainerFiles:
    """Puts the files into containers; remembers the account files of each image, which never change."""

    def __init__(self) -> None:
        self._cache: OrderedDict[str, AccountFiles] = OrderedDict()
        self._lock = threading.Lock()

    def of_image(self, client: Any, container: str, image_id: str) -> AccountFiles:
        """Return the account files of an image, read from a container that was never started.

        Args:
            client: a docker-py API client.
            container: the container's id.
            image_id: the image's id.
        """
        with self._lock:
            if image_id in self._cache:
                self._cache.move_to_end(image_id)
                return self._cache[image_id]
        files = AccountFiles(
            passwd=_read(client, container, "/etc/passwd", MINIMAL_PASSWD),
            group=_read(client, container, "/etc/group", MINIMAL_GROUP),
        )
        with self._lock:
            self._cache[image_id] = files
            while len(self._cache) > CACHED_IMAGES:
                self._cache.popitem(last=False)
        return files

    def install(self, client: Any, container: str, image_id: str, account: Account, entrypoint: str) -> None:
        """Put account files, entrypoint and JupyterLab's extension into a created container, in one request.

        Args:
            client: a docker-py API client.
            container: the container's id; it was never started.
            image_id: the image's id.
            account: the account the container runs as.
            entrypoint: absolute path of the entrypoint in the container.
        """
        files = self.of_image(client, container, image_id)
        path = entrypoint.lstrip("/")
        parents = path.split("/")[:-1]
        directories = ["etc", *("/".join(parents[: depth + 1]) for depth in range(len(parents)))]
        data = archive(
            [
                ("etc/passwd", passwd_with(files.passwd, account).encode(), 0o644),
                ("etc/group", group_with(files.group, account).encode(), 0o644),
                (path, entrypoint_script(), 0o755),
                *notices.extension_files(),
            ],
            [*directories, *notices.extension_directories()],
        )
        client.put_archive(container, "/", data)
