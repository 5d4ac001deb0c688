"""The demo: what it deploys, and what it does not take."""

from __future__ import annotations

import sys

import pytest

from tests.unit.pillar.conftest import load_external_pillar
from tools import demo


@pytest.mark.parametrize("way", ["environment", "argument"])
def test_a_provider_that_there_is_not_is_refused(monkeypatch, capsys, way):
    monkeypatch.setenv("HUB", "tlhj" if way == "environment" else "pypi")
    monkeypatch.setattr(sys, "argv", ["demo", "up", *(["--hub=tlhj"] if way == "argument" else [])])
    with pytest.raises(SystemExit) as caught:
        demo.main()
    assert caught.value.code == 2
    assert "'tlhj'" in capsys.readouterr().err


@pytest.mark.parametrize("provider", demo.PROVIDERS)
def test_the_demos_pillar_is_valid(monkeypatch, provider):
    monkeypatch.delenv("PLASMA_TLJH_SOURCE", raising=False)
    passwords = {"teacher": "one-of-them", "student": "another"}
    answer = load_external_pillar().ext_pillar("demo", {"plasma": demo.demo_pillar(provider, passwords)})
    assert answer["plasma"]["hub"]["provider"] == provider
    assert answer["plasma"]["admins"] == ["teacher"]
    assert [user["name"] for user in answer["plasma"]["users"]] == ["teacher", "student"]
