"""The rules of the firewall around the users' network, as text (see ``firewall``)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from .reach import INTERNET, PRIVATE, Reach

# Where clouds hand out credentials: link-local (nearly all), Azure's host agent, Alibaba.
METADATA = ("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32")
RESOLV_CONF = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
# Its own name servers, where an administrator told the engine any.
DAEMON = Path("/etc/docker/daemon.json")
OWNER = "plasma-hub"
ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED"
# Connections that one container may have at a time: out, and to the host. The kernel's table of them is one for the
# whole server, and holds 65,536 or 262,144 on most; when it is full, nobody gets through.
FLOWS_OUT = 4000
FLOWS_HOST = 1000


def chain_names(bridge: str) -> tuple[str, str]:
    """Return the names of a bridge's two chains: towards the host, and through it."""
    return f"PLASMA-IN-{bridge}", f"PLASMA-FW-{bridge}"


def reject(match: str = "") -> list[str]:
    """Refuse at once rather than let programs wait; TCP by a reset, because the kernel limits the rate of the other."""
    return [f"{match} -p tcp -j REJECT --reject-with tcp-reset".lstrip(), f"{match} -j REJECT".lstrip()]


def few_flows(limit: int) -> list[str]:
    """Return what refuses another connection to a container that has this many."""
    count = f"-m connlimit --connlimit-above {limit} --connlimit-mask 32 --connlimit-saddr"
    return reject(f"-m conntrack --ctstate NEW {count}")


def resolvers() -> list[str]:
    """Return the IPv4 name servers that Docker hands to containers, where the host has configured any.

    Docker's resolver asks them from within the container, and one of them may be the host itself.
    """
    words: list[str] = []
    for path in RESOLV_CONF:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        words += [line.split()[1] for line in text.splitlines() if re.match(r"\s*nameserver\s+\S", line)]
    found = {address for address in map(_ipv4, words) if address and not address.is_loopback}
    try:
        found |= set(map(_ipv4, json.loads(DAEMON.read_text(encoding="utf-8")).get("dns") or []))
    except (OSError, ValueError, TypeError, AttributeError):
        pass
    return sorted(str(address) for address in found if address)


def _ipv4(word: str) -> IPv4Address | None:
    try:
        return IPv4Address(word)
    except ValueError:
        return None


def _dns(addresses: Iterable[str], verdict: str) -> list[str]:
    return [
        f"-d {address} -p {protocol} -m {protocol} --dport 53 -j {verdict}"
        for address in addresses
        for protocol in ("udp", "tcp")
    ]


def _allowed(reach: Reach) -> list[str]:
    """Return what matches packets to the addresses that are allowed beside the internet's."""
    return [
        f"-d {entry.host}" + (f" -p {protocol} -m {protocol} --dport {entry.port}" if entry.port else "")
        for entry in reach.allow
        for protocol in (("tcp", "udp") if entry.port else ("",))
    ]


def host_rules(gateway: str, hubs: list[tuple[int, str]], reach: Reach = INTERNET, limited: bool = True) -> list[str]:
    """Return the rules for packets from the bridge to the host itself.

    Args:
        gateway: the host's address on the network.
        hubs: port and owner of every hub (see ``hubs_of``).
        reach: what containers reach beside the internet.
        limited: whether the kernel can count connections.
    """
    return [
        # Replies to the proxy and the hub, which do connect to containers.
        f"{ESTABLISHED} -j ACCEPT",
        # A packet that belongs to nothing must not make us reset a connection.
        "-m conntrack --ctstate INVALID -j DROP",
        *(few_flows(FLOWS_HOST) if limited else []),
        *(f"-d {gateway}/32 -p tcp -m tcp --dport {port} -m comment --comment {who} -j ACCEPT" for port, who in hubs),
        *_dns((f"{address}/32" for address in resolvers()), "ACCEPT"),
        *(f"-p tcp -m tcp --dport {port} -j ACCEPT" for port in reach.host_ports),
        # A network does not open the host that is in it, sshd and all.
        *(f"{match} -j ACCEPT" for match in _allowed(reach) if "/32" in match),
        *reject(),
    ]


def forward_rules(bridge: str, reach: Reach = INTERNET, limited: bool = True) -> list[str]:
    """Return the rules for packets from or to the bridge that the host passes on; arguments as for ``host_rules``."""
    return [
        f"{ESTABLISHED} -j RETURN",
        f"-o {bridge} -m conntrack --ctstate INVALID -j DROP",
        # From outside, from other networks and from the bridge itself. What Docker does about these differs between
        # its versions.
        *reject(f"-o {bridge}"),
        *(few_flows(FLOWS_OUT) if limited else []),
        # In some clouds the name server has the address of the metadata service.
        *_dns(METADATA, "RETURN"),
        *(rule for address in METADATA for rule in reject(f"-d {address}")),
        *(f"{match} -j RETURN" for match in _allowed(reach)),
        *_dns((f"{address}/32" for address in resolvers()), "RETURN"),
        *(rule for address in PRIVATE for rule in reject(f"-d {address}")),
        # To a port of the host that Docker leads into another container. An answer would come from an address that
        # the asker does not know: none.
        "-m conntrack --ctstate DNAT -j DROP",
    ]


def shared_rules(network: dict[str, Any], ipv6: bool) -> list[str]:
    """Return the rules, before the others, for a bridge that is not ours alone: containers of others pass.

    They are known by their port of the bridge (see ``network.ports_of``), too: a step of a build may get the address
    of one that has just ended. IPv6 has no such match where the kernel does not filter it within a bridge.

    Args:
        network: what Docker says of the network, with "Ports".
        ipv6: whether the rules are for ip6tables.
    """
    family, bits = ("IPv6Address", 128) if ipv6 else ("IPv4Address", 32)
    rules = []
    for container, port in sorted(network["Ports"].items()):
        address = (network["Containers"][container].get(family) or "").partition("/")[0]
        if address:
            rules.append(f"-s {address}/{bits}" + ("" if ipv6 else f" -m physdev --physdev-in {port}") + " -j RETURN")
    # Neighbours find each other with it.
    return [*rules, "-p ipv6-icmp -j RETURN"] if ipv6 else rules


def _owner(pid: int) -> str | None:
    """Return what stands for a process in the rules: with its start, as numbers of processes are used again."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # Field 22; the second, the program's name, may hold anything.
    return f"{OWNER}-{pid}-{text.rpartition(')')[2].split()[19]}"


def hubs_of(rules: list[str], port: int) -> list[tuple[int, str]]:
    """Return port and owner of every hub: this process with its port, and the others that live."""
    ours = _owner(os.getpid())
    hubs = {(port, ours)}
    for rule in rules:
        owner = re.search(rf'--comment "?({OWNER}-(\d+)-\d+)\b', rule)
        accepted = re.search(r"--dport (\d+)\b", rule)
        if owner and accepted and owner[1] != ours and _owner(int(owner[2])) == owner[1]:
            hubs.add((int(accepted[1]), owner[1]))
    return sorted(hubs)
