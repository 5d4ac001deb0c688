"""Taking parts of an archive out, into a directory that nobody but root can enter."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from archive import ArchiveError, members


def parts(path: Path, into: Path, wanted: list[str]) -> dict[str, int]:
    """Write these parts below a new directory, with owners and modes as they were.

    Set-user-id and set-group-id bits are not restored: no file of an archive becomes a program that runs as somebody
    else.

    Args:
        path: an archive that was verified.
        into: a directory that does not exist yet; what is above it is root's.
        wanted: names at the root of the archive, or below it such as ``homes/ada``.

    Returns:
        The number of members by part.

    Raises:
        ArchiveError: something cannot be written; nothing is left then.
    """
    counted = dict.fromkeys(wanted, 0)
    try:
        into.mkdir(mode=0o700)
        for part in wanted:
            (into / part).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            directories = []
            for info, file in members(path, part):
                place = into / info.name
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # not every part is a directory of a server
                if info.isdir():
                    place.mkdir(mode=0o700)
                    directories.append((place, info))
                elif info.issym():
                    os.symlink(info.linkname, place)
                    os.lchown(place, info.uid, info.gid)
                else:
                    with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as new:
                        shutil.copyfileobj(file, new, 1024 * 1024)
                        new.flush()
                        os.fchown(new.fileno(), info.uid, info.gid)
                        os.fchmod(new.fileno(), _mode(info.mode))
                        os.utime(new.fileno(), (info.mtime, info.mtime))
                counted[part] += 1
            # From the inside out, when nothing more is written into them.
            for place, info in reversed(directories):
                os.chown(place, info.uid, info.gid)
                place.chmod(_mode(info.mode))
                os.utime(place, (info.mtime, info.mtime))
    except OSError as error:
        shutil.rmtree(into, ignore_errors=True)
        raise ArchiveError(
            f"{path} cannot be unpacked: {error.strerror or error} ({error.filename or into})."
        ) from error
    return counted


def _mode(mode: int) -> int:
    return mode & ~(stat.S_ISUID | stat.S_ISGID) & 0o7777
