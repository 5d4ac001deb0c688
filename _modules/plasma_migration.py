"""
What a server of the Ansible playbooks says of who may start which environment. It is read and never changed.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import urllib.parse

from salt.exceptions import CommandExecutionError

import plasma_environment_image
import plasma_files

TABLE = "/opt/tljh/state/tljh_plasma.sqlite"
# What the old plugin and repo2docker wrote on images.
LABEL_REPO, LABEL_REF = "repo2docker.repo", "repo2docker.ref"
LABEL_MEMORY, LABEL_CPU = "tljh_repo2docker.mem_limit", "tljh_repo2docker.cpu_limit"
_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")


def permissions(path=TABLE):
    """
    Return who may start which environment, as the table of the old plugin has it, for ``--out=yaml``.

    path
        The old plugin's database. It and all directories above are root's.

    Returns a dict: ``tick``, ``{image: [groups]}``, is what to tick on the page Permissions. ``plasma`` is the same as
    pillar, with repository, reference and limits of the images that the engine of this server has; it is left out when
    there are none.

    Raises CommandExecutionError when the file is not there, is not safe to read for root, or has no such table.

    CLI Example:

    .. code-block:: bash

        salt-ssh --out=yaml '*' plasma_migration.permissions
    """
    tick = _table(path)
    entries = {}
    # Pillar holds one environment of a name: the newest. Another reference of it is for the page.
    for image, (_, labels) in sorted(
        ((image, _made(image)) for image in tick), key=lambda each: each[1][0], reverse=True
    ):
        name = image.partition(":")[0]
        if labels.get(LABEL_REPO) and _NAME.fullmatch(name) and name not in entries:
            entries[name] = _entry(name, labels, tick[image])
    if not entries:
        return {"tick": tick}
    groups = sorted({group for entry in entries.values() for group in entry["groups"]})
    return {"tick": tick, "plasma": {"groups": groups, "environments": [entries[name] for name in sorted(entries)]}}


def _table(path):
    """``{image: [groups]}`` of the database."""
    plasma_files.check(path)
    query = """SELECT DISTINCT image, "group" FROM permissions WHERE image <> '' AND "group" <> '' ORDER BY 1, 2"""
    found = {}
    try:
        # Read-only: a database that is not there is not made, and one that is in use is not touched.
        uri = f"file:{urllib.parse.quote(path)}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
            for image, group in database.execute(query):
                found.setdefault(str(image), []).append(str(group))
    except sqlite3.Error as exc:
        raise CommandExecutionError(f"{path} has no table of permissions that can be read ({exc}).") from exc
    return found


def _made(image):
    """When an image was made, and its labels: none where the engine does not have it, or does not answer."""
    try:
        found = plasma_environment_image.inspect(image)
    except CommandExecutionError:
        found = None
    return (found["Created"], found["Config"].get("Labels") or {}) if found else ("", {})


def _entry(name, labels, groups):
    """An environment as pillar has it."""
    entry = {"name": name, "repository": labels[LABEL_REPO], "groups": groups}
    if labels.get(LABEL_REF, "HEAD") != "HEAD":
        entry["ref"] = labels[LABEL_REF]
    if labels.get(LABEL_MEMORY):
        entry["memory"] = labels[LABEL_MEMORY]
    with contextlib.suppress(KeyError, ValueError):
        entry["cpu"] = float(labels[LABEL_CPU])
    return entry
