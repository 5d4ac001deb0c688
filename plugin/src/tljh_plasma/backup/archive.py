"""The format of an archive: a compressed tar whose last member says what is in all the others, with checksums."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import json
import os
import re
import stat
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

FORMAT = 1
ABOUT, MANIFEST = "about.json", "manifest.json"  # first and last
TOOL = "plasma-backup"
# What may stand at the root of an archive, besides the manifest.
FILES = (ABOUT, "environments.json")
PARTS = ("config", "state", "plasma", "notes", "accounts", "tls", "images", "homes")
NAME = re.compile(r"plasma-(?P<host>[A-Za-z0-9.-]+)-(?P<time>\d{8}T\d{6}Z)-(?P<reason>[a-z]+)\.tar\.gz")
BLOCK = 1024 * 1024
LARGEST_MANIFEST = 64 * BLOCK
# People may nest directories without end; what is deeper could not be unpacked (PATH_MAX is 4096).
DEEPEST, LONGEST = 200, 3500
# A file may be larger than any disk and hold nothing (truncate -s 100T): such are left out. Nor do many of them, or
# many names of one file, make a home in an archive larger than so many times what it takes on the disk, and a little.
LARGE, HOLES, NAMES, FEW = 2**30, 16, 4, 2**26
# Seconds in which whoever has leases of files in a home gives them back (fcntl(2), F_SETLEASE), for all of them.
PATIENCE = 10
# What root is told of a file system that somebody mounted in their home (fuse(8)), whose program runs or is gone.
_FOREIGN = {errno.EACCES, errno.ENOTCONN}
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE}


class ArchiveError(Exception):
    """An archive cannot be made or used; the text is one sentence."""


class _Hashed:
    """A file that is read and hashed; with a size it has so many bytes, whatever happens to it meanwhile."""

    def __init__(self, file: BinaryIO, size: int | None = None):
        self.file, self.left, self.digest = file, size, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        if self.left is not None:
            size = self.left if size < 0 else min(size, self.left)
        try:
            data = self.file.read(size)
        except OSError as error:
            if self.left is None:
                raise
            raise ArchiveError(f"{self.file.name} cannot be read ({error.strerror}): is the disk all right?") from error
        if self.left is not None:
            # It has become shorter: zeros stand for what is gone.
            data += bytes(size - len(data))
            self.left -= size
        self.digest.update(data)
        return data


class _Manifest:
    """What is in an archive, with checksums. Homes have one over all members in their order: there may be millions."""

    def __init__(self) -> None:
        self.members: dict[str, dict[str, Any]] = {}
        self._digest, self._count = hashlib.sha256(), 0
        self._bytes: dict[str, int] = {}

    def add(self, info: tarfile.TarInfo, sha256: str | None = None) -> None:
        """Take a member; of a file also the checksum of its content."""
        entry: dict[str, Any] = {"type": info.type.decode("ascii", "replace"), "mode": info.mode}
        entry.update(uid=info.uid, gid=info.gid)
        if sha256 is not None:
            entry.update(size=info.size, sha256=sha256)
        elif info.issym():
            entry["target"] = info.linkname
        if not info.name.startswith("homes/"):
            self.members[info.name] = entry
            return
        self._digest.update(json.dumps([info.name, entry], sort_keys=True).encode("ascii") + b"\n")
        self._count += 1
        home = info.name.split("/", 2)[1]
        self._bytes[home] = self._bytes.get(home, 0) + entry.get("size", 0)

    def homes(self) -> dict[str, Any]:
        return {"members": self._count, "sha256": self._digest.hexdigest(), "bytes": self._bytes}


class Room:
    """What of a home is worth its room: what it takes on the disk, and not much more for holes and further names.

    Attributes:
        home: whose it is.
        there: bytes on the disk.
        copies: bytes of files that were taken under another name before.
    """

    def __init__(self, home: str) -> None:
        self.home, self.there, self.copies = home, 0, 0
        self._holes, self._patience = 0, PATIENCE
        self._files: set[tuple[int, int]] = set()

    def takes(self, status: os.stat_result) -> bool:
        """Whether there is room for one more file."""
        there = 512 * status.st_blocks
        if status.st_size > LARGE and status.st_size > HOLES * there:
            return False
        file, copy = (status.st_dev, status.st_ino), 0
        if file in self._files:
            there, copy = 0, there
        holes = max(0, status.st_size - there - copy)
        if holes and self._holes + holes > LARGE + HOLES * (self.there + there):
            return False
        if copy and self.copies + copy > FEW + NAMES * self.there:
            return False
        if status.st_nlink > 1:
            self._files.add(file)
        self.there, self.copies, self._holes = self.there + there, self.copies + copy, self._holes + holes
        return True

    def open(self, entry: str, handle: int) -> int:
        """Open a file or a directory; BlockingIOError where somebody keeps a lease of it."""
        while True:
            try:
                return os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
            except BlockingIOError:
                # This has told them that it is wanted.
                if self._patience <= 0:
                    raise
                time.sleep(0.1)
                self._patience -= 0.1


class Writer:
    """Writes one archive, member by member; nothing is kept in memory of homes but their names and sizes."""

    def __init__(self, file: BinaryIO):
        # Closed by finish(); one that is not finished is thrown away by the caller.
        self.tar = tarfile.TarFile.gzopen("", "w", file, compresslevel=3, format=tarfile.PAX_FORMAT)
        self.manifest = _Manifest()
        # What is nested too deeply, nearly nothing but holes, one name too many of a file, or held by a lease.
        self.left_out = 0
        self._room = Room("")

    def _add(self, info: tarfile.TarInfo, file: BinaryIO | None = None) -> None:
        hashed = file and _Hashed(file, info.size)
        self.tar.addfile(info, hashed)
        self.tar.members.clear()  # a tarfile remembers all that it wrote
        self.manifest.add(info, hashed.digest.hexdigest() if hashed else None)

    def text(self, name: str, content: str | bytes) -> None:
        """Add a file of root's with this content."""
        data = content.encode() if isinstance(content, str) else content
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o600
        self._add(info, io.BytesIO(data))

    def folder(self, name: str) -> None:
        """Add an empty directory of root's, for what is added below it one by one."""
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, 0o700
        self._add(info)

    def opened(self, name: str, file: BinaryIO) -> None:
        """Add a regular file that is open, with its owner and mode."""
        status = os.fstat(file.fileno())
        info = self._info(name, status, tarfile.REGTYPE)
        info.size = status.st_size
        self._add(info, file)

    @staticmethod
    def _info(name: str, status: os.stat_result, kind: bytes) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = kind, stat.S_IMODE(status.st_mode), status.st_mtime
        info.uid, info.gid = status.st_uid, status.st_gid
        return info

    def tree(self, path: str | Path, name: str, skip: Callable[[str], bool] = lambda name: False) -> None:
        """Add a directory with all that is in it on the same file system.

        Everything is opened below what was opened before, never through a symbolic link: somebody who moves
        directories about meanwhile gets files of their own into the archive, and no others. Sockets, pipes and devices
        are left out.

        Args:
            path: the directory; what leads to it is trusted.
            name: its name in the archive.
            skip: asked about names in the archive; what it says yes to is left out.
        """
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self._directory(top, name, os.fstat(top).st_dev, skip)
        finally:
            os.close(top)

    def _directory(self, handle: int, name: str, device: int, skip: Callable[[str], bool]) -> None:
        self._add(self._info(name, os.fstat(handle), tarfile.DIRTYPE))
        for entry in sorted(os.listdir(handle)):
            inner = f"{name}/{entry}"
            if skip(inner):
                continue
            if inner.count("/") > DEEPEST or len(os.fsencode(inner)) > LONGEST:
                self.left_out += 1
                continue
            self._one(handle, entry, inner, device, skip)

    def _one(self, handle: int, entry: str, name: str, device: int, skip: Callable[[str], bool]) -> None:
        home = "/".join(name.split("/")[:2])
        if home != self._room.home:
            self._room = Room(home)
        status = link = opened = None
        try:
            status = os.stat(entry, dir_fd=handle, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                link = self._info(name, status, tarfile.SYMTYPE)
                link.linkname = os.readlink(entry, dir_fd=handle)
            elif stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
                opened = self._room.open(entry, handle)
        except OSError as error:
            if isinstance(error, BlockingIOError) or (status is None and error.errno in _FOREIGN):
                self.left_out += 1
            elif error.errno not in _GONE:  # else it went, or became something else, in this moment
                raise ArchiveError(f"{name} cannot be read ({error.strerror}).") from error
            return
        if link:
            self._add(link)
        if opened is None:
            return
        try:
            status = os.fstat(opened)
            if stat.S_ISDIR(status.st_mode):
                if status.st_dev == device:
                    self._directory(opened, name, device, skip)
            elif stat.S_ISREG(status.st_mode):
                if self._room.takes(status):
                    with open(opened, "rb", closefd=False) as file:
                        self.opened(name, file)
                else:
                    self.left_out += 1
        finally:
            os.close(opened)

    def finish(self, about: dict[str, Any]) -> None:
        """Write the manifest and close the archive."""
        manifest = {**about, "members": self.manifest.members, "homes": self.manifest.homes()}
        self.text(MANIFEST, json.dumps({**manifest, "left_out": self.left_out}))
        self.tar.close()


class _Order:
    """Whether members come as we write them: below directories that came before, and homes in the order of their names.

    So none stands twice, and none below a symbolic link.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, bytes] = {}  # of everything but homes
        self.path: list[list[str]] = []  # of the home we are in: directories, and the last name in each

    def check(self, info: tarfile.TarInfo) -> None:
        name = info.name
        parts = name.split("/")
        good = "\0" not in name and not {"", ".", ".."} & set(parts)
        if len(parts) == 1:
            good = good and ((info.isreg() and name in FILES) or (info.isdir() and name in PARTS))
        if name.startswith("homes/"):
            good = good and self._next_in_home(parts, info.isdir())
        else:
            good = good and name not in self.kinds
            good = good and (len(parts) == 1 or self.kinds.get("/".join(parts[:-1])) == tarfile.DIRTYPE)
            self.kinds[name] = info.type
            self.path = [["homes", ""]] if name == "homes" else []
        if not good:
            raise ArchiveError(f"has a member {name[:100]!r}, which none of ours has there")
        if not (info.isreg() or info.isdir() or (info.issym() and parts[0] in ("config", "state", "homes"))):
            raise ArchiveError(f"has a member {name[:100]!r} that is neither file nor directory")

    def _next_in_home(self, parts: list[str], is_directory: bool) -> bool:
        above = "/".join(parts[:-1])
        while self.path and self.path[-1][0] != above:
            self.path.pop()
        if not self.path or parts[-1] <= self.path[-1][1]:
            return False
        self.path[-1][1] = parts[-1]
        if is_directory:
            self.path.append(["/".join(parts), ""])
        return True


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Turns what reading something else than an archive ends with into one error."""
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, RecursionError) as error:
        raise ArchiveError(f"cannot be read as an archive ({error}): it is not whole, or none of ours") from error


def _each(file: BinaryIO) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    with gzip.GzipFile(fileobj=file, mode="rb") as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()
            yield tar, info
        while plain.read(BLOCK):  # to its end, where its own checksum is
            pass


def read(path: str | Path) -> tuple[dict[str, Any], str]:
    """Read a whole archive and compare all of it with its manifest.

    Returns:
        The manifest, and the SHA-256 of the file.

    Raises:
        ArchiveError: it is not one of ours, not whole, was changed, or is of a newer release.
    """
    found, order = _Manifest(), _Order()
    manifest = None
    with _reading(), open(path, "rb") as file:
        whole = _Hashed(file)
        for tar, info in _each(whole):
            if manifest is not None:
                raise ArchiveError("has something after its end, so it is none of ours or was changed")
            if info.name == MANIFEST and info.isreg() and info.size <= LARGEST_MANIFEST:
                manifest = json.loads(tar.extractfile(info).read())
                continue
            order.check(info)
            content = _Hashed(tar.extractfile(info)) if info.isreg() else None
            while content and content.read(BLOCK):
                pass
            found.add(info, content.digest.hexdigest() if content else None)
    _check_ours(manifest, "has no manifest of ours: it is not whole, or was made by something else")
    if manifest.get("members") != found.members:
        wanted = manifest.get("members") if isinstance(manifest.get("members"), dict) else {}
        unlike = sorted(name for name in {*wanted, *found.members} if wanted.get(name) != found.members.get(name))
        raise ArchiveError(f"was changed: {', '.join(unlike[:3])} is not what its manifest says")
    if manifest.get("homes") != found.homes():
        raise ArchiveError("was changed: the homes are not what its manifest says")
    return manifest, whole.digest.hexdigest()


def _check_ours(about: Any, otherwise: str) -> None:
    if not isinstance(about, dict) or about.get("tool") != TOOL:
        raise ArchiveError(otherwise)
    if not isinstance(about.get("format"), int) or about["format"] > FORMAT:
        raise ArchiveError(f"is of a newer release (format {about.get('format')}, known is {FORMAT}): update first")


def about_of(path: str | Path) -> dict[str, Any]:
    """What an archive says of itself at its beginning, without reading on; nothing of that is verified."""
    with _reading(), open(path, "rb") as file:
        archive = _each(file)
        tar, info = next(archive, (None, tarfile.TarInfo()))
        if info.name != ABOUT or not info.isreg() or info.size > BLOCK:
            raise ArchiveError("is none of ours")
        said = json.loads(tar.extractfile(info).read())
    _check_ours(said, "is none of ours")
    return said


def members(path: str | Path, wanted: list[str]) -> Iterator[tuple[str, tarfile.TarInfo, BinaryIO | None]]:
    """The members of some parts of an archive that was verified, in order, each with the name of its part and, for
    files, the content. Reads the archive once, and no further than the last of the parts may be."""
    wanted_tops, entered = {name.split("/")[0] for name in wanted}, None
    with open(path, "rb") as file:
        for tar, info in _each(file):
            parts = info.name.split("/")
            if parts[0] != entered:
                wanted_tops.discard(entered)
                if not wanted_tops:
                    return
                entered = parts[0]
            name = next((part for part in (parts[0], "/".join(parts[:2])) if part in wanted), None)
            if name:
                yield name, info, tar.extractfile(info) if info.isreg() else None
