"""
What /etc/docker/daemon.json said before the state docker wrote to it, and how it gets that back.

Noted before the first change in /var/lib/plasma/docker.json, which is root's alone. Of a server that was set up before
there were such notes, nothing is known: there the settings are taken out.
"""

from __future__ import annotations

import json
import os
import pathlib
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_docker_undo"

CONFIGURATION = "/etc/docker/daemon.json"
NOTE = "/var/lib/plasma/docker.json"
BACKUPS = "/var/backups/plasma"
KEYS = ("live-restore", "log-driver")


def __virtual__():
    return __virtualname__


def remember(path=CONFIGURATION, note=NOTE):
    """
    Note what the settings of ours are before they are written for the first time; what was noted stays.

    Returns whether something was noted now.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker_undo.remember
    """
    if os.path.exists(note):
        return False
    found = _read(path)
    before = {key: found[key] for key in KEYS if found and key in found}
    if len(before) == len(KEYS) and before["live-restore"] is True:
        # So the state docker writes them: of a server that was set up before there were notes.
        before = {}
    _write(note, {"there": bool(found and found.keys() - set(KEYS)) or bool(before), "before": before}, 0o600)
    return True


def compare(log_driver="journald", path=CONFIGURATION, note=NOTE):
    """
    Return how the file would change when it gets back what it said before, ``{key: {"old", "new"}}``.

    log_driver
        What the state docker has written; a driver that somebody set since stays.

    Raises CommandExecutionError when the file is not JSON.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker_undo.compare
    """
    found = _read(path)
    if not os.path.exists(note) or found is None:
        return {}
    before, ours = _noted(note)["before"], {"live-restore": True, "log-driver": log_driver}
    return {
        key: {"old": found[key], "new": before.get(key)}
        for key in KEYS
        if key in found and found[key] == ours[key] and found[key] != before.get(key)
    }


def restore(log_driver="journald", path=CONFIGURATION, note=NOTE, backups=BACKUPS):
    """
    Give the file back what it said before; the arguments are those of ``compare``. The engine, which goes on as it is,
    reads it at its next start. The file as it was is kept in /var/backups/plasma.

    Returns the changes.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker_undo.restore
    """
    changes = compare(log_driver, path, note)
    if not changes:
        return {}
    found, noted = _read(path), _noted(note)
    place = pathlib.Path(backups)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = place / f"daemon.json-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    _write(kept, found, 0o600)
    for key, change in changes.items():
        if change["new"] is None:
            del found[key]
        else:
            found[key] = change["new"]
    if found or noted["there"]:
        _write(path, found, 0o644)
    else:
        os.unlink(path)
    os.unlink(note)
    return changes


def _noted(note):
    try:
        found = json.loads(pathlib.Path(note).read_text(encoding="utf-8"))
        return {"there": bool(found["there"]), "before": dict(found["before"])}
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise CommandExecutionError(f"{note} is damaged: remove it, and mend {CONFIGURATION} by hand.") from exc


def _read(path):
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise CommandExecutionError(f"{path} is not valid JSON ({exc}): mend it, or remove it.") from exc
    if not isinstance(found, dict):
        raise CommandExecutionError(f"{path} holds no JSON object: mend it, or remove it.")
    return found


def _write(path, value, mode):
    path = pathlib.Path(path)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    __salt__["plasma_files.write"](path, json.dumps(value, indent=2) + "\n", mode=mode)
