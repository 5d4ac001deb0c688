"""Secrets that the hub keeps in its state directory. Whatever happens to such a file, the next start has a good one."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from .replace import replace

# Bytes of a secret, which is written in twice as many hexadecimal digits.
BYTES = 32


def _usable(path: Path) -> str | None:
    """Return the secret of a file; None when there is none, or one that somebody else may know."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
        if not ours or status.st_mode & 0o077:
            return None
        text = os.read(descriptor, 4 * BYTES).decode("ascii", errors="replace").strip()
    finally:
        os.close(descriptor)
    return text if re.fullmatch(rf"[0-9a-f]{{{2 * BYTES}}}", text) else None


def kept_secret(path: Path) -> str:
    """Return a random secret of 64 hexadecimal digits, made on the first call and kept in a file (0600).

    A file that others could read or write, a link, or one with something else in it is replaced by a new secret.

    Args:
        path: the file, in a directory that nobody but its owner may write to.

    Raises:
        OSError: the file cannot be written.
    """
    secret = _usable(path)
    if secret is not None:
        return secret
    secret = secrets.token_hex(BYTES)
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}.{secrets.token_hex(8)}"))
    replace(path, secret)
    return secret
