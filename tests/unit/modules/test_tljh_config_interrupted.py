"""Settings of the hub after a run that was interrupted: the reload that was due is made up for."""

from __future__ import annotations

import json

import pytest
from salt.exceptions import CommandExecutionError

import plasma_hub_secrets
import tljh_service
import tljh_settings as tljh_config
from tests.unit.modules.conftest import loader_modules
from tests.unit.modules.stand_in_hub import HUB

pytestmark = pytest.mark.slow


@pytest.fixture
def configure_loader_modules():
    return loader_modules()


class Killed(BaseException):
    """Stands for the end of the process, at the one place where it is raised."""


@pytest.mark.parametrize("settings, component", [({"limits.cpu": 2}, "hub"), ({"http.address": ""}, "proxy")])
def test_a_run_killed_before_the_reload_is_finished_by_the_next(hub, monkeypatch, settings, component):
    def killed(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(tljh_service, "reload", killed)
        with pytest.raises(Killed):
            tljh_config.apply(settings, prefix=hub.prefix)
    assert tljh_config.compare(settings, hub.prefix) == {}
    assert tljh_config.pending(hub.prefix) == component
    result = tljh_config.apply(settings, prefix=hub.prefix, timeout=30)
    assert (result["changes"], result["reloaded"]) == ({}, component)
    assert tljh_config.pending(hub.prefix) is None
    assert tljh_config.apply(settings, prefix=hub.prefix)["reloaded"] is None


def test_a_reload_that_somebody_else_did_is_not_due_any_more(hub, monkeypatch):
    tljh_config._remember(hub.prefix, "hub")
    assert tljh_config.pending(hub.prefix) == "hub"
    tljh_config.reload("hub", hub.prefix, timeout=30)
    assert tljh_config.pending(hub.prefix) is None
    tljh_config._remember(hub.prefix, "hub")
    hub.unit(HUB, ActiveState="inactive")  # it will read the file when it starts
    assert tljh_config.pending(hub.prefix) is None


def test_a_note_of_another_boot_or_a_broken_one_is_ignored(hub):
    tljh_config._remember(hub.prefix, "hub")
    note = json.loads(hub.note.read_text())
    hub.note.write_text(json.dumps({**note, "boot": "another"}))
    assert tljh_config.pending(hub.prefix) is None
    for text in ("", "{", "[]", "{}"):
        hub.note.write_text(text)
        assert tljh_config.pending(hub.prefix) is None


def test_a_due_reload_that_fails_restores_nothing(hub):
    text = hub.config_file.read_text()
    tljh_config._remember(hub.prefix, "hub")
    hub.set(poison={HUB: ["1G"]})
    with pytest.raises(CommandExecutionError, match="The hub is not back: "):
        tljh_config.apply({"limits.memory": "1G"}, prefix=hub.prefix, timeout=3)
    assert hub.config_file.read_text() == text


# --- files of the hub that were lost


@pytest.mark.parametrize(
    ("lost", "component"), [([], None), (["hub"], "hub"), (["hub", "proxy"], "proxy"), (["proxy"], "proxy")]
)
def test_what_a_reload_makes_anew_is_due_while_the_hub_runs(hub, monkeypatch, lost, component):
    files = [{"component": one} for one in lost]
    monkeypatch.setattr(plasma_hub_secrets, "lost", lambda prefix: files)
    assert tljh_config.due(hub.prefix) == component
    hub.unit(HUB, ActiveState="inactive")
    assert tljh_config.due(hub.prefix) is None
