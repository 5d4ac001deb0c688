"""The state plasma_preflight.passed."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _modules.plasma_preflight as preflight_module
import _states.plasma_preflight as plasma_preflight


@pytest.fixture
def problems():
    return create_autospec(preflight_module.problems, return_value=[])


@pytest.fixture(autouse=True, params=[False, True], ids=["apply", "test"])
def configure_loader_modules(request, problems):
    return {
        plasma_preflight: {
            "__salt__": {"plasma_preflight.problems": problems},
            "__opts__": {"test": request.param},
        }
    }


def test_fit(problems):
    wanted = {"prefix": "/srv/hub", "min_disk": "20G", "min_memory": "2G", "ports": [80, 443], "controller_time": 1e9}
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
