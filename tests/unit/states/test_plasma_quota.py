"""The states plasma_quota.enabled, limits and disabled, in dry runs and for real."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _states.plasma_quota as plasma_quota
import plasma_quota_fstab as fstab
import plasma_quota_limits as limits_module
import plasma_quota_setup as module

pytestmark = pytest.mark.usefixtures("test_mode")

ON = {"fstab": {"old": "a", "new": "b"}, "user": {"old": "off", "new": "on"}}
ONE = {"user ada": {"old": {"hard": 0}, "new": {"hard": 1024}}}
WANTED = {"assigned": [{"limits": {"hard": 1024}, "users": ["ada"]}], "grace": {"block": 60, "inode": None}}
PASSED = {"groups": [], "default": None, "unmanaged": False, "device": None, "members": [], **WANTED}


@pytest.fixture
def functions():
    """The execution functions, with the signatures of the real ones."""
    return {
        "plasma_quota_setup.compare": create_autospec(module.compare),
        "plasma_quota_setup.enable": create_autospec(module.enable),
        "plasma_quota_setup.disable": create_autospec(module.disable),
        "plasma_quota_fstab.noted": create_autospec(fstab.noted),
        "plasma_quota_limits.compare": create_autospec(limits_module.compare),
        "plasma_quota_limits.apply": create_autospec(limits_module.apply),
    }


@pytest.fixture
def configure_loader_modules(functions, test_mode):
    return {plasma_quota: {"__salt__": functions, "__opts__": {"test": test_mode}}}


def todo(changes=None, missing=(), on=True, notes=None):
    return {"changes": changes or {}, "missing": list(missing), "on": on, "notes": notes}


def test_quotas_that_are_on_change_nothing(functions):
    functions["plasma_quota_setup.compare"].return_value = {}
    ret = plasma_quota.enabled("quotas", home_path="/srv/homes", device="LABEL=homes")
    assert ret == {"name": "quotas", "changes": {}, "result": True, "comment": "Quotas are on where /srv/homes is."}
    functions["plasma_quota_setup.compare"].assert_called_once_with("/srv/homes", device="LABEL=homes")
    functions["plasma_quota_setup.enable"].assert_not_called()


def test_quotas_are_switched_on_or_predicted(test_mode, functions):
    functions["plasma_quota_setup.compare"].return_value = ON
    functions["plasma_quota_setup.enable"].return_value = {"changes": ON, "reboot": None}
    ret = plasma_quota.enabled("quotas")
    assert (ret["result"], ret["changes"]) == (None if test_mode else True, ON)
    assert functions["plasma_quota_setup.enable"].called is not test_mode


def test_a_reboot_that_is_needed_is_no_success(test_mode, functions):
    functions["plasma_quota_setup.compare"].return_value = ON
    functions["plasma_quota_setup.enable"].return_value = {
        "changes": {"fstab": ON["fstab"]},
        "reboot": "Reboot, then apply.",
    }
    ret = plasma_quota.enabled("quotas")
    if not test_mode:
        assert (ret["result"], ret["comment"]) == (False, "Reboot, then apply.")
        assert ret["changes"] == {"fstab": ON["fstab"]}


@pytest.mark.parametrize("error", [CommandExecutionError, SaltInvocationError])
def test_what_cannot_be_fails_in_a_dry_run_too(functions, error):
    functions["plasma_quota_setup.compare"].side_effect = error("/home is on btrfs.")
    functions["plasma_quota_limits.compare"].side_effect = error("/home is on btrfs.")
    for ret in (plasma_quota.enabled("quotas"), plasma_quota.limits("limits")):
        assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "/home is on btrfs.")


def test_limits_that_are_set_change_nothing(functions):
    functions["plasma_quota_limits.compare"].return_value = todo()
    ret = plasma_quota.limits("limits", **WANTED)
    assert ret == {"name": "limits", "changes": {}, "result": True, "comment": "The limits are set."}
    functions["plasma_quota_limits.compare"].assert_called_once_with("/home", **PASSED)
    functions["plasma_quota_limits.apply"].assert_not_called()


def test_other_limits_are_set_or_predicted(test_mode, functions):
    functions["plasma_quota_limits.compare"].return_value = todo(ONE)
    functions["plasma_quota_limits.apply"].return_value = {"changes": ONE, "missing": []}
    ret = plasma_quota.limits("limits", **WANTED)
    assert (ret["result"], ret["changes"]) == (None if test_mode else True, ONE)
    assert ret["comment"] == f"The limits of 1 user {'would be' if test_mode else 'were'} set."
    if not test_mode:
        functions["plasma_quota_limits.apply"].assert_called_once_with("/home", **PASSED)


def test_who_has_no_account_yet_is_predicted_and_then_named(test_mode, functions):
    functions["plasma_quota_limits.compare"].return_value = todo(ONE, ["ada"])
    functions["plasma_quota_limits.apply"].return_value = {"changes": {}, "missing": ["ada", *"bcdefg"]}
    ret = plasma_quota.limits("limits")
    if test_mode:
        assert (ret["result"], ret["changes"]) == (None, ONE)
    else:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert ret["comment"] == (
            "There is no account or group ada, b, c, d, e and 2 more here: apply the state users first."
        )


def test_thousands_of_equal_changes_are_one(functions):
    same = {f"user u{n}": {"old": {"hard": 0}, "new": {"hard": 1024}} for n in range(5000)}
    changes = {**same, "user ada": {"old": {"hard": 0}, "new": {"hard": 5}}, "grace user block": {"old": 1, "new": 2}}
    functions["plasma_quota_limits.compare"].return_value = todo(changes)
    functions["plasma_quota_limits.apply"].return_value = {"changes": changes, "missing": []}
    ret = plasma_quota.limits("limits")
    assert set(ret["changes"]) == {"5000 users: u0, u1 ... u4999", "user ada", "grace user block"}
    assert ret["comment"].startswith("The limits of 5001 users and grace times ")


def test_only_what_is_remembered_is_written_without_a_change(test_mode, functions):
    functions["plasma_quota_limits.compare"].return_value = todo(notes=({}, {"user": {}}))
    functions["plasma_quota_limits.apply"].return_value = {"changes": {}, "missing": []}
    ret = plasma_quota.limits("limits")
    assert (ret["result"], ret["changes"], ret["comment"]) == (True, {}, "The limits are set.")
    assert functions["plasma_quota_limits.apply"].called is not test_mode


def test_quotas_of_others_are_not_switched_off(functions):
    functions["plasma_quota_fstab.noted"].return_value = {}
    ret = plasma_quota.disabled("off")
    assert ret == {"name": "off", "changes": {}, "result": True, "comment": "No quotas were switched on here."}
    functions["plasma_quota_setup.disable"].assert_not_called()


def test_quotas_are_switched_off_or_that_is_predicted(test_mode, functions):
    functions["plasma_quota_fstab.noted"].return_value = {"/": {}}
    functions["plasma_quota_setup.disable"].return_value = {"changes": ON, "notes": ["The limits are kept."]}
    ret = plasma_quota.disabled("off")
    assert ret["result"] is (None if test_mode else True)
    assert ret["changes"] == ({"/": {"old": "on", "new": "off"}} if test_mode else ON)
    assert functions["plasma_quota_setup.disable"].called is not test_mode
    if not test_mode:
        assert ret["comment"].endswith("The limits are kept.")
