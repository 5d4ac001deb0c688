"""The state plasma_groups.managed, in dry runs and for real."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_groups as module
import _states.plasma_groups as plasma_groups

pytestmark = pytest.mark.usefixtures("test_mode")

GROUPS = [{"name": "biology", "gid": 2000}, {"name": "physics", "absent": True}]
CHANGES = {
    "biology": {"old": None, "new": {"gid": 2000}},
    "physics": {"old": {"gid": 2001, "members": ["anna"]}, "new": None},
}


@pytest.fixture
def functions():
    found = {name: create_autospec(getattr(module, name)) for name in ("compare", "apply", "unknown")}
    found["compare"].return_value = {"problems": [], "changes": CHANGES}
    found["apply"].return_value = CHANGES
    return found


@pytest.fixture
def configure_loader_modules(functions, test_mode):
    functions = {f"plasma_groups.{name}": function for name, function in functions.items()}
    return {plasma_groups: {"__salt__": functions, "__opts__": {"test": test_mode}}}


def test_groups_in_place_change_nothing(test_mode, functions):
    functions["compare"].return_value = {"problems": [], "changes": {}}
    functions["apply"].return_value = {}
    ret = plasma_groups.managed("groups", GROUPS)
    assert ret == {"name": "groups", "changes": {}, "result": True, "comment": "The groups are as wanted."}
    functions["compare" if test_mode else "apply"].assert_called_once_with(GROUPS, [])
    functions["apply" if test_mode else "compare"].assert_not_called()


def test_changes_are_made_or_predicted(test_mode):
    ret = plasma_groups.managed("groups", GROUPS)
    assert ret["changes"] == CHANGES
    assert ret["result"] is (None if test_mode else True)
    assert ret["comment"] == ("1 would be made, 1 would be removed." if test_mode else "1 made, 1 removed.")


def test_what_is_refused_is_said_line_by_line(functions):
    problems = ["group video: is a group of the system", "group a: gid 1 is not between 1000 and 60000"]
    functions["compare"].return_value = {"problems": problems, "changes": {}}
    functions["apply"].side_effect = CommandExecutionError("\n".join(problems))
    ret = plasma_groups.managed("groups", GROUPS)
    assert ret == {"name": "groups", "changes": {}, "result": False, "comment": "\n".join(problems)}


def test_groups_of_other_sources_that_are_known_change_nothing(functions):
    functions["unknown"].return_value = []
    ret = plasma_groups.known("known", ["students of maths"])
    assert (ret["result"], ret["changes"]) == (True, {})
    functions["unknown"].assert_called_once_with(["students of maths"])


def test_a_group_that_nobody_knows_is_one_sentence_with_the_way_to_ask(test_mode, functions):
    functions["unknown"].return_value = ["students of maths", "biolgy"]
    ret = plasma_groups.known("known", ["students of maths", "biolgy"])
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"] == (
        "The group 'students of maths' (and 1 more) of pillar is not known to this server: "
        "declare it in plasma.groups, or write it as its directory does (`getent group 'students of maths'` on the "
        "server has to show it)."
    )
    # A server that is joined by the same run knows it then.
    assert plasma_groups.known("known", ["x"], joining=True)["result"] is test_mode
