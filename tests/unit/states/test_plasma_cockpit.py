"""The states of Cockpit, in dry runs and for real."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_cockpit as module
import _states.plasma_cockpit as plasma_cockpit
import plasma_cockpit_socket as socket_module

pytestmark = pytest.mark.usefixtures("test_mode")
CHANGES = {"/etc/cockpit/cockpit.conf": {"old": None, "new": "content of Plasma"}}
UP = {"socket": True, "enabled": True}


@pytest.fixture
def functions():
    return {
        "plasma_cockpit.refusal": create_autospec(module.refusal, return_value=None),
        "plasma_cockpit.compare": create_autospec(module.compare, return_value={}),
        "plasma_cockpit.prepare": create_autospec(module.prepare, return_value=CHANGES),
        "plasma_cockpit.compare_disabled": create_autospec(module.compare_disabled, return_value={}),
        "plasma_cockpit.kept_packages": create_autospec(module.kept_packages, return_value={"kept": [], "for": []}),
        "plasma_cockpit.disable": create_autospec(module.disable, return_value=CHANGES),
        "plasma_cockpit_socket.listening": create_autospec(socket_module.listening, return_value=UP),
        "plasma_cockpit_socket.listen": create_autospec(socket_module.listen, return_value=UP),
    }


@pytest.fixture
def configure_loader_modules(functions, test_mode):
    return {plasma_cockpit: {"__salt__": functions, "__opts__": {"test": test_mode}}}


@pytest.fixture(autouse=True)
def lowstate(monkeypatch):
    """The states of this run, which Salt's loader puts into the module."""
    monkeypatch.setattr(plasma_cockpit, "__lowstate__", [], raising=False)


STATES = {
    "allowed": lambda: plasma_cockpit.allowed("x"),
    "prepared": lambda: plasma_cockpit.prepared("x", ["cockpit-ws"]),
    "listening": lambda: plasma_cockpit.listening("x"),
    "disabled": lambda: plasma_cockpit.disabled("x"),
}


@pytest.mark.parametrize("state", STATES)
def test_what_is_as_it_should_be_changes_nothing(functions, state):
    ret = STATES[state]()
    assert (ret["name"], ret["result"], ret["changes"]) == ("x", True, {})
    for name in ("plasma_cockpit.prepare", "plasma_cockpit.disable", "plasma_cockpit_socket.listen"):
        functions[name].assert_not_called()


def test_without_https_it_is_refused_in_a_dry_run_too(functions):
    functions["plasma_cockpit.refusal"].return_value = "It needs HTTPS."
    assert plasma_cockpit.allowed("x") == {"name": "x", "changes": {}, "result": False, "comment": "It needs HTTPS."}


def test_a_dry_run_of_the_whole_site_waits_for_https(functions, test_mode, monkeypatch):
    monkeypatch.setattr(plasma_cockpit, "__lowstate__", [{"__sls__": "admins"}, {"__sls__": "https.files"}])
    functions["plasma_cockpit.refusal"].return_value = "It needs HTTPS."
    ret = plasma_cockpit.allowed("x")
    assert ret["result"] is test_mode
    assert ("needs the state https" in ret["comment"]) is test_mode


def test_files_are_written_or_predicted(functions, test_mode):
    functions["plasma_cockpit.compare"].return_value = CHANGES
    ret = plasma_cockpit.prepared("x", ["cockpit-ws"], prefix="/srv/hub")
    assert ret["changes"] == CHANGES
    if test_mode:
        assert ret["result"] is None
        assert ret["comment"] == "/etc/cockpit/cockpit.conf would be written."
        functions["plasma_cockpit.prepare"].assert_not_called()
    else:
        assert ret["result"] is True
        functions["plasma_cockpit.prepare"].assert_called_once_with(["cockpit-ws"], prefix="/srv/hub")


def test_a_socket_elsewhere_is_moved_or_predicted(functions, test_mode):
    functions["plasma_cockpit_socket.listening"].return_value = {"socket": False, "enabled": True}
    ret = plasma_cockpit.listening("x")
    assert ret["changes"] == {"socket": {"old": False, "new": True}}
    assert ret["result"] is (None if test_mode else True)
    assert functions["plasma_cockpit_socket.listen"].called is not test_mode


def test_a_socket_that_the_package_brings_is_no_change_of_a_dry_run(functions, test_mode):
    functions["plasma_cockpit_socket.listening"].return_value = None
    ret = plasma_cockpit.listening("x")
    assert ret["result"] is True
    assert bool(ret["changes"]) is not test_mode
    assert functions["plasma_cockpit_socket.listen"].called is not test_mode


def test_it_is_taken_away_or_that_is_predicted(functions, test_mode):
    functions["plasma_cockpit.compare_disabled"].return_value = CHANGES
    functions["plasma_cockpit.kept_packages"].return_value = {"kept": ["cockpit-ws"], "for": ["cockpit-pcp"]}
    ret = plasma_cockpit.disabled("x", prefix="/srv/hub", timeout=30)
    assert ret["changes"] == CHANGES
    assert ret["comment"].endswith("cockpit-ws stay for cockpit-pcp.")
    if test_mode:
        assert ret["result"] is None
        functions["plasma_cockpit.disable"].assert_not_called()
    else:
        assert ret["result"] is True
        functions["plasma_cockpit.disable"].assert_called_once_with(prefix="/srv/hub", timeout=30)


@pytest.mark.parametrize(
    ("state", "function"),
    [
        ("allowed", "plasma_cockpit.refusal"),
        ("prepared", "plasma_cockpit.compare"),
        ("listening", "plasma_cockpit_socket.listening"),
        ("disabled", "plasma_cockpit.compare_disabled"),
    ],
)
def test_expected_errors_are_told_in_a_sentence(functions, state, function):
    functions[function].side_effect = CommandExecutionError("It is damaged.")
    ret = STATES[state]()
    assert ret == {"name": "x", "changes": {}, "result": False, "comment": "It is damaged."}
