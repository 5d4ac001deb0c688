"""The state plasma_admins.managed, in dry runs and for real."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _modules.plasma_admins as module
import _states.plasma_admins as plasma_admins
import plasma_hub_installed

pytestmark = pytest.mark.usefixtures("test_mode")

CHANGES = {
    "users.admin": {"old": ["ada", "eve"], "new": ["ada", "20231234"]},
    "administrators": {"old": ["ada", "eve"], "new": ["20231234", "ada"]},
}


@pytest.fixture
def functions():
    """The execution functions, with the signatures of the real ones."""
    return {
        "compare": create_autospec(module.compare, return_value={}),
        "apply": create_autospec(module.apply),
        "without_account": create_autospec(module.without_account, return_value=[]),
    }


@pytest.fixture
def configure_loader_modules(functions, test_mode):
    found = {f"plasma_admins.{name}": function for name, function in functions.items()}
    return {plasma_admins: {"__salt__": found, "__opts__": {"test": test_mode}}}


def test_the_right_administrators_change_nothing(functions):
    ret = plasma_admins.managed("admins", ["eve", "ada"], prefix="/srv/hub")
    assert ret == {
        "name": "admins",
        "changes": {},
        "result": True,
        "comment": "The hub is administered by ada, eve.",
    }
    functions["compare"].assert_called_once_with(["eve", "ada"], prefix="/srv/hub", groups=[])
    functions["apply"].assert_not_called()


@pytest.mark.parametrize("reloaded", [True, False])
def test_others_are_made_or_predicted(test_mode, functions, reloaded):
    functions["compare"].return_value = CHANGES
    functions["apply"].return_value = {"changes": CHANGES, "reloaded": reloaded, "seconds": 4.25}
    ret = plasma_admins.managed("admins", ["ada", "20231234"], prefix="/srv/hub", timeout=30)
    assert ret["changes"] == CHANGES
    if test_mode:
        assert ret["result"] is None
        assert ret["comment"] == "The hub would be administered by 20231234, ada."
        functions["apply"].assert_not_called()
    else:
        assert ret["result"] is True
        told = " The hub was reloaded in 4.2 seconds." if reloaded else ""
        assert ret["comment"] == f"The hub is now administered by 20231234, ada.{told}"
        functions["apply"].assert_called_once_with(["ada", "20231234"], prefix="/srv/hub", timeout=30, groups=[])


def test_members_of_groups_are_named_beside_the_others_and_alone(functions):
    for names, listed in ((["ada"], "ada, members of Maths Teachers"), ([], "members of Maths Teachers")):
        ret = plasma_admins.managed("admins", names, groups=["Maths Teachers"])
        assert ret["comment"] == f"The hub is administered by {listed}."
    functions["compare"].assert_called_with([], prefix="/opt/tljh", groups=["Maths Teachers"])


@pytest.mark.parametrize("changes", [{}, CHANGES], ids=["unchanged", "changed"])
def test_an_administrator_without_an_account_is_said_and_allowed(functions, test_mode, changes):
    """A warning, which is shown where nothing changes too: a comment is not."""
    functions["compare"].return_value = changes
    functions["apply"].return_value = {"changes": changes, "reloaded": True, "seconds": 1}
    functions["without_account"].return_value = ["zoe"]
    ret = plasma_admins.managed("admins", ["ada", "zoe"])
    assert ret["result"] is (None if test_mode and changes else True)
    (warning,) = ret["warnings"]
    assert "cannot log in, as this server has no account of that name: zoe. Correct plasma.admins" in warning
    # Whom the same run makes an account is missed by no dry run.
    assert ("warnings" in plasma_admins.managed("admins", ["ada", "zoe"], coming=["zoe"])) is not test_mode
    functions["without_account"].return_value = []
    assert "warnings" not in plasma_admins.managed("admins", ["ada", "zoe"])


@pytest.mark.parametrize("names", [None, []])
def test_an_empty_list_manages_nothing_and_says_so(functions, names):
    ret = plasma_admins.managed("admins", names)
    assert (ret["result"], ret["changes"]) == (True, {})
    assert "an empty list revokes nobody" in ret["comment"]
    functions["compare"].assert_not_called()
    functions["apply"].assert_not_called()


def test_without_a_hub_nothing_is_to_do(functions):
    functions["compare"].return_value = None
    ret = plasma_admins.managed("admins", ["ada"])
    assert (ret["result"], ret["changes"]) == (True, {})
    assert ret["comment"].startswith("No hub is installed here yet: the state tljh names")
    functions["apply"].assert_not_called()


@pytest.mark.parametrize("error", [CommandExecutionError, SaltInvocationError])
def test_what_a_comparison_refuses_fails_in_a_dry_run_too(functions, error):
    functions["compare"].side_effect = error("The hub in /opt/tljh is stopped.")
    ret = plasma_admins.managed("admins", ["ada"])
    assert ret == {"name": "admins", "changes": {}, "result": False, "comment": "The hub in /opt/tljh is stopped."}


def test_a_failure_is_told_without_changes(test_mode, functions):
    functions["compare"].return_value = CHANGES
    functions["apply"].side_effect = CommandExecutionError("The hub did not come up.\nline 1")
    ret = plasma_admins.managed("admins", ["ada"])
    assert ret["result"] is (None if test_mode else False)
    if not test_mode:
        assert (ret["changes"], ret["comment"]) == ({}, "The hub did not come up.\nline 1")


def test_a_hub_below_another_prefix_is_not_passed_over(functions, monkeypatch):
    monkeypatch.setattr(plasma_hub_installed, "misplaced", {"/srv/new": "It is in /opt/tljh."}.get)
    assert plasma_admins.managed("admins", ["eve"], prefix="/srv/new") | {"name": ""} == {
        "name": "",
        "changes": {},
        "result": False,
        "comment": "It is in /opt/tljh.",
    }
    functions["compare"].assert_not_called()
    functions["apply"].assert_not_called()
