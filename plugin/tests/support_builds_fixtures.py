"""Fixtures of the tests of builds; they ask for this module with ``pytest_plugins``."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from support_builds import Bench
from tljh_plasma import firewall, network

from tests.support import git_repository
from tests.support.builder_image import builder_image


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run tests that are coroutines, each in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}))
    return True


@pytest.fixture(scope="session")
def served(docker_host, tmp_path_factory):
    """A directory of repositories, and where the builder clones them from."""
    directory = tmp_path_factory.mktemp("served")
    with git_repository.serve(directory, git_repository.bridge_address()) as url:
        yield directory, url


@pytest.fixture
def bench(docker_host, environment, served, tmp_path):
    """A hub's builds, with everything that was made of them removed at the end."""
    made = Bench(tmp_path, *served, docker_host, builder_image(), environment)
    yield made
    made.clean()
    # Of builders that were killed: the throwaway servers of other tests are on that network.
    shared = network.connect().inspect_network(network.SHARED)
    firewall.release(shared)
