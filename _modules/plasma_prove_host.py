"""
Attacks of ``plasma.prove`` on this machine's own doors: SSH, cron, at and sessions (A2), and the inner ports of the hub
(A3). A child that has become one of the two people tries what somebody with a shell could.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess

__virtualname__ = "plasma_prove_host"

UNITS = ("jupyterhub.service", "traefik.service")
SSH = 15  # seconds
_BIND = """
import errno, json, socket, sys
found = []
for address, port in json.load(sys.stdin):
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        made.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        made.bind((address, port))
        found.append("taken")
    except OSError as exc:
        found.append(errno.errorcode.get(exc.errno, "?"))
    made.close()
print(json.dumps(found))
"""
_CONNECT = """
import errno, json, socket, sys
found = []
for address, port in json.load(sys.stdin):
    try:
        socket.create_connection((address, port), 2).close()
        found.append("open")
    except OSError as exc:
        found.append(errno.errorcode.get(exc.errno, "timeout"))
print(json.dumps(found))
"""


def __virtual__():
    return __virtualname__


def attacks():
    """
    Return the attacks of this module, see ``plasma_prove_run``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_host.attacks
    """
    return [
        {
            "name": "A2.key",
            "what": "A key that a server wrote into its home opens a shell on this machine",
            "expected": "refused by sshd",
            "play": _key,
        },
        {
            "name": "A2.password",
            "what": "The hub's password opens a shell on this machine",
            "expected": "refused by sshd",
            "play": _password,
        },
        {
            "name": "A2.jobs",
            "what": "Jobs that stay: cron, at, a lingering session",
            "expected": "all refused",
            "play": _jobs,
        },
        {
            "name": "A2.reach",
            "what": "A process of a person on this machine reaches somebody's server and the hub's inner ports",
            "expected": "all refused",
            "play": _reach,
        },
        {
            "name": "A3.bind",
            "what": "Somebody takes a port of the hub or the proxy while they restart",
            "expected": "EACCES for all: root's ports",
            "play": _bind,
        },
        {
            "name": "A3.owner",
            "what": "The inner ports belong to somebody else than root",
            "expected": "all root's",
            "play": _owner,
        },
    ]


def address():
    """
    Return the address from which this machine reaches the world, that of its own network.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_host.address
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # for documentation: nothing is sent
            return asked.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def listening():
    """
    Return where the hub, its services and its proxy listen, ``[[address, port], ...]``, sorted.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_host.listening
    """
    inodes = _inodes()
    return sorted([found[0], found[1]] for found in _sockets() if found[3] in inodes)


def _inodes():
    """The sockets of the processes of our units."""
    found = set()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if not any(f"/{unit}" in (process / "cgroup").read_text() for unit in UNITS):
                continue
            for descriptor in (process / "fd").iterdir():
                inode = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor))
                if inode:
                    found.add(int(inode[1]))
        except OSError:
            continue  # it has ended
    return found


def _sockets():
    """``(address, port, uid, inode)`` of all listening TCP sockets."""
    for table in ("tcp", "tcp6"):
        try:
            lines = pathlib.Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A":
                digits, _, port = fields[1].partition(":")
                words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
                family = socket.AF_INET6 if table == "tcp6" else socket.AF_INET
                packed = struct.pack(f"={len(words)}I", *words)
                yield socket.inet_ntop(family, packed), int(port, 16), int(fields[7]), int(fields[9])


def _as(person, code, given):
    """Run a few lines of Python as somebody on this machine; what they print."""
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", code],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
        user=person["uid"],
        group=person["gid"],
        extra_groups=[],
        cwd="/",
    )
    return json.loads(done.stdout)


def _bind(scene):
    places = listening()
    if not places:
        return False, "not played: the hub and its proxy listen nowhere"
    found = dict(zip([tuple(place) for place in places], _as(scene.a, _BIND, places), strict=True))
    free = sorted({port for (_, port), how in found.items() if how != "EACCES"})
    if free:
        return False, f"anybody may take {', '.join(map(str, free))} when it is free"
    return True, f"EACCES for {', '.join(map(str, sorted({port for _, port in places})))}"


def _owner(scene):
    inodes = _inodes()
    others = sorted({port for _, port, uid, inode in _sockets() if inode in inodes and uid})
    return not others, f"{', '.join(map(str, others))} are not" if others else "all root's"


def _key(scene):
    for program in ("ssh", "ssh-keygen"):
        if not shutil.which(program):
            return False, f"not played: {program} is not installed"
    key = os.path.join(scene.directory, "key")
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "plasma.prove", "-f", key], timeout=30, check=True
    )
    scene.agent(scene.a)("write_key", text=pathlib.Path(f"{key}.pub").read_text(encoding="ascii").strip())
    return _ssh(scene.a, ["-i", key, "-o", "PreferredAuthentications=publickey", "-o", "BatchMode=yes"], {})


def _password(scene):
    if not shutil.which("ssh"):
        return False, "not played: ssh is not installed"
    secret = os.path.join(scene.directory, "password")
    with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(scene.a["password"] + "\n")
    ask = os.path.join(scene.directory, "ask")
    with open(os.open(ask, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700), "w", encoding="ascii") as file:
        file.write(f"#!/bin/sh\ncat {secret}\n")
    options = ["-o", "PreferredAuthentications=password,keyboard-interactive", "-o", "NumberOfPasswordPrompts=1"]
    return _ssh(scene.a, options, {"SSH_ASKPASS": ask, "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"})


def _ssh(person, options, environment):
    """Try to run `id` over SSH on this machine's own address."""
    command = ["ssh", "-F", "/dev/null", "-p", str(_ssh_port()), "-l", person["name"], *options]
    for option in (
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "IdentitiesOnly=yes",
        "ConnectTimeout=5",
    ):
        command += ["-o", option]
    done = subprocess.run(
        [*command, address(), "id", "-u"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SSH,
        env={"PATH": "/usr/bin:/bin", **environment},
        start_new_session=True,
    )
    if done.stdout.strip() == str(person["uid"]):
        return False, f"a shell as uid {person['uid']}"
    lines = [line for line in done.stderr.strip().splitlines() if "known hosts" not in line]
    return True, lines[-1].strip()[-90:] if lines else f"no shell (code {done.returncode})"


def _ssh_port():
    sshd = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/bin")
    done = subprocess.run([sshd, "-T"], capture_output=True, text=True, timeout=20) if sshd else None
    found = re.search(r"^port (\d+)", done.stdout, re.MULTILINE) if done else None
    return found[1] if found else "22"


def _jobs(scene):
    tried, let = [], []
    for program, command, text in (
        ("crontab", ["crontab", "-"], "0 0 1 1 * true\n"),
        ("at", ["at", "-q", "z", "now + 1 year"], "true\n"),
        ("loginctl", ["loginctl", "enable-linger"], ""),
    ):
        if not shutil.which(program):
            continue
        tried.append(program)
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            timeout=30,
            user=scene.a["uid"],
            group=scene.a["gid"],
            extra_groups=[],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "USER": scene.a["name"], "LOGNAME": scene.a["name"], "HOME": "/"},
        )
        if not done.returncode:
            let.append(program)
    if let:
        return False, f"{', '.join(let)} did it"
    return True, f"{', '.join(tried)} refused" if tried else "none is installed"


def _reach(scene):
    server = scene.agent(scene.b).address
    public = {80, 443, scene.where["port"]}
    places = [[server, 8888], *([one, port] for one, port in listening() if port not in public)]
    places = [[{"0.0.0.0": "127.0.0.1", "::": "::1"}.get(one, one), port] for one, port in places]
    found = _as(scene.a, _CONNECT, places)
    reached = [f"{one} port {port}" for (one, port), how in zip(places, found, strict=True) if how == "open"]
    return (False, ", ".join(reached[:4])) if reached else (True, f"{len(places)} refused")
