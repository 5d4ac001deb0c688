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

__virtualname__ = "plasma_doors_rules"

CHAIN = "PLASMA-OUT"
WEB = "80,443"
# As in the plugin's firewall_rules.py and firewall.py.
METADATA = ("169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32")
VARIANTS = ("", "-legacy", "-nft")
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_NET, _ROUTES = "/sys/class/net", "/proc/net/route"
_REJECT = ("-p tcp -j REJECT --reject-with tcp-reset", "-j REJECT")


def __virtual__():
    return __virtualname__


def rules(name, free, bridges):
    """
    Return the rules of the chain, as arguments of iptables.

    name
        ``iptables`` or ``ip6tables``.
    free
        Numbers of accounts that reach everything.
    bridges
        Names of bridges of containers, with iptables' ``+`` at the end for all that begin so.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_doors_rules.rules iptables '[1000]' '[docker+]'
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


def bridges():
    """
    Return the bridges of containers, as ``rules`` takes them: Docker's, and every other one of this host that is not
    its way to the outside.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_doors_rules.bridges
    """
    outside = {line.split()[0] for line in _lines(_ROUTES)[1:] if line.split()[1:2] == ["00000000"]}
    found = [prefix for prefix in ("docker", "br-") if not any(name.startswith(prefix) for name in outside)]
    others = sorted(name for name in _names(_NET) if os.path.isdir(f"{_NET}/{name}/bridge") and name not in outside)
    return [f"{prefix}+" for prefix in found] + [name for name in others if not name.startswith(tuple(found or ["/"]))]


def put(who, state=None):
    """
    Write the rules where they are not as they were written last; returns whether anything was written.

    who
        As of ``plasma_doors.standing``.
    state
        A dict in which the caller keeps between calls how the tools show what was written.

    Raises RuntimeError, with one sentence.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_doors_rules.put '{bound: [[1000, 60000]], free_uids: [0, 1000]}'
    """
    state = {} if state is None else state
    written = False
    for name in _tools():
        wanted, jumps = _wanted(name, who)
        last = state.get(name)
        if last and last["wanted"] == [wanted, jumps] and _shown(last["tool"], len(jumps)) == last["shown"]:
            continue
        failures = []
        for variant in VARIANTS:
            tool = f"{name}{variant}"
            try:
                shown = _write(tool, wanted, jumps)
            except RuntimeError as exc:
                failures.append(exc)
                continue
            state[name] = {"tool": tool, "wanted": [wanted, jumps], "shown": shown}
            written = True
            break
        else:
            raise RuntimeError(f"Processes of people reach inner ports, as rules cannot be written: {failures[0]}.")
    return written


def in_place(who):
    """
    Return whether the rules are there: as many as there have to be, entered before all others.

    who
        As of ``plasma_doors.standing``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_doors_rules.in_place '{bound: [[1000, 60000]], free_uids: [0, 1000]}'
    """
    for name in _tools():
        wanted, jumps = _wanted(name, who)
        found = [_shown(f"{name}{variant}", len(jumps)) for variant in VARIANTS]
        if not any(shown and len(shown[1]) == len(wanted) and _numbers(shown[0]) == _numbers(jumps) for shown in found):
            return False
    return True


def remove():
    """
    Take the chain away, from all families of tools; returns whether there was one. Raises RuntimeError.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_doors_rules.remove
    """
    gone = False
    for tool in (f"{name}{variant}" for name in ("iptables", "ip6tables") for variant in VARIANTS):
        lines = _saved(tool)
        if not any(line.startswith(f":{CHAIN} ") for line in lines or ()):
            continue
        ways = [line.replace("-A", "-D", 1) for line in lines if line.endswith(f" -j {CHAIN}")]
        _restore(tool, [*ways, f"-F {CHAIN}", f"-X {CHAIN}"])
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
    ways = [line.replace("-A", "-D", 1) for line in lines if line.endswith(f" -j {CHAIN}")]
    # In one transaction: there is never a moment without them.
    _restore(
        tool,
        [
            f":{CHAIN} - [0:0]",
            *(f"-A {CHAIN} {rule}" for rule in wanted),
            *ways,
            *(f"-I OUTPUT 1 {jump}" for jump in reversed(jumps)),
        ],
    )
    shown = _shown(tool, len(jumps))
    if shown is None or len(shown[1]) != len(wanted) or _numbers(shown[0]) != _numbers(jumps):
        raise RuntimeError(f"{tool}-restore did not write all rules")
    return shown


def _shown(tool, number):
    """How the first rules of OUTPUT and those of the chain look, or None."""
    lines = _saved(tool)
    if lines is None or not any(line.startswith(f":{CHAIN} ") for line in lines):
        return None
    first = [line for line in lines if line.startswith("-A OUTPUT ")][:number]
    return [first, [line for line in lines if line.startswith(f"-A {CHAIN} ")]]


def _numbers(jumps):
    """The ranges of accounts that lead into the chain: the rest of such a line looks different from tool to tool."""
    return [re.findall(r"--uid-owner (\S+)", line) if line.endswith(f" -j {CHAIN}") else None for line in jumps]


def _saved(tool):
    if not shutil.which(f"{tool}-save", path=_PATH):
        return None
    done = __salt__["plasma_doors.run"](f"{tool}-save", "-t", "filter")
    return done.stdout.splitlines() if done.returncode == 0 else None


def _restore(tool, lines):
    text = "\n".join(["*filter", *lines, "COMMIT", ""])
    done = __salt__["plasma_doors.run"](f"{tool}-restore", "--noflush", "-w", "10", text=text)
    if done.returncode:
        raise RuntimeError(f"{tool}-restore said {' '.join(done.stderr.split()) or 'nothing'}")


def _lines(path):
    try:
        return pathlib.Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def _names(path):
    try:
        return os.listdir(path)
    except OSError:
        return []
