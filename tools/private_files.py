"""Files that only their owner can read."""

from __future__ import annotations

import os


def private(path: str, flags: int) -> int:
    """An `opener` for `open()`: a file that it creates has mode 0600, whatever the umask says."""
    return os.open(path, flags, 0o600)
