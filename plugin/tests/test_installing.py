"""The Traefik that TLJH's installer is to leave alone."""

from __future__ import annotations

import re
import sys
import types

import pytest
import tljh_plasma
from tljh_plasma import installing


@pytest.fixture
def tljh(monkeypatch, tmp_path):
    """What an installer would compare, and a Python of an environment with a Traefik in it."""
    module = types.ModuleType("tljh.traefik")
    module.traefik_version = "3.1.4"
    package = types.ModuleType("tljh")
    package.traefik = module
    monkeypatch.setitem(sys.modules, "tljh", package)
    monkeypatch.setitem(sys.modules, "tljh.traefik", module)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setenv(installing.KEEP_TRAEFIK, "1")
    return module


def put(tmp_path, said):
    (tmp_path / "traefik").write_text(f"#!/bin/sh\ncat <<'E'\n{said}E\n")
    (tmp_path / "traefik").chmod(0o755)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("Version:      3.6.5\nCodename:     ramequin\nGo version:   go1.25\n", "3.6.5"),
        ("Version:      v3.2.0\n", "3.2.0"),
    ],
)
def test_the_installer_takes_what_is_there(tljh, tmp_path, said, wanted):
    put(tmp_path, said)
    tljh_plasma.tljh_config_post_install()
    assert tljh.traefik_version == wanted


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Version:      2.11.0\n", "is 2.11.0, and this TLJH needs one of the series 3, such as 3.1.4."),
        ("Error: no such command\n", "does not say its version, and this TLJH needs one of the series 3"),
        (None, "does not run on this server"),
    ],
)
def test_the_installer_ends_before_it_removes_what_it_cannot_take(tljh, tmp_path, said, words):
    put(tmp_path, said or "")
    if said is None:
        (tmp_path / "traefik").write_bytes(b"\x7fELF of another machine")
    with pytest.raises(SystemExit, match=re.escape(words)):
        tljh_plasma.tljh_config_post_install()
    assert tljh.traefik_version == "3.1.4"


def test_without_a_traefik_it_brings_its_own(tljh):
    tljh_plasma.tljh_config_post_install()
    assert tljh.traefik_version == "3.1.4"


def test_nothing_is_kept_that_nobody_asked_for(tljh, tmp_path, monkeypatch):
    put(tmp_path, "Version: 3.6.5\n")
    monkeypatch.delenv(installing.KEEP_TRAEFIK)
    tljh_plasma.tljh_config_post_install()
    assert tljh.traefik_version == "3.1.4"
