"""The states of plasma_uninstall and plasma_prune."""

from __future__ import annotations

import hashlib
from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_uninstall as uninstall
import _states.plasma_prune as prune_state
import _states.plasma_uninstall as state
import plasma_docker_undo as undo
import plasma_timer

FOUND = {
    "removed": {"units": ["/etc/systemd/system/jupyterhub.service"]},
    "aside": {"/opt/tljh/state": "/var/backups/plasma/uninstalled-1/state"},
    "left": ["the Docker engine"],
}


@pytest.fixture
def functions(test_mode):
    return {
        "plasma_uninstall.compare": create_autospec(uninstall.compare, return_value=FOUND),
        "plasma_uninstall.apply": create_autospec(uninstall.apply, return_value={**FOUND, "backup": "/b/one.tar.gz"}),
        "plasma_docker_undo.compare": create_autospec(undo.compare, return_value={}),
        "plasma_docker_undo.restore": create_autospec(undo.restore, return_value={}),
        "plasma_timer.compare": create_autospec(plasma_timer.compare, return_value={}),
        "plasma_timer.apply": create_autospec(plasma_timer.apply, return_value={}),
    }


@pytest.fixture
def configure_loader_modules(functions, test_mode):
    values = {"__salt__": functions, "__opts__": {"test": test_mode}}
    return {state: values, prune_state: values}


def test_what_goes_and_what_stays_is_said(test_mode, functions):
    ret = state.removed("hub", options={"users": True}, users=["ada"])
    assert ret["changes"] == {
        "units": {"old": ["/etc/systemd/system/jupyterhub.service"], "new": None},
        "/opt/tljh/state": {"old": "/opt/tljh/state", "new": "/var/backups/plasma/uninstalled-1/state"},
    }
    assert ret["result"] is (None if test_mode else True)
    assert ("would be removed" in ret["comment"]) is test_mode
    assert ("/b/one.tar.gz" in ret["comment"]) is not test_mode
    assert "/var/backups/plasma/uninstalled-1" in ret["comment"]
    assert ret["comment"].endswith("Left: 1) the Docker engine.")
    assert functions["plasma_uninstall.apply"].called is not test_mode


def test_nothing_is_nothing(functions):
    for function in ("compare", "apply"):
        functions[f"plasma_uninstall.{function}"].return_value = {"removed": {}, "aside": {}, "left": []}
    ret = state.removed("hub")
    assert ret == {"name": "hub", "changes": {}, "result": True, "comment": "Nothing of the hub is installed here."}


def test_what_is_refused_fails(functions):
    for function in ("compare", "apply"):
        functions[f"plasma_uninstall.{function}"].side_effect = CommandExecutionError("/opt/tljh/x is mounted.")
    ret = state.removed("hub")
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "/opt/tljh/x is mounted.")


def test_a_file_of_ours_goes(test_mode, tmp_path):
    path = tmp_path / "ctop"
    path.write_bytes(b"program")
    ret = state.file_removed(str(path), hashlib.sha256(b"program").hexdigest())
    assert ret["result"] is (None if test_mode else True)
    assert ret["changes"]
    assert path.exists() is test_mode


@pytest.mark.parametrize("sha256", [None, "0" * 64])
def test_a_file_of_somebody_else_stays(test_mode, tmp_path, sha256):
    path = tmp_path / "ctop"
    path.write_bytes(b"program")
    ret = state.file_removed(str(path), sha256)
    assert (ret["result"], ret["changes"]) == (True, {})
    assert path.exists()


def test_a_link_is_not_followed(test_mode, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"program")
    (tmp_path / "ctop").symlink_to(target)
    ret = state.file_removed(str(tmp_path / "ctop"), hashlib.sha256(b"program").hexdigest())
    assert (ret["result"], ret["changes"]) == (True, {})
    assert target.exists()


@pytest.mark.parametrize("schedule", ["daily", None])
def test_the_timer_is_made_or_predicted(test_mode, functions, schedule):
    changes = {"plasma-prune.timer": {"old": None, "new": "OnCalendar=daily"}}
    for function in ("compare", "apply"):
        functions[f"plasma_timer.{function}"].return_value = changes
    ret = prune_state.scheduled("timer", schedule, 3) if schedule else prune_state.unscheduled("timer")
    assert (ret["result"], ret["changes"]) == (None if test_mode else True, changes)
    assert functions["plasma_timer.apply"].called is not test_mode


def test_a_timer_that_is_there_is_left_alone(functions):
    ret = prune_state.scheduled("timer", "daily")
    assert (ret["result"], ret["changes"]) == (True, {})
    functions["plasma_timer.apply"].assert_not_called()
