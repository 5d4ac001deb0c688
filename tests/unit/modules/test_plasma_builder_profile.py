"""The AppArmor profile of builds, on servers with and without AppArmor."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from salt.exceptions import CommandExecutionError

import plasma_builder_profile as profile
import plasma_run
from _states import plasma_builds
from tests.support.paths import REPOSITORY

TEXT = (REPOSITORY / "salt/builder/plasma-build.apparmor").read_text()


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """A kernel that loads what apparmor_parser is told to."""
    here = SimpleNamespace(loaded=tmp_path / "profiles", file=tmp_path / "plasma-build", version="3.0.8", fails=False)
    here.loaded.write_text("docker-default (enforce)\nplasma-builder (enforce)\n")

    def run(command, timeout=0):
        if "--version" in command:
            return plasma_run.Result(0, f"AppArmor parser version {here.version}\n")
        if here.fails:
            return plasma_run.Result(1, "", "AppArmor parser error: syntax error", command)
        lines = [line for line in here.loaded.read_text().splitlines(True) if not line.startswith("plasma-build ")]
        here.loaded.write_text("".join(lines + ["plasma-build (enforce)\n"] * ("--replace" in command)))
        return plasma_run.Result(0)

    monkeypatch.setattr(profile, "LOADED", here.loaded)
    monkeypatch.setattr(profile, "FILE", here.file)
    monkeypatch.setattr(plasma_run, "run", run)
    monkeypatch.setattr(plasma_builds, "__salt__", {"cp.get_file_str": lambda _source: TEXT}, raising=False)
    monkeypatch.setattr(plasma_builds, "__opts__", {"test": False}, raising=False)
    return here


def apply(monkeypatch, state, test=False):
    monkeypatch.setattr(plasma_builds, "__opts__", {"test": test}, raising=False)
    ret = state("x", "salt://x") if state is plasma_builds.profile else state("x")
    return ret["result"], ret["changes"]


def test_it_is_loaded_once_and_goes_again(kernel, monkeypatch):
    predicted = apply(monkeypatch, plasma_builds.profile, test=True)
    assert predicted[0] is None and not kernel.file.exists()
    assert apply(monkeypatch, plasma_builds.profile) == (True, predicted[1])
    assert set(predicted[1]) == {"file", "kernel"}
    for test in (True, False):
        assert apply(monkeypatch, plasma_builds.profile, test) == (True, {})
    # Somebody took it out of the kernel, or changed the file.
    kernel.loaded.write_text("")
    assert set(apply(monkeypatch, plasma_builds.profile)[1]) == {"kernel"}
    kernel.file.write_text("profile plasma-build {}\n")
    assert set(apply(monkeypatch, plasma_builds.profile)[1]) == {"file", "kernel"}
    assert apply(monkeypatch, plasma_builds.profile_removed, test=True)[0] is None
    assert apply(monkeypatch, plasma_builds.profile_removed)[1] == {"profile": {"old": "here", "new": None}}
    assert apply(monkeypatch, plasma_builds.profile_removed) == (True, {})
    assert not kernel.file.exists() and "plasma-build " not in kernel.loaded.read_text()


@pytest.mark.parametrize(("version", "namespaces"), [("3.0.8", False), ("4.0.1", True), ("4.1.0", True)])
def test_a_rule_that_only_newer_releases_know(kernel, version, namespaces):
    kernel.version = version
    profile.load(TEXT)
    assert ("\n  userns,\n" in kernel.file.read_text()) is namespaces


def test_without_apparmor_nothing_is_done(kernel, monkeypatch):
    kernel.loaded.unlink()
    assert apply(monkeypatch, plasma_builds.profile) == (True, {})
    assert not kernel.file.exists()


def test_a_profile_that_is_refused(kernel):
    kernel.fails = True
    with pytest.raises(CommandExecutionError, match="AppArmor parser error: syntax error"):
        profile.load(TEXT)
    ret = plasma_builds.profile("x", "salt://x")
    assert (ret["result"], ret["changes"]) == (False, {})
