"""What containers of the users' network reach of the host and of what lies behind it.

Docker keeps its networks apart but leaves the host open: a container reaches whatever the host listens to, on any of
its addresses. Here two chains of our own per network close that, in the filter table:

- entered from INPUT: replies pass, the hub's port passes, the host's own resolvers pass, what ``plasma.network`` names
  passes (see ``reach``), the rest is rejected;
- entered from DOCKER-USER: nobody opens connections to a container through the host, containers among themselves
  included, and no container opens one to a metadata service of a cloud, to a private address that ``plasma.network``
  does not name, nor to a port that another container publishes.

A network that is not ours alone is the engine's default one, on which BuildKit runs the steps of builds: there the
rules hold for those, and for no container (see ``build_network``).

IPv6, which the network does not have, is closed altogether.

Both are rewritten in one transaction each, so that there is never a moment without them, and are cheap to check: a
reload of the host's firewall that drops them is repaired before the next server starts.

Several hubs may share a network (on a developer's machine): each rule for a hub's port says whose it is, and goes
when a hub applies the rules and that one's process is no more.
"""

from __future__ import annotations

import fcntl
import functools
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .firewall_rules import chain_names, forward_rules, host_rules, hubs_of, reject, shared_rules
from .iptables import Rules, Tables, ToolError
from .network import bridge_of, gateway_address, is_shared, ports_of
from .reach import INTERNET, Reach

# Without it packets between two containers of one bridge pass no rule at all, Docker's own included.
BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
IPV6_SETTINGS = Path("/proc/sys/net/ipv6/conf")
LOCK = Path("/run/plasma-firewall.lock")
# Held by every hub that needs the rules on the engine's own network: the last one takes them away.
SHARED_LOCK = Path("/run/plasma-firewall-shared.lock")
# Of the tools: what the system's administrator chose, then those for kernels without nftables, then those that need no
# module loaded by hand (the hub's unit may not; the kernel does it by itself for nftables). Rules of both are in force.
VARIANTS = ("", "-legacy", "-nft")
# A rule that leads into a chain of ours, for this network or another.
_OURS = re.compile(r"-A \S+ -[io] \S+ -j PLASMA-(IN|FW)-\S+")

log = logging.getLogger("tornado.application")  # JupyterHub's own log follows it


class FirewallError(Exception):
    """The host is not closed to containers; the text is one sentence that says what to do."""


# Where the chains are entered.


def _jumps(network: dict[str, Any], through: str) -> dict[str, list[str]]:
    """Return the rules that lead into the chains, per chain that they are in."""
    bridge = bridge_of(network)
    host, forward = chain_names(bridge)
    # What comes into the containers of others is not our business.
    out = [] if is_shared(network) else [f"-o {bridge} -j {forward}"]
    return {"INPUT": [f"-i {bridge} -j {host}"], through: [f"-i {bridge} -j {forward}", *out]}


def _through(rules: Rules) -> str:
    """Return the chain in which forwarded packets are caught.

    Docker puts DOCKER-USER first and leaves alone what is in it. Where there is none, or something else comes before
    it, it is FORWARD itself.
    """
    others = (rule for rule in rules.get("FORWARD", []) if not _OURS.fullmatch(rule))
    return "DOCKER-USER" if next(others, None) == "-A FORWARD -j DOCKER-USER" else "FORWARD"


def _is_entered(rules: Rules, network: dict[str, Any]) -> bool:
    """Whether packets of the bridge come to our chains before any rule that is not ours."""
    for chain, wanted in _jumps(network, _through(rules)).items():
        first = []
        for rule in rules.get(chain, []):
            if not _OURS.fullmatch(rule):
                break
            first.append(rule.removeprefix(f"-A {chain} "))
        if not set(wanted) <= set(first):
            return False
    return True


def _detach(rules: Rules, bridge: str) -> list[str]:
    """Return the lines that remove every way into our chains."""
    ours = chain_names(bridge)
    return [
        rule.replace("-A", "-D", 1)
        for chain in ("INPUT", "FORWARD", "DOCKER-USER")
        for rule in rules.get(chain, [])
        if rule.endswith(tuple(f" -j {name}" for name in ours))
    ]


def _attach(rules: Rules, network: dict[str, Any]) -> list[str]:
    """Return the lines that make the ways into our chains, before all other rules."""
    jumps = _jumps(network, _through(rules))
    return [f"-I {chain} 1 {jump}" for chain, found in jumps.items() for jump in reversed(found)]


# Applying and checking.


@dataclass(frozen=True)
class _Written:
    """What was asked for and how the tool shows it: its notation differs between versions."""

    wanted: Rules
    shown: Rules


_written: dict[tuple[str, str], _Written] = {}
_variants: dict[str, str] = {}
_checked: dict[tuple[str, int | None], float] = {}


@contextmanager
def _lock() -> Iterator[None]:
    """Keep the hubs of this machine, and the threads of one, from overwriting one another's rules."""
    descriptor = _open(LOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@functools.cache
def _open_shared_lock() -> int:
    """Open the lock once: it is this process that holds it, until it ends or calls ``release``."""
    return _open(SHARED_LOCK)


def _open(lock: Path) -> int:
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FirewallError(f"{lock} cannot be opened ({error.strerror}): make /run writable for the hub.") from error


def _has_ipv6(bridge: str) -> bool:
    """Whether the host speaks IPv6 on the bridge, as it does there by itself unless the administrator turned it off."""
    try:
        return (IPV6_SETTINGS / bridge / "disable_ipv6").read_text().strip() != "1"
    except FileNotFoundError:
        return False


def _content(name: str, rules: Rules, network: dict[str, Any], hub_port: int | None, reach: Reach) -> Rules:
    """Return what our chains have to hold."""
    bridge = bridge_of(network)
    host, forward = chain_names(bridge)
    if name == "ip6tables":
        content = {chain: [f"-A {chain} {rule}" for rule in reject()] for chain in (host, forward)}
    else:
        hubs = hubs_of(rules.get(host, []), hub_port) if hub_port else []
        content = {
            host: host_rules(host, gateway_address(network), hubs, reach),
            forward: forward_rules(forward, bridge, reach),
        }
    if is_shared(network):
        others = shared_rules(network, name)
        content = {chain: [*(f"-A {chain} {rule}" for rule in others), *known] for chain, known in content.items()}
    return content


def tables(name: str) -> Tables:
    """Return the tables that this process uses for "iptables" or "ip6tables"."""
    return Tables(name, _variants.get(name, ""))


def _names(bridge: str) -> list[str]:
    return ["iptables", "ip6tables"] if _has_ipv6(bridge) else ["iptables"]


def _in_place(name: str, network: dict[str, Any], hub_port: int | None, reach: Reach) -> bool:
    bridge = bridge_of(network)
    used = tables(name)
    written = _written.get((used.prefix, bridge))
    if written is None:
        return False
    rules = used.rules()
    wanted = _content(name, rules, network, hub_port, reach)
    shown = {chain: rules.get(chain, []) for chain in wanted}
    return written == _Written(wanted, shown) and _is_entered(rules, network)


def _put(used: Tables, network: dict[str, Any], hub_port: int | None, reach: Reach) -> None:
    bridge = bridge_of(network)
    rules = used.rules()
    wanted = _content(used.name, rules, network, hub_port, reach)
    # Naming a chain makes it, or empties it.
    lines = [f":{chain} - [0:0]" for chain in wanted]
    lines += [rule for chain in wanted.values() for rule in chain]
    used.commit([*lines, *_detach(rules, bridge), *_attach(rules, network)])
    rules = used.rules()
    shown = {chain: rules.get(chain, []) for chain in wanted}
    if [len(chain) for chain in shown.values()] != [len(chain) for chain in wanted.values()]:
        raise ToolError(f"{used.prefix}-restore did not write all rules")
    if not _is_entered(rules, network):
        raise ToolError(f"{used.prefix}-restore did not put the rules first")
    _written[used.prefix, bridge] = _Written(wanted, shown)


def _put_by_any(name: str, network: dict[str, Any], hub_port: int | None, reach: Reach) -> None:
    """Write through the tools that this kernel can work with: the system's choice, else the older ones."""
    known = _variants.get(name)
    failures = []
    # Twice: somebody else may have changed the tables between our reading and our writing.
    for variant in [variant for variant in (VARIANTS if known is None else (known,)) for _ in range(2)]:
        try:
            _put(Tables(name, variant), network, hub_port, reach)
        except ToolError as error:
            failures.append(error)
        else:
            _variants[name] = variant
            return
    raise failures[0]


def _check_bridge_filter() -> None:
    try:
        on = BRIDGE_FILTER.read_text().strip() == "1"
    except FileNotFoundError:
        on = False
    if not on:
        raise FirewallError(
            "User servers could reach one another, because the kernel does not filter packets within a bridge: "
            "run 'modprobe br_netfilter' and 'sysctl -w net.bridge.bridge-nf-call-iptables=1', and remove what sets "
            "that to 0 in /etc/sysctl.d."
        )


def protect(network: dict[str, Any], hub_port: int | None, reach: Reach = INTERNET) -> None:
    """Close the host to the containers of a network, but for the hub. May be repeated: the rules stay the same.

    Where the hub does not run as root (a developer's machine) nothing is done and the log says so.

    Args:
        network: what Docker says of the network (``client.inspect_network``).
        hub_port: TCP port of the hub on the network's gateway address; None where its containers may not reach it.
        reach: what they reach beside the internet; addresses, no names.

    Raises:
        FirewallError: the rules could not be written.
    """
    if not _is_root():
        return
    _check_bridge_filter()
    with _lock():
        for name in _names(bridge_of(network)):
            try:
                _put_by_any(name, network, hub_port, reach)
            except ToolError as error:
                raise FirewallError(
                    f"User servers could reach the ports of this host: see that '{name} -S' works for root, "
                    f"then start the server again ({error})."
                ) from error


def is_protected(network: dict[str, Any], hub_port: int | None, reach: Reach = INTERNET) -> bool:
    """Whether everything is as ``protect`` left it in this process. Takes a few milliseconds.

    Args: as for ``protect``.

    Raises:
        FirewallError: packets between containers are not filtered.
    """
    _check_bridge_filter()
    try:
        return all(_in_place(name, network, hub_port, reach) for name in _names(bridge_of(network)))
    except ToolError:
        # Writing will fail too, and say why.
        return False


def ensure(
    client: Any,
    name: str,
    hub_port: int | None,
    max_age: float = 0,
    reach: Reach = INTERNET,
) -> None:
    """Check the protection of a network and repair it: what a spawner calls before each start.

    Args:
        client: a docker-py API client.
        name: the network's name.
        hub_port: TCP port of the hub on the network's gateway address.
        max_age: leave it at a check by this process that is not older, in seconds.
        reach: what the containers reach beside the internet and the hub; addresses, no names.

    Raises:
        FirewallError: the host cannot be closed; no server may start.
        docker.errors.DockerException: Docker does not answer, or has no such network.
    """
    checked = _checked.get((name, hub_port))
    if not _is_root() or (checked is not None and time.monotonic() - checked < max_age):
        return
    network = client.inspect_network(name)
    if is_shared(network):
        fcntl.flock(_open_shared_lock(), fcntl.LOCK_SH)
        network["Ports"] = ports_of(client, network)
    if not is_protected(network, hub_port, reach):
        protect(network, hub_port, reach)
        log.info("Firewall: the host is closed to the network %s but for port %s", name, hub_port)
    _checked[name, hub_port] = time.monotonic()


def release(network: dict[str, Any]) -> None:
    """Take the rules of the engine's own network away, unless another hub needs them. Cheap where there are none.

    Args:
        network: what Docker says of the network.

    Raises:
        FirewallError: iptables does not work.
    """
    if not _is_root():
        return
    lock = _open_shared_lock()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _has_chains(network):
            remove(network)
    except BlockingIOError:
        pass
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)


def _has_chains(network: dict[str, Any]) -> bool:
    try:
        return chain_names(bridge_of(network))[0] in tables("iptables").rules()
    except ToolError:
        # Removing will fail too, and say why.
        return True


def remove(network: dict[str, Any]) -> None:
    """Take the rules of a network away again, for instance after its removal.

    Args:
        network: what Docker said of the network.

    Raises:
        FirewallError: iptables does not work.
    """
    bridge = bridge_of(network)
    with _lock():
        for name in ("iptables", "ip6tables"):
            used = tables(name)
            try:
                rules = used.rules()
                chains = [chain for chain in chain_names(bridge) if chain in rules]
                if chains:
                    ends = [f"-{letter} {chain}" for letter in "FX" for chain in chains]
                    used.commit([*_detach(rules, bridge), *ends])
            except ToolError as error:
                if name == "iptables" or _has_ipv6(bridge):
                    raise FirewallError(f"The rules of the network are not removed ({error}).") from error
            _written.pop((used.prefix, bridge), None)


@functools.cache
def _is_root() -> bool:
    if os.geteuid() == 0:
        return True
    log.warning("Firewall: user servers can reach the ports of this host, because the hub does not run as root")
    return False
