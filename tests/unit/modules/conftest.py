"""A server with, and without, a hub: for the tests of its settings."""

from __future__ import annotations

import pytest

import tljh_settings as tljh_config
from tests.unit.modules.stand_in_hub import HUB, PROXY, StandInHub


def loader_modules():
    """The modules of the settings as Salt loads them, for ``configure_loader_modules``."""
    return {tljh_config: {"__salt__": {"plasma_hub_secrets.lost": lambda prefix: []}}}


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A server without a hub."""
    hub = StandInHub(tmp_path, monkeypatch)
    for unit in (HUB, PROXY):
        hub.unit(unit, LoadState="not-found", ActiveState="inactive", SubState="dead")
    yield hub
    hub.close()


@pytest.fixture
def stopped(bare):
    """The hub's environment is there, and its units have not been started yet."""
    bare.install()
    for unit in (HUB, PROXY):
        bare.unit(unit, LoadState="loaded")
    return bare


@pytest.fixture
def hub(stopped):
    """A hub that runs and answers."""
    for unit in (PROXY, HUB):
        stopped.unit(unit, ActiveState="active", SubState="running")
    stopped.write(f"# by hand\nhttp:\n  port: {stopped.serve()}\nlimits:\n  memory: 1G # each\n")
    return stopped
