"""
What is installed under the hub's prefix, and how it differs from what is wanted. Everything here only reads.

Two providers share one layout (``hub/``, ``config/``, ``state/`` below the prefix): ``tljh`` runs the official
installer of The Littlest JupyterHub, ``pypi`` makes the same hub from Python packages alone. Both end with the
packages of one lock file and with the plugin from this tree; ``plasma_hub_installer`` gets them there. Its receipt
says what was completed, so that an interrupted run is told apart from a finished one; the packages themselves are
compared as they lie on disk.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re

__virtualname__ = "plasma_hub"

_PLUGIN = "tljh-plasma"
_TLJH = "the-littlest-jupyterhub"
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)")


def __virtual__():
    return __virtualname__


def _paths(prefix):
    root = pathlib.Path(prefix)
    return {
        "hub": root / "hub",
        "python": root / "hub" / "bin" / "python3",
        "plugin": root / "plasma" / "plugin",
        "lock": root / "plasma" / "plugin" / "requirements.txt",
        "receipt": root / "plasma" / "receipt.json",
    }


def _canonical(name):
    """A project's name in the one spelling of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(prefix="/opt/tljh"):
    """
    Return the packages of the hub's environment, ``{name: version}``, read from its metadata directories.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub.packages
    """
    found = {}
    for metadata in _paths(prefix)["hub"].glob("lib/python3*/site-packages/*.dist-info"):
        name, _, version = metadata.name[: -len(".dist-info")].rpartition("-")
        # An interrupted pip leaves directories that start with a tilde or have no RECORD: not installed.
        if name and not name.startswith("~") and (metadata / "RECORD").exists():
            found[_canonical(name)] = version
    return found


def locked(path):
    """
    Return the versions a lock file allows, ``{name: [version, ...]}``; markers can give a package several.

    path
        A requirements file whose every line pins ``name==version``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub.locked /opt/tljh/plasma/plugin/requirements.txt
    """
    allowed = {}
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        match = _REQUIREMENT.match(line)
        if match:
            allowed.setdefault(_canonical(match.group(1)), []).append(match.group(2))
    return allowed


def receipt(prefix="/opt/tljh"):
    """
    Return what the last installation left on record, or an empty dict.

    Keys: ``provider``, ``complete`` (False while an installation runs, or after it was interrupted), ``version``
    and ``source`` (of TLJH), ``lock`` (SHA-256 of the lock file), ``packages`` (names the lock brought).

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub.receipt
    """
    try:
        record = json.loads(_paths(prefix)["receipt"].read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def provider(prefix="/opt/tljh"):
    """
    Return the provider of the hub below this prefix, ``tljh`` or ``pypi``, or None when there is no hub.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub.provider
    """
    recorded = receipt(prefix).get("provider")
    if recorded:
        return recorded
    installed = packages(prefix)
    if _TLJH in installed:
        return "tljh"
    return "pypi" if _PLUGIN in installed else None


def _tree(folder):
    """{relative path: SHA-256} of the files of a Python package, without its caches."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def _plugin_version(source):
    text = (source / "src" / "tljh_plasma" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    return match.group(1) if match else "unknown"


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compare(provider, prefix="/opt/tljh", version="", source=None):
    """
    Return how what is installed differs from what is wanted, as ``{what: {"old", "new"}}``.

    provider
        ``tljh`` or ``pypi``.
    prefix
        Where the hub is, or will be, installed.
    version
        Version, branch or commit of TLJH; not used by ``pypi``.
    source
        Where TLJH comes from instead of its Git repository: a pip requirement, or a directory on this server.

    Keys of the result: ``hub`` (nothing complete is installed), ``tljh`` (another version or source),
    ``packages`` (these differ from the lock), ``plugin``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub.compare pypi
    """
    paths = _paths(prefix)
    record = receipt(prefix)
    installed = packages(prefix)
    if not record.get("complete") or not paths["python"].exists():
        old = "interrupted" if record else installed.get(_TLJH)
        return {"hub": {"old": old, "new": f"{provider} {version}".strip()}}
    changes = {}
    if provider == "tljh":
        current = (record.get("version"), record.get("source"))
        if _TLJH not in installed or current != (version, source):
            changes["tljh"] = {"old": _spell(*current) if _TLJH in installed else None, "new": _spell(version, source)}
    if paths["lock"].exists():
        changes.update(_package_changes(paths["lock"], record, installed))
        changes.update(_plugin_changes(paths, installed))
    return changes


def _spell(version, source):
    return f"{version} from {source}" if source else str(version)


def _package_changes(lock, record, installed):
    allowed = locked(lock)
    old, new = {}, {}
    for name, versions in allowed.items():
        current = installed.get(name)
        if current not in versions and (current or name in record.get("packages", [])):
            old[name], new[name] = current, " or ".join(versions)
    if record.get("lock") != _sha256(lock) and not new:
        old["lock"], new["lock"] = (record.get("lock") or "none")[:12], _sha256(lock)[:12]
    return {"packages": {"old": old, "new": new}} if new else {}


def _plugin_changes(paths, installed):
    source = paths["plugin"] / "src" / "tljh_plasma"
    copies = list(paths["hub"].glob("lib/python3*/site-packages/tljh_plasma"))
    wanted = _plugin_version(paths["plugin"])
    if copies and installed.get(_PLUGIN) == wanted and _tree(source) == _tree(copies[0]):
        return {}
    old = installed.get(_PLUGIN)
    # The same number with other contents is a working copy of a developer.
    return {"plugin": {"old": old, "new": f"{wanted} (changed)" if old == wanted else wanted}}
