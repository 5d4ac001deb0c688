"""What a container of the users' network reaches: attacks from real containers, before and after ``protect``.

Each attack is first seen to succeed on a network of the same kind without our rules, so that it cannot fail for
another reason.
"""

from __future__ import annotations

import functools
import secrets
import subprocess
from typing import Any

import pytest
import requests
from support_containers import run_in
from support_hub import free_port, wait_until
from support_network import (
    INTERNET,
    LISTEN,
    METADATA,
    RESOLVED,
    WEB,
    Outside,
    Servers,
    address,
    assert_closed,
    assert_open,
    from_container,
    from_host,
    from_namespace,
    host_addresses,
    iptables,
)
from tljh_plasma import firewall, firewall_rules

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def bare(make_network):
    """A network without our rules, and a container on it."""
    net = make_network()
    return net, net.run()


@pytest.fixture(scope="module")
def outside():
    """The internet and a cloud's services."""
    namespace = Outside(f"plasmat-{secrets.token_hex(4)}")
    servers = [f"{kind}|{host}|7000" for kind in ("tcp", "udp") for host in (INTERNET, *METADATA)]
    servers += [f"{kind}|{host}|{port}" for kind, port in (("tcp", 80), ("dns", 53)) for host in (INTERNET, *METADATA)]
    with Servers(*servers, namespace=namespace.name):
        yield namespace
    namespace.remove()


def test_host_is_closed_on_all_its_addresses(net, inside, bare):
    """sshd, the proxy, cockpit, databases: whatever listens on any address of the host."""
    port = free_port()
    other_net, other = bare
    # UDP on each address: the answer of one that listens on all would come from another address.
    with Servers(f"tcp|0.0.0.0|{port}", *[f"udp|{host}|{port}" for host in host_addresses()]):
        everywhere = [f"{kind}|{host}|{port}" for kind in ("tcp", "udp") for host in host_addresses()]
        # Among them the gateways of this network, of others and of Docker's default one.
        assert any(net.gateway in target for target in everywhere)
        assert any(other_net.gateway in target for target in everywhere)
        assert len(everywhere) >= 6
        assert_open(from_host(*everywhere))
        assert_open(from_container(other, *everywhere))
        assert_closed(from_container(inside, *everywhere))


def test_only_the_hub_is_reached(net, inside):
    """One port, on one address, by one protocol."""
    hub = f"tcp|{net.gateway}|{net.port}"
    others = [f"udp|{net.gateway}|{net.port}"]
    others += [f"tcp|{host}|{net.port}" for host in host_addresses() if host != net.gateway]
    with Servers(hub, *others):
        assert_open(from_host(hub, *others))
        assert_open(from_container(inside, hub))
        assert_closed(from_container(inside, *others))


def test_host_may_be_the_name_server(net, inside, tmp_path, monkeypatch):
    """Where the host's own resolv.conf names the host, containers ask it: that port alone."""
    (docker0,) = host_addresses("dev", "docker0")
    conf = tmp_path / "resolv.conf"
    conf.write_text(f"# comment\nnameserver\nnameserver ::1\nnameserver 127.0.0.53\nnameserver {docker0}\n")
    port = free_port()
    with Servers(f"dns|{docker0}|53", f"udp|{docker0}|{port}"):
        asker = net.run(dns=[docker0])
        ask = ("python3", "-c", "import socket; print(socket.gethostbyname('course.example.org'))")
        assert run_in(asker, *ask)[0] != 0
        monkeypatch.setattr(firewall_rules, "RESOLV_CONF", (tmp_path / "none", conf))
        assert not firewall.is_protected(net.attrs, net.port)
        net.protect()
        assert run_in(asker, *ask) == (0, f"{RESOLVED}\n")
        assert_closed(from_container(asker, f"udp|{docker0}|{port}"))


# As many connections as the argument says, each seen to be there by its answer; prints how many there were.
FLOOD = """
import socket, sys
made = 0
for port in range(10000, 10000 + int(sys.argv[2])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("", port))
        client.settimeout(2)
        client.connect((sys.argv[1], 7000))
        try:
            client.send(b"hello")
            client.recv(100)
        except OSError:
            break
    made += 1
print(made)
"""


def test_nobody_fills_the_kernels_table_of_connections(net, outside, bare, monkeypatch):
    """It is everybody's: once it was full, no login came through."""
    assert firewall_rules.FLOWS_OUT == 4000
    assert run_in(bare[1], "python3", "-c", FLOOD, INTERNET, "6000") == (0, "6000\n")
    # Fewer, as the kernel forgets them after half a minute, which so many may take on a busy machine.
    monkeypatch.setattr(firewall_rules, "FLOWS_OUT", 200)
    net.protect()
    flooding, neighbour = net.run(), net.run()
    code, made = run_in(flooding, "python3", "-c", FLOOD, INTERNET, "400")
    assert code == 0
    assert 0 < int(made) <= 200
    assert_closed(from_container(flooding, f"tcp|{INTERNET}|7000"))
    # Not a way to keep others out.
    assert_open(from_container(neighbour, f"tcp|{INTERNET}|7000", f"udp|{INTERNET}|7000"))


def test_no_ipv6(net, inside, bare):
    """Containers have none. Should one get it, the host's address on the bridge is closed too."""
    assert run_in(inside, "cat", "/proc/net/if_inet6") == (0, "")
    port = free_port()
    on = {
        "cap_add": ["NET_ADMIN"],
        "sysctls": {"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.disable_ipv6": "0"},
    }
    with Servers(f"tcp|::|{port}"):
        # Not even the host's hardware address is told, so this one is not refused at once.
        for where, answer in ((bare[0], "open"), (net, "timed out")):
            container = where.run(**on)
            host = link_local(where.bridge)
            # The kernel looks for somebody else with the address before it may be used: flags 80 and no longer c0.
            usable = ("grep", "20 80 .*eth0", "/proc/net/if_inet6")
            wait_until(functools.partial(succeeds, container, *usable), 20, "IPv6 address")
            (said,) = from_container(container, f"tcp|{host}%eth0|{port}").values()
            assert said == answer


def succeeds(container: Any, *command: str) -> bool:
    return run_in(container, *command)[0] == 0


def link_local(bridge: str) -> str:
    shown = subprocess.run(
        ["ip", "-6", "-o", "addr", "show", "dev", bridge], capture_output=True, text=True, check=True
    )
    return next(word.partition("/")[0] for word in shown.stdout.split() if word.startswith("fe80:"))


# Through the host.


def test_internet_is_reached(net, inside, outside):
    assert_open(from_container(inside, *[f"{kind}|{INTERNET}|7000" for kind in ("tcp", "udp")]))


def test_metadata_services_are_closed(inside, bare, outside):
    services = [
        f"{kind}|{host}|{port}" for host in METADATA for kind, port in (("tcp", 80), ("tcp", 7000), ("udp", 7000))
    ]
    assert_open(from_host(*services))
    assert_open(from_container(bare[1], *services))
    assert_closed(from_container(inside, *services))


@pytest.mark.parametrize("server", [INTERNET, METADATA[0]])
def test_names_are_resolved(net, server, outside):
    """By Docker's resolver, from a name server outside; in some clouds that has the metadata service's address."""
    asker = net.run(dns=[server])
    ask = ("python3", "-c", "import socket; print(socket.gethostbyname('course.example.org'))")
    assert run_in(asker, *ask) == (0, f"{RESOLVED}\n")


def test_containers_do_not_reach_one_another(net, inside):
    other = net.run()
    assert_closed(from_container(inside, f"tcp|{address(other)}|{WEB}"))
    assert_closed(from_container(other, f"tcp|{address(inside)}|{WEB}"))


def test_containers_of_other_networks_are_closed(net, inside, bare, docker_host, environment):
    """By their addresses and by ports that they publish on the host."""
    port = free_port()
    other_net, other = bare
    published = other_net.run(ports={f"{WEB}/tcp": port})
    default = docker_host.containers.run(
        environment, ["-uc", LISTEN], entrypoint=["python3"], detach=True, network="bridge"
    )
    try:
        default.reload()
        direct = [f"tcp|{address(container)}|{WEB}" for container in (other, published, default)]
        wait_until(lambda: set(from_host(*direct).values()) == {"open"}, 30, "web")
        ports = [f"tcp|{host}|{port}" for host in host_addresses()]
        assert_open(from_container(other, *ports))
        assert_closed(from_container(inside, *ports))
        assert "open" not in from_container(inside, *direct).values()
        # And from there to us.
        assert "open" not in from_container(default, f"tcp|{address(inside)}|{WEB}").values()
    finally:
        default.remove(force=True)


def test_ports_that_the_kernel_leads_elsewhere_are_closed(net, inside, bare, outside):
    """Newer engines lead published ports into other networks in the kernel, past the host's INPUT."""
    port = free_port()
    # Not refused at once: an answer would not be led back.
    for where, container, expected in ((bare[0], bare[1], "open"), (net, inside, "timed out")):
        lead = ["-t", "nat", "PREROUTING", "-i", where.bridge, "-p", "tcp", "-d", Outside.HOST, "--dport", str(port)]
        lead += ["-j", "DNAT", "--to-destination", f"{INTERNET}:80"]
        iptables(*lead[:2], "-I", *lead[2:])
        try:
            assert list(from_container(container, f"tcp|{Outside.HOST}|{port}").values()) == [expected]
        finally:
            iptables(*lead[:2], "-D", *lead[2:])


def test_nobody_outside_reaches_containers(net, inside, bare, outside):
    """A neighbour of the host who knows the addresses, where the host forwards for everybody."""
    permissive = ["DOCKER-USER", "-i", outside.link, "-j", "ACCEPT"]
    iptables("-I", *permissive)
    try:
        net.protect()  # puts its rules first
        assert_open(from_namespace(outside.name, f"tcp|{address(bare[1])}|{WEB}"))
        assert_closed(from_namespace(outside.name, f"tcp|{address(inside)}|{WEB}"))
    finally:
        iptables("-D", *permissive)


def test_proxy_reaches_containers(net, inside):
    """The proxy and the hub connect from the host; whatever comes back passes, large answers too."""
    code, output = run_in(inside, "sh", "-c", "head -c 30000000 /dev/zero >large")
    assert code == 0, output
    answer = requests.get(f"http://{address(inside)}:{WEB}/large", timeout=60)
    assert (answer.status_code, len(answer.content)) == (200, 30_000_000)
