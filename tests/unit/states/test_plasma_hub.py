"""The state plasma_hub.installed."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _states.plasma_hub as plasma_hub
import plasma_hub_installed as hub_module
import plasma_hub_installer as installer_module

CHANGES = {"packages": {"old": {"jupyterhub": "5.4.0"}, "new": {"jupyterhub": "5.5.4"}}}
SOURCES = {"pip_index_url": "https://pypi.example.org/simple"}


@pytest.fixture
def salt_functions():
    return {
        "plasma_hub_installed.compare": create_autospec(hub_module.compare, return_value={}),
        "plasma_hub_installer.install": create_autospec(installer_module.install, return_value=CHANGES),
    }


@pytest.fixture(autouse=True, params=[False, True], ids=["apply", "test"])
def test_mode(request):
    """Salt's `test=True`."""
    return request.param


@pytest.fixture
def configure_loader_modules(salt_functions, test_mode):
    pillar = {"plasma": {"hub": {"sources": SOURCES}}}
    return {plasma_hub: {"__salt__": salt_functions, "__opts__": {"test": test_mode}, "__pillar__": pillar}}


def test_equal_installs_nothing(salt_functions):
    ret = plasma_hub.installed("/opt/tljh", "tljh", version="2.0.0", source="/srv/tljh")
    assert ret == {
        "name": "/opt/tljh",
        "changes": {},
        "result": True,
        "comment": "The hub is installed as wanted.",
    }
    salt_functions["plasma_hub_installed.compare"].assert_called_once_with(
        "tljh", prefix="/opt/tljh", version="2.0.0", source="/srv/tljh", traefik="tljh"
    )
    salt_functions["plasma_hub_installer.install"].assert_not_called()


def test_different(salt_functions, test_mode):
    salt_functions["plasma_hub_installed.compare"].return_value = CHANGES
    ret = plasma_hub.installed("/opt/tljh", "pypi", http={"port": 81}, timeout=77)
    assert ret["changes"] == CHANGES
    assert "packages" in ret["comment"]
    if test_mode:
        assert ret["result"] is None
        assert "would be" in ret["comment"]
        salt_functions["plasma_hub_installer.install"].assert_not_called()
    else:
        assert ret["result"] is True
        salt_functions["plasma_hub_installer.install"].assert_called_once_with(
            "pypi", prefix="/opt/tljh", version="", source=None, sources=SOURCES, http={"port": 81}, timeout=77
        )


def test_restart_alone(salt_functions, test_mode):
    changes = {"restart": {"old": None, "new": "jupyterhub"}}
    salt_functions["plasma_hub_installed.compare"].return_value = changes
    salt_functions["plasma_hub_installer.install"].return_value = changes
    ret = plasma_hub.installed("/opt/tljh", "pypi")
    assert (ret["result"], ret["changes"]) == (None if test_mode else True, changes)
    assert ret["comment"].startswith("The hub would be restarted" if test_mode else "The hub was restarted")


def test_another_run_did_it_first(salt_functions, test_mode):
    salt_functions["plasma_hub_installed.compare"].return_value = CHANGES
    salt_functions["plasma_hub_installer.install"].return_value = {}
    ret = plasma_hub.installed("/opt/tljh", "pypi")
    if not test_mode:
        assert (ret["result"], ret["changes"], ret["comment"]) == (True, {}, "The hub is installed as wanted.")


@pytest.mark.parametrize("error", [CommandExecutionError, SaltInvocationError])
def test_failed_comparison(salt_functions, error):
    salt_functions["plasma_hub_installed.compare"].side_effect = error("say why")
    ret = plasma_hub.installed("/opt/tljh", "pypi")
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "say why")


def test_failed_installation(salt_functions, test_mode):
    salt_functions["plasma_hub_installed.compare"].return_value = CHANGES
    salt_functions["plasma_hub_installer.install"].side_effect = CommandExecutionError("pip failed. The end of ...")
    ret = plasma_hub.installed("/opt/tljh", "pypi")
    if test_mode:
        assert (ret["result"], ret["changes"]) == (None, CHANGES)
    else:
        assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "pip failed. The end of ...")


def test_other_errors_are_not_swallowed(salt_functions):
    salt_functions["plasma_hub_installed.compare"].side_effect = ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        plasma_hub.installed("/opt/tljh", "pypi")


def test_mod_watch_predicts_the_reinstallation_and_does_nothing(salt_functions, test_mode):
    ret = plasma_hub.mod_watch("/opt/tljh", hub_provider="pypi", sfun="installed")
    assert ret["result"] is (None if test_mode else True)
    assert bool(ret["changes"]) is test_mode
    salt_functions["plasma_hub_installer.install"].assert_not_called()
