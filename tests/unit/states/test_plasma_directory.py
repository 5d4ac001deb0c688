"""The state plasma_directory, in dry runs and for real."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _states.plasma_directory as state
import plasma_directory_sssd as module

pytestmark = pytest.mark.usefixtures("test_mode")

PILLAR = {
    "kind": "ldap",
    "domain": "example.org",
    "servers": ["ldaps://ldap.example.org"],
    "base": "dc=x",
    "groups": [],
}
CHANGES = {"packages": {"old": None, "new": ["sssd-ldap"]}}
SECRETS = {"bind_password": "s3cret"}


@pytest.fixture
def functions(monkeypatch):
    found = {}
    for name, nothing in (("problems", []), ("foreign", False)):
        found[name] = create_autospec(getattr(module, name), return_value=nothing)
    for name in ("compare", "apply", "compare_removed", "remove"):
        found[name] = create_autospec(getattr(module, name), return_value={})
    for name in found:
        monkeypatch.setattr(module, name, found[name])
    return found


@pytest.fixture
def configure_loader_modules(test_mode):
    return {
        state: {
            "__opts__": {"test": test_mode},
            "__pillar__": {"plasma": {"directory_secrets": SECRETS, "trust": ["an authority"]}},
            "__salt__": {"cp.cache_file": lambda url: "/cache/ca.pem" if url == "salt://files/ca.pem" else ""},
        }
    }


def test_a_server_that_is_joined_changes_nothing(functions):
    ret = state.joined("joined", PILLAR)
    assert (ret["result"], ret["changes"], ret["comment"]) == (True, {}, "example.org is asked.")
    functions["apply"].assert_not_called()
    (wanted,) = functions["compare"].call_args.args
    assert (wanted.servers, wanted.secrets, wanted.home_path) == (("ldaps://ldap.example.org",), SECRETS, "/home")


def test_joining_is_done_or_predicted(test_mode, functions):
    functions["compare"].return_value = functions["apply"].return_value = CHANGES
    ret = state.joined("joined", PILLAR, home_path="/srv/homes")
    assert (ret["result"], ret["changes"]) == (None if test_mode else True, CHANGES)
    assert functions["apply"].call_count == (0 if test_mode else 1)


def test_what_is_wrong_is_said_before_anything_is_changed(functions):
    functions["compare"].return_value, functions["problems"].return_value = CHANGES, ["the first", "the second"]
    ret = state.joined("joined", PILLAR)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"].splitlines()[1:] == ["- the first.", "- the second."]
    # The system trusts them by the same run.
    assert functions["problems"].call_args.args[2] == ["an authority"]
    functions["apply"].assert_not_called()


def test_an_authority_of_the_repository_is_copied(functions):
    state.joined("joined", {**PILLAR, "ca": "salt://files/ca.pem"})
    (wanted,) = functions["compare"].call_args.args
    assert (wanted.ca, wanted.ca_source) == (state.conf.CA, "/cache/ca.pem")
    ret = state.joined("joined", {**PILLAR, "ca": "salt://none.pem"})
    assert ret["result"] is False
    assert ret["comment"].startswith("plasma.directory.ca: there is no salt://none.pem")


def test_expected_errors_are_one_sentence(functions):
    functions["compare"].side_effect = functions["compare_removed"].side_effect = CommandExecutionError("No.")
    for ret in (state.joined("joined", PILLAR), state.disabled("disabled")):
        assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "No.")


def test_leaving_is_done_or_predicted_and_nothing_where_nothing_was_joined(test_mode, functions):
    assert state.disabled("disabled")["comment"] == "No directory was joined from here."
    functions["compare_removed"].return_value = functions["remove"].return_value = CHANGES
    ret = state.disabled("disabled")
    assert (ret["result"], ret["changes"]) == (None if test_mode else True, CHANGES)


def test_leaving_an_sssd_of_somebody_elses_says_that_it_stays(test_mode, functions):
    functions["compare_removed"].return_value = functions["remove"].return_value = CHANGES
    functions["foreign"].return_value = True
    ret = state.disabled("disabled")
    assert ret["result"] is (None if test_mode else True)
    if not test_mode:
        assert "is not from here: it stays, and so does sssd." in ret["comment"]
