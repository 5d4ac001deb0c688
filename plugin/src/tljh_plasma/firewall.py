"""What containers of the users' network reach of the host and of what lies behind it.

Docker keeps its networks apart but leaves the host open: a container reaches whatever the host listens to, on any of
its addresses. Here two chains of our own per network close that, in the filter table:

- entered from INPUT: replies pass, the hub's port passes, the host's own resolvers pass, what ``plasma.network`` names
  passes (see ``reach``), the rest is rejected;
- entered from DOCKER-USER: nobody opens connections to a container through the host, containers among themselves
  included, and no container opens one to a metadata service of a cloud, to a private address that ``plasma.network``
  does not name, nor to a port that another container publishes.

A network that is not ours alone is the engine's default one, on which BuildKit runs the steps of builds: there the
rules hold for those, and for no container (see ``builds.network``).

IPv6, which the network does not have, is closed altogether.

Both are rewritten in one transaction each, so that there is never a moment without them, and are cheap to check: a
reload of the host's firewall that drops them is repaired before the next server starts.

Several hubs may share a network (on a developer's machine): each rule for a hub's port says whose it is, and goes
when a hub applies the rules and that one's process is no more.
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
# A rule that leads into the chains of any of our networks.
JUMP = re.compile(r"-A \S+ -[io] \S+ -j PLASMA-(IN|FW)-\S+")

log = logging.getLogger("tornado.application")  # JupyterHub's own log follows it

# By tools and bridge: the rules that were asked for, and how the tool shows them, whose notation differs by version.
_written: dict[tuple[str, str], tuple[Rules, Rules]] = {}
# The variant that works, by "iptables" and "ip6tables".
_variants: dict[str, str] = {}
# Those with which this kernel counts no connections.
_unlimited: set[str] = set()
# When a network was last checked, by its name and the port of the hub.
_checked: dict[tuple[str, int | None], float] = {}


class FirewallError(Exception):
    """The host is not closed to containers; the text is one sentence that says what to do."""


class _Protection:
    """What has to be in the tables for one network.

    Args: as for ``protect``.
    """

    def __init__(self, network: dict[str, Any], hub_port: int | None = None, reach: Reach = INTERNET):
        self.network = network
        self.hub_port = hub_port
        self.reach = reach
        self.bridge = bridge_of(network)
        self.chains = chain_names(self.bridge)
        # IPv6 is on by itself on a bridge unless the administrator turned it off.
        try:
            has_ipv6 = (IPV6_SETTINGS / self.bridge / "disable_ipv6").read_text().strip() != "1"
        except FileNotFoundError:
            has_ipv6 = False
        self.programs = ("iptables", "ip6tables") if has_ipv6 else ("iptables",)

    def content(self, program: str, rules: Rules) -> Rules:
        """Return what our chains have to hold."""
        host, forward = self.chains
        content = {host: reject(), forward: reject()}
        if program == "iptables":
            hubs = hubs_of(rules.get(host, []), self.hub_port) if self.hub_port else []
            limited = program not in _unlimited
            content[host] = host_rules(gateway_address(self.network), hubs, self.reach, limited)
            content[forward] = forward_rules(self.bridge, self.reach, limited)
        others = shared_rules(self.network, program == "ip6tables") if is_shared(self.network) else []
        return {chain: [f"-A {chain} {rule}" for rule in [*others, *own]] for chain, own in content.items()}

    def _jumps(self, rules: Rules) -> dict[str, list[str]]:
        """Return the rules that lead into our chains, by the chain that they are in.

        Docker puts DOCKER-USER first and leaves alone what is in it. Where there is none, or something else comes
        before it, forwarded packets are caught in FORWARD itself.
        """
        host, forward = self.chains
        others = itertools.filterfalse(JUMP.fullmatch, rules.get("FORWARD", []))
        through = "DOCKER-USER" if next(others, None) == "-A FORWARD -j DOCKER-USER" else "FORWARD"
        # What comes into the containers of others is not our business.
        out = [] if is_shared(self.network) else [f"-o {self.bridge} -j {forward}"]
        return {"INPUT": [f"-i {self.bridge} -j {host}"], through: [f"-i {self.bridge} -j {forward}", *out]}

    def is_entered(self, rules: Rules) -> bool:
        """Whether packets of the bridge come to our chains before any rule that is not ours."""
        return all(
            {f"-A {chain} {jump}" for jump in jumps} <= set(itertools.takewhile(JUMP.fullmatch, rules.get(chain, [])))
            for chain, jumps in self._jumps(rules).items()
        )

    def detach(self, rules: Rules) -> list[str]:
        """Return the lines that remove every way into our chains."""
        return [
            rule.replace("-A", "-D", 1)
            for chain in ("INPUT", "FORWARD", "DOCKER-USER")
            for rule in rules.get(chain, [])
            if rule.endswith(tuple(f" -j {name}" for name in self.chains))
        ]

    def attach(self, rules: Rules) -> list[str]:
        """Return the lines that make the ways into our chains, before all other rules."""
        return [f"-I {chain} 1 {jump}" for chain, jumps in self._jumps(rules).items() for jump in reversed(jumps)]

    def is_in_place(self, program: str) -> bool:
        """Whether everything is as this process wrote it."""
        used = tables(program)
        rules = used.rules()
        wanted = self.content(program, rules)
        written = _written.get((used.prefix, self.bridge))
        return written == (wanted, _part(rules, wanted)) and self.is_entered(rules)

    def put(self, used: Tables) -> None:
        """Write everything at once."""
        rules = used.rules()
        wanted = self.content(used.name, rules)
        # Naming a chain makes it, or empties it.
        lines = [f":{chain} - [0:0]" for chain in wanted]
        lines += [rule for chain in wanted.values() for rule in chain]
        used.commit([*lines, *self.detach(rules), *self.attach(rules)])
        rules = used.rules()
        shown = _part(rules, wanted)
        if [len(chain) for chain in shown.values()] != [len(chain) for chain in wanted.values()]:
            raise ToolError(f"{used.prefix}-restore did not write all rules")
        if not self.is_entered(rules):
            raise ToolError(f"{used.prefix}-restore did not put the rules first")
        _written[used.prefix, self.bridge] = (wanted, shown)

    def put_or_less(self, program: str) -> None:
        """Write everything; where the kernel has no module that counts connections (xt_connlimit), all but that."""
        try:
            self.put_by_any(program)
        except ToolError:
            if program in _unlimited:
                raise
            _unlimited.add(program)
            try:
                self.put_by_any(program)
            except ToolError:
                _unlimited.discard(program)
                raise
            log.warning("Firewall: connections of a user server are not counted, as this kernel has no xt_connlimit")

    def put_by_any(self, program: str) -> None:
        """Write through the tools that this kernel can work with: the system's choice, else the older ones."""
        failures = []
        # Twice each: somebody else may have changed the tables between our reading and our writing.
        variants = [_variants[program]] if program in _variants else VARIANTS
        for variant in (variant for variant in variants for _ in range(2)):
            try:
                self.put(Tables(program, variant))
            except ToolError as error:
                failures.append(error)
            else:
                _variants[program] = variant
                return
        raise failures[0]


def _part(rules: Rules, chains: Rules) -> Rules:
    return {chain: rules.get(chain, []) for chain in chains}


def tables(program: str) -> Tables:
    """Return the tables that this process uses for "iptables" or "ip6tables"."""
    return Tables(program, _variants.get(program, ""))


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


def _check_bridge_filter() -> None:
    if not BRIDGE_FILTER.exists() or BRIDGE_FILTER.read_text().strip() != "1":
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
    protection = _Protection(network, hub_port, reach)
    with _lock():
        for program in protection.programs:
            try:
                protection.put_or_less(program)
            except ToolError as error:
                raise FirewallError(
                    f"User servers could reach the ports of this host: see that '{program} -S' works for root, "
                    f"then start the server again ({error})."
                ) from error


def is_protected(network: dict[str, Any], hub_port: int | None, reach: Reach = INTERNET) -> bool:
    """Whether everything is as ``protect`` left it in this process. Takes a few milliseconds.

    Args: as for ``protect``.

    Raises:
        FirewallError: packets between containers are not filtered.
    """
    _check_bridge_filter()
    protection = _Protection(network, hub_port, reach)
    try:
        return all(map(protection.is_in_place, protection.programs))
    except ToolError:
        # Writing will fail too, and say why.
        return False


def ensure(client: Any, name: str, hub_port: int | None, max_age: float = 0, reach: Reach = INTERNET) -> None:
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
    """Take the rules of the engine's own network away, unless another hub needs them.

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
        remove(network)
    except BlockingIOError:
        pass
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)


def remove(network: dict[str, Any]) -> None:
    """Take the rules of a network away again, for instance after its removal.

    Args:
        network: what Docker said of the network.

    Raises:
        FirewallError: iptables does not work.
    """
    protection = _Protection(network)
    with _lock():
        for program in ("iptables", "ip6tables"):
            used = tables(program)
            try:
                rules = used.rules()
                chains = [chain for chain in protection.chains if chain in rules]
                if chains:
                    ends = [f"-{letter} {chain}" for letter in "FX" for chain in chains]
                    used.commit([*protection.detach(rules), *ends])
            except ToolError as error:
                if program in protection.programs:
                    raise FirewallError(f"The rules of the network are not removed ({error}).") from error
            _written.pop((used.prefix, protection.bridge), None)


@functools.cache
def _is_root() -> bool:
    if os.geteuid() == 0:
        return True
    log.warning("Firewall: user servers can reach the ports of this host, because the hub does not run as root")
    return False
