"""The state plasma_preflight.passed."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
import salt.modules.cp as cp
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _modules.plasma_preflight as preflight_module
import _states.plasma_preflight as plasma_preflight
import plasma_gpu_engine
import plasma_lock


@pytest.fixture
def problems():
    return create_autospec(preflight_module.problems, return_value=[])


@pytest.fixture
def unreachable():
    return create_autospec(preflight_module.unreachable, return_value={"problems": [], "warnings": []})


@pytest.fixture
def missing():
    return create_autospec(plasma_gpu_engine.missing, return_value=None)


@pytest.fixture(autouse=True)
def lowstate(monkeypatch):
    """The states of the run, which Salt hands to each."""
    states = [{"__sls__": "preflight"}]
    monkeypatch.setattr(plasma_preflight, "__lowstate__", states, raising=False)
    return states


@pytest.fixture(autouse=True, params=[False, True], ids=["apply", "test"])
def configure_loader_modules(request, problems, unreachable, missing):
    return {
        plasma_preflight: {
            "__salt__": {
                "plasma_preflight.problems": problems,
                "plasma_preflight.unreachable": unreachable,
                "plasma_gpu.missing": missing,
                "cp.hash_file": create_autospec(cp.hash_file, return_value={"hsum": "abc"}),
            },
            "__pillar__": {"plasma": {"hub": {}}},
            "__opts__": {"test": request.param},
        }
    }


def test_fit(problems):
    wanted = {"prefix": "/srv/hub", "min_disk": "20G", "min_memory": "2G", "controller_time": 1e9}
    wanted |= {"http": {"address": None, "port": 81}, "https": {"wanted": True}, "home_path": "/srv/homes"}
    ret = plasma_preflight.passed("fit", "pypi", **wanted)
    assert (ret["name"], ret["result"], ret["changes"]) == ("fit", True, {})
    problems.assert_called_once_with("pypi", **wanted)


def test_every_problem_is_in_one_message_and_a_dry_run_fails_as_well(problems):
    problems.return_value = ["the system is debian 11: 12 or newer is needed", "512M of memory: 1G is needed"]
    ret = plasma_preflight.passed("fit", "tljh")
    assert ret["result"] is False
    assert ret["changes"] == {}
    assert ret["comment"].splitlines() == [
        "Nothing was changed. This server cannot take Plasma:",
        "- the system is debian 11: 12 or newer is needed",
        "- 512M of memory: 1G is needed",
    ]


@pytest.mark.parametrize("error", [CommandExecutionError, SaltInvocationError])
def test_expected_errors(problems, error):
    problems.side_effect = error("'10 apples' is not a size")
    ret = plasma_preflight.passed("fit", "tljh", min_disk="10 apples")
    assert ret["result"] is False
    assert ret["changes"] == {}
    assert "- '10 apples' is not a size" in ret["comment"].splitlines()


@pytest.mark.parametrize(
    ("applied", "parts"),
    [
        (["preflight"], ["cockpit", "docker", "environments", "gpu", "tljh", "trust", "utils"]),
        (["preflight", "https"], ["https"]),
        (["preflight", "tljh.pypi", "tljh.settings", "docker", "docker.prune"], ["docker", "tljh"]),
        (["preflight", "tljh.tljh", "cockpit.disabled"], ["tljh"]),
    ],
)
def test_what_is_applied_has_to_be_reached(lowstate, unreachable, problems, applied, parts):
    lowstate[:] = [{"__sls__": name} for name in applied]
    problems.return_value = ["512M of memory: 1G is needed"]
    unreachable.return_value["problems"] = ["github.com cannot be reached (no answer), for ctop: set a key"]
    ret = plasma_preflight.passed("fit", "tljh")
    unreachable.assert_called_once_with({"hub": {}}, parts, lock="abc")
    assert (ret["result"], ret["changes"]) == (False, {})
    # Salt would count an empty list.
    assert "warnings" not in ret
    assert ret["comment"].splitlines()[1:] == [
        "- 512M of memory: 1G is needed",
        "- github.com cannot be reached (no answer), for ctop: set a key",
    ]


def test_what_only_environments_lack_is_a_warning(unreachable):
    line = "git.example.org cannot be reached (no answer), for the repository of python: see `plasma.environments`"
    unreachable.return_value["warnings"] = [line]
    ret = plasma_preflight.passed("fit", "tljh")
    assert (ret["result"], ret["changes"], ret["warnings"]) == (True, {}, [line])


def test_environments_that_get_no_gpu_here_are_a_warning(missing):
    missing.return_value = "python of plasma.environments asks for more GPUs than servers can get here, 0: ..."
    ret = plasma_preflight.passed("fit", "tljh")
    assert (ret["result"], ret["warnings"]) == (True, [missing.return_value])
    missing.assert_called_once_with({"hub": {}})


@pytest.fixture
def take_turn(monkeypatch):
    found = create_autospec(plasma_lock.take_turn)
    monkeypatch.setattr(plasma_lock, "take_turn", found)
    return found


def test_a_second_apply_is_refused_and_a_dry_run_is_not(take_turn):
    take_turn.side_effect = CommandExecutionError("Another apply runs on this server: let it finish, then apply again.")
    ret = plasma_preflight.turn("turn")
    if plasma_preflight.__opts__["test"]:
        take_turn.assert_not_called()
        assert (ret["result"], ret["changes"]) == (True, {})
    else:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert ret["comment"].startswith("Nothing was changed. Another apply runs on this server")


def test_a_minion_of_threads_keeps_no_turn(take_turn, monkeypatch):
    """Its process does not end with the run."""
    for told, kept in ({}, True), ({"multiprocessing": True}, True), ({"multiprocessing": False}, False):
        monkeypatch.setattr(plasma_preflight, "__opts__", {"test": False, **told})
        assert plasma_preflight.turn("turn")["result"] is True
        take_turn.assert_called_with(keep=kept)
