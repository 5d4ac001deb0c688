"""The rules stay: written without a gap, noticed and repaired when they are damaged, shared by several hubs."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
import time

import pytest
from support_containers import run_in
from support_hub import free_port
from support_network import (
    Servers,
    assert_closed,
    assert_open,
    from_container,
    iptables,
)
from tljh_plasma import firewall, firewall_rules, network

pytestmark = pytest.mark.docker


def shown(net) -> list[list[str]]:
    """All rules that mention the network, as the tools show them."""
    return [
        [rule for chain in firewall.tables(name).rules().values() for rule in chain if net.bridge in rule]
        for name in ("iptables", "ip6tables")
    ]


def test_applying_again_changes_nothing(net):
    before = shown(net)
    assert min(map(len, before)) >= 7
    for _ in range(3):
        net.protect()
    assert shown(net) == before
    assert firewall.is_protected(net.attrs, net.port)


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
    "something before Docker's": [("iptables", "-I FORWARD -i {bridge} -j ACCEPT")],
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
    before = shown(net)
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
    if damage.startswith("something before"):
        iptables(*DAMAGE[damage][0][1].format(bridge=net.bridge).replace("-I", "-D", 1).split())
        # As it was, where the chains were entered elsewhere meanwhile.
        firewall.ensure(client, net.name, net.port)
    assert shown(net) == before
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


def test_network_from_before_bridges_had_names(make_network):
    old = make_network(driver="bridge", options={network.ICC_OPTION: "false"})
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
net, tools = json.loads(sys.argv[1]), sys.argv[2]
firewall.VARIANTS = (tools,)
bridge = net["Options"]["com.docker.network.bridge.name"]
subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)

def run(program, *rules):
    for rule in rules:
        subprocess.run([program + tools, *rule.split()], check=True)

def rules(program):
    return firewall.Tables(program, tools).rules()

# Somebody else's rules stay.
run("iptables", "-P INPUT DROP", "-N THEIRS", "-A THEIRS -j RETURN", "-A INPUT -j THEIRS", "-A INPUT -i lo -j ACCEPT")
theirs = rules("iptables")
firewall.protect(net, 15001)
firewall.protect(net, 15001)
ours = rules("iptables")
assert ours["INPUT"] == [f"-A INPUT -i {bridge} -j PLASMA-IN-{bridge}", *theirs["INPUT"]], ours
# No Docker here: the way leads through FORWARD itself.
assert [rule.split("-j ")[1] for rule in ours["FORWARD"]] == [f"PLASMA-FW-{bridge}"] * 2, ours
firewall.remove(net)
assert rules("iptables") == theirs

for program in ("iptables", "ip6tables"):
    run(program, "-F", "-X")
    firewall.protect(net, 15001)
    before = rules(program)
    for flush in ("-F", "-X"):
        run(program, flush)
        assert not firewall.is_protected(net, 15001)
    firewall.protect(net, 15001)
    assert firewall.is_protected(net, 15001)
    assert rules(program) == before

# Docker comes, and with it the chain to use.
run("iptables", "-N DOCKER-USER", "-A DOCKER-USER -j RETURN", "-I FORWARD -j DOCKER-USER")
assert not firewall.is_protected(net, 15001)
firewall.protect(net, 15001)
ours = rules("iptables")
assert ours["FORWARD"] == ["-A FORWARD -j DOCKER-USER"]
assert [rule.split("-j ")[1] for rule in ours["DOCKER-USER"]] == [f"PLASMA-FW-{bridge}"] * 2 + ["RETURN"]
"""


@pytest.mark.parametrize("tools", ["", "-legacy"])
def test_whole_table(tools, protected):
    """``iptables -F``, and other people's rules: in a network namespace, where the table is ours."""
    name = f"plasmat-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        arguments = [sys.executable, "-c", WHOLE_TABLE, json.dumps(protected[0].attrs), tools]
        done = subprocess.run(["ip", "netns", "exec", name, *arguments], capture_output=True, text=True)
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
