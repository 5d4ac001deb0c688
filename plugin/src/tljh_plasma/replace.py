"""Files that are replaced as a whole: readers see the old content or the new one, and never a part."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path


def directory(path: Path, mode: int = 0o755) -> Path:
    """Make a directory, and with 0755 those above it that are missing; one that is there stays as it is.

    Args:
        path: in a place where nobody else can write.
        mode: its mode, whatever the umask is.
    """
    for part in reversed([part for part in (path, *path.parents) if not part.exists()]):
        with contextlib.suppress(FileExistsError):
            part.mkdir(0o700)
            part.chmod(mode if part == path else 0o755)
    return path


def replace(path: Path, text: str, mode: int = 0o600, like: os.stat_result | None = None) -> None:
    """Put a text into the place of a file. No link is followed, and what was written is on the disk afterwards.

    Args:
        path: the file. What is written beside it until then has a name that begins with a dot and ends with ".new".
        mode: the file's mode, whatever the umask is.
        like: owner and mode of the file that is replaced, where they are to stay.

    Raises:
        OSError: it cannot be written; the old file is as it was.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            if like and os.geteuid() == 0:
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode) if like else mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(beside, path)
        sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def sync_directory(path: Path) -> None:
    """Have what was renamed or removed in a directory on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
