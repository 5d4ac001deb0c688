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
from collections.abc import Mapping
from typing import Any

import salt.utils.yaml

_HUB = "jupyterhub"
_PLUGIN = "tljh-plasma"
_TLJH = "the-littlest-jupyterhub"
_UNIT = pathlib.Path("/etc/systemd/system/jupyterhub.service")
# What of the tree the state tljh copies to the server, below the plugin's folder (salt/tljh/source.sls).
PLUGIN_FILES = r"(src/tljh_plasma/.*|pyproject\.toml|requirements[a-z-]*\.txt)$"
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


def paths(prefix: str | os.PathLike[str]) -> dict[str, pathlib.Path]:
    """
    Return where the parts of an installation are, ``{name: path}``.

    prefix
        Where the hub is installed.
    """
    root = pathlib.Path(prefix)
    ours = root / "plasma"
    return {
        "root": root,
        "hub": root / "hub",
        "python": root / "hub" / "bin" / "python3",
        "traefik": root / "hub" / "bin" / "traefik",
        "user": root / "user",
        "ours": ours,
        "plugin": ours / "plugin",
        "pyproject": ours / "plugin" / "pyproject.toml",
        "lock": ours / "plugin" / "requirements.txt",
        "tljh_pins": ours / "plugin" / "requirements-tljh.txt",
        "constraints": ours / "constraints.txt",
        "installer": ours / "bootstrap.py",
        "receipt": ours / "receipt.json",
        "guard": ours / "install.lock",
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


def _installed_in(folder: pathlib.Path) -> dict[str, str]:
    names = {
        metadata.name.removesuffix(".dist-info").rpartition("-")
        for metadata in folder.glob("*.dist-info")
        # An interrupted pip leaves directories that start with a tilde or have no RECORD: not installed.
        if not metadata.name.startswith("~") and (metadata / "RECORD").exists()
    }
    return {_canonical(name): version for name, _, version in names if name}


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
    folder = _site_packages(paths(prefix))
    return _installed_in(folder) if folder else {}


def locked(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """
    Return the versions a lock file allows, ``{name: [version, ...]}``; markers can give a package several.

    path
        A requirements file whose every line pins ``name==version``.
    """
    return locked_in(pathlib.Path(path).read_text(encoding="utf-8"))


def locked_in(text: str) -> dict[str, list[str]]:
    """
    Return what ``locked`` does, for the text of a lock file.
    """
    allowed: dict[str, list[str]] = {}
    for name, version in _REQUIREMENT.findall(text):
        allowed.setdefault(_canonical(name), []).append(version)
    return allowed


def receipt(prefix="/opt/tljh"):
    """
    Return what the last installation left on record, or an empty dict.

    Keys: ``provider``, ``complete`` (False while an installation runs, or after it was interrupted), ``made`` (whether
    the environment was complete before that), ``version`` and ``source`` (of TLJH), ``lock`` and ``pyproject`` (see
    ``fingerprints``), ``packages`` (names the lock brought), ``traefik`` and ``traefik_origin`` (see there),
    ``restart_due`` (units that may still run the old code).

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub.receipt
    """
    try:
        record = json.loads(paths(prefix)["receipt"].read_text(encoding="utf-8"))
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
    for folder in paths(prefix)["hub"].glob("lib/python3*/site-packages"):
        installed.update(_installed_in(folder))
    if record.get("provider") and (record.get("complete") or record.get("made") or {_HUB, _TLJH} & installed.keys()):
        return record["provider"]
    if _TLJH in installed:
        return "tljh"
    return "pypi" if _PLUGIN in installed else None


def config(prefix: str | os.PathLike[str] = "/opt/tljh") -> dict[str, Any]:
    """
    Return the content of config.yaml, read without the hub's own Python, which may be missing or what is broken; ``{}``
    where it cannot be read.

    prefix
        Where the hub is, or will be, installed.
    """
    try:
        text = pathlib.Path(prefix, "config", "config.yaml").read_text(encoding="utf-8", errors="replace")
        settings = salt.utils.yaml.safe_load(text)
    except (OSError, salt.utils.yaml.YAMLError):
        return {}
    return settings if isinstance(settings, dict) else {}


def misplaced(prefix: str = "/opt/tljh") -> str | None:
    """
    Return a sentence where the hub of this server is below another prefix, as its unit says, or None. There is one
    unit: a second hub would take the place of the first, whose people and permissions nobody would see any more.

    prefix
        Where the hub is, or will be, installed.
    """
    try:
        unit = _UNIT.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^WorkingDirectory=(/.+?)/+state/*$", unit, re.MULTILINE)
    if not found or not provider(found[1]) or os.path.realpath(found[1]) == os.path.realpath(prefix):
        return None
    return (
        f"The hub of this server is in {found[1]}, and pillar says {prefix}: set plasma.hub.prefix to {found[1]}, or "
        f"uninstall that hub first (a hub is never moved)."
    )


def absent(prefix: str, verb: str = "is installed") -> str:
    """
    Return the sentence for those who look for a hub below this prefix where none *verb*.
    """
    return misplaced(prefix) or f"No hub with the Plasma plugin {verb} in {prefix}: apply the state tljh."


def mendable(prefix="/opt/tljh"):
    """
    Return whether the hub's environment may be mended in place: it was complete once, and its Python is still there.

    What never was complete, or was made for another Python, is started afresh instead.
    """
    record = receipt(prefix)
    installed = packages(prefix)
    if _made_for_another_python(paths(prefix), installed):
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


def plugin_version(text: str) -> str:
    """
    Return the version that the text of the plugin's ``__init__.py`` says.
    """
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    return match[1] if match else "unknown"


def fingerprints(prefix="/opt/tljh"):
    """
    Return the SHA-256 of the ``lock`` and of the plugin's ``pyproject`` (its metadata) that lie on the server to be
    installed; None for a file that is not there.
    """
    return _fingerprints(paths(prefix))


def _fingerprints(paths):
    return {
        name: hashlib.sha256(paths[name].read_bytes()).hexdigest() if paths[name].exists() else None
        for name in ("lock", "pyproject")
    }


def traefik(prefix: str) -> dict[str, Any] | None:
    """
    Return what the program of the proxy is known by, ``{"size", "modified", "sha256"}``; None where there is none.

    prefix
        Where the hub is installed.
    """
    program = paths(prefix)["traefik"]
    return {**_seen(program), "sha256": _sha256(program)} if os.access(program, os.X_OK) else None


def traefik_origin(sources: Mapping[str, Any]) -> str:
    """
    Return in a word where the program of the proxy comes from: ``pypi``, ``tljh``, or the begin of a file's SHA-256.

    sources
        ``plasma.hub.sources``.
    """
    return (sources.get("traefik_sha256") or sources.get("traefik") or "tljh")[:12]


def _seen(program):
    """In whole seconds: copies of a machine keep no parts of them."""
    status = program.stat()
    return {"size": status.st_size, "modified": int(status.st_mtime)}


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def traefik_changes(prefix: str | os.PathLike[str]) -> dict[str, dict[str, str | None]]:
    """
    Return the part of ``compare`` about the program of the proxy.

    prefix
        Where the hub is installed.
    """
    program, known = paths(prefix)["traefik"], receipt(prefix).get("traefik")
    if not os.access(program, os.X_OK):
        return {"traefik": {"old": None, "new": "present"}}
    # Large, so its contents are read only where it was touched. Older releases put nothing on record.
    if not known or _seen(program).items() <= known.items() or _sha256(program) == known["sha256"]:
        return {}
    return {"traefik": {"old": _sha256(program)[:12], "new": known["sha256"][:12]}}


def compare(provider, prefix="/opt/tljh", version="", source=None, tree=None, traefik=None):
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
    traefik
        Where the program of the proxy is to come from, as of ``traefik_origin``; None for where it came from.

    Keys of the result: ``hub`` (nothing complete is installed), ``tljh`` (another version or source), ``packages``
    (these differ from the lock), ``plugin``, ``traefik`` (the program of the proxy is gone, changed or from another
    place), and alone ``restart`` (everything is installed, but an interrupted run left the hub running with what was
    there before).

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub.compare pypi
    """
    places = paths(prefix)
    if tree:
        plugin = pathlib.Path(tree)
        places.update(plugin=plugin, pyproject=plugin / "pyproject.toml", lock=plugin / "requirements.txt")
    record = receipt(prefix)
    installed = packages(prefix)
    foreign = _made_for_another_python(places, installed)
    if foreign or not record.get("complete") or not {_HUB, _PLUGIN} & installed.keys():
        old = "interrupted" if record and not record.get("complete") else installed.get(_TLJH)
        return {"hub": {"old": "made for another Python" if foreign else old, "new": f"{provider} {version}".strip()}}
    changes = {}
    current = (record.get("version"), record.get("source"))
    if provider == "tljh" and (_TLJH not in installed or current != (version, source)):
        changes["tljh"] = {"old": _spell(*current) if _TLJH in installed else None, "new": _spell(version, source)}
    if places["lock"].exists():
        wanted = _fingerprints(places)
        changes.update(_package_changes(places["lock"], wanted["lock"], record, installed))
        changes.update(_plugin_changes(places, wanted["pyproject"], record, installed))
    changes.update(traefik_changes(prefix))
    if provider == "tljh" and traefik and record.get("traefik_origin") not in (None, traefik):
        changes["traefik"] = {"old": record["traefik_origin"], "new": traefik}
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
    wanted = plugin_version((source / "__init__.py").read_text(encoding="utf-8"))
    old = installed.get(_PLUGIN)
    # The metadata (entry points, requirements) comes from pyproject.toml, which is not in the installed copy.
    if old == wanted and record.get("pyproject") == fingerprint and _tree(source) == _tree(copy):
        return {}
    # The same number with other contents is a working copy of a developer.
    return {"plugin": {"old": old, "new": f"{wanted} (changed)" if old == wanted else wanted}}
