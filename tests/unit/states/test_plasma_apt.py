"""The state plasma_apt.settled."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_apt as apt_module
import _states.plasma_apt as plasma_apt

CHANGES = {
    "dpkg-journal": {"old": "half-done", "new": "installed"},
    "jq": {"old": "half-done", "new": "installed"},
}


@pytest.fixture
def salt_functions():
    return {
        "plasma_apt.unsettled": create_autospec(apt_module.unsettled, return_value=[]),
        "plasma_apt.wait": create_autospec(apt_module.wait, return_value=0.0),
        "plasma_apt.settle": create_autospec(apt_module.settle, return_value=["dpkg-journal", "jq"]),
    }


@pytest.fixture(autouse=True, params=[False, True], ids=["apply", "test"])
def test_mode(request):
    """Salt's `test=True`."""
    return request.param


@pytest.fixture
def configure_loader_modules(salt_functions, test_mode):
    return {plasma_apt: {"__salt__": salt_functions, "__opts__": {"test": test_mode}}}


def test_settled(salt_functions, test_mode):
    ret = plasma_apt.settled("packages", timeout=7)
    assert (ret["name"], ret["result"], ret["changes"]) == ("packages", True, {})
    salt_functions["plasma_apt.settle"].assert_not_called()
    # A dry run does not wait for anybody.
    assert salt_functions["plasma_apt.wait"].call_count == (0 if test_mode else 1)
    if not test_mode:
        salt_functions["plasma_apt.wait"].assert_called_once_with(timeout=7)


def test_unsettled(salt_functions, test_mode):
    salt_functions["plasma_apt.unsettled"].return_value = ["dpkg-journal", "jq"]
    ret = plasma_apt.settled("packages")
    assert ret["changes"] == CHANGES
    assert "dpkg-journal, jq" in ret["comment"]
    if test_mode:
        assert ret["result"] is None
        assert "would be" in ret["comment"]
        salt_functions["plasma_apt.wait"].assert_not_called()
        salt_functions["plasma_apt.settle"].assert_not_called()
    else:
        assert ret["result"] is True
        salt_functions["plasma_apt.settle"].assert_called_once_with()


def test_what_the_holder_of_the_lock_finished_itself_is_not_touched(salt_functions, test_mode):
    salt_functions["plasma_apt.unsettled"].side_effect = [["jq"], []]
    ret = plasma_apt.settled("packages")
    salt_functions["plasma_apt.settle"].assert_not_called()
    if test_mode:
        assert (ret["result"], set(ret["changes"])) == (None, {"jq"})
    else:
        assert (ret["result"], ret["changes"]) == (True, {})


@pytest.mark.parametrize("failing", ["plasma_apt.wait", "plasma_apt.settle"])
def test_failure(salt_functions, test_mode, failing):
    salt_functions["plasma_apt.unsettled"].return_value = ["jq"]
    salt_functions[failing].side_effect = CommandExecutionError("let it finish, and apply again.")
    ret = plasma_apt.settled("packages")
    if test_mode:
        assert ret["result"] is None
    else:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert ret["comment"] == "let it finish, and apply again."
