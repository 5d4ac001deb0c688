"""Taking parts of an archive out, into a directory that nobody but root can enter."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from pathlib import Path

from archive import ArchiveError, members

SPARE = 64 * 1024 * 1024  # what stays free on the disk, in bytes


def parts(path: Path, into: Path, wanted: list[str], room: int = 0) -> dict[str, int]:
    """Write these parts below a new directory, with owners and modes as they were.

    Set-user-id and set-group-id bits of files are not restored: no file of an archive becomes a program that runs as
    somebody else.

    Args:
        path: an archive that was verified.
        into: a directory that does not exist yet; what is above it is root's.
        wanted: names at the root of the archive, or below it such as ``homes/ada``.
        room: bytes that will be written.

    Returns:
        The number of members by part.

    Raises:
        ArchiveError: the directory exists, or something cannot be written; nothing is left then.
    """
    try:
        into.mkdir(mode=0o700)
    except OSError as error:
        raise ArchiveError(f"{path} is not unpacked: {into} cannot be made ({error.strerror}).") from error
    try:
        stats = os.statvfs(into)
        free = stats.f_bavail * stats.f_frsize
        if room and free < room + SPARE:
            raise ArchiveError(
                f"{path} is not unpacked: {free // 2**20} MB are free on the disk of {into.parent}, and "
                f"{(room + SPARE) // 2**20} MB are needed."
            )
        return _unpack(path, into, wanted)
    except (OSError, tarfile.TarError, EOFError) as error:
        shutil.rmtree(into, ignore_errors=True)
        where = getattr(error, "filename", None) or into
        raise ArchiveError(
            f"{path} cannot be unpacked: {getattr(error, 'strerror', None) or error} ({where})."
        ) from error
    except ArchiveError:
        shutil.rmtree(into, ignore_errors=True)
        raise


def _unpack(path: Path, into: Path, wanted: list[str]) -> dict[str, int]:
    counted = dict.fromkeys(wanted, 0)
    for part in wanted:
        (into / part).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    entered: list[tuple[Path, tarfile.TarInfo]] = []
    for part, info, file in members(path, wanted):
        place = into / info.name
        while entered and entered[-1][0] not in place.parents:
            _leave(*entered.pop())
        if info.isdir():
            place.mkdir(mode=0o700)
            entered.append((place, info))
        elif info.issym():
            os.symlink(info.linkname, place)
            os.lchown(place, info.uid, info.gid)
        else:
            with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as new:
                shutil.copyfileobj(file, new, 1024 * 1024)
                new.flush()
                os.fchown(new.fileno(), info.uid, info.gid)
                os.fchmod(new.fileno(), info.mode & ~(stat.S_ISUID | stat.S_ISGID) & 0o7777)
                os.utime(new.fileno(), (info.mtime, info.mtime))
        counted[part] += 1
    while entered:
        _leave(*entered.pop())
    return counted


def _leave(place: Path, info: tarfile.TarInfo) -> None:
    """Give a directory its owner, mode and time, when nothing more is written into it."""
    os.chown(place, info.uid, info.gid)
    # Of a directory, set-group-id says whose new files in it are: it runs nothing.
    place.chmod(info.mode & ~stat.S_ISUID & 0o7777)
    os.utime(place, (info.mtime, info.mtime))
