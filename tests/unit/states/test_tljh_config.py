"""The states tljh_config.managed and tljh_config.ready, in dry runs and for real."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _states.tljh_config as tljh_config
import tljh_settings as module

pytestmark = pytest.mark.usefixtures("test_mode")

SETTINGS = {"limits": {"memory": "2G"}}
CHANGES = {"limits.memory": {"old": "1G", "new": "2G"}, "limits.cpu": {"old": None, "new": 2}}
APPLIED = {"changes": CHANGES, "diff": "...", "reloaded": "hub", "seconds": 4.25}
READY = {"ready": True, "seconds": 0.1, "version": "5.5.4", "problem": None, "journal": []}
FAILED = {"ready": False, "seconds": 9, "version": None, "problem": "jupyterhub.service failed", "journal": ["a", "b"]}


@pytest.fixture
def functions():
    """The execution functions, with the signatures of the real ones."""
    found = {name: create_autospec(getattr(module, name)) for name in ("compare", "differing", "due", "apply", "ready")}
    found["due"].return_value = None
    return found


@pytest.fixture(autouse=True)
def running(monkeypatch):
    """What came before this state in its run; Salt gives it to each state."""
    found = {}
    monkeypatch.setattr(tljh_config, "__running__", found, raising=False)
    return found


@pytest.fixture
def configure_loader_modules(functions, test_mode):
    functions = {f"tljh_settings.{name}": function for name, function in functions.items()}
    return {tljh_config: {"__salt__": functions, "__opts__": {"test": test_mode}}}


def test_settings_in_place_change_nothing(test_mode, functions):
    functions["compare"].return_value = {}
    ret = tljh_config.managed("settings", SETTINGS, unset=["a.b"], prefix="/srv/hub")
    assert ret == {"name": "settings", "changes": {}, "result": True, "comment": "The settings are in place."}
    functions["compare"].assert_called_once_with(SETTINGS, prefix="/srv/hub", unset=["a.b"])
    functions["apply"].assert_not_called()


def test_other_settings_are_applied_or_predicted(test_mode, functions):
    functions["compare"].return_value = CHANGES
    functions["apply"].return_value = APPLIED
    ret = tljh_config.managed("settings", SETTINGS, unset="a.b", prefix="/srv/hub", reload="hub", timeout=30)
    assert ret["changes"] == CHANGES
    if test_mode:
        assert ret["result"] is None
        assert ret["comment"] == "limits.cpu, limits.memory would be changed."
        functions["apply"].assert_not_called()
    else:
        assert ret["result"] is True
        assert ret["comment"] == "limits.cpu, limits.memory changed. The hub was reloaded in 4.2 seconds."
        functions["apply"].assert_called_once_with(SETTINGS, prefix="/srv/hub", unset="a.b", reload="hub", timeout=30)


@pytest.mark.parametrize("to_come", [None, True])
def test_settings_of_a_plugin_to_come_are_not_judged_by_the_one_that_is_there(test_mode, functions, running, to_come):
    running["plasma_hub_|-hub-installed_|-/opt/tljh_|-installed"] = {"result": to_come}
    functions["compare"].side_effect = CommandExecutionError("plasma.network has no key allow")
    functions["differing"].return_value = CHANGES
    ret = tljh_config.managed("settings", SETTINGS)
    if test_mode and to_come is None:
        assert (ret["result"], ret["changes"]) == (None, CHANGES)
    else:
        assert (ret["result"], ret["comment"]) == (False, "plasma.network has no key allow")


@pytest.mark.parametrize(("other", "told"), [({}, True), ({"limits.memory": {"old": None, "new": "2G"}}, False)])
def test_what_an_upgrade_closes_is_told_once(functions, other, told):
    """Where the hub itself is new, everything is."""
    changes = {"plasma.network.allow": {"old": None, "new": []}, **other}
    functions["compare"].return_value = changes
    functions["apply"].return_value = {"changes": changes, "reloaded": None, "seconds": 0}
    comment = tljh_config.managed("x", {"plasma": {"network": {"allow": []}}})["comment"]
    assert ("no longer reach private addresses" in comment) is told


def test_before_the_first_start_nothing_is_reloaded(test_mode, functions):
    functions["compare"].return_value = CHANGES
    functions["apply"].return_value = {**APPLIED, "reloaded": None, "seconds": 0.0}
    comment = tljh_config.managed("settings", SETTINGS)["comment"]
    assert comment == f"limits.cpu, limits.memory {'would be ' if test_mode else ''}changed."


@pytest.mark.parametrize("component", ["hub", "proxy"])
def test_a_reload_that_an_interrupted_run_owes_is_a_change(test_mode, functions, component):
    functions["compare"].return_value = {}
    functions["due"].return_value = component
    functions["apply"].return_value = {"changes": {}, "diff": "", "reloaded": component, "seconds": 3.0}
    ret = tljh_config.managed("settings", SETTINGS)
    assert ret["changes"] == {"reload": {"old": None, "new": component}}
    assert ret["result"] is (None if test_mode else True)
    assert functions["apply"].called is not test_mode
    assert f"Reload of the {component} {'would be' if test_mode else 'was'} done." in ret["comment"]


def test_no_reload_is_owed_when_none_is_wanted(test_mode, functions):
    functions["compare"].return_value = {}
    functions["due"].return_value = "hub"
    assert tljh_config.managed("settings", SETTINGS, reload="none")["changes"] == {}


@pytest.mark.parametrize("error", [CommandExecutionError, SaltInvocationError])
def test_what_a_comparison_refuses_fails_in_a_dry_run_too(test_mode, functions, error):
    functions["compare"].side_effect = error("limits.cpu must be a number.")
    ret = tljh_config.managed("settings", SETTINGS)
    assert ret == {"name": "settings", "changes": {}, "result": False, "comment": "limits.cpu must be a number."}


def test_a_wrong_component_fails_in_a_dry_run_too(test_mode, functions):
    functions["compare"].return_value = CHANGES
    ret = tljh_config.managed("settings", SETTINGS, reload="traefik")
    assert ret["result"] is False
    assert ret["changes"] == {}
    assert "auto, hub, proxy or none, not 'traefik'" in ret["comment"]
    functions["apply"].assert_not_called()


def test_a_reload_that_failed_is_told_with_the_journal_and_without_changes(test_mode, functions):
    functions["compare"].return_value = CHANGES
    functions["apply"].side_effect = CommandExecutionError("The previous configuration was restored.\nline 1\nline 2")
    ret = tljh_config.managed("settings", SETTINGS)
    if test_mode:
        assert ret["result"] is None
    else:
        assert ret["result"] is False
        assert ret["changes"] == {}
        assert ret["comment"].endswith("\nline 1\nline 2")


def test_a_hub_that_answers_is_ready(test_mode, functions):
    functions["ready"].return_value = READY
    ret = tljh_config.ready("hub", prefix="/srv/hub", timeout=30)
    assert ret == {"name": "hub", "changes": {}, "result": True, "comment": "JupyterHub 5.5.4 answers."}
    # A dry run looks once and does not wait.
    functions["ready"].assert_called_once_with(prefix="/srv/hub", timeout=0 if test_mode else 30)


def test_a_hub_that_does_not_answer_would_be_waited_for_or_fails(test_mode, functions):
    functions["ready"].return_value = FAILED
    ret = tljh_config.ready("hub")
    assert ret["changes"] == {}
    if test_mode:
        assert ret["result"] is None
        assert ret["comment"] == "Would wait for the hub to answer: jupyterhub.service failed."
    else:
        assert ret["result"] is False
        assert ret["comment"] == "The hub is not ready: jupyterhub.service failed.\na\nb"


def test_a_file_that_cannot_be_read_fails(test_mode, functions):
    functions["ready"].side_effect = CommandExecutionError("config.yaml is not valid YAML.")
    ret = tljh_config.ready("hub")
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "config.yaml is not valid YAML.")
