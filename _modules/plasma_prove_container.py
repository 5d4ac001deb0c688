"""
Attacks of ``plasma.prove`` from within a server: what it fills (A9), what it reaches (A16), and whether the rules that
keep it in come back (A12).
"""

from __future__ import annotations

import subprocess
import threading
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_prove_container"

MOST = 300 * 1024 * 1024  # bytes that one directory may get before that is called unlimited
FORKS = 6000
REPAIR = 40  # seconds: the hub looks every 30, and takes a moment
METADATA = ("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200")
# In each private range an address at its end that hardly anybody uses; nobody answers there, so a firewall's refusal
# shows: it comes at once.
PRIVATE = ("10.255.255.1", "172.31.255.1", "192.168.255.1")
PORTS = (22, 80, 443, 631, 2375, 2376, 5432, 8080, 9090)
REFUSED = ("ECONNREFUSED", "EACCES", "EPERM", "ENETUNREACH")
TRACE = "plasma-prove"


def __virtual__():
    return __virtualname__


def attacks():
    """
    Return the attacks of this module, see ``plasma_prove_run``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_container.attacks
    """
    return [
        {
            "name": "A9.layer",
            "what": "A server writes to the engine's disk, where its image has a directory that it may write to",
            "expected": f"less than {MOST // 1024**2} MB",
            "play": _layer,
        },
        {
            "name": "A9.forks",
            "what": "A server starts processes without end",
            "expected": f"refused before {FORKS}",
            "play": _forks,
        },
        {
            "name": "A12.repair",
            "what": "The rules of the users' network are changed behind the hub's back",
            "expected": f"as they were within {REPAIR} s",
            "begin": _disturb,
            "play": _repaired,
            "last": True,
        },
        {
            "name": "A16.host",
            "what": "A server reaches ports of this machine, on all of its addresses",
            "expected": "the hub's API and the public pages alone",
            "play": _host,
        },
        {
            "name": "A16.metadata",
            "what": "A server reaches a cloud's metadata service",
            "expected": "refused at once",
            "play": _metadata,
        },
        {
            "name": "A16.private",
            "what": "A server reaches other machines of private networks",
            "expected": "refused at once",
            "play": _private,
        },
        {
            "name": "A16.server",
            "what": "A server reaches somebody else's server",
            "expected": "refused",
            "play": _server,
        },
    ]


def _layer(scene):
    found = scene.agent(scene.a)("fill", most=MOST, timeout=120)
    unlimited = sorted(directory for directory, (written, _) in found.items() if written >= MOST)
    if unlimited:
        return False, f"{MOST // 1024**2} MB written to {', '.join(unlimited[:3])}"
    most = max(found.items(), key=lambda one: one[1][0], default=("", (0, "no directory to write to")))
    return True, f"{most[1][0] // 1024**2} MB at most, then {most[1][1] or 'no more'}"


def _forks(scene):
    number = scene.agent(scene.a)("fork", most=FORKS)
    return number < FORKS, f"{number} processes" if number >= 0 else "ended for want of memory"


def _metadata(scene):
    return _out(scene, [(address, port) for address in METADATA for port in (80, 53)][::2])


def _private(scene):
    return _out(scene, [(address, port) for address in PRIVATE for port in (80, 22)])


def _out(scene, places):
    found = scene.agent(scene.a)("connect", places=places, timeout=60)
    let = {place: how for place, how in found.items() if how not in REFUSED}
    if let:
        place, how = min(let.items())
        return False, f"{place}: {'no answer, and no refusal' if how == 'timeout' else how}"
    return True, f"{len(found)} addresses refused"


def _host(scene):
    agent = scene.agent(scene.a)
    listening = {port for _, port in __salt__["plasma_prove_host.listening"]()}
    addresses = sorted({*_addresses(), __salt__["plasma_prove_host.address"]()})
    hub = agent("identity")["hub"]
    public = {80, 443, scene.where["port"]}
    found = agent(
        "connect", places=[(one, port) for one in addresses for port in sorted({*PORTS, *listening})], timeout=60
    )
    reached = []
    for place, how in found.items():
        address, port = place.split()
        hubs = address == hub[0] and int(port) == hub[1]
        if how == "open" and not hubs and int(port) not in public:
            reached.append(place.replace(" ", " port "))
    return (False, f"{', '.join(sorted(reached)[:4])}") if reached else (True, f"{len(found)} ports refused")


def _server(scene):
    agent, other = scene.agent(scene.a), scene.agent(scene.b)
    found = agent("connect", places=[(other.address, 8888)])
    how = next(iter(found.values()))
    return how != "open", how


def _addresses():
    done = subprocess.run(["hostname", "-I"], capture_output=True, text=True, timeout=10)
    return [address for address in done.stdout.split() if ":" not in address]


# The rules are looked at as iptables shows them.


def _disturb(scene):
    scene.notes["rules"] = None
    scene.agent(scene.a)  # they are written when somebody starts, and looked at while somebody runs
    for tool in ("iptables", "iptables-legacy", "iptables-nft"):
        chains = _chains(tool)
        if chains:
            # After the rule that refuses all: it changes nothing for anybody.
            _tables(tool, "-A", chains[0], "-m", "comment", "--comment", TRACE, "-j", "RETURN")
            watch = threading.Thread(target=_watch, args=(scene.notes, tool, chains[0]), daemon=True)
            scene.notes["rules"] = watch
            watch.start()
            return


def _watch(notes, tool, chain):
    """Note after how many seconds the rules are as they were; runs in a thread."""
    since = time.monotonic()
    while time.monotonic() - since < REPAIR:
        if TRACE not in _tables(tool, "-S", chain):
            notes["repaired"] = time.monotonic() - since
            return
        time.sleep(0.5)
    _tables(tool, "-D", chain, "-m", "comment", "--comment", TRACE, "-j", "RETURN")


def _repaired(scene):
    if not scene.notes.get("rules"):
        return False, "there are no rules of ours"
    scene.notes["rules"].join(REPAIR + 10)
    if "repaired" not in scene.notes:
        return False, f"still changed after {REPAIR} s"
    return True, f"within {scene.notes['repaired']:.0f} s"


def _chains(tool):
    try:
        rules = _tables(tool, "-S")
    except CommandExecutionError:
        return []
    return [line.split()[1] for line in rules.splitlines() if line.startswith("-N PLASMA-IN-")]


def _tables(tool, *arguments):
    try:
        done = subprocess.run([tool, "-w", "5", *arguments], capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        raise CommandExecutionError(f"{tool} is not there") from None
    if done.returncode:
        raise CommandExecutionError(f"{tool} failed: {done.stderr.strip()[-100:]}")
    return done.stdout
