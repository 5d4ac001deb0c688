"""The private network, on a real engine."""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest
from tljh_plasma import network
from tljh_plasma.network import NetworkError


@pytest.fixture
def name(docker_host):
    name = f"plasmat-{secrets.token_hex(4)}"
    yield name
    for made in docker_host.networks.list(names=[name]):
        made.remove()


@pytest.mark.docker
def test_network_is_made_once_and_keeps_containers_apart(docker_host, name):
    client = network.connect()
    address = network.ensure_network(client, name)
    assert network.ensure_network(client, name) == address
    (made,) = docker_host.networks.list(names=[name])
    assert made.attrs["Options"]["com.docker.network.bridge.enable_icc"] == "false"
    # The engine's configured MTU is the default bridge's only, unless it is asked for.
    default = docker_host.networks.list(names=["bridge"])[0].attrs["Options"]
    assert made.attrs["Options"].get(network.MTU_OPTION) == default.get(network.MTU_OPTION)
    # The hub can listen there: it is an address of this host.
    with socket.socket() as probe:
        probe.bind((address, 0))


@pytest.mark.docker
def test_hubs_starting_at_once_agree(docker_host, name):
    def one(_):
        client = network.connect()
        return network.ensure_network(client, name)

    with ThreadPoolExecutor(6) as pool:
        addresses = set(pool.map(one, range(6)))
    assert len(addresses) == 1
    assert len(docker_host.networks.list(names=[name])) == 1


@pytest.mark.docker
def test_longer_names_are_other_networks(docker_host, name):
    docker_host.networks.create(f"{name}-more", options={network.ICC_OPTION: "false"})
    network.ensure_network(network.connect(), name)
    assert {made.name for made in docker_host.networks.list(names=[name])} == {name, f"{name}-more"}


@pytest.mark.docker
def test_network_that_lets_containers_talk_is_refused(docker_host, name):
    docker_host.networks.create(name)
    with pytest.raises(NetworkError, match=f"docker network rm {name}"):
        network.ensure_network(network.connect(), name)


@pytest.mark.docker
def test_bridge_has_a_name_of_its_own(docker_host, name):
    """Ten characters of the network's id would say nothing to an administrator, and change with each network."""
    client = network.connect()
    address = network.ensure_network(client, name)
    described = client.inspect_network(name)
    bridge = network.bridge_of(described)
    assert bridge == network.name_of_bridge(name)
    shown = subprocess.run(
        ["ip", "-4", "-o", "addr", "show", "dev", bridge], capture_output=True, text=True, check=True
    )
    assert f" {address}/" in shown.stdout
    assert described["EnableIPv6"] is False


@pytest.mark.docker
def test_network_from_before_bridges_had_names_is_taken(docker_host, name):
    docker_host.networks.create(name, options={network.ICC_OPTION: "false"})
    client = network.connect()
    address = network.ensure_network(client, name)
    bridge = network.bridge_of(client.inspect_network(name))
    shown = subprocess.run(
        ["ip", "-4", "-o", "addr", "show", "dev", bridge], capture_output=True, text=True, check=True
    )
    assert f" {address}/" in shown.stdout


@pytest.mark.docker
def test_network_with_ipv6_is_refused(docker_host, name):
    pool = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet="fd00:7a5:1::/64")])
    docker_host.networks.create(name, options={network.ICC_OPTION: "false"}, enable_ipv6=True, ipam=pool)
    with pytest.raises(NetworkError, match=f"has IPv6.*docker network rm {name}"):
        network.ensure_network(network.connect(), name)


@pytest.mark.docker
def test_name_of_the_bridge_may_be_taken(docker_host, name, monkeypatch):
    """Then the engine's reason is said, once it is certain that nobody else is making this very network."""
    other = docker_host.networks.create(f"{name}-other", options={network.BRIDGE_OPTION: network.name_of_bridge(name)})
    monkeypatch.setattr(network, "MAKING", 0.3)
    with pytest.raises(NetworkError, match=f"could not create the network '{name}'.*same bridge name"):
        network.ensure_network(network.connect(), name)
    other.remove()


@pytest.mark.parametrize(
    ("name", "bridge"),
    [("plasma", "br-plasma"), ("exactly-12ch", "br-exactly-12ch"), ("a", "br-a")],
)
def test_short_names_are_bridges_names(name, bridge):
    assert network.name_of_bridge(name) == bridge


def test_long_names_are_shortened_and_told_apart():
    names = [f"teaching-{number}-" + "x" * 20 for number in range(500)]
    bridges = {network.name_of_bridge(name) for name in names}
    assert len(bridges) == 500
    assert {len(bridge) for bridge in bridges} == {network.BRIDGE_NAME_MAX}
    assert all(bridge.startswith("br-teach-") for bridge in bridges)
    # The same each time: hubs that start at once must agree.
    assert network.name_of_bridge(names[0]) == network.name_of_bridge(names[0])


def test_silent_docker_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    start = time.monotonic()
    with pytest.raises(NetworkError, match="systemctl start docker"):
        network.connect(timeout=0.3, interval=0.1)
    assert 0.3 <= time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("config", "address"),
    [
        ([{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}], "172.18.0.1"),
        ([{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.9/16"}], "172.18.0.9"),
        ([{"Subnet": "10.5.0.0/24"}], "10.5.0.1"),
        ([{"Subnet": "fd00::/64", "Gateway": "fd00::1"}, {"Subnet": "10.5.0.0/24"}], "10.5.0.1"),
    ],
)
def test_gateway(config, address):
    assert network.gateway_address({"Name": "plasma", "IPAM": {"Config": config}}) == address


@pytest.mark.parametrize("ipam", [None, {}, {"Config": None}, {"Config": [{"Subnet": "fd00::/64"}]}])
def test_network_without_ipv4_is_said(ipam):
    with pytest.raises(NetworkError, match="no IPv4 subnet"):
        network.gateway_address({"Name": "plasma", "IPAM": ipam})
