"""
What /etc/docker/daemon.json said before the state docker wrote to it, and how it gets that back.

Noted before the first change in /var/lib/plasma/docker.json, which is root's alone. Of a server that was set up before
there were such notes, nothing is known: there the settings are taken out.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_files

CONFIGURATION = "/etc/docker/daemon.json"
NOTE = "/var/lib/plasma/docker.json"
BACKUPS = "/var/backups/plasma"
KEYS = ("live-restore", "log-driver")


def remember(path: str = CONFIGURATION, note: str = NOTE) -> bool:
    """
    Note what the settings of ours are before they are written for the first time; what was noted stays.

    Returns whether something was noted now.
    """
    if os.path.exists(note):
        return False
    content = read(path) or {}
    before = {key: content[key] for key in KEYS if key in content}
    if len(before) == len(KEYS) and before["live-restore"] is True:
        # So the state docker writes them: of a server that was set up before there were notes.
        before = {}
    plasma_files.write_note(note, {"there": bool(content.keys() - set(KEYS) or before), "before": before})
    return True


def compare(log_driver: str = "journald", path: str = CONFIGURATION, note: str = NOTE) -> dict[str, dict[str, Any]]:
    """
    Return how the file would change when it gets back what it said before, ``{key: {"old", "new"}}``.

    log_driver
        What the state docker has written; a driver that somebody set since stays.

    Raises CommandExecutionError when the file is not JSON.
    """
    content, noted = read(path), _noted(note)
    if content is None or noted is None:
        return {}
    ours = {"live-restore": True, "log-driver": log_driver}
    changes = {key: {"old": content.get(key), "new": noted["before"].get(key)} for key in KEYS}
    return {key: pair for key, pair in changes.items() if pair["old"] == ours[key] != pair["new"]}


def restore(
    log_driver: str = "journald", path: str = CONFIGURATION, note: str = NOTE, backups: str = BACKUPS
) -> dict[str, dict[str, Any]]:
    """
    Give the file back what it said before; the arguments are those of ``compare``. The engine, which goes on as it is,
    reads it at its next start. The file as it was is kept in /var/backups/plasma.

    Returns the changes.
    """
    changes = compare(log_driver, path, note)
    if not changes:
        return {}
    content, was_there = read(path) or {}, _noted(note)["there"]
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    plasma_files.write_note(os.path.join(backups, f"daemon.json-{stamp}"), content)
    content |= {key: change["new"] for key, change in changes.items()}
    content = {key: value for key, value in content.items() if key not in changes or value is not None}
    if content or was_there:
        plasma_files.write(path, json.dumps(content, indent=2) + "\n", mode=0o644)
    else:
        os.unlink(path)
    os.unlink(note)
    return changes


def read(path: str = CONFIGURATION) -> dict[str, Any] | None:
    """Return what the configuration says, None without one. Raises CommandExecutionError when it is no JSON object."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise CommandExecutionError(f"{path} is not valid JSON ({exc}): mend it, or remove it.") from exc
    if not isinstance(content, dict):
        raise CommandExecutionError(f"{path} holds no JSON object: mend it, or remove it.")
    return content


def _noted(note):
    return plasma_files.read_note(note, f"remove it, and mend {CONFIGURATION} by hand")
