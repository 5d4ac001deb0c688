"""The states of the Docker engine."""

from __future__ import annotations

from unittest.mock import Mock, create_autospec

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
        "plasma_engine.engine": create_autospec(docker_module.engine, return_value="docker-ce"),
        "plasma_docker.ensure_running": create_autospec(docker_module.ensure_running, return_value=CHANGES),
    }


@pytest.fixture(autouse=True, params=[False, True], ids=["apply", "test"])
def test_mode(request):
    """Salt's `test=True`."""
    return request.param


@pytest.fixture
def steps(test_mode):
    """Salt's own states, each with a change."""
    result = None if test_mode else True

    def step(name):
        return Mock(side_effect=lambda **_: {"result": result, "changes": {name: "new"}, "comment": f"{name} is new"})

    return {name: step(name) for name in ("file.managed", "pkgrepo.managed", "pkg.installed")}


@pytest.fixture
def configure_loader_modules(salt_functions, test_mode, steps):
    options = {"test": test_mode}
    return {plasma_docker: {"__salt__": salt_functions, "__opts__": options, "__states__": steps}}


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
    salt_functions["plasma_engine.engine"].return_value = None
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


REPOSITORY = {
    "repository": "deb https://example.org x stable",
    "key": "https://example.org/gpg",
    "key_hash": "sha256=00",
}


@pytest.mark.parametrize(("here", "source"), [("distro", "docker-ce"), ("docker-ce", "distro"), ("other", "distro")])
def test_an_engine_from_elsewhere_is_kept(salt_functions, steps, here, source):
    salt_functions["plasma_engine.engine"].return_value = here
    ret = plasma_docker.installed("docker", source, ["docker.io"])
    assert (ret["result"], ret["changes"]) == (True, {})
    assert not any(step.called for step in steps.values())


@pytest.mark.parametrize("here", [None, "docker-ce"])
def test_the_engine_of_docker_comes_from_its_repository(salt_functions, steps, test_mode, here):
    salt_functions["plasma_engine.engine"].return_value = here
    ret = plasma_docker.installed("docker", "docker-ce", ["docker-ce"], **REPOSITORY)
    assert list(ret["changes"]) == list(steps)
    assert (ret["name"], ret["comment"]) == ("docker", "pkg.installed is new")
    assert ret["result"] is (None if test_mode else True)
    steps["pkg.installed"].assert_called_once_with(name="docker", pkgs=["docker-ce"], refresh=here is None)
    assert steps["file.managed"].call_args.kwargs["source_hash"] == "sha256=00"


def test_a_key_that_is_another_one_ends_it(salt_functions, steps):
    salt_functions["plasma_engine.engine"].return_value = None
    steps["file.managed"].side_effect = lambda **_: {"result": False, "changes": {}, "comment": "the hash is another"}
    ret = plasma_docker.installed("docker", "docker-ce", ["docker-ce"], **REPOSITORY)
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "the hash is another")
    assert not steps["pkg.installed"].called


def test_the_engine_of_the_distribution_needs_no_repository(salt_functions, steps):
    salt_functions["plasma_engine.engine"].return_value = None
    assert list(plasma_docker.installed("docker", "distro", ["docker.io"])["changes"]) == ["pkg.installed"]
