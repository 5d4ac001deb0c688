"""Throwaway servers that figures are measured on, and salt-ssh calls that are timed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

from tests.support import builder_image
from tests.support.container import ContainerTarget
from tests.support.engine import ensure_engine
from tests.support.images import base_image
from tests.support.paths import REPOSITORY
from tests.support.site import Site

PILLAR = {
    "hub": {"provider": "pypi"},
    "docker": {"source": "distro"},
    "utils": {"monitor": "none"},
    # Nothing is built there.
    "builder": {"image": builder_image.TAG},
}


@contextlib.contextmanager
def throwaway(target: ContainerTarget) -> Generator[Path]:
    """Run a server, which is removed afterwards; gives a directory for what belongs to it."""
    ensure_engine()
    base_image()
    target.down()
    try:
        target.up()
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        target.down()


def timed(site: Site, *arguments: str) -> float:
    """Wall seconds of one salt-ssh call, which must succeed."""
    result = site.salt(*arguments)
    if result.returncode:
        raise SystemExit(f"salt-ssh {' '.join(arguments)} failed:\n{result.stdout}\n{result.stderr}")
    return result.seconds


def connections(site: Site, *arguments: str) -> int:
    """How many ssh and scp commands one salt-ssh call runs: its round trips."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        for name in ("ssh", "scp"):
            wrapper = Path(folder, name)
            wrapper.write_text(f'#!/bin/sh\necho {name} >>{log}\nexec {shutil.which(name)} "$@"\n', encoding="utf-8")
            wrapper.chmod(0o755)
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        subprocess.run(site.command(*arguments), cwd=REPOSITORY, env=environment, check=True, capture_output=True)
        return len(log.read_text(encoding="utf-8").split())
