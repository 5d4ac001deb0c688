"""What a container of the users' network reaches: attacks from real containers, before and after ``protect``.

Each attack is first seen to succeed on a network of the same kind without our rules, so that it cannot fail for
another reason.
"""

from __future__ import annotations

import functools
import json
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from support_containers import run_in
from support_hub import free_port, wait_until
from support_network import (
    INTERNET,
    METADATA,
    RESOLVED,
    Outside,
    Servers,
    from_container,
    from_host,
    from_namespace,
    host_addresses,
    iptables,
)
from tljh_plasma import firewall, firewall_rules, network

pytestmark = pytest.mark.docker

WEB = 8888
LISTEN = f"import http.server as h; h.ThreadingHTTPServer(('', {WEB}), h.SimpleHTTPRequestHandler).serve_forever()"


@dataclass
class Net:
    """A network as the hub makes it, with a container and a port that stands for the hub's."""

    name: str
    gateway: str
    port: int
    attrs: dict[str, Any]
    engine: Any
    image: str

    @property
    def bridge(self) -> str:
        return network.bridge_of(self.attrs)

    def run(self, **options: Any) -> Any:
        """Start a container with a web server, restricted as users' are, and wait for it."""
        restricted = {"network": self.name, "user": "1000", "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
        options["working_dir"] = "/tmp"
        made = self.engine.containers.run(
            self.image, ["-uc", LISTEN], entrypoint=["python3"], detach=True, **{**restricted, **options}
        )
        made.reload()
        wait_until(lambda: from_host(f"tcp|{address(made)}|{WEB}") == {f"tcp|{address(made)}|{WEB}": "open"}, 30, "web")
        return made

    def protect(self) -> None:
        firewall.protect(self.attrs, self.port)

    def remove(self) -> None:
        for container in self.engine.containers.list(all=True, filters={"network": self.name}):
            container.remove(force=True)
        self.engine.networks.get(self.name).remove()
        firewall.remove(self.attrs)


def address(container: Any) -> str:
    (found,) = container.attrs["NetworkSettings"]["Networks"].values()
    return found["IPAddress"]


@pytest.fixture(scope="module")
def make(docker_host, environment):
    """Factory of networks, removed at the end."""
    made = []

    def one(**options: Any) -> Net:
        name = f"plasmat-{secrets.token_hex(4)}"
        client = network.connect()
        if options:
            docker_host.networks.create(name, **options)
        gateway = network.ensure_network(client, name)
        made.append(Net(name, gateway, free_port(), client.inspect_network(name), docker_host, environment))
        return made[-1]

    yield one
    for net in made:
        net.remove()


@pytest.fixture(scope="module")
def bare(make):
    """A network without our rules, and a container on it."""
    net = make()
    return net, net.run()


@pytest.fixture(scope="module")
def protected(make):
    """A network with our rules, and a container on it."""
    net = make()
    net.protect()
    return net, net.run()


@pytest.fixture
def net(protected):
    """The network with our rules, repaired for the next test."""
    yield protected[0]
    protected[0].protect()


@pytest.fixture
def inside(protected):
    return protected[1]


@pytest.fixture(scope="module")
def outside():
    """The internet and a cloud's services."""
    namespace = Outside(f"plasmat-{secrets.token_hex(4)}")
    servers = [f"{kind}|{host}|7000" for kind in ("tcp", "udp") for host in (INTERNET, *METADATA)]
    servers += [f"{kind}|{host}|{port}" for kind, port in (("tcp", 80), ("dns", 53)) for host in (INTERNET, *METADATA)]
    with Servers(*servers, namespace=namespace.name):
        yield namespace
    namespace.remove()


def assert_open(results: dict[str, str]) -> None:
    """Every one answered."""
    assert results
    assert {target: said for target, said in results.items() if said != "open"} == {}


def assert_closed(results: dict[str, str]) -> None:
    """No one answered; a TCP port says so at once."""
    assert results
    wanted = {"tcp": "refused", "udp": ""}
    assert {target: said for target, said in results.items() if said == "open" or wanted[target[:3]] not in said} == {}


# The host.


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
    (docker0,) = (host for host in host_addresses() if host.startswith("172.17."))
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


# Keeping it so.


def show(program: str = "iptables") -> str:
    """All rules of the filter table, without the counters and remarks."""
    done = subprocess.run([f"{program}-save", "-t", "filter"], capture_output=True, text=True, check=True)
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("-A"))


def test_applying_again_changes_nothing(net):
    before = show(), show("ip6tables")
    for _ in range(3):
        net.protect()
    assert (show(), show("ip6tables")) == before
    assert firewall.is_protected(net.attrs, net.port)


def test_rules_of_others_are_left_alone(make):
    def others() -> list[str]:
        return [line for line in show().splitlines() if made.bridge not in line]

    made = make()
    before = others()
    made.protect()
    assert others() == before
    assert "PLASMA-IN-" + made.bridge in show()
    firewall.remove(made.attrs)
    assert others() == before
    assert f"PLASMA-IN-{made.bridge}" not in show() + show("ip6tables")


DAMAGE = {
    "chain to the host emptied": [("iptables", "-F {host}")],
    "chain through the host emptied": [("iptables", "-F {forward}")],
    "way to the host removed": [("iptables", "-D INPUT -i {bridge} -j {host}")],
    "way through the host removed": [("iptables", "-D DOCKER-USER -i {bridge} -j {forward}")],
    "way into containers removed": [("iptables", "-D DOCKER-USER -o {bridge} -j {forward}")],
    "all of ours removed": [
        ("iptables", "-D INPUT -i {bridge} -j {host}"),
        ("iptables", "-F {host}"),
        ("iptables", "-X {host}"),
    ],
    "something before ours": [("iptables", "-I INPUT -i {bridge} -j ACCEPT")],
    "something in ours": [("iptables", "-I {host} -p tcp -j ACCEPT")],
    "rule of the hub removed": [("iptables", "-D {host} 3")],
    "IPv6 emptied": [("ip6tables", "-F {host}")],
    "IPv6 way removed": [("ip6tables", "-D INPUT -i {bridge} -j {host}")],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_noticed_and_repaired(damage, net, inside):
    """A reload of the host's firewall, or an administrator with iptables."""
    client = network.connect()
    firewall.ensure(client, net.name, net.port)
    before = show(), show("ip6tables")
    assert firewall.is_protected(net.attrs, net.port)
    host, forward = firewall_rules.chain_names(net.bridge)
    for program, rule in DAMAGE[damage]:
        iptables(*rule.format(host=host, forward=forward, bridge=net.bridge).split(), program=program)
    assert not firewall.is_protected(net.attrs, net.port)
    # A check that is recent enough is relied on, where the caller says so.
    firewall.ensure(client, net.name, net.port, max_age=3600)
    assert not firewall.is_protected(net.attrs, net.port)
    firewall.ensure(client, net.name, net.port)
    assert firewall.is_protected(net.attrs, net.port)
    if damage == "something before ours":
        iptables("-D", "INPUT", "-i", net.bridge, "-j", "ACCEPT")
    assert (sorted(show().splitlines()), show("ip6tables")) == (sorted(before[0].splitlines()), before[1])
    port = free_port()
    hub = f"tcp|{net.gateway}|{net.port}"
    with Servers(hub, f"tcp|0.0.0.0|{port}"):
        assert_open(from_container(inside, hub))
        assert_closed(from_container(inside, f"tcp|{net.gateway}|{port}"))


HAMMER = """
import socket, sys, time
address, hub, other = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
counts = {"hub": 0, "refused": 0, "through": 0}
end = time.monotonic() + 4
while time.monotonic() < end:
    socket.create_connection((address, hub), 2).close()
    counts["hub"] += 1
    try:
        socket.create_connection((address, other), 2).close()
        counts["through"] += 1
    except ConnectionRefusedError:
        counts["refused"] += 1
print(counts["hub"], counts["refused"], counts["through"])
"""


def test_there_is_no_gap_while_rules_are_written(net, inside):
    """Neither for attackers nor for servers that talk to the hub."""
    port = free_port()
    writes = 0
    with Servers(f"tcp|{net.gateway}|{net.port}", f"tcp|0.0.0.0|{port}"):
        result = []
        arguments = ("python3", "-c", HAMMER, net.gateway, str(net.port), str(port))
        attack = threading.Thread(target=lambda: result.append(run_in(inside, *arguments)))
        attack.start()
        while attack.is_alive():
            net.protect()
            writes += 1
        attack.join()
    code, output = result[0]
    assert code == 0, output
    hub, refused, through = map(int, output.split())
    assert through == 0
    assert hub == refused > 200
    assert writes > 20


HOLD = """
import json, sys
from tljh_plasma import firewall
firewall.protect(json.loads(sys.argv[1]), int(sys.argv[2]))
print("protected", flush=True)
sys.stdin.read()
"""


def test_two_hubs_share_a_network(net, inside):
    """Neither locks the other's servers out, and the port of one that ended is closed again."""
    port = free_port()
    ours, theirs = f"tcp|{net.gateway}|{net.port}", f"tcp|{net.gateway}|{port}"
    with Servers(ours, theirs):
        other = subprocess.Popen(
            [sys.executable, "-c", HOLD, json.dumps(net.attrs), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout.readline() == "protected\n"
        assert_open(from_container(inside, ours, theirs))
        # Each takes the other's rule over, and then both are content.
        firewall.ensure(network.connect(), net.name, net.port)
        assert firewall.is_protected(net.attrs, net.port)
        assert_open(from_container(inside, ours, theirs))
        other.communicate("")
        assert not firewall.is_protected(net.attrs, net.port)
        net.protect()
        assert_open(from_container(inside, ours))
        assert_closed(from_container(inside, theirs))


def test_port_of_a_hub_may_change(net, inside):
    """The same hub with another port in its configuration."""
    port = free_port()
    before, after = f"tcp|{net.gateway}|{net.port}", f"tcp|{net.gateway}|{port}"
    with Servers(before, after):
        firewall.protect(net.attrs, port)
        assert_open(from_container(inside, after))
        assert_closed(from_container(inside, before))


def test_network_from_before_bridges_had_names(make):
    old = make(driver="bridge", options={network.ICC_OPTION: "false"})
    assert old.bridge == f"br-{old.attrs['Id'][:12]}"
    port = free_port()
    hub, other = f"tcp|{old.gateway}|{old.port}", f"tcp|{old.gateway}|{port}"
    with Servers(hub, other):
        container = old.run()
        assert_open(from_container(container, hub, other))
        old.protect()
        assert_open(from_container(container, hub))
        assert_closed(from_container(container, other))


WHOLE_TABLE = """
import json, subprocess, sys
from tljh_plasma import firewall
net = json.loads(sys.argv[1])
bridge = net["Options"]["com.docker.network.bridge.name"]
subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
for program in ("iptables", "ip6tables"):
    firewall.protect(net, 15001)
    assert firewall.is_protected(net, 15001)
    before = firewall.tables(program).rules()
    # No Docker here: the way leads through FORWARD itself.
    assert any(rule.startswith(f"-A FORWARD -i {bridge}") for rule in before["FORWARD"]), before
    for flush in (["-F"], ["-X"]):
        subprocess.run([program, *flush], check=True)
        assert not firewall.is_protected(net, 15001)
    firewall.protect(net, 15001)
    assert firewall.is_protected(net, 15001)
    assert firewall.tables(program).rules() == before
# Docker comes, and with it the chain to use.
for rule in ("-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-I FORWARD -j DOCKER-USER"):
    subprocess.run(["iptables", *rule.split()], check=True)
assert not firewall.is_protected(net, 15001)
firewall.protect(net, 15001)
rules = firewall.tables("iptables").rules()
assert rules["FORWARD"] == ["-A FORWARD -j DOCKER-USER"]
assert [rule.split("-j ")[1] for rule in rules["DOCKER-USER"]] == [f"PLASMA-FW-{bridge}"] * 2 + ["RETURN"]
firewall.remove(net)
assert firewall.tables("iptables").rules()["DOCKER-USER"] == ["-A DOCKER-USER -j RETURN"]
"""


@pytest.mark.parametrize("tools", ["", "-legacy"])
def test_whole_table_flushed(tools, protected):
    """``iptables -F``: in a network namespace of its own, where it is nobody else's table."""
    name = f"plasmat-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        code = WHOLE_TABLE.replace("net = ", f"firewall.VARIANTS = ({tools!r},)\nnet = ", 1)
        for program in ("iptables", "ip6tables"):
            code = code.replace(f'["{program}"', f'["{program}{tools}"')
        code = code.replace("[program,", f"[program + {tools!r},")
        command = ["ip", "netns", "exec", name, sys.executable, "-c", code, json.dumps(protected[0].attrs)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_check_is_cheap(net):
    """Before each start of a server: nothing that a person notices."""
    client = network.connect()
    firewall.ensure(client, net.name, net.port)
    start = time.monotonic()
    for _ in range(20):
        firewall.ensure(client, net.name, net.port)
    assert (time.monotonic() - start) / 20 < 0.25
