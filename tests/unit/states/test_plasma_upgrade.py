"""The states of plasma_upgrade, in dry runs and for real."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_upgrade as module
import _states.plasma_upgrade as plasma_upgrade
import plasma_upgrade_plan as plan_module

pytestmark = pytest.mark.usefixtures("test_mode")

NOTHING = {"packages": {}, "jumps": [], "kind": "nothing"}
UPGRADE = {
    "packages": {"jupyterhub": {"old": "5.5.4", "new": "6.1.1"}, "tomli": {"old": None, "new": "2.5.0"}},
    "jumps": ["JupyterHub 5 -> 6"],
    "kind": "upgrade",
}
SAID = "jupyterhub 5.5.4 -> 6.1.1, tomli (new) -> 2.5.0. Major versions change: JupyterHub 5 -> 6."
OPEN = {"status": "open", "begun": "2026-11-25T08:00:00+00:00"}


@pytest.fixture
def functions():
    """The execution functions, with the signatures of the real ones."""
    return {
        "cp.cache_dir": None,
        "plasma_upgrade_plan.plan": create_autospec(plan_module.plan, return_value=NOTHING),
        "plasma_upgrade.open_upgrade": create_autospec(module.open_upgrade, return_value={}),
        "plasma_upgrade.prepare": create_autospec(
            module.prepare, return_value={"resumed": False, "backup": "/b.tar.gz", "snapshot": True}
        ),
        "plasma_upgrade.settle": create_autospec(module.settle),
        "plasma_upgrade.roll_back": create_autospec(module.roll_back),
    }


@pytest.fixture(autouse=True)
def running(monkeypatch):
    """What Salt gives every state: the results of those before it."""
    found = {}
    monkeypatch.setattr(plasma_upgrade, "__running__", found, raising=False)
    return found


@pytest.fixture
def configure_loader_modules(functions, test_mode):
    return {
        plasma_upgrade: {
            "__salt__": functions,
            "__opts__": {"test": test_mode, "saltenv": "base"},
            "__context__": {},
        }
    }


def test_a_hub_at_the_versions_of_the_tree_needs_no_way_back(functions):
    ret = plasma_upgrade.prepared("/opt/tljh", "pypi")
    assert (ret["result"], ret["changes"]) == (True, {})
    functions["plasma_upgrade.prepare"].assert_not_called()
    ret = plasma_upgrade.settled("/opt/tljh", "pypi")
    assert (ret["result"], ret["changes"]) == (True, {})
    functions["plasma_upgrade.settle"].assert_not_called()


def test_a_first_installation_has_nothing_to_go_back_to(functions):
    functions["plasma_upgrade_plan.plan"].return_value = {**UPGRADE, "kind": "new"}
    ret = plasma_upgrade.prepared("/opt/tljh", "pypi")
    assert (ret["result"], ret["changes"]) == (True, {})
    functions["plasma_upgrade.prepare"].assert_not_called()


def test_an_upgrade_is_prepared_or_predicted(functions, test_mode):
    functions["plasma_upgrade_plan.plan"].return_value = UPGRADE
    ret = plasma_upgrade.prepared("/opt/tljh", "tljh", version="2.0.0", source="/srv", message="Hello.", wait=3)
    assert ret["changes"] == {"way back": {"old": None, "new": "backup and snapshot"}}
    if test_mode:
        assert (ret["result"], ret["comment"]) == (None, f"The hub would be upgraded. {SAID}")
        functions["plasma_upgrade.prepare"].assert_not_called()
        # The end of the run is predicted, too.
        after = plasma_upgrade.settled("/opt/tljh", "tljh")
        assert (after["result"], after["changes"]) == (None, UPGRADE["packages"])
    else:
        assert ret["result"] is True
        assert ret["comment"] == f"The hub is upgraded. {SAID} Its data of before is in /b.tar.gz."
        functions["plasma_upgrade.prepare"].assert_called_once_with(
            prefix="/opt/tljh",
            planned=UPGRADE,
            directory="/var/opt/plasma/backups",
            message="Hello.",
            wait=3,
            install_timeout=1800,
        )
    functions["plasma_upgrade_plan.plan"].assert_called_once_with(
        None, "tljh", prefix="/opt/tljh", version="2.0.0", source="/srv", saltenv="base"
    )


def test_an_interrupted_upgrade_keeps_its_way_back(functions):
    functions["plasma_upgrade.open_upgrade"].return_value = OPEN
    functions["plasma_upgrade_plan.plan"].return_value = {
        "packages": {"hub": {"old": "interrupted", "new": "pypi"}},
        "jumps": [],
        "kind": "broken",
    }
    ret = plasma_upgrade.prepared("/opt/tljh", "pypi")
    assert ret["changes"] == {"way back": {"old": None, "new": "the interrupted upgrade's own"}}


def test_a_hub_that_does_not_work_has_its_data_saved(functions):
    functions["plasma_upgrade_plan.plan"].return_value = {
        "packages": {"hub": {"old": "made for another Python", "new": "pypi"}},
        "jumps": ["Python 3.11 -> 3.13"],
        "kind": "broken",
    }
    ret = plasma_upgrade.prepared("/opt/tljh", "pypi")
    assert ret["changes"] == {"way back": {"old": None, "new": "backup alone"}}
    assert "Major versions change: Python 3.11 -> 3.13." in ret["comment"]


def test_what_cannot_be_prepared_fails_in_one_sentence(functions, test_mode):
    functions["plasma_upgrade_plan.plan"].return_value = UPGRADE
    functions["plasma_upgrade.prepare"].side_effect = CommandExecutionError("Nothing was changed: no room.")
    ret = plasma_upgrade.prepared("/opt/tljh", "pypi")
    if not test_mode:
        assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "Nothing was changed: no room.")


def test_an_upgrade_that_works_is_settled(functions, test_mode):
    functions["plasma_upgrade.open_upgrade"].return_value = OPEN
    changes = {"jupyterhub": {"old": "5.3.0", "new": "5.5.4"}}
    functions["plasma_upgrade.settle"].return_value = {"outcome": "done", "changes": changes, "comment": "Well."}
    ret = plasma_upgrade.settled("/opt/tljh", "pypi", timeout=30)
    if test_mode:
        assert (ret["result"], ret["changes"]) == (None, {"upgrade": {"old": "open", "new": "settled"}})
        functions["plasma_upgrade.settle"].assert_not_called()
    else:
        assert (ret["result"], ret["changes"], ret["comment"]) == (True, changes, "Well.")


def test_an_upgrade_that_failed_says_why_and_fails(functions, running, test_mode):
    running.update(
        {
            "c": {"result": False, "__run_num__": 3, "comment": "One or more requisite failed: tljh.hub-installed"},
            "b": {"result": False, "__run_num__": 2, "comment": "Installing the hub's packages failed."},
            "a": {"result": True, "__run_num__": 1, "comment": "Well."},
        }
    )
    functions["plasma_upgrade.open_upgrade"].return_value = OPEN
    functions["plasma_upgrade.settle"].return_value = {"outcome": "rolled-back", "changes": {}, "comment": "Undone."}
    ret = plasma_upgrade.settled("/opt/tljh", "pypi")
    if test_mode:
        functions["plasma_upgrade.settle"].assert_not_called()
        return
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "Undone.")
    assert functions["plasma_upgrade.settle"].call_args.kwargs["failures"] == ["Installing the hub's packages failed."]


def test_undoing_by_state(functions, test_mode):
    assert plasma_upgrade.rolled_back("/opt/tljh")["changes"] == {}
    functions["plasma_upgrade.roll_back"].assert_not_called()
    functions["plasma_upgrade.open_upgrade"].return_value = OPEN
    functions["plasma_upgrade.roll_back"].return_value = {"outcome": "rolled-back", "changes": {}, "comment": "Undone."}
    ret = plasma_upgrade.rolled_back("/opt/tljh", timeout=30)
    assert ret["changes"] == {"upgrade": {"old": "open", "new": "rolled-back"}}
    assert ret["result"] is (None if test_mode else True)
    assert functions["plasma_upgrade.roll_back"].call_count == (not test_mode)
