"""The build packs that repo2docker chooses of: its own and ours."""

from __future__ import annotations

from repo2docker.app import Repo2Docker
from repo2docker.buildpacks import PipfileBuildPack, RBuildPack

from .plasma_buildpack import PlasmaPython
from .plasma_r import PlasmaR


def packs() -> list[type]:
    """Return repo2docker's build packs with ours before those that would take a repository of Python or R."""
    found = list(Repo2Docker.buildpacks.default() or ())
    found.insert(found.index(RBuildPack), PlasmaR)
    found.insert(found.index(PipfileBuildPack), PlasmaPython)
    return found
