"""A hub's service with environments, for the tests of those of pillar."""

from __future__ import annotations

import pytest

import plasma_environment_run as run
from tests.unit.modules.environments.stand_in_environments import StandInEnvironments, functions_with


@pytest.fixture
def service():
    return StandInEnvironments()


@pytest.fixture
def functions(service, monkeypatch):
    """What states and modules call, of that service, which is asked again at once."""
    monkeypatch.setattr(run, "POLL", 0.001)
    return functions_with(service)
