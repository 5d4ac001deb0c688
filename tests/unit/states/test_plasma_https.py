"""The states plasma_https.enabled and disabled."""

from __future__ import annotations

from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _states.plasma_https as plasma_https
import plasma_https_files as files_module
import plasma_https_settings as https_module
import plasma_https_switch as switch_module

CHANGES = {"https.enabled": {"old": None, "new": True}}
PILLAR = {"plasma": {"https_secrets": {"TOKEN": "s3cr3t"}}}
ACME = {"domains": ["hub.example.org"], "email": "admin@example.org"}


@pytest.fixture
def functions():
    return {
        "cp.cache_file": None,
        "plasma_https_settings.compare": create_autospec(https_module.compare, return_value={}),
        "plasma_https_settings.problems": create_autospec(https_module.problems, return_value=[]),
        "plasma_https_files.locate": create_autospec(files_module.locate, return_value={}),
        "plasma_https_files.problem": create_autospec(files_module.problem, return_value=None),
        "plasma_https_files.install": create_autospec(files_module.install),
        "plasma_https_switch.settle": create_autospec(switch_module.settle, return_value=False),
        "plasma_https_switch.apply": create_autospec(
            switch_module.apply, return_value={"changes": CHANGES, "seconds": 4.25, "kept": None}
        ),
    }


@pytest.fixture(autouse=True)
def configure_loader_modules(functions, test_mode):
    return {plasma_https: {"__salt__": functions, "__opts__": {"test": test_mode}, "__pillar__": PILLAR}}


def test_in_place_asks_nobody_about_names(functions, test_mode):
    ret = plasma_https.enabled("https", **ACME)
    assert (ret["result"], ret["changes"], ret["comment"]) == (True, {}, "HTTPS is in place.")
    functions["plasma_https_settings.problems"].assert_not_called()
    functions["plasma_https_switch.apply"].assert_not_called()
    assert functions["plasma_https_switch.settle"].called is not test_mode


def test_switched(functions, test_mode):
    functions["plasma_https_settings.compare"].return_value = CHANGES
    ret = plasma_https.enabled("https", **ACME, timeout=30, ready_timeout=60)
    assert ret["changes"] == CHANGES
    if test_mode:
        assert ret["result"] is None
        assert "would be" in ret["comment"]
        functions["plasma_https_switch.apply"].assert_not_called()
        functions["plasma_https_files.install"].assert_not_called()
    else:
        assert ret["result"] is True
        assert "4.2 seconds" in ret["comment"]
        options = functions["plasma_https_switch.apply"].call_args.kwargs
        assert (options["timeout"], options["ready_timeout"]) == (30, 60)


def test_problems_are_said_all_at_once_and_nothing_is_done(functions):
    functions["plasma_https_settings.compare"].return_value = CHANGES
    functions["plasma_https_files.problem"].return_value = "the key is wrong"
    functions["plasma_https_settings.problems"].return_value = ["port 443 is taken"]
    ret = plasma_https.enabled("https", **ACME)
    assert (ret["result"], ret["changes"]) == (False, {})
    assert ret["comment"].splitlines()[1:] == ["- the key is wrong", "- port 443 is taken"]
    functions["plasma_https_files.install"].assert_not_called()
    functions["plasma_https_switch.apply"].assert_not_called()


def test_a_pair_that_expired_is_told_though_it_is_in_place(functions):
    functions["plasma_https_files.problem"].return_value = "it has expired"
    assert plasma_https.enabled("https", **ACME)["result"] is False


def test_what_was_kept_is_told(functions, test_mode):
    functions["plasma_https_settings.compare"].return_value = CHANGES
    functions["plasma_https_switch.apply"].return_value["kept"] = "/var/backups/plasma/acme-1.json"
    ret = plasma_https.enabled("https", **ACME)
    assert ("/var/backups/plasma/acme-1.json" in ret["comment"]) is not test_mode


@pytest.mark.parametrize("arguments", [{}, {"domains": ["a.example.org"]}, {"key": "/k"}])
def test_wrong_arguments(arguments, functions):
    functions["plasma_https_files.locate"].return_value = {
        name: files_module.File(name, path, path) for name, path in arguments.items() if name == "key"
    }
    ret = plasma_https.enabled("https", **arguments)
    assert ret["result"] is False
    assert ret["changes"] == {}


def test_errors_are_a_sentence(functions, test_mode):
    functions["plasma_https_settings.compare"].return_value = CHANGES
    functions["plasma_https_switch.apply"].side_effect = CommandExecutionError("No certificate came.")
    ret = plasma_https.enabled("https", **ACME)
    if not test_mode:
        assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "No certificate came.")


@pytest.mark.parametrize("changes", [{}, CHANGES])
def test_disabled(functions, test_mode, changes):
    functions["plasma_https_settings.compare"].return_value = changes
    ret = plasma_https.disabled("plain", prefix="/srv/hub")
    assert ret["result"] is (None if changes and test_mode else True)
    assert ret["changes"] == changes
    assert functions["plasma_https_settings.compare"].call_args.args[0].enabled is False
    assert functions["plasma_https_switch.apply"].called is (bool(changes) and not test_mode)


def test_variables_of_a_dns_provider_come_from_pillar(functions):
    """As arguments they would be shown by Salt."""
    functions["plasma_https_settings.compare"].return_value = CHANGES
    dns = {"provider": "cloudflare", "resolvers": []}
    ret = plasma_https.enabled("https", **ACME, dns=dns, user_domains=True)
    given = functions["plasma_https_settings.compare"].call_args.args[0]
    assert given.environment == {"TOKEN": "s3cr3t"}
    assert given.names == ["hub.example.org", "*.hub.example.org"]
    assert "s3cr3t" not in repr(ret)
