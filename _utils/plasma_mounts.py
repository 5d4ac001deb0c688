"""
What is mounted, as the kernel says (/proc/self/mountinfo, proc(5)).
"""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any


def mounts(path: str | os.PathLike[str] = "/proc/self/mountinfo") -> list[dict[str, Any]]:
    """
    Return everything that is mounted, in order; what is mounted over something else comes later.

    Each is ``{"device": "major:minor", "root", "target", "options": [str], "type", "source"}``; options are those of
    the mount and of the file system together.
    """
    found = []
    # The kernel writes a newline in a name as \012. Other ends of lines are part of the name.
    text = pathlib.Path(path).read_bytes().decode("utf-8", "surrogateescape")
    for line in filter(None, text.split("\n")):
        fields = line.split(" ")
        rest = fields.index("-", 6)
        options = [*fields[5].split(","), *fields[rest + 3].split(",")]
        found.append(
            {
                "device": fields[2],
                "root": unescape(fields[3]),
                "target": unescape(fields[4]),
                "options": list(dict.fromkeys(option for option in options if option)),
                "type": fields[rest + 1],
                "source": unescape(fields[rest + 2]),
            }
        )
    return found


def holder(path: str, among: list[dict[str, Any]] | None = None) -> dict[str, Any] | None:
    """
    Return the mount that an absolute path is on, by its name alone (nothing is looked up), or None.

    among
        What ``mounts`` returned; default is to ask the kernel.
    """
    candidates = [
        mount
        for mount in (mounts() if among is None else among)
        if f"{path.rstrip('/')}/".startswith(mount["target"].rstrip("/") + "/")
    ]
    # What is mounted over something else comes later.
    return max(reversed(candidates), key=lambda mount: len(mount["target"]), default=None)


def unescape(field: str) -> str:
    """Return a field of mountinfo or of fstab(5) with its octal escapes replaced."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)
