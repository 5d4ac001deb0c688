"""Fixtures: a Docker engine, an environment's image, real accounts of the system and a running hub."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
for path in (ROOT, HERE):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))

from support_accounts import Accounts  # noqa: E402
from support_hub import Hub  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "docker: needs a Docker engine and root")


@pytest.fixture(scope="session")
def docker_host():
    """Set DOCKER_HOST to an engine, started by tests.support when none runs, and return a docker-py client."""
    import os

    import docker
    from tests.support import engine
    from tests.support.shell import SupportError

    try:
        host = engine.ensure_engine()
    except SupportError as error:
        pytest.skip(f"no Docker engine: {error}")
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = host
    client = docker.DockerClient(base_url=host, version="auto")
    yield client
    client.close()
    if before is None:
        del os.environ["DOCKER_HOST"]
    else:
        os.environ["DOCKER_HOST"] = before


@pytest.fixture(scope="session")
def environment(docker_host):
    """An environment's image that can be started; returns its name."""
    from tests.support.environment_image import environment_image

    return environment_image("plasmat-course:1", mem_limit="512M", cpu_limit="1")


@pytest.fixture(scope="session")
def accounts():
    """Factory of system accounts, all removed at the end."""
    made = Accounts()
    yield made
    made.remove_all()


@pytest.fixture(scope="session")
def hub(docker_host, environment, accounts, tmp_path_factory):
    """A hub without TLJH, as a server runs it: traefik and jupyterhub as processes of their own."""
    admin = accounts.add("admin")
    running = Hub(tmp_path_factory.mktemp("hub"), admin.name)
    running.start()
    yield running
    running.stop()
    running.remove_containers(docker_host)
