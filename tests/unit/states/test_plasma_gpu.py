"""The states of GPUs."""

from __future__ import annotations

from unittest.mock import Mock, create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _states.plasma_gpu as plasma_gpu
import plasma_gpu_engine

CHANGES = {"driver": {"old": None, "new": "nvidia"}}
LEFT = {"/etc/apt/sources.list.d/x.list": {"old": "present", "new": None}}


@pytest.fixture
def salt_functions():
    functions = {
        f"plasma_gpu.{name}": create_autospec(getattr(plasma_gpu_engine, name))
        for name in ("compare", "make_known", "leftovers", "withdraw", "forget")
    }
    functions["plasma_gpu.make_known"].return_value = CHANGES
    return {**functions, "pkg.remove": Mock(return_value={"nvidia-container-toolkit": {"old": "1", "new": ""}})}


@pytest.fixture(autouse=True, params=[False, True], ids=["apply", "test"])
def test_mode(request):
    """Salt's `test=True`."""
    return request.param


@pytest.fixture
def configure_loader_modules(salt_functions, test_mode):
    return {plasma_gpu: {"__salt__": salt_functions, "__opts__": {"test": test_mode}}}


@pytest.mark.parametrize(("state", "asked"), [("known", "compare"), ("disabled", "leftovers")])
def test_equal(salt_functions, state, asked):
    salt_functions[f"plasma_gpu.{asked}"].return_value = {}
    ret = getattr(plasma_gpu, state)("gpu")
    assert (ret["name"], ret["result"], ret["changes"]) == ("gpu", True, {})
    assert [name for name, function in salt_functions.items() if function.called] == [f"plasma_gpu.{asked}"]


def test_different(salt_functions, test_mode):
    salt_functions["plasma_gpu.compare"].return_value = CHANGES
    ret = plasma_gpu.known("gpu", timeout=12)
    assert (ret["result"], ret["changes"]) == (None if test_mode else True, CHANGES)
    if test_mode:
        salt_functions["plasma_gpu.make_known"].assert_not_called()
    else:
        salt_functions["plasma_gpu.make_known"].assert_called_once_with(timeout=12)


def test_taken_away(salt_functions, test_mode):
    salt_functions["plasma_gpu.leftovers"].return_value = dict(LEFT)
    ret = plasma_gpu.disabled("gpu")
    removed = {} if test_mode else {"nvidia-container-toolkit": {"old": "1", "new": ""}}
    assert (ret["result"], ret["changes"]) == (None if test_mode else True, {**LEFT, **removed})
    assert salt_functions["plasma_gpu.forget"].called is not test_mode


def test_while_servers_have_gpus_nothing_is_removed(salt_functions, test_mode):
    salt_functions["plasma_gpu.leftovers"].return_value = dict(LEFT)
    salt_functions["plasma_gpu.withdraw"].side_effect = CommandExecutionError("Servers have 1 GPUs")
    ret = plasma_gpu.disabled("gpu")
    if not test_mode:
        assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "Servers have 1 GPUs")
    salt_functions["pkg.remove"].assert_not_called()
