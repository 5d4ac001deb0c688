"""Restarting the hub and its proxy, and telling whether they answer."""

from __future__ import annotations

import socket
import time

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_run
import tljh_service
from tests.unit.modules.stand_in_hub import HUB, PROXY, StandInHub

pytestmark = pytest.mark.slow


@pytest.fixture
def configure_loader_modules():
    return {tljh_service: {}}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = StandInHub(tmp_path, monkeypatch)
    yield hub
    hub.close()


@pytest.fixture
def config(hub):
    return {"http": {"address": "", "port": hub.serve()}}


def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- ready ------------------------------------------------------------------------------------------------------


def test_a_hub_that_answers_is_ready_at_once(hub, config):
    outcome = tljh_service.ready(config, timeout=30)
    assert outcome.pop("seconds") < 5
    assert outcome == {"ready": True, "version": "5.5.4", "problem": None, "journal": []}


@pytest.mark.parametrize("base_url", ["/", "", None, "/x", "/x/", "x/y/"])
def test_the_base_url_is_part_of_the_address(hub, base_url):
    path = {"/": "/hub/api", "/x": "/x/hub/api", "/x/": "/x/hub/api", "x/y/": "/x/y/hub/api"}
    port = hub.serve(path.get(base_url, "/hub/api"))
    assert tljh_service.ready({"base_url": base_url, "http": {"port": port}}, timeout=0)["ready"]
    problem = tljh_service.ready({"base_url": "/elsewhere", "http": {"port": port}}, timeout=0)["problem"]
    assert problem == f"http://127.0.0.1:{port}/elsewhere/hub/api answers with HTTP status 404"


@pytest.mark.parametrize("address", [None, "", "0.0.0.0", "127.0.0.1"])
def test_an_address_that_stands_for_all_is_asked_on_the_loopback(hub, address):
    assert tljh_service.ready({"http": {"address": address, "port": hub.serve()}}, timeout=0)["ready"]


def test_with_https_the_https_port_counts_whatever_its_certificate(hub):
    secure, redirecting = hub.serve(secure=True), hub.serve(redirect="https://hub.example/hub/api")
    config = {"http": {"port": redirecting}, "https": {"enabled": True, "port": secure}}
    assert tljh_service.ready(config, timeout=0)["ready"]
    # A redirect alone is no answer of the hub.
    config["https"]["enabled"] = False
    assert "HTTP status 308" in tljh_service.ready(config, timeout=0)["problem"]
    config["https"] = {"enabled": True, "port": unused_port()}
    assert "does not answer" in tljh_service.ready(config, timeout=0)["problem"]


@pytest.mark.parametrize("body", [b"<html>It works!</html>", b"[]", b"{}"])
def test_another_program_on_the_port_is_no_hub(hub, body):
    port = hub.serve(body=body)
    outcome = tljh_service.ready({"http": {"port": port}}, timeout=0)
    assert outcome["problem"] == f"http://127.0.0.1:{port}/hub/api is not answered by JupyterHub"


def test_a_late_hub_is_waited_for(hub, config):
    hub.unit(HUB, ActiveState="activating", SubState="start")
    hub.clock.after(1, lambda: hub.unit(HUB, ActiveState="active", SubState="running"))
    outcome = tljh_service.ready(config, timeout=30)
    assert outcome["ready"]
    assert 0.9 < outcome["seconds"] < 2


def test_a_hub_that_stays_away_is_reported_at_the_deadline(hub):
    port = unused_port()
    outcome = tljh_service.ready({"http": {"port": port}}, timeout=1.2)
    assert not outcome["ready"]
    assert 1.1 < outcome["seconds"] < 4
    assert outcome["problem"].startswith(f"http://127.0.0.1:{port}/hub/api does not answer (Connection refused)")
    assert outcome["problem"].endswith("after 1 seconds")
    assert outcome["journal"] == [f"{HUB} line {number}" for number in range(80, 100)]


def test_a_server_that_accepts_and_says_nothing_does_not_hold_the_wait(hub):
    begin = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        outcome = tljh_service.ready({"http": {"port": silent.getsockname()[1]}}, timeout=1)
    assert not outcome["ready"]
    # Each of some five questions waits a second for its answer.
    assert time.monotonic() - begin < 60
    assert "does not answer" in outcome["problem"]


@pytest.mark.parametrize("unit", [HUB, PROXY])
def test_a_failed_unit_ends_the_wait(hub, config, unit):
    hub.unit(unit, ActiveState="failed", SubState="failed", Result="exit-code")
    outcome = tljh_service.ready(config, timeout=60)
    assert outcome["problem"] == f"{unit} failed (exit-code)"
    assert outcome["seconds"] < 5
    assert outcome["journal"][-1] == f"{unit} line 99"


@pytest.mark.parametrize("unit", [HUB, PROXY])
def test_a_unit_that_crashes_again_and_again_ends_the_wait(hub, config, unit):
    hub.unit(unit, NRestarts="57", way="crash")
    outcome = tljh_service.ready(config, timeout=60)
    assert outcome["problem"] == f"{unit} crashes again and again"
    assert outcome["seconds"] < 10


def test_restarts_of_long_ago_do_not_count(hub, config):
    hub.unit(HUB, NRestarts="57")
    assert tljh_service.ready(config, timeout=10)["ready"]


def test_a_stopped_unit_ends_the_wait_unless_a_job_is_queued(hub, config, monkeypatch):
    monkeypatch.setattr(tljh_service, "STOPPED", 0.5)
    hub.unit(HUB, ActiveState="inactive", SubState="dead")
    outcome = tljh_service.ready(config, timeout=60)
    assert outcome["problem"] == f"{HUB} is stopped"
    assert 0.4 < outcome["seconds"] < 10
    hub.unit(HUB, Job="12")
    outcome = tljh_service.ready(config, timeout=1.5)
    assert outcome["problem"] == f"{HUB} is inactive (dead) after 2 seconds"


def test_a_unit_that_does_not_exist_ends_the_wait(hub, config):
    hub.unit(HUB, LoadState="not-found", ActiveState="inactive", SubState="dead")
    outcome = tljh_service.ready(config, timeout=60)
    assert outcome["problem"] == f"{HUB} does not exist"
    assert not tljh_service.running()


def test_a_timeout_of_zero_looks_once(hub, config):
    hub.unit(HUB, ActiveState="activating", SubState="auto-restart")
    outcome = tljh_service.ready(config, timeout=0)
    assert outcome["problem"] == f"{HUB} is activating (auto-restart)"
    assert len(hub.calls("show")) == 1


def test_without_systemd_it_is_an_error(hub, config, monkeypatch):
    hub.set(broken=True)
    with pytest.raises(CommandExecutionError, match="has not been booted with systemd"):
        tljh_service.ready(config, timeout=0)
    monkeypatch.setattr(plasma_run, "PATH", str(hub.prefix))
    with pytest.raises(CommandExecutionError, match="systemctl cannot be run"):
        tljh_service.units()


def test_the_states_of_the_unit_that_count_as_running(hub):
    for state, running in [("active", True), ("activating", True), ("failed", True), ("inactive", False)]:
        hub.unit(HUB, ActiveState=state)
        assert tljh_service.running() is running
        assert (tljh_service.started("hub") is not None) is running
    assert tljh_service.started("proxy") <= time.monotonic()


# --- reload -----------------------------------------------------------------------------------------------------


def test_the_hub_is_restarted_and_waited_for(hub, config):
    outcome = tljh_service.reload("hub", hub.prefix, config, timeout=30)
    assert outcome["ready"]
    assert hub.calls("restart") == [HUB]
    assert hub.unit(HUB)["InvocationID"] == "id1"


def test_the_answer_of_the_hub_that_was_there_before_does_not_count(hub, config):
    # The job is queued and not carried out: the old hub goes on answering.
    hub.set(idle=True)
    outcome = tljh_service.reload("hub", hub.prefix, config, timeout=1)
    assert outcome["problem"] == f"{HUB} has not been restarted after 1 seconds"


def test_a_unit_that_failed_before_is_started_again(hub, config):
    hub.unit(PROXY, ActiveState="failed", SubState="failed")
    hub.unit(HUB, ActiveState="failed", SubState="failed")
    assert tljh_service.reload("hub", hub.prefix, config, timeout=30)["ready"]


@pytest.mark.parametrize("way", ["fail", "crash"])
@pytest.mark.parametrize("component", ["hub", "proxy"])
@pytest.mark.parametrize("unit", [HUB, PROXY])
def test_a_reload_that_cannot_work_is_given_up_early(hub, config, component, unit, way):
    hub.write("poison")
    hub.set(poison={unit: ["poison"]}, when_poisoned=way)
    if component == "hub" and unit == PROXY:
        hub.unit(PROXY, ActiveState="failed", SubState="failed")  # the hub's restart starts it
    outcome = tljh_service.reload(component, hub.prefix, config, timeout=60)
    assert not outcome["ready"]
    assert outcome["seconds"] < 15
    words = {"fail": "failed (exit-code)", "crash": "crashes again and again"}
    assert outcome["problem"] == f"{unit} {words[way]}"
    assert outcome["journal"][-1] == f"{unit} line 99"


def test_a_start_that_hangs_is_given_up_at_the_deadline(hub, config):
    hub.write("poison")
    hub.set(poison={PROXY: ["poison"]}, when_poisoned="hang")
    outcome = tljh_service.reload("proxy", hub.prefix, config, timeout=1)
    assert outcome["problem"] == f"{PROXY} has not started after 1 seconds"
    assert outcome["seconds"] < 4


def test_the_proxy_takes_the_hub_with_it_once(hub, config):
    outcome = tljh_service.reload("proxy", hub.prefix, config, timeout=30)
    assert outcome["ready"]
    assert hub.calls("restart") == [PROXY]
    assert [hub.unit(name)["InvocationID"] for name in (PROXY, HUB)] == ["id1", "id2"]


def test_a_hub_that_was_down_is_started_after_the_proxy(hub, config):
    hub.unit(HUB, ActiveState="inactive", SubState="dead")
    assert tljh_service.reload("proxy", hub.prefix, config, timeout=30)["ready"]
    assert hub.calls("restart") == [PROXY, HUB]


RENDER = """#!/bin/sh
echo "$TLJH_INSTALL_PREFIX $2" > {record}
{action}
"""


def tljh(hub, action):
    """The official provider, whose proxy is rendered by a function of its own."""
    record = hub.prefix / "record"
    hub.program(hub.prefix / "hub" / "bin" / "tljh-config", "")
    hub.program(hub.prefix / "hub" / "bin" / "python3", RENDER.format(record=record, action=action))
    return record


def test_with_tljh_its_own_function_renders_the_proxy(hub, config):
    record = tljh(hub, "")
    assert tljh_service.reload("proxy", hub.prefix, config, timeout=30)["ready"]
    assert record.read_text().startswith(f"{hub.prefix} from tljh import config, traefik")
    assert hub.calls("restart") == [PROXY]


def test_a_crash_loop_of_before_is_not_the_outcome(hub, config):
    hub.unit(PROXY, way="crash", NRestarts="1", ActiveState="activating")
    assert tljh_service.reload("proxy", hub.prefix, config, timeout=30)["ready"]


def test_the_reason_of_a_failed_rendering_is_given(hub, config):
    tljh(hub, "echo Traceback >&2; echo 'ValueError: To enable https, set a certificate.' >&2; exit 1")
    outcome = tljh_service.reload("proxy", hub.prefix, config, timeout=30)
    assert outcome["problem"] == "the proxy cannot be reloaded: ValueError: To enable https, set a certificate"
    assert outcome["journal"] == ["Traceback", "ValueError: To enable https, set a certificate."]
    assert hub.calls("restart") == []


def test_only_the_two_components_are_known(hub, config):
    for function in (tljh_service.reload, tljh_service.started):
        with pytest.raises(SaltInvocationError, match="must be hub or proxy"):
            function("traefik")
    assert hub.calls("restart") == []
