"""The state plasma_users.managed, in dry runs and for real."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_users as module
import _states.plasma_users as plasma_users
import plasma_hub_installed

pytestmark = pytest.mark.usefixtures("test_mode")

USERS = [{"name": "anna", "groups": [], "shell": "/bin/bash"}]
CHANGES = {
    "anna": {"old": None, "new": {"uid": 1001, "home": "/home/anna", "groups": [], "password": "set"}},
    "ben": {"old": {"shell": "/bin/sh"}, "new": {"shell": "/bin/bash"}},
    "carl": {"old": {"uid": 1003, "home": "/home/carl"}, "new": None},
}
COUNTS = {"named": 2, "created": 1, "changed": 1, "removed": 1, "unmanaged": 4}
NONE = {"named": 2, "created": 0, "changed": 0, "removed": 0, "unmanaged": 0}


@pytest.fixture
def functions():
    found = {name: create_autospec(getattr(module, name)) for name in ("compare", "apply")}
    answer(found, {}, NONE)
    return found


@pytest.fixture
def configure_loader_modules(functions, test_mode):
    functions = {f"plasma_users.{name}": function for name, function in functions.items()}
    return {plasma_users: {"__salt__": functions, "__opts__": {"test": test_mode}}}


def answer(functions, changes, counts, archives=None, error=None):
    functions["compare"].return_value = {"problems": [], "changes": changes, "counts": counts}
    functions["apply"].return_value = {
        "changes": changes,
        "counts": counts,
        "archives": archives or {},
        "error": error,
    }


def managed(**options):
    return plasma_users.managed("users", USERS, **options)


def test_accounts_in_place_change_nothing(test_mode, functions):
    ret = managed()
    assert ret == {"name": "users", "changes": {}, "result": True, "comment": "All 2 accounts are as wanted."}
    functions["compare" if test_mode else "apply"].assert_called_once_with(
        USERS, [], "/home", "on_create", [], "/opt/tljh"
    )
    functions["apply" if test_mode else "compare"].assert_not_called()


def test_arguments_are_handed_on(test_mode, functions):
    managed(groups=[{"name": "a"}], home_path="/srv", password_policy="enforce", admins=["x"], prefix="/hub")
    called = functions["compare" if test_mode else "apply"]
    called.assert_called_once_with(USERS, [{"name": "a"}], "/srv", "enforce", ["x"], "/hub")


@pytest.mark.parametrize(("others", "told"), [(0, ""), (1, " 1 other account was left alone."), (1200, " 1,200 other")])
def test_an_empty_pillar(functions, others, told):
    answer(functions, {}, {**NONE, "named": 0, "unmanaged": others})
    assert managed()["comment"].startswith(f"Nothing to do.{told}")


def test_changes_are_made_or_predicted(test_mode, functions):
    archives = {"carl": "/home/.plasma-removed/carl.uid1003.2026-01-31"}
    answer(functions, CHANGES, {**COUNTS, "created": 1200}, archives)
    ret = managed()
    assert ret["changes"] == CHANGES
    if test_mode:
        assert ret["result"] is None
        assert ret["comment"] == (
            "1,200 would be created, 1 would be changed, 1 would be removed. 4 other accounts were left alone."
        )
    else:
        assert ret["result"] is True
        assert ret["comment"] == (
            "1,200 created, 1 changed, 1 removed. 4 other accounts were left alone. What they had is kept in "
            "/home/.plasma-removed."
        )


def test_a_thousand_changes_are_told_in_a_line_each(functions):
    many = {f"s{n}": {"old": None, "new": {"uid": 2000 + n, "home": "/", "groups": []}} for n in range(1000)}
    changes = {**CHANGES, **many}
    answer(functions, changes, {**COUNTS, "created": 1001})
    told = managed()["changes"]
    assert set(told) == {"created", "changed", "removed"}
    assert told["created"]["new"]["s7"] == 2007
    assert len(told["created"]["new"]) == 1001
    assert told["changed"] == {"old": None, "new": {"ben": "shell"}}
    assert told["removed"] == {"old": {"carl": 1003}, "new": None}


def test_what_is_refused_is_said_line_by_line(test_mode, functions):
    problems = [f"user u{number}: is a system account" for number in range(60)]
    functions["compare"].return_value = {"problems": problems, "changes": {}, "counts": NONE}
    functions["apply"].side_effect = CommandExecutionError("\n".join(problems))
    ret = managed()
    assert (ret["result"], ret["changes"]) == (False, {})
    lines = ret["comment"].splitlines()
    assert lines[:50] == problems[:50]
    assert lines[50:] == ["and 10 more"]


def test_an_error_fails_a_dry_run_too(functions):
    for function in functions.values():
        function.side_effect = CommandExecutionError("users.json is damaged: move it away, and apply again.")
    ret = managed()
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"] == "users.json is damaged: move it away, and apply again."


def test_work_that_ended_early_tells_what_was_done(test_mode, functions):
    if test_mode:
        return
    answer(functions, {"anna": CHANGES["anna"]}, {**NONE, "created": 1}, error="The hub does not answer: start it.")
    ret = managed()
    assert ret["result"] is False
    assert set(ret["changes"]) == {"anna"}
    assert ret["comment"] == "The hub does not answer: start it. 1 created."
    answer(functions, {}, NONE, error="The hub does not answer: start it.")
    assert managed()["comment"] == "The hub does not answer: start it."


def test_who_stays_locked_is_told(functions):
    for function in functions.values():
        function.return_value = {**function.return_value, "pending": ["ben", "carl"]}
    assert "Locked since a removal was begun: ben, carl. Name them in pillar" in managed()["comment"]


def test_an_edited_password_that_is_not_set_is_a_warning(functions):
    assert "warnings" not in managed()
    for function in functions.values():
        function.return_value["ignored"] = [f"s{number:02}" for number in range(20)]
    ret = managed()
    assert (ret["result"], ret["changes"]) == (True, {})
    (warning,) = ret["warnings"]
    assert "edited and is not set: s00, s01" in warning and "and 10 more" in warning
    assert "`password_policy: enforce`" in warning


def test_a_hub_below_another_prefix_is_not_passed_over(functions, monkeypatch):
    monkeypatch.setattr(plasma_hub_installed, "misplaced", {"/srv/new": "It is in /opt/tljh."}.get)
    assert managed(prefix="/srv/new") | {"name": ""} == {
        "name": "",
        "changes": {},
        "result": False,
        "comment": "It is in /opt/tljh.",
    }
    functions["compare"].assert_not_called()
    functions["apply"].assert_not_called()
