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
import os
import pathlib
import re

__virtualname__ = "plasma_hub"

_HUB = "jupyterhub"
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
        "pyproject": root / "plasma" / "plugin" / "pyproject.toml",
        "lock": root / "plasma" / "plugin" / "requirements.txt",
        "receipt": root / "plasma" / "receipt.json",
    }


def _canonical(name):
    """A project's name in the one spelling of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _site_packages(paths):
    """
    The packages' folder of the Python that the environment leads to now, or None when it leads nowhere.

    An upgrade of the system moves the link, and the packages of the Python before it are then nobody's. The name of
    the program tells its version; pyvenv.cfg still says the one that made the environment, so it only comes second.
    """
    binary = pathlib.Path(os.path.realpath(paths["python"]))
    if not binary.exists():
        return None
    version = re.match(r"python(3\.\d+)", binary.name)
    if not version:
        try:
            text = (paths["hub"] / "pyvenv.cfg").read_text(encoding="utf-8")
        except OSError:
            return None
        version = re.search(r"^version(?:_info)? *= *(3\.\d+)", text, re.MULTILINE)
    return paths["hub"] / "lib" / f"python{version.group(1)}" / "site-packages" if version else None


def _installed_in(folder):
    found = {}
    for metadata in folder.glob("*.dist-info"):
        name, _, version = metadata.name[: -len(".dist-info")].rpartition("-")
        # An interrupted pip leaves directories that start with a tilde or have no RECORD: not installed.
        if name and not name.startswith("~") and (metadata / "RECORD").exists():
            found[_canonical(name)] = version
    return found


def packages(prefix="/opt/tljh"):
    """
    Return the packages of the hub's environment, ``{name: version}``, read from the metadata directories of the Python
    that it leads to. Nothing is installed for a Python that is no longer there.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub.packages
    """
    folder = _site_packages(_paths(prefix))
    return _installed_in(folder) if folder else {}


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

    Keys: ``provider``, ``complete`` (False while an installation runs, or after it was interrupted), ``made`` (whether
    the environment was complete before that), ``version`` and ``source`` (of TLJH), ``lock`` and ``pyproject`` (see
    ``fingerprints``), ``packages`` (names the lock brought), ``restart_due`` (units that may still run the old code).

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

    An installation that failed before it brought a hub commits to nothing: the other provider may be tried.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub.provider
    """
    record = receipt(prefix)
    installed = {}
    # Of any Python: an upgrade of the system does not make the hub somebody else's.
    for folder in _paths(prefix)["hub"].glob("lib/python3*/site-packages"):
        installed.update(_installed_in(folder))
    if record.get("provider") and (record.get("complete") or record.get("made") or {_HUB, _TLJH} & installed.keys()):
        return record["provider"]
    if _TLJH in installed:
        return "tljh"
    return "pypi" if _PLUGIN in installed else None


def mendable(prefix="/opt/tljh"):
    """
    Return whether the hub's environment may be mended in place: it was complete once, and its Python is still there.

    What never was complete, or was made for another Python, is started afresh instead.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub.mendable
    """
    record = receipt(prefix)
    installed = packages(prefix)
    if _made_for_another_python(_paths(prefix), installed):
        return False
    if not record:
        return bool({_TLJH, _PLUGIN} & installed.keys())
    return bool(record.get("complete") or record.get("made") or _PLUGIN in installed)


def _made_for_another_python(paths, installed):
    current = _site_packages(paths)
    others = [folder for folder in paths["hub"].glob("lib/python3*/site-packages") if folder != current]
    # Both, as somebody may have installed things for the new Python by hand.
    return bool(others) and not {_HUB, _PLUGIN} <= installed.keys()


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


def fingerprints(prefix="/opt/tljh"):
    """
    Return the SHA-256 of the ``lock`` and of the plugin's ``pyproject`` (its metadata) that lie on the server to be
    installed; None for a file that is not there.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub.fingerprints
    """
    return _fingerprints(_paths(prefix))


def _fingerprints(paths):
    return {
        name: hashlib.sha256(paths[name].read_bytes()).hexdigest() if paths[name].exists() else None
        for name in ("lock", "pyproject")
    }


def compare(provider, prefix="/opt/tljh", version="", source=None, tree=None):
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
    tree
        Directory with the plugin's source and the locks that are wanted, where they are not on the server yet.

    Keys of the result: ``hub`` (nothing complete is installed), ``tljh`` (another version or source),
    ``packages`` (these differ from the lock), ``plugin``, and alone ``restart`` (everything is installed, but an
    interrupted run left the hub running with what was there before).

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub.compare pypi
    """
    paths = _paths(prefix)
    if tree:
        plugin = pathlib.Path(tree)
        paths.update(plugin=plugin, pyproject=plugin / "pyproject.toml", lock=plugin / "requirements.txt")
    record = receipt(prefix)
    installed = packages(prefix)
    foreign = _made_for_another_python(paths, installed)
    if foreign or not record.get("complete") or not {_HUB, _PLUGIN} & installed.keys():
        old = "interrupted" if record and not record.get("complete") else installed.get(_TLJH)
        return {"hub": {"old": "made for another Python" if foreign else old, "new": f"{provider} {version}".strip()}}
    changes = {}
    if provider == "tljh":
        current = (record.get("version"), record.get("source"))
        if _TLJH not in installed or current != (version, source):
            changes["tljh"] = {"old": _spell(*current) if _TLJH in installed else None, "new": _spell(version, source)}
    if paths["lock"].exists():
        wanted = _fingerprints(paths)
        changes.update(_package_changes(paths["lock"], wanted["lock"], record, installed))
        changes.update(_plugin_changes(paths, wanted["pyproject"], record, installed))
    if not changes and record.get("restart_due"):
        changes["restart"] = {"old": None, "new": "jupyterhub"}
    return changes


def _spell(version, source):
    return f"{version} from {source}" if source else str(version)


def _package_changes(lock, fingerprint, record, installed):
    allowed = locked(lock)
    old, new = {}, {}
    for name, versions in allowed.items():
        current = installed.get(name)
        if current not in versions and (current or name in record.get("packages", [])):
            old[name], new[name] = current, " or ".join(versions)
    if record.get("lock") != fingerprint and not new:
        old["lock"], new["lock"] = (record.get("lock") or "none")[:12], fingerprint[:12]
    return {"packages": {"old": old, "new": new}} if new else {}


def _plugin_changes(paths, fingerprint, record, installed):
    source = paths["plugin"] / "src" / "tljh_plasma"
    copy = _site_packages(paths) / "tljh_plasma"
    wanted = _plugin_version(paths["plugin"])
    old = installed.get(_PLUGIN)
    # The metadata (entry points, requirements) comes from pyproject.toml, which is not in the installed copy.
    if old == wanted and record.get("pyproject") == fingerprint and _tree(source) == _tree(copy):
        return {}
    # The same number with other contents is a working copy of a developer.
    return {"plugin": {"old": old, "new": f"{wanted} (changed)" if old == wanted else wanted}}
