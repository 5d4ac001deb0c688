"""
What processes of people on the host itself reach of it: name servers and the hub's pages, but not its inner ports nor
those of other services, no container, and no metadata service of a cloud. Containers have rules of their own: they are
in other network namespaces, and packets of theirs do not pass here.

One chain in the filter table, entered from OUTPUT before all others by the number of the process's owner. Imported by
the keeper of the doors without Salt, as ``plasma_doors`` is.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil

import plasma_doors
from plasma_doors import Standing

CHAIN = "PLASMA-OUT"
WEB = "80,443"
# As in the plugin's firewall_rules.py and firewall.py.
METADATA = ("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32")
VARIANTS = ("", "-legacy", "-nft")
_NET, _ROUTES = "/sys/class/net", "/proc/net/route"
_REJECT = ("-p tcp -j REJECT --reject-with tcp-reset", "-j REJECT")


def rules(name: str, free: list[int], bridges: list[str]) -> list[str]:
    """
    Return the rules of the chain, as arguments of iptables.

    name
        ``iptables`` or ``ip6tables``.
    free
        Numbers of accounts that reach everything.
    bridges
        Names of bridges of containers, with iptables' ``+`` at the end for all that begin so.
    """
    found = [f"-m owner --uid-owner {uid} -j RETURN" for uid in free]
    found.append("-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN")
    for protocol in ("udp", "tcp"):
        found.append(f"-o lo -p {protocol} -m {protocol} --dport 53 -j RETURN")
    found.append(f"-o lo -p tcp -m multiport --dports {WEB} -j RETURN")
    ways = ["-o lo", *(f"-o {bridge}" for bridge in bridges)]
    if name == "iptables":
        # In some clouds the name server has that address.
        for protocol in ("udp", "tcp"):
            found += [f"-d {address} -p {protocol} -m {protocol} --dport 53 -j RETURN" for address in METADATA]
        ways += [f"-d {address}" for address in METADATA]
    return [*found, *(f"{way} {end}" for way in ways for end in _REJECT)]


def bridges() -> list[str]:
    """
    Return the bridges of containers, as ``rules`` takes them: Docker's, and every other one of this host that is not
    its way to the outside.
    """
    outside = {line.split()[0] for line in plasma_doors.lines(_ROUTES)[1:] if line.split()[1:2] == ["00000000"]}
    found = [prefix for prefix in ("docker", "br-") if not any(name.startswith(prefix) for name in outside)]
    others = sorted(path.parent.name for path in pathlib.Path(_NET).glob("*/bridge") if path.parent.name not in outside)
    return [f"{prefix}+" for prefix in found] + [name for name in others if not name.startswith(tuple(found or ["/"]))]


def put(who: Standing, state: dict[str, tuple] | None = None) -> bool:
    """
    Write the rules where they are not as they were written last; returns whether anything was written.

    who
        As of ``plasma_doors.standing``.
    state
        A dict in which the caller keeps between calls how the tools show what was written.

    Raises RuntimeError, with one sentence.
    """
    state = {} if state is None else state
    written = False
    for name in _tools():
        wanted, jumps = _wanted(name, who)
        tool, *last = state.get(name, (name,))
        if last == [wanted, jumps, _shown(tool, len(jumps))]:
            continue
        failures = []
        for tool in (f"{name}{variant}" for variant in VARIANTS):
            try:
                state[name] = (tool, wanted, jumps, _write(tool, wanted, jumps))
                written = True
                break
            except RuntimeError as exc:
                failures.append(exc)
        else:
            raise RuntimeError(f"Processes of people reach inner ports, as rules cannot be written: {failures[0]}.")
    return written


def in_place(who: Standing) -> bool:
    """
    Return whether the rules are there: as many as there have to be, entered before all others.

    who
        As of ``plasma_doors.standing``.
    """
    for name in _tools():
        wanted, jumps = _wanted(name, who)
        found = (_shown(f"{name}{variant}", len(jumps)) for variant in VARIANTS)
        if not any(_complete(shown, wanted, jumps) for shown in found):
            return False
    return True


def remove() -> bool:
    """
    Take the chain away, from all families of tools; returns whether there was one. Raises RuntimeError.
    """
    gone = False
    for tool in (f"{name}{variant}" for name in ("iptables", "ip6tables") for variant in VARIANTS):
        lines = _saved(tool)
        if not any(line.startswith(f":{CHAIN} ") for line in lines or ()):
            continue
        _restore(tool, [*_without_jumps(lines), f"-F {CHAIN}", f"-X {CHAIN}"])
        gone = True
    return gone


def _wanted(name, who):
    low, high = who["bound"][0]
    free = [uid for uid in who["free_uids"] if low <= uid <= high]
    jumps = [f"-m owner --uid-owner {first}-{last} -j {CHAIN}" for first, last in who["bound"]]
    return rules(name, free, bridges()), jumps


def _tools():
    return ["iptables", "ip6tables"] if os.path.exists("/proc/net/if_inet6") else ["iptables"]


def _write(tool, wanted, jumps):
    lines = _saved(tool)
    if lines is None:
        raise RuntimeError(f"{tool} does not work here; see `{tool} -S`")
    # In one transaction: there is never a moment without them.
    _restore(
        tool,
        [
            f":{CHAIN} - [0:0]",
            *(f"-A {CHAIN} {rule}" for rule in wanted),
            *_without_jumps(lines),
            *(f"-I OUTPUT 1 {jump}" for jump in reversed(jumps)),
        ],
    )
    shown = _shown(tool, len(jumps))
    if not _complete(shown, wanted, jumps):
        raise RuntimeError(f"{tool}-restore did not write all rules")
    return shown


def _complete(shown, wanted, jumps):
    return bool(shown) and len(shown[1]) == len(wanted) and _numbers(shown[0]) == _numbers(jumps)


def _shown(tool, number):
    """How the first rules of OUTPUT and those of the chain look, or None."""
    lines = _saved(tool)
    if lines is None or not any(line.startswith(f":{CHAIN} ") for line in lines):
        return None
    first = [line for line in lines if line.startswith("-A OUTPUT ")][:number]
    return [first, [line for line in lines if line.startswith(f"-A {CHAIN} ")]]


def _without_jumps(lines):
    """The commands that take the ways into the chain away."""
    return [line.replace("-A", "-D", 1) for line in lines if line.endswith(f" -j {CHAIN}")]


def _numbers(jumps):
    """The ranges of accounts that lead into the chain: the rest of such a line looks different from tool to tool."""
    return [re.findall(r"--uid-owner (\S+)", line) if line.endswith(f" -j {CHAIN}") else None for line in jumps]


def _saved(tool):
    if not shutil.which(f"{tool}-save", path=plasma_doors.PATH):
        return None
    done = plasma_doors.run(f"{tool}-save", "-t", "filter")
    return done.stdout.splitlines() if done.returncode == 0 else None


def _restore(tool, lines):
    text = "\n".join(["*filter", *lines, "COMMIT", ""])
    done = plasma_doors.run(f"{tool}-restore", "--noflush", "-w", "10", text=text)
    if done.returncode:
        raise RuntimeError(f"{tool}-restore said {' '.join(done.stderr.split()) or 'nothing'}")
