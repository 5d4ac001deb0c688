"""Limits and isolation of running servers (weaknesses 9 and 12), and what happens around their start and end."""

from __future__ import annotations

import contextlib
import subprocess
import time

import pytest
import requests
from support_containers import process_status, run_in
from support_hub import container_name, free_port, wait_until
from support_network import (
    Servers,
    assert_closed,
    assert_open,
    from_container,
    from_host,
    host_addresses,
    iptables,
)
from tljh_plasma import firewall_rules, firewall_upkeep, network, spawner

pytestmark = pytest.mark.docker

GIB = 1024**3


def test_9_containers_hold_no_privileges(container):
    """Default capabilities, privileges to gain, any number of processes."""
    for status in process_status(container):
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, (status["Name"], kind)
        assert status["NoNewPrivs"].strip() == "1"
        assert status["Seccomp"].strip() == "2"
    host = container.attrs["HostConfig"]
    assert host["PidsLimit"] == 1024
    assert host["Memory"] == host["MemorySwap"] == GIB // 2
    assert host["CpuQuota"] == host["CpuPeriod"]
    assert not host["Privileged"]


def test_9_fork_bomb_ends_at_the_limit(container, hub):
    """Processes are limited, and the hub goes on."""
    code = (
        "import os, time\n"
        "n = 0\n"
        "try:\n"
        "    while n < 5000:\n"
        "        if os.fork() == 0: time.sleep(3600)\n"
        "        n += 1\n"
        "except BlockingIOError: pass\n"
        "print(n)\n"
        "os.killpg(0, 9)\n"
    )
    _, output = run_in(container, "setsid", "-w", "python3", "-uc", code)
    assert 500 < int(output.split()[0]) < 1024
    assert requests.get(f"{hub.url}/hub/login", timeout=10).status_code == 200


def test_9_servers_do_not_reach_one_another(container, alice, docker_host, hub):
    """Every container reached every other on the bridge."""
    other = docker_host.containers.get(container_name(alice.name))
    (attached,) = other.attrs["NetworkSettings"]["Networks"].values()
    server = f"tcp|{attached['IPAddress']}|8888"
    # It does answer: to itself, and to the host.
    assert from_container(other, server) == {server: "open"}
    assert requests.get(f"http://{attached['IPAddress']}:8888/user/{alice.name}/api", timeout=10).status_code == 200
    assert_closed(from_container(container, server))


def test_9_servers_reach_the_hub_and_nothing_else_of_the_host(container, hub):
    """sshd, the proxy and everything else that listens on the host."""
    (attached,) = container.attrs["NetworkSettings"]["Networks"].values()
    assert_open(from_container(container, f"tcp|{attached['Gateway']}|{hub.hub_port}"))
    port = free_port()
    with Servers(f"tcp|0.0.0.0|{port}", *[f"udp|{address}|{port}" for address in host_addresses()]):
        everywhere = [f"{kind}|{address}|{port}" for kind in ("tcp", "udp") for address in host_addresses()]
        assert_open(from_host(*everywhere))
        assert_closed(from_container(container, *everywhere))


@pytest.fixture
def flushed(container):
    """A port of the host's that is open to the container, as after a reload of the host's firewall."""
    ((name, attached),) = container.attrs["NetworkSettings"]["Networks"].items()
    bridge = network.bridge_of(network.connect().inspect_network(name))
    target = f"tcp|{attached['Gateway']}|{free_port()}"

    def is_open():
        # The hub may look at any moment, and put back what is taken away.
        with contextlib.suppress(subprocess.CalledProcessError):
            iptables("-D", "INPUT", "-i", bridge, "-j", firewall_rules.chain_names(bridge)[0])
        return from_container(container, target)[target] == "open"

    with Servers(target):
        wait_until(is_open, 30, "open port")
        yield target


def test_9_flushed_firewall_is_repaired_before_a_server_starts(flushed, container, alice, environment, hub):
    """What a reload of the host's firewall does, to this network alone."""
    # Until the hub's last look at the firewall no longer counts.
    time.sleep(spawner.FIREWALL_MAX_AGE)
    assert hub.spawn(alice.name, environment, server="after").status_code in (201, 202)
    try:
        assert_closed(from_container(container, flushed))
    finally:
        hub.stop_server(alice.name, "after")


def test_a12_flushed_firewall_is_repaired_while_nobody_starts_a_server(flushed, container, hub):
    """As often as the documentation says."""
    closed = firewall_upkeep.INTERVAL + 3
    wait_until(lambda: from_container(container, flushed)[flushed] != "open", closed, "the repair", interval=0.5)
    assert_closed(from_container(container, flushed))


@pytest.mark.parametrize(("memory", "cpu"), [("", ""), ("0", "0"), ("lots", "-1")])
def test_12_environment_without_limits_gets_the_defaults(memory, cpu, hub, alice, images, docker_host):
    """An environment built by API without limits ran without any."""
    image = images("plasmat-unlimited:1", "unlimited", memory, cpu)
    answer = hub.spawn(alice.name, image, server="unlimited")
    assert answer.status_code in (201, 202), answer.text
    host = docker_host.containers.get(container_name(alice.name, "unlimited")).attrs["HostConfig"]
    hub.stop_server(alice.name, "unlimited")
    assert host["Memory"] == host["MemorySwap"] == 2 * GIB
    assert host["CpuQuota"] / host["CpuPeriod"] == 2


def test_failed_start_is_explained_and_leaves_no_container(hub, alice, images, docker_host):
    """Docker keeps a container that it created but could not start."""
    # A file where a directory is mounted.
    image = images("plasmat-broken:1", "broken", commands="USER root\nRUN rm -rf /var/tmp && touch /var/tmp")
    answer = hub.spawn(alice.name, image, server="broken")
    assert answer.status_code == 500
    assert "problem with its container" in answer.json()["message"]
    name = container_name(alice.name, "broken")
    assert not docker_host.containers.list(all=True, filters={"name": name})


def test_hub_restart_leaves_servers_running(hub, alice, docker_host):
    """The hub restarts; the person's server and its address stay."""
    before = docker_host.containers.get(container_name(alice.name)).id
    hub.stop_process("hub")
    hub.start_hub()
    assert hub.api("GET", f"/users/{alice.name}").json()["servers"][""]["ready"]
    assert docker_host.containers.get(container_name(alice.name)).id == before
    headers = {"Authorization": f"token {hub.user_token(alice.name)}"}
    address = f"{hub.url}/user/{alice.name}/api/status"
    wait_until(lambda: requests.get(address, headers=headers, timeout=10).status_code == 200, 30, "server")
    # And the pages still say what it is.
    session, _ = hub.login(alice.name, alice.password)
    home = session.get(f"{hub.url}/hub/home", timeout=30).text
    assert "plasmat-course</span>" in home
    assert "0.5 GB of memory, 1 CPU" in home


def test_server_that_ends_by_itself_is_noticed_and_removed(hub, accounts, environment, docker_host):
    """The engine does not remove containers (it would also do so when it restarts): the hub does."""
    person = accounts.add("dave")
    assert hub.spawn(person.name, environment).status_code in (201, 202)
    name = container_name(person.name)
    server = docker_host.containers.get(name)
    assert server.attrs["HostConfig"]["AutoRemove"] is False
    server.kill()
    wait_until(lambda: hub.api("GET", f"/users/{person.name}").json()["servers"] == {}, 90, "the hub's notice")
    wait_until(lambda: not docker_host.containers.list(all=True, filters={"name": name}), 30, "removal")
    # And it can be started again.
    assert hub.spawn(person.name, environment).status_code in (201, 202)
    hub.stop_server(person.name)
    wait_until(lambda: not docker_host.containers.list(all=True, filters={"name": name}), 30, "removal")
