"""The pillar that makes a target use the official installer, also where only package indexes are reachable."""

from __future__ import annotations

import hashlib
import os
import pathlib

from tests.support.shell import SupportError

# Where stage() puts the source on a target.
REMOTE = "/srv/tljh-source"


def local_source() -> pathlib.Path | None:
    """The directory of TLJH's source that PLASMA_TLJH_SOURCE names, or None."""
    name = os.environ.get("PLASMA_TLJH_SOURCE")
    if not name:
        return None
    source = pathlib.Path(name).resolve()
    if not (source / "bootstrap" / "bootstrap.py").is_file():
        raise SupportError(f"PLASMA_TLJH_SOURCE={name} holds no bootstrap/bootstrap.py: name a checkout of TLJH")
    return source


def fingerprint(source: pathlib.Path) -> str:
    """A short hash of what a source installs: releases may share their installer, and a commit has no number."""
    digest = hashlib.sha256()
    for path in sorted([source / "setup.py", *(source / "bootstrap").rglob("*"), *(source / "tljh").rglob("*")]):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(source)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def tljh_pillar() -> dict:
    """
    The ``hub`` section for provider tljh: TLJH's own sources, or with PLASMA_TLJH_SOURCE its source staged on the
    target, Traefik from its package and no Miniforge, so that nothing but package indexes is needed.
    """
    source = local_source()
    if source is None:
        return {"provider": "tljh"}
    installer = source / "bootstrap" / "bootstrap.py"
    return {
        "provider": "tljh",
        "versions": {"tljh": f"source-{fingerprint(source)}"},
        "sources": {
            "installer": f"{REMOTE}/bootstrap/bootstrap.py",
            "installer_sha256": hashlib.sha256(installer.read_bytes()).hexdigest(),
            "tljh": REMOTE,
            "miniforge": "none",
            "traefik": "pypi",
        },
    }


def stage(target) -> None:
    """Copy the source to the target, where pip on it can install it."""
    source = local_source()
    if source is not None:
        target.sudo(f"install -d -o {target.user} {REMOTE}")
        for entry in sorted(source.iterdir()):
            if entry.name != ".git":
                target.copy_to(entry, f"{REMOTE}/")
