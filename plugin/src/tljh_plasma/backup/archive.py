"""The format of an archive: a compressed tar whose last member says what is in all the others, with checksums."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

FORMAT = 1
MANIFEST = "manifest.json"
TOOL = "plasma-backup"
# What may stand at the root of an archive.
PARTS = ("config", "state", "plasma", "accounts", "tls", "homes", "images", "environments.json")
NAME = re.compile(r"plasma-(?P<host>[A-Za-z0-9.-]+)-(?P<time>\d{8}T\d{6}Z)-(?P<reason>[a-z]+)\.tar\.gz")
BLOCK = 1024 * 1024
LARGEST_MANIFEST = 512 * BLOCK


class ArchiveError(Exception):
    """An archive cannot be made or used; the text is one sentence."""


class _Exactly:
    """A file that has as many bytes as it had when it was looked at, whatever happens to it meanwhile; hashes them."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.left, self.digest = file, size, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        wanted = self.left if size < 0 else min(size, self.left)
        found = self.file.read(wanted)
        # It has become shorter: zeros stand for what is gone.
        found += bytes(wanted - len(found))
        self.left -= wanted
        self.digest.update(found)
        return found


class Writer:
    """Writes one archive, member by member; nothing is kept in memory but names and checksums."""

    def __init__(self, file: BinaryIO):
        # Closed by finish(); one that is not finished is thrown away by the caller.
        self.tar = tarfile.open(  # noqa: SIM115
            fileobj=file, mode="w:gz", compresslevel=3, format=tarfile.PAX_FORMAT
        )
        self.members: dict[str, dict[str, Any]] = {}

    def _add(self, info: tarfile.TarInfo, file: BinaryIO | None = None) -> None:
        entry: dict[str, Any] = {"type": info.type.decode("ascii"), "mode": info.mode, "uid": info.uid, "gid": info.gid}
        if file is not None:
            exactly = _Exactly(file, info.size)
            self.tar.addfile(info, exactly)
            entry.update(size=info.size, sha256=exactly.digest.hexdigest())
        else:
            self.tar.addfile(info)
            if info.issym():
                entry["target"] = info.linkname
        self.members[info.name] = entry

    def text(self, name: str, content: str | bytes, mode: int = 0o600) -> None:
        data = content.encode() if isinstance(content, str) else content
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), mode
        self._add(info, io.BytesIO(data))

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
        status = os.fstat(handle)
        self._add(self._info(name, status, tarfile.DIRTYPE))
        for entry in sorted(os.listdir(handle)):
            inner = f"{name}/{entry}"
            if skip(inner):
                continue
            try:
                self._entry(handle, entry, inner, device, skip)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue  # it went, or became something else, in this moment
            except OSError as error:
                if error.errno != 40:  # ELOOP: it became a symbolic link
                    raise

    def _entry(self, handle: int, entry: str, name: str, device: int, skip: Callable[[str], bool]) -> None:
        status = os.stat(entry, dir_fd=handle, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            info = self._info(name, status, tarfile.SYMTYPE)
            info.linkname = os.readlink(entry, dir_fd=handle)
            self._add(info)
        elif stat.S_ISDIR(status.st_mode):
            inner = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            try:
                if os.fstat(inner).st_dev == device:
                    self._directory(inner, name, device, skip)
            finally:
                os.close(inner)
        elif stat.S_ISREG(status.st_mode):
            file = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
            with open(file, "rb") as opened:
                if stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                    self.opened(name, opened)

    def finish(self, about: dict[str, Any]) -> None:
        """Write the manifest and close the archive."""
        manifest = {"tool": TOOL, "format": FORMAT, **about, "members": self.members}
        data = json.dumps(manifest, ensure_ascii=True).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mode = len(data), 0o600
        self.tar.addfile(info, io.BytesIO(data))
        self.tar.close()


def _safe(name: str) -> bool:
    parts = name.split("/")
    return parts[0] in PARTS and not name.startswith("/") and not {"", ".", ".."} & set(parts) and "\0" not in name


def read(path: str | Path) -> tuple[dict[str, Any], str]:
    """Read a whole archive and compare all of it with its manifest.

    Returns:
        The manifest, and the SHA-256 of the file.

    Raises:
        ArchiveError: it is not one of ours, not whole, was changed, or is of a newer release.
    """
    whole = hashlib.sha256()
    found: dict[str, dict[str, Any]] = {}
    manifest = None
    try:
        with open(path, "rb") as file:
            hashing = _Hashing(file, whole)
            with tarfile.open(fileobj=hashing, mode="r|gz") as tar:
                for info in tar:
                    if manifest is not None:
                        raise ArchiveError("has something after its end, so it is none of ours or was changed")
                    if info.name == MANIFEST and info.isreg() and info.size <= LARGEST_MANIFEST:
                        manifest = json.loads(tar.extractfile(info).read())
                    else:
                        found[info.name] = _seen(tar, info, found)
            while hashing.read(BLOCK):
                pass
    except (tarfile.TarError, EOFError, OSError, ValueError, UnicodeError) as error:
        raise ArchiveError(f"cannot be read as an archive ({error}): it is not whole, or none of ours") from error
    except Exception as error:
        if isinstance(error, ArchiveError) or type(error).__module__ != "zlib":
            raise
        raise ArchiveError(f"cannot be read as an archive ({error}): it is not whole, or none of ours") from error
    _compare(manifest, found)
    return manifest, whole.hexdigest()


class _Hashing:
    def __init__(self, file: BinaryIO, digest: Any):
        self.file, self.digest = file, digest

    def read(self, size: int = -1) -> bytes:
        found = self.file.read(size)
        self.digest.update(found)
        return found


def _seen(tar: tarfile.TarFile, info: tarfile.TarInfo, before: dict[str, Any]) -> dict[str, Any]:
    if not _safe(info.name) or info.name in before:
        raise ArchiveError(f"has a member {info.name[:100]!r}, which none of ours has")
    above = info.name.rpartition("/")[0]
    if above and before.get(above, {"type": "5"})["type"] != "5":
        raise ArchiveError(f"has a member {info.name[:100]!r} below something that is no directory")
    entry: dict[str, Any] = {"type": info.type.decode("ascii", "replace"), "mode": info.mode}
    entry.update(uid=info.uid, gid=info.gid)
    if info.isreg():
        digest, file = hashlib.sha256(), tar.extractfile(info)
        while block := file.read(BLOCK):
            digest.update(block)
        entry.update(size=info.size, sha256=digest.hexdigest())
    elif info.issym() and info.name.startswith("homes/"):
        entry["target"] = info.linkname
    elif not info.isdir():
        raise ArchiveError(f"has a member {info.name[:100]!r} that is neither file nor directory")
    return entry


def _compare(manifest: Any, found: dict[str, Any]) -> None:
    if not isinstance(manifest, dict) or manifest.get("tool") != TOOL:
        raise ArchiveError("has no manifest of ours: it is not whole, or was made by something else")
    if not isinstance(manifest.get("format"), int) or manifest["format"] > FORMAT:
        raise ArchiveError(f"is of a newer release (format {manifest.get('format')}, known is {FORMAT})")
    if manifest.get("members") != found:
        wanted = manifest.get("members") if isinstance(manifest.get("members"), dict) else {}
        unlike = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        raise ArchiveError(f"was changed: {', '.join(unlike[:3])} is not what its manifest says")


def members(path: str | Path, below: str) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    """The members of one part of an archive that was read before, in order, with the content of files."""
    with tarfile.open(path, mode="r|gz") as tar:
        for info in tar:
            if info.name == below or info.name.startswith(f"{below}/"):
                yield info, tar.extractfile(info) if info.isreg() else None
