"""The states of the host's doors, in dry runs and for real."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_ssh as module
import _states.plasma_ssh as plasma_ssh

pytestmark = pytest.mark.usefixtures("test_mode")
LIMITS = {"memory": "2G", "cpu": 2, "tasks": 1024}
ARGUMENTS = (["anna"], ["assistants"], LIMITS, {"users": ["anna"], "groups": []})
FILE = {"/etc/ssh/sshd_config.d/10-plasma.conf": {"old": None, "new": "written"}}


@pytest.fixture
def functions():
    return {
        f"plasma_ssh.{name}": create_autospec(getattr(module, name), return_value={})
        for name in ("compare", "apply", "compare_removed", "remove")
    }


@pytest.fixture
def configure_loader_modules(functions, test_mode):
    return {plasma_ssh: {"__salt__": functions, "__opts__": {"test": test_mode}}}


def closed():
    return plasma_ssh.closed("ssh", *ARGUMENTS)


@pytest.mark.parametrize("state", [closed, lambda: plasma_ssh.removed("ssh")])
def test_what_is_as_it_should_be_changes_nothing(functions, state):
    ret = state()
    assert (ret["name"], ret["result"], ret["changes"]) == ("ssh", True, {})
    functions["plasma_ssh.apply"].assert_not_called()


@pytest.mark.parametrize(
    ("lose", "sentence"),
    [
        (["anna (keys for SSH)", "bert"], "2 accounts {} SSH, sessions, cron and at on the host itself; of those used"),
        (["bert"], "1 account {} SSH, sessions, cron and at on the host itself; none of them has used it"),
    ],
)
def test_whoever_loses_a_door_is_named(functions, test_mode, lose, sentence):
    changes = {**FILE, "shut out": {"old": None, "new": lose}}
    functions["plasma_ssh.compare"].return_value = functions["plasma_ssh.apply"].return_value = changes
    ret = closed()
    assert ret["changes"] == changes
    assert ret["result"] is (None if test_mode else True)
    assert sentence.format("would lose" if test_mode else "lost") in ret["comment"]
    functions["plasma_ssh.compare"].assert_called_once_with(*ARGUMENTS)
    assert functions["plasma_ssh.apply"].called is not test_mode


def test_taking_it_back(functions, test_mode):
    functions["plasma_ssh.compare_removed"].return_value = functions["plasma_ssh.remove"].return_value = FILE
    ret = plasma_ssh.removed("ssh")
    assert (ret["changes"], ret["result"]) == (FILE, None if test_mode else True)
    assert functions["plasma_ssh.remove"].called is not test_mode


@pytest.mark.parametrize("state", [closed, lambda: plasma_ssh.removed("ssh")])
def test_errors_are_one_sentence(functions, test_mode, state):
    for name in ("compare", "compare_removed" if test_mode else "remove"):
        functions[f"plasma_ssh.{name}"].side_effect = CommandExecutionError("Do this.")
    ret = state()
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "Do this.")
