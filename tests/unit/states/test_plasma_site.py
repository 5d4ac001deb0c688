"""The states of plasma_site, in dry runs and for real."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
import salt.utils.immutabletypes as immutabletypes

import _states.plasma_site as plasma_site
import plasma_salt_directory as directory
import plasma_site_record as module

pytestmark = pytest.mark.usefixtures("test_mode")

MODULES = {"left_behind": "plasma_salt_directory", "remove": "plasma_salt_directory"}
CHANGES = {"limits": {"old": "1", "new": "2"}}


@pytest.fixture
def functions():
    return {
        "digests": create_autospec(module.digests, return_value={"limits": "2"}),
        "compare": create_autospec(module.compare, return_value={}),
        "write": create_autospec(module.write, return_value=True),
        "record": create_autospec(module.record, return_value={}),
        "forget": create_autospec(module.forget, return_value=True),
        "left_behind": create_autospec(directory.left_behind, return_value=None),
        "remove": create_autospec(directory.remove),
    }


@pytest.fixture
def running():
    return {"a": {"result": True}, "b": {"result": None}, "c": False}


@pytest.fixture
def configure_loader_modules(functions, running, test_mode, monkeypatch):
    # Salt's compiler puts this into states; the fixtures' plugin does not know it.
    monkeypatch.setattr(plasma_site, "__running__", immutabletypes.freeze(running), raising=False)
    return {
        plasma_site: {
            "__salt__": {
                f"{MODULES.get(name, 'plasma_site_record')}.{name}": function for name, function in functions.items()
            },
            "__opts__": {"test": test_mode, "conf_file": "/var/lib/.ubuntu_98f42a_salt/minion"},
            "__pillar__": {"plasma": {"limits": {}}},
        }
    }


def test_the_same_settings_are_no_change_but_a_new_time(functions, test_mode):
    ret = plasma_site.applied("site")
    assert (ret["result"], ret["changes"]) == (True, {})
    functions["digests"].assert_called_once_with({"limits": {}})
    assert functions["write"].called is not test_mode


def test_other_settings_are_recorded_or_predicted(functions, test_mode):
    functions["compare"].return_value = CHANGES
    ret = plasma_site.applied("site")
    assert ret["changes"] == CHANGES
    assert ret["result"] is (None if test_mode else True)
    assert ("would be" in ret["comment"]) is test_mode
    if test_mode:
        functions["write"].assert_not_called()
    else:
        functions["write"].assert_called_once_with({"limits": "2"})


def test_nothing_is_recorded_after_a_failure(functions, running, monkeypatch):
    frozen = immutabletypes.freeze({**running, "b": {"result": False}})
    monkeypatch.setattr(plasma_site, "__running__", frozen)
    functions["compare"].return_value = CHANGES
    ret = plasma_site.applied("site")
    assert (ret["result"], ret["changes"]) == (True, {})
    assert "failed" in ret["comment"]
    functions["write"].assert_not_called()


def test_nothing_is_recorded_for_this_state_alone(functions, monkeypatch):
    monkeypatch.setattr(plasma_site, "__running__", {})
    ret = plasma_site.applied("site")
    assert (ret["result"], ret["changes"]) == (True, {})
    assert "end of the whole site" in ret["comment"]
    functions["write"].assert_not_called()


def test_a_record_that_cannot_be_written(functions, test_mode):
    functions["compare"].return_value = CHANGES
    functions["write"].side_effect = OSError(28, "No space left on device", "/var/lib/plasma/x")
    ret = plasma_site.applied("site")
    if not test_mode:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert ret["comment"] == "/var/lib/plasma/x cannot be written: No space left on device."


def test_forgetting_what_is_not_there(functions):
    ret = plasma_site.forgotten("record")
    assert (ret["result"], ret["changes"]) == (True, {})
    functions["forget"].assert_not_called()


def test_forgetting(functions, test_mode):
    functions["record"].return_value = {"sections": {}}
    ret = plasma_site.forgotten("record")
    assert ret["changes"] == {"record": {"old": "present", "new": None}}
    assert ret["result"] is (None if test_mode else True)
    assert functions["forget"].called is not test_mode


def test_nothing_of_an_earlier_release(functions):
    ret = plasma_site.tidied("tidied")
    assert (ret["result"], ret["changes"]) == (True, {})
    functions["remove"].assert_not_called()


def test_what_an_earlier_release_left(functions, test_mode):
    functions["left_behind"].return_value = "/var/tmp/.x_000000_salt"
    ret = plasma_site.tidied("tidied")
    assert ret["changes"] == {"/var/tmp/.x_000000_salt": {"old": "Salt, of an earlier release", "new": None}}
    assert ret["result"] is (None if test_mode else True)
    assert functions["remove"].called is not test_mode


def test_what_cannot_be_removed(functions, test_mode):
    functions["left_behind"].return_value = "/var/tmp/.x_000000_salt"
    functions["remove"].side_effect = OSError(30, "Read-only file system", "/var/tmp/.x_000000_salt")
    ret = plasma_site.tidied("tidied")
    if not test_mode:
        assert (ret["result"], ret["changes"]) == (False, {})
        assert ret["comment"] == "/var/tmp/.x_000000_salt cannot be removed: Read-only file system."
