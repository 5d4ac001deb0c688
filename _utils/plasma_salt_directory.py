"""
What salt-ssh left on this server below ``/var/tmp``, where it was before ``_roster/`` had it elsewhere.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import stat

_CONFIGURATION = re.compile(r"/var/lib/(\.[^/]+_[0-9a-f]{6}_salt)/minion")
_BEFORE = "/var/tmp"


def left_behind(configuration: str | None, above: str = _BEFORE) -> str | None:
    """
    Return the path of the directory of this user and this controller when it was below ``/var/tmp``, or None. The last
    site is in it, hashes of passwords included. One that somebody else could have made or exchanged is not it, nor is
    one that a program runs from.

    configuration
        The configuration file that Salt runs with.
    above
        The directory that it was in.
    """
    here = _CONFIGURATION.fullmatch(configuration or "")
    if not here:
        return None
    path = os.path.join(above, here[1])
    try:
        outer, inner = os.lstat(above), os.lstat(path)
    except OSError:
        return None
    # In a directory of root's, where nobody removes what is another's, one of root's stays what it is seen to be here.
    roots = outer.st_uid == inner.st_uid == 0 and stat.S_ISDIR(outer.st_mode) and stat.S_ISDIR(inner.st_mode)
    kept = outer.st_mode & stat.S_ISVTX or not outer.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # Salt gives it to the group of the SSH user, who is root by sudo.
    closed = not inner.st_mode & stat.S_IRWXO and inner.st_dev == outer.st_dev
    return path if roots and kept and closed and not _runs_from(path) else None


def remove(configuration: str | None, above: str = _BEFORE) -> str | None:
    """Remove what ``left_behind`` returns, and return it. No link in it is followed."""
    path = left_behind(configuration, above)
    if path and shutil.rmtree.avoids_symlink_attacks:
        shutil.rmtree(path)
    return path


def _runs_from(path: str) -> bool:
    """Whether a process has the path in its command line: another apply, of the earlier release."""
    for process in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.encode() + b"/" in process.read_bytes():
                return True
        except OSError:
            continue
    return False
