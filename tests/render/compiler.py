"""Salt's own compiler, in this process, with the configuration and the tree of this repository."""

from __future__ import annotations

import fnmatch
import functools
import pathlib
import re
import tempfile
from dataclasses import dataclass
from typing import Any

import salt.state

from tests.render.options import options
from tests.render.pillars import compiled
from tests.support.paths import REPOSITORY


@dataclass(frozen=True)
class System:
    """A supported system, as Salt's grains describe it."""

    os: str
    release: str
    codename: str

    @property
    def name(self) -> str:
        return f"{self.os.lower()}-{self.release}"

    def grains(self, architecture: str) -> dict[str, Any]:
        release = self.release.split(".")
        return {
            "id": "test-server",
            "kernel": "Linux",
            "os": self.os,
            "os_family": "Debian",
            "osfullname": self.os,
            "osrelease": self.release,
            "osrelease_info": [int(part) for part in release],
            "osmajorrelease": int(release[0]),
            "osfinger": f"{self.os}-{self.release}",
            "oscodename": self.codename,
            "osarch": architecture,
            "cpuarch": {"amd64": "x86_64", "arm64": "aarch64"}[architecture],
            "init": "systemd",
        }


SYSTEMS = {
    system.name: system
    for system in (
        System("Ubuntu", "22.04", "jammy"),
        System("Ubuntu", "24.04", "noble"),
        System("Ubuntu", "26.04", "resolute"),
        System("Debian", "12", "bookworm"),
        System("Debian", "13", "trixie"),
    )
}
ARCHITECTURES = ("amd64", "arm64")
# Every SLS of the tree, but not the modules and the plugin beside them.
SLS = sorted(
    ".".join(path.relative_to(REPOSITORY / "salt").with_suffix("").parts).removesuffix(".init")
    for path in (REPOSITORY / "salt").glob("[!_]*/*.sls")
)


def reads_grains(sls: str) -> bool:
    """Whether an SLS, or one that it includes, has ``grains`` in its text: the others are the same on every system."""
    path = REPOSITORY / "salt" / sls.replace(".", "/")
    text = next(file for file in (path / "init.sls", path.with_suffix(".sls")) if file.exists()).read_text("utf-8")
    patterns = re.findall(r"^ *- ([a-z0-9_.*]+)$", re.sub(r"{{.*?}}", "*", text), re.M)
    if "grains" in text or "include: {{" in text:
        return True
    return any(reads_grains(name) for pattern in patterns for name in fnmatch.filter(SLS, pattern))


@functools.cache
def _directory() -> pathlib.Path:
    holder = tempfile.TemporaryDirectory(prefix="plasma-render-")
    _directory.holder = holder  # removed when Python ends
    return pathlib.Path(holder.name)


@functools.cache
def _compiler(system: str, architecture: str, pillar: str) -> salt.state.HighState:
    opts = options(_directory(), grains=SYSTEMS[system].grains(architecture))
    # Templates get the pillar from here.
    opts["pillar"] = compiled(pillar)
    compiler = salt.state.HighState(opts, initial_pillar=compiled(pillar))
    # The compiler asks which states have a mod_watch; that is the same for all, and loading Salt takes seconds.
    compiler.state.states = loaded().states
    return compiler


@functools.cache
def low_state(system: str, architecture: str, pillar: str, sls: str | None = None) -> list[dict[str, Any]]:
    """
    The states of the site, or of one SLS, in the order in which they run, with a pillar of ``tests.render.pillars``.

    Custom modules are not loaded: an SLS that calls one while it is rendered costs a round trip a call under salt-ssh,
    and fails here. Raises AssertionError with Salt's messages when something does not compile.
    """
    compiler = _compiler(system, architecture, pillar)
    # What Salt would otherwise carry from one compilation to the next.
    compiler.building_highstate = type(compiler.building_highstate)()
    top_matches = compiler.top_matches
    if sls:
        compiler.top_matches = lambda top: {"base": [sls]}
    try:
        chunks = compiler.compile_low_chunks()
    finally:
        compiler.top_matches = top_matches
    errors = [chunk for chunk in chunks if not isinstance(chunk, dict)]
    if errors:
        raise AssertionError("\n".join(errors))
    return chunks


def high_state(system: str, architecture: str, pillar: str) -> dict[str, Any]:
    """The states of the site by ID, as they are written: before Salt resolves their requisites."""
    compiler = _compiler(system, architecture, pillar)
    compiler.building_highstate = type(compiler.building_highstate)()
    return compiler.compile_highstate()


@functools.cache
def loaded() -> salt.state.State:
    """Salt with all its states and modules, and with the custom ones of this repository."""
    opts = options(
        _directory(),
        grains=SYSTEMS["debian-12"].grains("amd64"),
        states_dirs=[REPOSITORY / "_states"],
        module_dirs=[REPOSITORY / "_modules"],
    )
    return salt.state.State(opts, initial_pillar={})
