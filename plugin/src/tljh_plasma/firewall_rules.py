"""The rules of the firewall around the users' network, as text (see ``firewall``)."""

from __future__ import annotations

import json
import os
import re
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any

from .reach import INTERNET, PRIVATE, Reach

# Where clouds hand out credentials: link-local (nearly all), Azure's host agent, Alibaba.
METADATA = ("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32")
RESOLV_CONF = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
# Its own name servers, where an administrator told the engine any.
DAEMON = Path("/etc/docker/daemon.json")
OWNER = "plasma-hub"


def chain_names(bridge: str) -> tuple[str, str]:
    """Return the names of a bridge's two chains: towards the host, and through it."""
    return f"PLASMA-IN-{bridge}", f"PLASMA-FW-{bridge}"


def reject(match: str = "") -> list[str]:
    """Refuse at once rather than let programs wait; TCP by a reset, because the kernel limits the rate of the other."""
    return [f"{match} -p tcp -j REJECT --reject-with tcp-reset".lstrip(), f"{match} -j REJECT".lstrip()]


def resolvers() -> list[str]:
    """Return the IPv4 name servers that Docker hands to containers, where the host has configured any.

    Docker's resolver asks them from within the container, and one of them may be the host itself.
    """
    found = _engines_resolvers()
    for path in RESOLV_CONF:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        for words in map(str.split, lines):
            if len(words) < 2 or words[0] != "nameserver":
                continue
            try:
                address = IPv4Address(words[1])
            except AddressValueError:
                continue
            if not address.is_loopback:
                found.add(str(address))
    return sorted(found)


def _engines_resolvers() -> set[str]:
    try:
        named = json.loads(DAEMON.read_text(encoding="utf-8")).get("dns") or []
        return {str(IPv4Address(address)) for address in named if ":" not in address}
    except (OSError, ValueError, TypeError, AttributeError):
        return set()


def host_rules(chain: str, gateway: str, hubs: list[tuple[int, str]], reach: Reach = INTERNET) -> list[str]:
    """Rules for packets from the bridge to the host itself."""
    rules = [
        # Replies to the proxy and the hub, which do connect to containers.
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        # A packet that belongs to nothing must not make us reset a connection.
        "-m conntrack --ctstate INVALID -j DROP",
    ]
    for port, owner in hubs:
        rules.append(f"-d {gateway}/32 -p tcp -m tcp --dport {port} -m comment --comment {owner} -j ACCEPT")
    for address in resolvers():
        for protocol in ("udp", "tcp"):
            rules.append(f"-d {address}/32 -p {protocol} -m {protocol} --dport 53 -j ACCEPT")
    rules += [f"-p tcp -m tcp --dport {port} -j ACCEPT" for port in reach.host_ports]
    # A network does not open the host that is in it, sshd and all.
    rules += [f"{match} -j ACCEPT" for match in _allowed(reach) if "/32" in match]
    return [f"-A {chain} {rule}" for rule in [*rules, *reject()]]


def _allowed(reach: Reach) -> list[str]:
    """Return what matches packets to the addresses that are allowed beside the internet's."""
    return [
        f"-d {one.host}" + (f" -p {protocol} -m {protocol} --dport {one.port}" if one.port else "")
        for one in reach.allow
        for protocol in (("tcp", "udp") if one.port else ("",))
    ]


def shared_rules(network: dict[str, Any], name: str) -> list[str]:
    """Rules, before the others, for a bridge that is not ours alone: what the containers of others do passes.

    They are known by their port of the bridge (see ``network.ports_of``), too: a step of a build may get the address
    of one that has just ended. IPv6 has no such match where the kernel does not filter it within a bridge.

    Args:
        network: what Docker says of the network, with "Ports".
        name: "iptables" or "ip6tables".
    """
    found = []
    for container, port in sorted(network["Ports"].items()):
        attached = network["Containers"][container]
        if name == "iptables" and (address := (attached.get("IPv4Address") or "").partition("/")[0]):
            found.append(f"-s {address}/32 -m physdev --physdev-in {port} -j RETURN")
        elif name == "ip6tables" and (address := (attached.get("IPv6Address") or "").partition("/")[0]):
            found.append(f"-s {address}/128 -j RETURN")
    if name == "ip6tables":
        # Neighbours find each other with it.
        found.append("-p ipv6-icmp -j RETURN")
    return found


def forward_rules(chain: str, bridge: str, reach: Reach = INTERNET) -> list[str]:
    """Rules for packets from or to the bridge that the host passes on."""
    rules = [
        "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        f"-o {bridge} -m conntrack --ctstate INVALID -j DROP",
        # From outside, from other networks and from the bridge itself. What Docker does about these differs between
        # its versions.
        *reject(f"-o {bridge}"),
    ]
    for protocol in ("udp", "tcp"):
        # In some clouds the name server has the address of the metadata service.
        for address in METADATA:
            rules.append(f"-d {address} -p {protocol} -m {protocol} --dport 53 -j RETURN")
    for address in METADATA:
        rules += reject(f"-d {address}")
    rules += [f"{match} -j RETURN" for match in _allowed(reach)]
    for address in resolvers():
        for protocol in ("udp", "tcp"):
            rules.append(f"-d {address}/32 -p {protocol} -m {protocol} --dport 53 -j RETURN")
    for address in PRIVATE:
        rules += reject(f"-d {address}")
    # To a port of the host that Docker leads into another container. An answer would come from an address that the
    # asker does not know: none.
    rules.append("-m conntrack --ctstate DNAT -j DROP")
    return [f"-A {chain} {rule}" for rule in rules]


def _process_start(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks, or None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # Field 22; the second, the program's name, may hold anything.
    return text.rpartition(")")[2].split()[19]


def _owner(pid: int) -> str:
    # With the start: numbers of processes are used again.
    return f"{OWNER}-{pid}-{_process_start(pid)}"


def hubs_of(rules: list[str], port: int) -> list[tuple[int, str]]:
    """Return port and owner of every hub: this process with its port, and the others that live."""
    ours = _owner(os.getpid())
    hubs = {(port, ours)}
    for rule in rules:
        found = re.search(rf'--comment "?({OWNER}-(\d+)-(\d+))\b', rule)
        accepted = re.search(r"--dport (\d+)\b", rule)
        if found and accepted and found[1] != ours and _process_start(int(found[2])) == found[3]:
            hubs.add((int(accepted[1]), found[1]))
    return sorted(hubs)
