"""Files that the hub gives to one container: account entries, the entrypoint, JupyterLab's extension.

The container runs as the person from its first process on, and its root file system is read-only, so nothing inside can
add the account, and the engine lets nobody put files there. Instead the image's /etc/passwd and /etc/group, with the
person's entries added, are files of root's on the host, for each container its own, and mounted read-only, as is a
directory with the entrypoint and the extension that shows notices.

What the image itself wants is looked at once: a container of it is made, never started, and removed.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import shutil
import tarfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
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
# Where the hub's own files are in a container.
OURS = PurePosixPath("/opt/plasma")
# Where notices are mounted, below that.
NOTICES = str(PurePosixPath(notices.TARGET).relative_to(OURS))


@dataclass(frozen=True)
class ImageFiles:
    """What matters of an image.

    Attributes:
        passwd: its /etc/passwd.
        group: its /etc/group.
        volumes: directories that it wants on a disk of their own, and whether there is anything in them.
    """

    passwd: str
    group: str
    volumes: tuple[tuple[str, bool], ...] = ()


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


def _is_empty(client: Any, container: str, path: str) -> bool:
    import docker

    try:
        stream, _ = client.get_archive(container, path)
    except docker.errors.NotFound:
        return True
    with tarfile.open(fileobj=_Pieces(stream), mode="r|") as tar:
        members = [member for member in (tar.next(), tar.next()) if member]
    stream.close()
    # The first one is the directory itself.
    return len(members) < 2


class _Pieces(io.RawIOBase):
    """A file of what comes in pieces."""

    def __init__(self, pieces: Any) -> None:
        self._pieces = iter(pieces)
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        given, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(given)] = given
        return len(given)


def _look(client: Any, image_id: str) -> ImageFiles:
    wanted = client.inspect_image(image_id)["Config"].get("Volumes") or {}
    host = client.create_host_config(network_mode="none")
    container = client.create_container(image_id, command=["true"], host_config=host)["Id"]
    try:
        return ImageFiles(
            passwd=_read(client, container, "/etc/passwd", MINIMAL_PASSWD),
            group=_read(client, container, "/etc/group", MINIMAL_GROUP),
            volumes=tuple((path, not _is_empty(client, container, path)) for path in sorted(wanted)),
        )
    finally:
        client.remove_container(container, v=True, force=True)


def within(path: str, other: str) -> bool:
    """Whether a path is another one or below it."""
    return f"{path.rstrip('/')}/".startswith(f"{other.rstrip('/')}/")


class ContainerFiles:
    """Writes the files of containers; remembers what matters of each image, which never changes."""

    def __init__(self) -> None:
        self._cache: OrderedDict[str, ImageFiles] = OrderedDict()
        self._lock = threading.Lock()

    def of_image(self, client: Any, image_id: str) -> ImageFiles:
        """Return what matters of an image.

        Args:
            client: a docker-py API client.
            image_id: the image's id.

        Raises:
            docker.errors.DockerException: there is no such image, or the engine does not answer.
        """
        with self._lock:
            if image_id in self._cache:
                self._cache.move_to_end(image_id)
                return self._cache[image_id]
        files = _look(client, image_id)
        with self._lock:
            self._cache[image_id] = files
            while len(self._cache) > CACHED_IMAGES:
                self._cache.popitem(last=False)
        return files

    def write(self, base: str, container: str, image: ImageFiles, account: Account) -> dict[str, str]:
        """Write the files of a container, and return what is to be mounted: path in the container -> on the host.

        Args:
            base: directory of all of them, which this process alone may write to.
            container: the container's name.
            image: what it is made of.
            account: the account it runs as.

        Raises:
            OSError: they cannot be written.
        """
        top = Path(base)
        top.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = top.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PermissionError(f"{base} belongs to somebody else")
        directory = top / container
        directory.mkdir(mode=0o755, exist_ok=True)
        texts = {"passwd": passwd_with(image.passwd, account), "group": group_with(image.group, account)}
        for name, text in texts.items():
            # A new file: the one of before may be mounted yet.
            _write(directory / f"{name}.new", text.encode(), 0o644)
            os.replace(directory / f"{name}.new", directory / name)
        mounted = {f"/etc/{name}": str(directory / name) for name in texts}
        return {**mounted, str(OURS): str(_ours(top))}


def volumes_of(client: Any, container: str, beginning: str) -> list[str]:
    """Return the names of a container's volumes that begin like this; none when there is no container."""
    import docker

    try:
        mounts = client.inspect_container(container)["Mounts"]
    except docker.errors.NotFound:
        return []
    return [mount["Name"] for mount in mounts if mount.get("Name", "").startswith(beginning)]


def remove_volumes(client: Any, names: list[str]) -> None:
    """Remove volumes that no other container uses; the engine makes them again."""
    import docker

    for name in names:
        try:
            client.remove_volume(name)
        except docker.errors.APIError as error:
            if error.status_code not in (404, 409):
                raise


def forget(base: str, container: str) -> None:
    """Remove the files of a container that is gone."""
    shutil.rmtree(Path(base) / container, ignore_errors=True)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)


def _ours(top: Path) -> Path:
    """Return the directory with the entrypoint and JupyterLab's extension, which all containers share."""
    prefix = f"{str(OURS)[1:]}/"
    files = [("entrypoint", entrypoint_script(), 0o755)]
    files += [(path.removeprefix(prefix), content, mode) for path, content, mode in notices.extension_files()]
    digest = hashlib.sha256(repr(files).encode()).hexdigest()[:16]
    # No container's name has a dot at its beginning.
    made = top / f".plasma-{digest}"
    if made.is_dir():
        return made
    new = top / f".new-{secrets.token_hex(8)}"
    # The last one is mounted upon, which needs it to be there.
    for directory in (*(str(PurePosixPath(path).parent) for path, _, _ in files), NOTICES):
        (new / directory).mkdir(parents=True, exist_ok=True)
    for path, content, mode in files:
        _write(new / path, content, mode)
    for directory in (new, *(path for path in new.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
    try:
        new.rename(made)
    except OSError:
        # Somebody else was faster.
        shutil.rmtree(new)
    return made
