"""Private addresses and the host's own ports: closed, but for what ``plasma.network`` names."""

from __future__ import annotations

from contextlib import suppress

import pytest
from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool
from support_hub import free_port
from support_network import (
    INTERNET,
    METADATA,
    Outside,
    Servers,
    assert_closed,
    assert_open,
    from_container,
    ip,
)
from tljh_plasma import firewall, firewall_rules, network
from tljh_plasma.reach import Reach, entry

# Of every kind that is no address of the internet. Engines make networks in all but the first part of 172.16.0.0/12,
# and in 192.168.0.0/16.
PRIVATE = ("10.213.0.2", "100.77.0.2", "172.16.213.2", "192.0.0.192", "192.168.213.2", "198.18.213.2")


@pytest.fixture(scope="module")
def outside(docker_host):
    """The internet and the machines of a private network, behind the host."""
    made = Outside("plasmat-reach")
    # What the engine would make a network of, sooner or later, is taken; by now another network may have it.
    taken = []
    pool = IPAMConfig(pool_configs=[IPAMPool("192.168.208.0/20")])
    with suppress(APIError):
        taken.append(docker_host.networks.create("plasmat-taken", ipam=pool))
    for address in PRIVATE:
        ip("-n", made.name, "addr", "add", f"{address}/32", "dev", "lo")
        ip("route", "add", f"{address}/32", "via", INTERNET)
    yield made
    made.remove()
    for one in taken:
        one.remove()


def test_a16_private_addresses_are_closed_and_the_internet_is_not(make_network, outside):
    """The same targets before the rules (the attack), with them, and with what the operator allows."""
    net = make_network()
    inside = net.run()
    private = [f"{kind}|{address}|7777" for address in PRIVATE for kind in ("tcp", "udp")]
    world = [f"tcp|{INTERNET}|7777", f"udp|{INTERNET}|7777"]
    with Servers("tcp|0.0.0.0|7777", "udp|0.0.0.0|7777", "tcp|0.0.0.0|5432", namespace=outside.name):
        assert_open(from_container(inside, *private[::2], *world[:1]))
        net.protect()
        assert_closed(from_container(inside, *private))
        assert_open(from_container(inside, *world[:1]))
        database = "tcp|10.213.0.2|5432"
        assert_closed(from_container(inside, database))
        reach = Reach((entry("10.213.0.0/24:5432"), entry("192.168.213.2"), entry("169.254.0.0/16")))
        firewall.ensure(network.connect(), net.name, net.port, reach=reach)
        assert_open(from_container(inside, database, "tcp|192.168.213.2|7777", *world[:1]))
        metadata = [f"tcp|{address}|7777" for address in METADATA]
        assert_closed(from_container(inside, *private[:-4], *metadata))
        # And is closed again, as soon as it is looked at.
        firewall.ensure(network.connect(), net.name, net.port)
        assert_closed(from_container(inside, database, "tcp|192.168.213.2|7777"))


def test_ports_of_the_host_are_opened_one_by_one(net, inside):
    open_port, named, closed = free_port(), free_port(), free_port()
    gateway = net.gateway
    ports = {port: f"tcp|{gateway}|{port}" for port in (open_port, named, closed)}
    with Servers(*ports.values()):
        assert_closed(from_container(inside, *ports.values()))
        reach = Reach(
            (entry(f"{gateway}:{named}"), entry("/".join((gateway.rpartition(".")[0] + ".0", "24")))), (open_port,)
        )
        firewall.protect(net.attrs, net.port, reach)
        assert firewall.is_protected(net.attrs, net.port, reach)
        assert not firewall.is_protected(net.attrs, net.port)
        assert_open(from_container(inside, ports[open_port], ports[named]))
        # A network does not open the host that is in it.
        assert_closed(from_container(inside, ports[closed]))


def test_private_name_servers_go_on_working(make_network, outside, monkeypatch, tmp_path):
    """On port 53 alone: of the host's configuration, and of the engine's own."""
    resolv, daemon = tmp_path / "resolv.conf", tmp_path / "daemon.json"
    resolv.write_text("nameserver 10.213.0.2\n")
    daemon.write_text('{"dns": ["192.168.213.2", "fd00::1"], "log-driver": "local"}')
    monkeypatch.setattr(firewall_rules, "RESOLV_CONF", (resolv,))
    monkeypatch.setattr(firewall_rules, "DAEMON", daemon)
    net = make_network()
    inside = net.run()
    net.protect()
    with Servers("tcp|0.0.0.0|53", "tcp|0.0.0.0|54", namespace=outside.name):
        assert_open(from_container(inside, "tcp|10.213.0.2|53", "tcp|192.168.213.2|53"))
        assert_closed(from_container(inside, "tcp|10.213.0.2|54", "tcp|192.168.213.2|54", "tcp|172.16.213.2|53"))


@pytest.mark.parametrize(
    ("text", "names", "wanted"),
    [
        ("10.1.2.3", False, ("10.1.2.3/32", None)),
        ("10.1.2.0/24:5432", False, ("10.1.2.0/24", 5432)),
        ("Git.Example.org:443", True, ("git.example.org", 443)),
        ("gitlab", True, ("gitlab", None)),
        ("git.example.org", False, None),
        ("10.1.2.3/24", False, None),
        ("10.1.2.3:0", False, None),
        ("10.1.2.3:65536", True, None),
        ("10.1.2.3:", True, None),
        ("1.2.3", True, None),
        ("fd00::1", True, None),
        ("a b", True, None),
        ("-x", True, None),
        (5432, True, None),
    ],
)
def test_entries_say_what_they_mean(text, names, wanted):
    if wanted is None:
        with pytest.raises(ValueError, match=r".*"):
            entry(text, names=names)
    else:
        made = entry(text, names=names)
        assert (made.host, made.port) == wanted


def test_names_are_looked_up_and_unknown_ones_left_out():
    reach = Reach(
        (entry("localhost:80", names=True), entry("nowhere.invalid", names=True), entry("10.0.0.0/8"))
    ).resolved()
    assert [(one.host, one.port) for one in reach.allow] == [("127.0.0.1/32", 80), ("10.0.0.0/8", None)]
