"""Settings of the hub, through the real helper of the plugin in a real environment."""

from __future__ import annotations

import json
import logging

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_run
import tljh_service
import tljh_settings as tljh_config
from tests.unit.modules.conftest import loader_modules
from tests.unit.modules.stand_in_hub import HUB, PROXY

pytestmark = pytest.mark.slow


@pytest.fixture
def configure_loader_modules():
    return loader_modules()


# --- reading ----------------------------------------------------------------------------------------------------


def test_show_and_get(hub):
    config = tljh_config.show(hub.prefix)
    assert config["limits"] == {"memory": "1G"}
    assert tljh_config.get(prefix=hub.prefix) == config
    assert tljh_config.get("limits.memory", hub.prefix) == "1G"
    assert tljh_config.get("limits.cpu", hub.prefix) is None
    assert tljh_config.get("limits.memory.x", hub.prefix, default=3) == 3


def test_a_server_without_hub_or_file_has_no_settings(bare, tmp_path):
    assert tljh_config.show(bare.prefix) == {}
    bare.write("limits: {}\n")
    assert tljh_config.show(bare.prefix) == {}
    assert tljh_config.get("limits.memory", bare.prefix, default="2G") == "2G"


def test_a_hub_without_the_file_has_no_settings(stopped):
    assert tljh_config.show(stopped.prefix) == {}


def test_a_hub_without_the_plugin_counts_as_none(stopped):
    next(stopped.prefix.glob("hub/lib/python3*/site-packages/plugin.pth")).unlink()
    assert tljh_config.show(stopped.prefix) == {}
    assert tljh_config.compare({"base_url": "/"}, stopped.prefix) == {"base_url": {"old": None, "new": "/"}}
    with pytest.raises(CommandExecutionError, match="No hub with the Plasma plugin"):
        tljh_config.update({"base_url": "/"}, stopped.prefix)


def test_a_broken_file_is_an_error_everywhere(hub):
    hub.write("limits:\n memory: 1G\n  cpu: 2\n")
    for function in (tljh_config.show, tljh_config.ready, tljh_config.reload):
        with pytest.raises(CommandExecutionError, match=r"not valid YAML.*line 3"):
            function(prefix=hub.prefix)
    with pytest.raises(CommandExecutionError, match=r"not valid YAML.*line 3"):
        tljh_config.compare({"limits.cpu": 1}, hub.prefix)


def test_a_helper_that_cannot_run_is_an_error(stopped):
    python = stopped.prefix / "hub" / "bin" / "python3"
    python.unlink()
    stopped.program(python, "#!/bin/sh\necho 'ImportError: no ruamel' >&2\nexit 1\n")
    with pytest.raises(CommandExecutionError, match="configuration helper failed: ImportError: no ruamel"):
        tljh_config.show(stopped.prefix)


def test_nothing_of_the_callers_environment_is_imported(hub, tmp_path, monkeypatch):
    (tmp_path / "tljh_plasma").mkdir()
    (tmp_path / "tljh_plasma" / "__init__.py").write_text("raise SystemExit('planted')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert tljh_config.get("limits.memory", hub.prefix) == "1G"


# --- comparing and changing -------------------------------------------------------------------------------------


def test_nested_and_dotted_settings_mean_the_same(hub):
    expected = {"limits.cpu": {"old": None, "new": 2}, "services.cull.every": {"old": None, "new": 60}}
    for settings in (
        {"limits": {"cpu": 2}, "services": {"cull": {"every": 60}}},
        {"limits.cpu": 2, "services.cull.every": 60},
        {"limits.cpu": 2, "services.cull": {"every": 60}},
    ):
        assert tljh_config.compare(settings, hub.prefix) == expected
    text = hub.config_file.read_text()
    assert tljh_config.compare({"limits": {"memory": "1G"}}, hub.prefix) == {}
    assert tljh_config.compare({"limits": {"memory": "1G"}}, hub.prefix, unset=["http.port"]) != {}
    assert hub.config_file.read_text() == text


def test_what_the_installed_plugin_does_not_know_differs_too(hub):
    for settings, unset in (({"limits.cpu": 2, "limits.memory": "1G"}, ["http.port", "no.such"]), ({"limits": {}}, [])):
        assert tljh_config.differing(settings, hub.prefix, unset) == tljh_config.compare(settings, hub.prefix, unset)
    newer = {"plasma": {"network": {"from_next_year": [], "password": "x"}}}
    with pytest.raises(CommandExecutionError, match="from_next_year"):
        tljh_config.compare(newer, hub.prefix)
    assert tljh_config.differing(newer, hub.prefix) == {
        "plasma.network.from_next_year": {"old": None, "new": []},
        "plasma.network.password": {"old": None, "new": tljh_config.HIDDEN},
    }


def test_on_a_bare_server_everything_is_new(bare):
    changes = tljh_config.compare({"limits": {"cpu": 2}, "users.admin": [], "auth": {}}, bare.prefix, unset="http")
    assert changes == {
        "limits.cpu": {"old": None, "new": 2},
        "users.admin": {"old": None, "new": []},
        "auth": {"old": None, "new": {}},
    }
    assert not bare.prefix.exists()


def test_update_changes_the_file_and_nothing_else(hub):
    previous = hub.config_file.read_text()
    result = tljh_config.update({"limits": {"memory": "2G"}, "users.admin": ["007", "a\nb"]}, hub.prefix)
    assert result["changes"] == {
        "limits.memory": {"old": "1G", "new": "2G"},
        "users.admin": {"old": None, "new": ["007", "a\nb"]},
    }
    assert "-  memory: 1G # each" in result["diff"]
    assert result["previous"] == previous
    assert tljh_config.get("users.admin", hub.prefix) == ["007", "a\nb"]
    assert hub.config_file.read_text().startswith("# by hand\n")
    assert hub.calls("restart") == []
    assert tljh_config.update({"limits.memory": "2G"}, hub.prefix)["changed"] is False
    assert tljh_config.restore(previous, hub.prefix) is True
    assert hub.config_file.read_text() == previous
    tljh_config.restore(None, hub.prefix)
    assert not hub.config_file.exists()


def test_a_dry_run_writes_nothing(hub):
    text = hub.config_file.read_text()
    result = tljh_config.update({"limits.cpu": 1}, hub.prefix, unset="limits.memory", dry_run=True)
    assert list(result["changes"]) == ["limits.cpu", "limits.memory"]
    assert hub.config_file.read_text() == text


def test_names_inside_a_mapping_may_contain_dots(hub):
    settings = {"users": {"extra_user_groups": {"course.a": ["ada"]}}}
    tljh_config.update(settings, hub.prefix)
    assert tljh_config.show(hub.prefix)["users"] == settings["users"]
    assert tljh_config.compare(settings, hub.prefix) == {}


@pytest.mark.parametrize(
    "settings, unset, words",
    [
        ("limits.cpu", (), "must be a mapping"),
        (["limits.cpu"], (), "must be a mapping"),
        ({7: 1}, (), "put it in quotes"),
        ({"users": {"extra_user_groups": {101: []}}}, (), "users.extra_user_groups.101 must be a string"),
        ({"a..b": 1}, (), "must be a string"),
        ({"limits.cpu": float("nan")}, (), "settings take strings"),
        ({"limits.cpu": object()}, (), "settings take strings"),
        ({}, [7], "unset must be"),
    ],
)
def test_settings_of_a_wrong_form_are_refused(hub, settings, unset, words):
    for function in (tljh_config.compare, tljh_config.update, tljh_config.apply):
        with pytest.raises(SaltInvocationError, match=words):
            function(settings, prefix=hub.prefix, unset=unset)


def test_an_invalid_result_is_refused_by_a_comparison_too(hub):
    for function in (tljh_config.compare, tljh_config.update, tljh_config.apply):
        with pytest.raises(CommandExecutionError, match="limits has no key memry"):
            function({"limits.memry": "1G"}, prefix=hub.prefix)
    assert not hub.note.exists()


def test_secrets_reach_the_file_and_nothing_else(hub, caplog, monkeypatch):
    seen = []
    real = plasma_run.run

    def recorded(cmd, **kwargs):
        seen.append(cmd)
        return real(cmd, **kwargs)

    monkeypatch.setattr(plasma_run, "run", recorded)
    caplog.set_level(logging.DEBUG)
    settings = {
        "auth": {"GitHub": {"client_secret": "hunter2", "more": {"token": "hunter3"}}},
        "mine.password": {"a": "hunter4"},
    }
    changes = tljh_config.compare(settings, hub.prefix)
    result = tljh_config.update(settings, hub.prefix)
    again = tljh_config.update(
        {"auth.GitHub.client_secret": "hunter5", "auth.list": [{"token": "hunter6"}]}, hub.prefix
    )
    assert changes["auth.GitHub.client_secret"] == {"old": None, "new": "********"}
    assert again["changes"]["auth.GitHub.client_secret"] == {"old": "********", "new": "********"}
    assert again["changes"]["auth.list"] == {"old": None, "new": [{"token": "********"}]}
    assert "+    client_secret: ********" in again["diff"]
    shown = json.dumps([changes, result["changes"], result["diff"], again["changes"], again["diff"], seen])
    assert "hunter" not in shown + caplog.text
    assert tljh_config.get("auth.GitHub.client_secret", hub.prefix) == "hunter5"


# --- taking over ------------------------------------------------------------------------------------------------


def test_ready_asks_where_config_yaml_says(hub):
    assert tljh_config.ready(hub.prefix, timeout=0)["version"] == "5.5.4"
    tljh_config.update({"base_url": "/elsewhere"}, hub.prefix)
    assert "/elsewhere/hub/api answers with HTTP status 404" in tljh_config.ready(hub.prefix, timeout=0)["problem"]


def test_reload_raises_with_the_journal(hub):
    assert tljh_config.reload("hub", hub.prefix, timeout=30)["ready"]
    hub.set(poison={HUB: ["memory"]})
    with pytest.raises(CommandExecutionError) as error:
        tljh_config.reload("hub", hub.prefix, timeout=30)
    sentence, *journal = str(error.value).splitlines()
    assert sentence == f"The hub is not back: {HUB} failed (exit-code)."
    assert journal == [f"{HUB} line {number}" for number in range(80, 100)]


@pytest.mark.parametrize(
    "settings, unset, component",
    [
        ({"limits.cpu": 2}, (), "hub"),
        ({"base_url": "/"}, (), "hub"),
        ({"http.address": "127.0.0.1"}, (), "proxy"),
        ({"https.enabled": False}, (), "proxy"),
        ({"traefik_api.username": "x"}, (), "proxy"),
        ({"limits.cpu": 2, "https": {"letsencrypt": {"staging": True}}}, (), "proxy"),
        ({"httpx": 1}, ["limits.memory"], "hub"),
    ],
)
def test_only_what_is_needed_is_reloaded(hub, settings, unset, component):
    result = tljh_config.apply(settings, prefix=hub.prefix, unset=unset, timeout=30)
    assert result["reloaded"] == component
    assert hub.calls("restart") == [HUB if component == "hub" else PROXY]
    assert hub.unit(HUB)["InvocationID"] == ("id1" if component == "hub" else "id2")
    assert result["changes"] and result["diff"] and result["seconds"] > 0
    assert not hub.note.exists()
    again = tljh_config.apply(settings, prefix=hub.prefix, unset=unset, timeout=30)
    assert again == {"changes": {}, "diff": "", "reloaded": None, "seconds": 0.0}
    assert len(hub.calls("restart")) == 1


@pytest.mark.parametrize("reload, restarted", [("hub", [HUB]), ("proxy", [PROXY]), ("none", [])])
def test_the_component_can_be_chosen(hub, reload, restarted):
    result = tljh_config.apply({"http.address": ""}, prefix=hub.prefix, reload=reload, timeout=30)
    assert hub.calls("restart") == restarted
    assert result["reloaded"] == (reload if restarted else None)
    assert tljh_config.get("http.address", hub.prefix) == ""
    with pytest.raises(SaltInvocationError, match="reload must be one of"):
        tljh_config.apply({}, prefix=hub.prefix, reload="traefik")


def test_a_hub_that_was_never_started_is_left_alone(stopped):
    result = tljh_config.apply({"limits.cpu": 2}, prefix=stopped.prefix)
    assert result["reloaded"] is None
    assert stopped.calls("restart") == []
    assert tljh_config.show(stopped.prefix) == {"limits": {"cpu": 2}}
    assert sorted(item.name for item in stopped.config_file.parent.iterdir()) == ["config.yaml", "config.yaml.lock"]


def test_without_a_hub_nothing_can_be_applied(bare):
    with pytest.raises(CommandExecutionError, match="apply the state tljh"):
        tljh_config.apply({"limits.cpu": 2}, prefix=bare.prefix)
    assert not bare.prefix.exists()


def test_a_hub_that_failed_is_started_with_the_settings_that_mend_it(hub):
    hub.set(poison={HUB: ["1G"]})
    hub.unit(HUB, ActiveState="failed", SubState="failed")
    assert tljh_config.apply({"limits.memory": "2G"}, prefix=hub.prefix, timeout=30)["reloaded"] == "hub"
    assert tljh_config.ready(hub.prefix, timeout=0)["ready"]


@pytest.mark.parametrize("way", ["fail", "crash", "hang"])
@pytest.mark.parametrize(
    "settings, unit, component",
    [({"limits.cpu": 7}, HUB, "hub"), ({"http.address": "192.0.2.7"}, PROXY, "proxy")],
    ids=["hub", "proxy"],
)
def test_when_the_reload_fails_the_previous_file_is_restored_and_reloaded(hub, settings, unit, component, way):
    previous = hub.config_file.read_text()
    key = next(iter(settings))
    hub.set(poison={unit: ["cpu: 7", "192.0.2.7"]}, when_poisoned=way)
    with pytest.raises(CommandExecutionError) as error:
        tljh_config.apply(settings, prefix=hub.prefix, timeout=3)
    assert hub.clock.now < 7
    sentence, *journal = str(error.value).splitlines()
    assert sentence.startswith(f"The hub did not come up with the new {key} ({unit} ")
    assert sentence.endswith("; the previous configuration was restored, the hub is back.")
    assert journal == [f"{unit} line {number}" for number in range(80, 100)]
    assert hub.config_file.read_text() == previous
    assert tljh_config.ready(hub.prefix, timeout=0)["ready"]
    assert not hub.note.exists()
    assert hub.calls("restart").count(PROXY if component == "proxy" else HUB) == 2


def test_it_is_said_when_the_hub_does_not_come_back_either(hub):
    hub.set(poison={HUB: ["http"]})
    with pytest.raises(CommandExecutionError, match=r"restored, the hub is still not back \(jupyterhub.service failed"):
        tljh_config.apply({"limits.cpu": 7}, prefix=hub.prefix, timeout=3)
    assert tljh_config.get("limits.cpu", hub.prefix) is None


def test_a_file_that_did_not_exist_is_removed_again(stopped):
    stopped.unit(HUB, ActiveState="active", SubState="running")
    stopped.set(poison={HUB: ["cpu: 7"]})
    with pytest.raises(CommandExecutionError, match="restored"):
        tljh_config.apply({"limits.cpu": 7}, prefix=stopped.prefix, timeout=1)
    assert not stopped.config_file.exists()


def test_a_restore_that_fails_is_said(hub, monkeypatch):
    hub.set(poison={HUB: ["cpu: 7"]})
    real = tljh_service.reload

    def reload(*args, **kwargs):
        outcome = real(*args, **kwargs)
        hub.config_file.rename(hub.config_file.with_suffix(".moved"))
        hub.config_file.symlink_to(hub.config_file.with_suffix(".moved"))
        return outcome

    monkeypatch.setattr(tljh_service, "reload", reload)
    with pytest.raises(CommandExecutionError, match="could not be restored: .*symbolic link"):
        tljh_config.apply({"limits.cpu": 7}, prefix=hub.prefix, timeout=3)


def test_a_secret_is_not_in_the_error_of_a_failed_reload(hub):
    hub.set(poison={HUB: ["hunter2"]})
    with pytest.raises(CommandExecutionError) as error:
        tljh_config.apply({"auth.client_secret": "hunter2"}, prefix=hub.prefix, timeout=3)
    assert "auth.client_secret" in str(error.value)
    assert "hunter2" not in str(error.value)
