"""Copies of the files that say who gets in, as they were when the hub last worked with them.

A hub whose config.yaml or permissions are gone would let everybody in everywhere. It stays shut instead, and what is
kept here brings the file back: `state.apply tljh` and `plasma_databases.mend` do.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
from pathlib import Path

DIRECTORY = "kept"


def copy_of(path: Path | str) -> Path:
    """Where the copy of config.yaml, or of a database in the state directory, is or would be."""
    path = Path(path)
    state = path.parent if path.suffix == ".sqlite" else path.parent.parent / "state"
    return state / DIRECTORY / path.name


def keep(path: Path) -> None:
    """Copy a file, 0600; a database as it is at one moment. The copy before it is replaced as a whole.

    Raises:
        OSError: the file cannot be read, or the copy not be written.
        sqlite3.Error: the database cannot be read.
    """
    copy = copy_of(path)
    copy.parent.mkdir(mode=0o700, exist_ok=True)
    new = copy.with_name(f".{copy.name}.{secrets.token_hex(4)}.new")
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    try:
        if path.suffix == ".sqlite":
            with (
                contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as source,
                contextlib.closing(sqlite3.connect(new)) as target,
            ):
                source.backup(target)
        else:
            shutil.copyfile(path, new)
        os.replace(new, copy)
    finally:
        new.unlink(missing_ok=True)
