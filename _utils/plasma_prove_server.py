"""
Attacks of ``plasma.prove`` on this machine: through its own doors, which are SSH, cron, at and sessions (A2), on the
inner ports of the hub (A3), from within a server on what it may fill (A9) and reach (A16), and on what keeps it in or
shut: rules of the firewall (A12) and the hub's own files (A10).
"""

from __future__ import annotations

import inspect
import json
import os
import pathlib
import re
import shutil
import socket
import threading
import time

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_listeners
import plasma_prove_agent
import plasma_run
from plasma_prove_scene import DIRECTORY, attack, refused_unless

UNITS = ("jupyterhub.service", "traefik.service")
MOST = 300  # MB that one directory may get before that is called unlimited
FORKS = 6000
REPAIR = 40  # seconds: the hub looks every 30, and takes a moment
METADATA = ("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200")
# In each private range an address at its end that hardly anybody uses; nobody answers there, so a firewall's refusal
# shows: it comes at once.
PRIVATE = ("10.255.255.1", "172.31.255.1", "192.168.255.1")
PORTS = (22, 80, 443, 631, 2375, 2376, 5432, 8080, 9090)
REFUSED = ("ECONNREFUSED", "EACCES", "EPERM", "ENETUNREACH")
MARK = ("-m", "comment", "--comment", "plasma-prove", "-j", "RETURN")
# A hub that has worked with both keeps copies of them, which say that they have been there.
_OPENS = {
    "config.yaml": "from tljh_plasma import settings; settings.load()",
    "plasma.sqlite": (
        "import os, pathlib; from tljh_plasma.access import Store; "
        "Store(pathlib.Path(os.environ['TLJH_INSTALL_PREFIX'], 'state', 'plasma.sqlite')).upgrade()"
    ),
}


def _own_address():
    """The address from which this machine reaches the world, that of its own network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # for documentation: nothing is sent
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def _listening():
    """The sockets with which the hub, its services and its proxy listen."""
    found = [one for one in plasma_listeners.sockets() if one.state == plasma_listeners.LISTENING]
    ours = {
        port
        for port in {one.port for one in found}
        if any(holder["unit"] in UNITS for holder in plasma_listeners.holders(port))
    }
    return [one for one in found if one.port in ours]


def _as(person, *command, stdin="", env=None):
    """Run a program as somebody on this machine."""
    become = ["setpriv", f"--reuid={person['uid']}", f"--regid={person['gid']}", "--clear-groups"]
    return plasma_run.run([*become, *command], stdin=stdin, timeout=120, env=env)


def _do_as(person, function, addresses):
    """Call a function of the agent as somebody on this machine; returns ``{"address port": outcome}``."""
    source = inspect.getsource(plasma_prove_agent)
    done = _as(person, "/usr/bin/python3", "-I", "-c", source, function, stdin=json.dumps({"addresses": addresses}))
    return json.loads(done.check().stdout)


@attack("A2.key", "refused by sshd")
def _key(scene):
    """A key that a server wrote into its home opens a shell on this machine"""
    key = os.path.join(DIRECTORY, "key")
    plasma_run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "plasma.prove", "-f", key]).check()
    scene.agent(scene.a)("write_key", text=pathlib.Path(f"{key}.pub").read_text(encoding="ascii").strip())
    return _ssh(scene.a, ["-i", key, "-o", "PreferredAuthentications=publickey", "-o", "BatchMode=yes"], {})


@attack("A2.password", "refused by sshd")
def _password(scene):
    """The hub's password opens a shell on this machine"""
    secret = plasma_files.write(f"{DIRECTORY}/password", f"{scene.a['password']}\n")
    program = plasma_files.write(f"{DIRECTORY}/ask", f"#!/bin/sh\ncat {secret}\n", mode=0o700)
    options = ["-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "NumberOfPasswordPrompts=1"]
    return _ssh(scene.a, options, {"SSH_ASKPASS": program, "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"})


def _ssh(person, options, env):
    """Try to run `id` over SSH on this machine's own address."""
    sshd = shutil.which("sshd", path=plasma_run.PATH)
    port = re.search(r"^port (\d+)", plasma_run.run([sshd, "-T"]).stdout, re.MULTILINE) if sshd else None
    command = ["ssh", "-F", "/dev/null", "-p", port[1] if port else "22", "-l", person["name"], *options]
    for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes"):
        command += ["-o", option]
    command += ["-o", "ConnectTimeout=5", _own_address(), "id", "-u"]
    done = plasma_run.run(command, timeout=15, env=env)
    if done.returncode == plasma_run.TIMED_OUT:
        done.check()
    if done.stdout.strip() == str(person["uid"]):
        return False, f"a shell as uid {person['uid']}"
    lines = [line for line in done.stderr.strip().splitlines() if "known hosts" not in line]
    return True, lines[-1].strip()[-90:] if lines else f"no shell (code {done.returncode})"


@attack("A2.jobs", "all refused")
def _jobs(scene):
    """Jobs that stay: cron, at, a lingering session"""
    env = {"USER": scene.a["name"], "LOGNAME": scene.a["name"], "HOME": "/"}
    commands = [
        (["crontab", "-"], "0 0 1 1 * true\n"),
        (["at", "-q", "z", "now + 1 year"], "true\n"),
        (["loginctl", "enable-linger"], ""),
    ]
    installed = [(command, stdin) for command, stdin in commands if shutil.which(command[0], path=plasma_run.PATH)]
    done = [command[0] for command, stdin in installed if not _as(scene.a, *command, stdin=stdin, env=env).returncode]
    if done:
        return False, f"{', '.join(done)} did it"
    return True, f"{', '.join(command[0] for command, _ in installed)} refused" if installed else "none is installed"


@attack("A2.reach", "all refused")
def _reach(scene):
    """A process of a person on this machine reaches somebody's server and the hub's inner ports"""
    public = {80, 443, scene.where["port"]}
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    inner = [(str(one.local), one.port) for one in _listening() if one.port not in public]
    addresses = [[scene.agent(scene.b).address, 8888], *([loopback.get(host, host), port] for host, port in inner)]
    outcomes = _do_as(scene.a, "connect", addresses)
    return refused_unless(_open(outcomes), f"{len(addresses)} refused")


def _open(outcomes):
    """What is open of what the agent's ``connect`` tried."""
    return sorted(name.replace(" ", " port ") for name, outcome in outcomes.items() if outcome == "open")


@attack("A3.bind", "EACCES for all: root's ports")
def _bind(scene):
    """Somebody takes a port of the hub or the proxy while they restart"""
    addresses = [[str(one.local), one.port] for one in _listening()]
    if not addresses:
        return False, "not played: the hub and its proxy listen nowhere"
    outcomes = _do_as(scene.a, "bind", addresses)
    free = sorted({int(name.split()[1]) for name, outcome in outcomes.items() if outcome != "EACCES"})
    if free:
        return False, f"anybody may take {', '.join(map(str, free))} when it is free"
    return True, f"EACCES for {', '.join(map(str, sorted({port for _, port in addresses})))}"


@attack("A3.owner", "all root's")
def _owner(scene):
    """The inner ports belong to somebody else than root"""
    others = sorted({one.port for one in _listening() if one.uid})
    return not others, f"{', '.join(map(str, others))} are not" if others else "all root's"


@attack("A9.layer", f"less than {MOST} MB")
def _layer(scene):
    """A server writes to the engine's disk, where its image has a directory that it may write to"""
    written = scene.agent(scene.a)("fill", most=MOST * 1024**2, timeout=120)
    unlimited = sorted(directory for directory, (size, _) in written.items() if size >= MOST * 1024**2)
    if unlimited:
        return False, f"{MOST} MB written to {', '.join(unlimited[:3])}"
    size, error = max(written.values(), key=lambda outcome: outcome[0], default=(0, "no directory to write to"))
    return True, f"{size // 1024**2} MB at most, then {error or 'no more'}"


@attack("A9.forks", f"refused before {FORKS}")
def _forks(scene):
    """A server starts processes without end"""
    number = scene.agent(scene.a)("fork", most=FORKS, timeout=300)
    return number < FORKS, f"{number} processes" if number >= 0 else "ended for want of memory"


@attack("A10.shut", "it does not start")
def _shut(scene):
    """A hub whose configuration or permissions are gone opens (a copy is asked)"""
    copy = pathlib.Path(DIRECTORY, "prefix")
    for name in ("config", "state/kept"):
        plasma_files.directory(copy / name, 0o700)
    python, opened = f"{scene.prefix}/hub/bin/python3", []
    for name, code in _OPENS.items():
        (copy / "state" / "kept" / name).touch(mode=0o600)
        done = plasma_run.run([python, "-I", "-c", code], timeout=60, env={"TLJH_INSTALL_PREFIX": str(copy)})
        if "ModuleNotFoundError" in done.stderr or done.returncode == plasma_run.TIMED_OUT:
            return False, f"not played: {done.last_line}"
        if not done.returncode:
            opened.append(name)
    if opened:
        return False, f"without {' and '.join(opened)} it takes what is usual"
    return True, f"it ends without {' or '.join(_OPENS)}"


def _disturb(scene):
    """Add a rule to those of the users' network, as iptables shows them, and watch it go."""
    scene.agent(scene.a)  # they are written when somebody starts, and looked at while somebody runs
    for tool in ("iptables", "iptables-legacy", "iptables-nft"):
        try:
            chain = re.search(r"^-N (PLASMA-IN-\S+)", _tables(tool, "-S"), re.MULTILINE)
        except CommandExecutionError:
            continue
        if chain:
            # After the rule that refuses all: it changes nothing for anybody.
            _tables(tool, "-A", chain[1], *MARK)
            watch = threading.Thread(target=_watch, args=(scene.notes, tool, chain[1]), daemon=True)
            scene.notes["watch"] = watch
            watch.start()
            return


def _watch(notes, tool, chain):
    """Note after how many seconds the rules are as they were; runs in a thread."""
    since = time.monotonic()
    while time.monotonic() - since < REPAIR:
        if MARK[3] not in _tables(tool, "-S", chain):
            notes["repaired"] = time.monotonic() - since
            return
        time.sleep(0.5)
    _tables(tool, "-D", chain, *MARK)


def _tables(tool, *arguments):
    return plasma_run.run([tool, "-w", "5", *arguments], timeout=20).check().stdout


@attack("A12.repair", f"as they were within {REPAIR} s", begin=_disturb, last=True)
def _repaired(scene):
    """The rules of the users' network are changed behind the hub's back"""
    if "watch" not in scene.notes:
        return False, "there are no rules of ours"
    scene.notes["watch"].join(REPAIR + 10)
    if "repaired" not in scene.notes:
        return False, f"still changed after {REPAIR} s"
    return True, f"within {scene.notes['repaired']:.0f} s"


@attack("A16.host", "the hub's API and the public pages alone")
def _host(scene):
    """A server reaches ports of this machine, on all of its addresses"""
    agent = scene.agent(scene.a)
    own = plasma_run.run(["hostname", "-I"], timeout=10).stdout.split()
    hosts = {_own_address(), *(address for address in own if ":" not in address)}
    public = {80, 443, scene.where["port"]}
    ports = {*PORTS, *(one.port for one in _listening())}
    outcomes = agent("connect", addresses=[(host, port) for host in hosts for port in ports])
    allowed = {" port ".join(map(str, agent("hub_api"))), *(f"{host} port {port}" for host in hosts for port in public)}
    return refused_unless([name for name in _open(outcomes) if name not in allowed], f"{len(outcomes)} ports refused")


@attack("A16.metadata", "refused at once")
def _metadata(scene):
    """A server reaches a cloud's metadata service"""
    return _leave(scene, [(address, 80) for address in METADATA])


@attack("A16.private", "refused at once")
def _private(scene):
    """A server reaches other machines of private networks"""
    return _leave(scene, [(address, port) for address in PRIVATE for port in (80, 22)])


def _leave(scene, addresses):
    outcomes = scene.agent(scene.a)("connect", addresses=addresses)
    let_out = {name: outcome for name, outcome in outcomes.items() if outcome not in REFUSED}
    if let_out:
        name, outcome = min(let_out.items())
        return False, f"{name}: {'no answer, and no refusal' if outcome == 'timeout' else outcome}"
    return True, f"{len(outcomes)} addresses refused"


@attack("A16.server", "refused")
def _server(scene):
    """A server reaches somebody else's server"""
    (outcome,) = scene.agent(scene.a)("connect", addresses=[(scene.agent(scene.b).address, 8888)]).values()
    return outcome != "open", outcome
