"""The state plasma_environment.managed, in dry runs and for real."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _states.plasma_environment as plasma_environment
import plasma_environment_run as module

pytestmark = pytest.mark.usefixtures("test_mode")

ENVIRONMENTS = [{"name": "r"}, {"name": "s"}, {"name": "t", "absent": True}]
SECRETS = {"r": {"credentials": {"username": "git", "password": "T0ken"}}}
CHANGES = {"r": {"old": {"commit": "a"}, "new": {"commit": "b"}}, "t": {"old": {"images": ["t:v1"]}, "new": None}}


def report(**keys):
    lists = {"notes": [], "built": [], "changed": [], "removed": []}
    return {"hub": True, "older": False, "changes": {}, "problems": {}, **lists, **keys}


@pytest.fixture
def functions():
    return {
        "compare": create_autospec(module.compare, return_value=report()),
        "apply": create_autospec(module.apply, return_value=report()),
    }


@pytest.fixture
def used(functions, test_mode):
    """The one that is to be called."""
    return functions["compare" if test_mode else "apply"]


@pytest.fixture
def configure_loader_modules(functions, test_mode):
    return {
        plasma_environment: {
            "__salt__": {f"plasma_environment_run.{name}": function for name, function in functions.items()},
            "__opts__": {"test": test_mode},
            "__pillar__": {"plasma": {"environment_secrets": SECRETS}},
        }
    }


def managed(**options):
    return plasma_environment.managed("environments", ENVIRONMENTS, prefix="/srv/hub", ready_timeout=30, **options)


def test_what_is_as_wanted_changes_nothing(functions, test_mode, used):
    comment = "All 3 environments are as wanted."
    assert managed(timeout=60) == {"name": "environments", "changes": {}, "result": True, "comment": comment}
    timeout = {} if test_mode else {"timeout": 60}
    used.assert_called_once_with(ENVIRONMENTS, SECRETS, prefix="/srv/hub", ready_timeout=30, proxy={}, **timeout)
    functions["apply" if test_mode else "compare"].assert_not_called()


def test_what_differs_is_done_or_predicted(test_mode, used):
    used.return_value = report(changes=CHANGES, built=["r"], removed=["t"], notes=["u:v1 stays."])
    ret = managed()
    assert (ret["result"], ret["changes"]) == (None if test_mode else True, CHANGES)
    would = "would be " if test_mode else ""
    assert ret["comment"] == f"r {would}built; t {would}removed.\nu:v1 stays."


def test_a_problem_fails_the_state_and_keeps_what_was_done(test_mode, used):
    problems = {"s": ["the build failed. The end of its log:", "step 1", "no such package"]}
    used.return_value = report(changes=CHANGES, built=["r"], removed=["t"], problems=problems)
    ret = managed()
    assert (ret["result"], ret["changes"]) == (False, CHANGES)
    assert ret["comment"].splitlines()[1:] == [
        "s: the build failed. The end of its log:",
        "    step 1",
        "    no such package",
    ]


def test_a_problem_alone(used):
    used.return_value = report(problems={"s": ["https://example.org/s cannot be read."]})
    ret = managed()
    assert ret["result"] is False
    assert ret["comment"] == ("1 of 3 environments is not as wanted.\ns: https://example.org/s cannot be read.")


def test_a_bare_server_in_a_dry_run(test_mode, used):
    used.return_value = report(hub=False, changes=CHANGES, built=["r", "s"])
    ret = managed()
    assert ret["comment"].endswith("built. No hub is installed here yet.")
    assert ret["result"] is (None if test_mode else True)


@pytest.mark.parametrize("test_mode", [True], indirect=True)
def test_a_hub_that_is_upgraded_in_the_same_run(test_mode, used):
    used.return_value = report(older=True)
    comment = "Environments would be looked at once the hub is upgraded."
    assert managed() == {"name": "environments", "changes": {}, "result": None, "comment": comment}


@pytest.mark.parametrize("error", [CommandExecutionError, SaltInvocationError])
def test_a_hub_that_does_not_answer_is_one_sentence(used, error):
    used.side_effect = error("The hub in /srv/hub is stopped.")
    ret = managed()
    assert ret == {"name": "environments", "changes": {}, "result": False, "comment": "The hub in /srv/hub is stopped."}


def test_secrets_come_from_pillar_and_nothing_says_them(used):
    used.return_value = report(changes=CHANGES, built=["r"])
    assert "T0ken" not in str(managed())


def test_the_proxy_comes_from_pillar_and_nothing_says_it(used):
    proxy = {"https_proxy": "http://teacher:T0ken@proxy.example.org:3128", "no_proxy": "localhost"}
    sources = {**proxy, "http_proxy": None, "pip_index_url": "https://pypi.example.org/simple"}
    plasma_environment.__pillar__["plasma"]["hub"] = {"sources": sources}
    used.return_value = report(changes=CHANGES, built=["r"])
    assert "T0ken" not in str(managed())
    assert used.call_args.kwargs["proxy"] == proxy


@pytest.mark.parametrize("pillar", [{}, {"plasma": None}, {"plasma": {}}])
def test_a_pillar_without_secrets_will_do(used, pillar):
    plasma_environment.__pillar__.clear()
    plasma_environment.__pillar__.update(pillar)
    managed()
    assert used.call_args.args[1] is None
