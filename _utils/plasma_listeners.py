"""
Whose program is at the other end: the kernel's tables of TCP sockets (proc_net_tcp in the kernel's documentation).

A secret goes to root's program alone, and a port above 1023 is anybody's while nobody listens on it. Looking who
listens is not enough: a program that has accepted a connection may have ended its listening since.
"""

from __future__ import annotations

import ipaddress
import os
import pathlib
import re
import struct
from typing import NamedTuple

HUB_UNITS = ("traefik.service", "jupyterhub.service")
LISTENING = "0A"  # include/net/tcp_states.h


class Socket(NamedTuple):
    """One line of the kernel's tables."""

    local: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int
    remote: ipaddress.IPv4Address | ipaddress.IPv6Address
    remote_port: int
    state: str
    uid: int
    inode: int


def listeners(address, port):
    """
    Return the uids, sorted, of those who listen on a TCP port of this machine.

    address
        The address that is asked for; a listener on all addresses counts. With a name, those on any address count.

    port
        Number of the port.
    """
    try:
        wanted = _address(address)
    except ValueError:
        wanted = None
    return sorted(
        {
            found.uid
            for found in sockets()
            if found.state == LISTENING
            and found.port == port
            and (wanted is None or found.local.is_unspecified or found.local == wanted)
        }
    )


def peer(local, remote):
    """
    Return the uid of the program at the other end of a TCP connection of this machine. None while no program has
    accepted it, or when its end is not here.

    local
        ``getsockname()`` of our end.

    remote
        ``getpeername()`` of our end.
    """
    theirs = (_address(remote[0]), remote[1], _address(local[0]), local[1])
    if theirs[:2] == theirs[2:]:
        return None  # connected to itself, as happens on a port that nobody listens on
    for found in sockets():
        # One that waits to be accepted belongs to no file yet: it has no inode, and 0 stands where the uid would.
        if tuple(found[:4]) == theirs and found.inode:
            return found.uid
    return None


def holders(port, proc="/proc", address=None):
    """
    Return the processes that listen on a TCP port, as ``[{"pid", "name", "unit"}]``.

    address
        That of this machine which is wanted there: who listens on another one alone is none of them. None is all.

    ``unit`` is the systemd unit the process belongs to, or an empty string. A socket whose process cannot be found
    (another network owner, a kernel service) has pid 0 and the name "unknown".
    """
    root = pathlib.Path(proc)
    try:
        mine = _address(str(address or "").strip("[]"))
    except ValueError:
        mine = None  # none, or a name
    everywhere = mine is None or mine.is_unspecified
    wanted = {
        f"socket:[{found.inode}]"
        for found in sockets(proc)
        if found.state == LISTENING
        and found.port == int(port)
        and (everywhere or found.local.is_unspecified or found.local == mine)
    }
    if not wanted:
        return []
    found = []
    for entry in root.iterdir():
        if entry.name.isdigit() and _holds_socket(entry, wanted):
            found.append(
                {"pid": int(entry.name), "name": _read(entry / "comm"), "unit": _unit(_read(entry / "cgroup"))}
            )
    return found or [{"pid": 0, "name": "unknown", "unit": ""}]


def port_problem(port: int, address: str | None = None, key: str = "") -> str | None:
    """
    Return why the hub's proxy cannot have a TCP port, as a sentence, or None: a program of others listens on it.

    port, address
        Where it is to listen; no address is all.
    key
        What gives the proxy another port in pillar, for the sentence.
    """
    other = next((process for process in holders(port, address=address) if process["unit"] not in HUB_UNITS), None)
    if other is None:
        return None
    process = ", ".join(filter(None, (f"pid {other['pid']}", other["unit"])))
    instead = f", or give the proxy another one with {key}" if key else ""
    return (
        f"port {port} is taken by {other['name']} ({process}): stop it or move it, the hub's proxy needs this "
        f"port{instead}"
    )


def _address(text):
    """An address without the zone of IPv6; that of an IPv4 connection to an IPv6 socket is the IPv4 one."""
    found = ipaddress.ip_address(text.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


def _place(text):
    """``0100007F:1F90``: words in the machine's byte order, as the kernel prints them, and the port."""
    digits, _, port = text.partition(":")
    words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    found = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    return getattr(found, "ipv4_mapped", None) or found, int(port, 16)


def sockets(proc="/proc"):
    """Yield every TCP socket of this machine: addresses are those of ``ipaddress``, ``uid`` is its owner's."""
    for table in ("tcp", "tcp6"):
        try:
            lines = pathlib.Path(proc, "net", table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            yield Socket(*_place(fields[1]), *_place(fields[2]), fields[3], int(fields[7]), int(fields[9]))


def _holds_socket(process, wanted):
    try:
        with os.scandir(process / "fd") as descriptors:
            for descriptor in descriptors:
                try:
                    if os.readlink(descriptor.path) in wanted:
                        return True
                except OSError:
                    continue  # closed while we looked
    except OSError:
        pass  # the process ended, or is a kernel thread
    return False


def _read(path):
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _unit(cgroup):
    """The systemd unit named last in a /proc/PID/cgroup text."""
    units = re.findall(r"/([^/\s]+\.(?:service|scope|socket))", cgroup)
    return units[-1] if units else ""
