"""The routes that the hub keeps for Traefik, when the hub moves from HTTP to HTTPS or back.

They are kept in a file, so that user servers can be reached while the hub restarts, and each names the entry point of
Traefik that it belongs to. JupyterHub adds the routes that are missing and leaves the others as they are: after a move
they would go on answering at the old port, and nothing at the new one.
"""

from __future__ import annotations

import os
from pathlib import Path

# The names of TLJH, and so ours. Traefik's own API has another one.
ENTRY_POINTS = ("http", "https")


def follow(path: Path, entry_point: str) -> bool:
    """Move the routes of a file to another entry point; to be called before the hub reads it.

    Args:
        path: the file, rules.toml. A missing, empty or unreadable one is left alone: the hub makes it anew.
        entry_point: "http" or "https".

    Returns:
        Whether there was anything to move.
    """
    import toml

    if entry_point not in ENTRY_POINTS:
        return False
    try:
        rules = toml.loads(path.read_text(encoding="utf-8"))
        routers = rules.get("http", {}).get("routers", {}).values()
        stale = [
            router
            for router in routers
            if len(router["entryPoints"]) == 1
            and router["entryPoints"][0] in ENTRY_POINTS
            and router["entryPoints"][0] != entry_point
        ]
    except (OSError, UnicodeDecodeError, toml.TomlDecodeError, AttributeError, KeyError, TypeError):
        return False
    for router in stale:
        router["entryPoints"] = [entry_point]
    if stale:
        # Traefik watches the directory, and takes whatever ends in .toml.
        new = path.with_name(f".{path.name}.moved")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(toml.dumps(rules))
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    return bool(stale)
