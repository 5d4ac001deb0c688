"""The state plasma_docker.running."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_docker as docker_module
import _states.plasma_docker as plasma_docker

CHANGES = {"live_restore": {"old": False, "new": True}}


@pytest.fixture
def salt_functions():
    return {
        "plasma_docker.config_problem": create_autospec(docker_module.config_problem, return_value=None),
        "plasma_docker.compare": create_autospec(docker_module.compare, return_value={}),
        "plasma_docker.engine": create_autospec(docker_module.engine, return_value="docker-ce"),
        "plasma_docker.ensure_running": create_autospec(docker_module.ensure_running, return_value=CHANGES),
    }


@pytest.fixture(autouse=True, params=[False, True], ids=["apply", "test"])
def test_mode(request):
    """Salt's `test=True`."""
    return request.param


@pytest.fixture
def configure_loader_modules(salt_functions, test_mode):
    return {plasma_docker: {"__salt__": salt_functions, "__opts__": {"test": test_mode}}}


def test_equal(salt_functions):
    ret = plasma_docker.running("docker", log_driver="local", live_restore=False)
    assert (ret["name"], ret["result"], ret["changes"]) == ("docker", True, {})
    salt_functions["plasma_docker.compare"].assert_called_once_with("local", False)
    salt_functions["plasma_docker.ensure_running"].assert_not_called()


def test_different(salt_functions, test_mode):
    salt_functions["plasma_docker.compare"].return_value = CHANGES
    ret = plasma_docker.running("docker", log_driver="local", timeout=12)
    assert ret["changes"] == CHANGES
    if test_mode:
        assert ret["result"] is None
        assert "would be" in ret["comment"]
        salt_functions["plasma_docker.ensure_running"].assert_not_called()
    else:
        assert ret["result"] is True
        salt_functions["plasma_docker.ensure_running"].assert_called_once_with("local", True, timeout=12)


def test_no_engine_yet(salt_functions, test_mode):
    """A dry run on a bare server: the package, which comes before, would bring and start the engine."""
    salt_functions["plasma_docker.compare"].return_value = {"engine": {"old": "stopped", "new": "running"}}
    salt_functions["plasma_docker.engine"].return_value = None
    salt_functions["plasma_docker.ensure_running"].side_effect = CommandExecutionError("Docker did not come up")
    ret = plasma_docker.running("docker")
    assert ret["changes"] == {}
    if test_mode:
        # Nothing is left for this state to do, so nothing is predicted of it.
        assert ret["result"] is True
        assert "would be started by its package" in ret["comment"]
        salt_functions["plasma_docker.ensure_running"].assert_not_called()
    else:
        assert (ret["result"], ret["comment"]) == (False, "Docker did not come up")


def test_failure(salt_functions, test_mode):
    salt_functions["plasma_docker.compare"].return_value = CHANGES
    salt_functions["plasma_docker.ensure_running"].side_effect = CommandExecutionError("look at daemon.json")
    ret = plasma_docker.running("docker")
    if test_mode:
        assert (ret["result"], ret["changes"]) == (None, CHANGES)
    else:
        assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "look at daemon.json")


def test_usable_configuration(salt_functions):
    ret = plasma_docker.config_usable("/etc/docker/daemon.json", log_driver="local")
    assert (ret["name"], ret["result"], ret["changes"]) == ("/etc/docker/daemon.json", True, {})
    salt_functions["plasma_docker.config_problem"].assert_called_once_with("local", path="/etc/docker/daemon.json")


def test_unusable_configuration(salt_functions):
    salt_functions["plasma_docker.config_problem"].return_value = "It is not valid JSON: mend it."
    ret = plasma_docker.config_usable("/etc/docker/daemon.json")
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "It is not valid JSON: mend it.")
