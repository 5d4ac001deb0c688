"""
The AppArmor profile of builds (``plasma.builder.image: local``): what the engine's own one allows, and to mount in user
namespaces. Servers on which AppArmor is not in force need none.
"""

from __future__ import annotations

import re
from pathlib import Path

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_run

NAME = "plasma-build"  # as in the plugin's builds/rootless.py
FILE = Path("/etc/apparmor.d", NAME)
LOADED = Path("/sys/kernel/security/apparmor/profiles")
# A rule that older releases cannot read, and newer ones ask for.
_NAMESPACES, _SINCE = re.compile(r"^ *userns,\n", re.MULTILINE), 4


def _is_loaded() -> bool:
    return LOADED.exists() and any(line.startswith(f"{NAME} ") for line in LOADED.read_text().splitlines())


def _wanted(profile: str) -> str:
    version = re.search(r"version (\d+)", plasma_run.run(["apparmor_parser", "--version"]).check().stdout)
    return profile if version and int(version[1]) >= _SINCE else _NAMESPACES.sub("", profile)


def compare(profile: str) -> dict[str, dict[str, str | None]]:
    """
    Return what is not as wanted, as ``{"file" or "kernel": {"old", "new"}}``; nothing where AppArmor is not in force.

    profile
        The profile's text.

    Raises CommandExecutionError where AppArmor's program is missing or does not work.
    """
    if not LOADED.exists():
        return {}
    current = FILE.read_text(encoding="utf-8") if FILE.exists() else None
    changes: dict[str, dict[str, str | None]] = {}
    if current != _wanted(profile):
        changes["file"] = {"old": None if current is None else "another profile", "new": "the profile"}
    if changes or not _is_loaded():
        changes["kernel"] = {"old": "a profile" if _is_loaded() else None, "new": "the profile"}
    return changes


def load(profile: str) -> None:
    """
    Write the profile, and have the kernel load it.

    profile
        The profile's text.

    Raises CommandExecutionError.
    """
    plasma_files.write(FILE, _wanted(profile), mode=0o644)
    done = plasma_run.run(["apparmor_parser", "--replace", "--write-cache", str(FILE)], timeout=60)
    if done.returncode:
        raise CommandExecutionError(f"AppArmor does not take the profile of builds, {FILE}: {done.last_line}")


def present() -> bool:
    """Tell whether the profile is on this server."""
    return FILE.exists() or _is_loaded()


def remove() -> None:
    """Take the profile out of the kernel, and remove its file. Raises CommandExecutionError where a build has it."""
    if _is_loaded() and FILE.exists():
        plasma_run.run(["apparmor_parser", "--remove", str(FILE)], timeout=60).check()
    FILE.unlink(missing_ok=True)
