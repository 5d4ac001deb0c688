"""Fixtures of the tests of builds; they ask for this module with ``pytest_plugins``."""

from __future__ import annotations

import pytest
from support_builds import Bench

from tests.support import git_repository
from tests.support.builder_image import builder_image


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
