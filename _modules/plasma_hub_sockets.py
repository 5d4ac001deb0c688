"""
Whose program is at the other end: the kernel's tables of TCP sockets (proc_net_tcp in the kernel's documentation).

A secret goes to root's program alone, and a port above 1023 is anybody's while nobody listens on it. Looking who
listens is not enough: a program that has accepted a connection may have ended its listening since.
"""

from __future__ import annotations

import collections
import ipaddress
import pathlib
import struct

__virtualname__ = "plasma_hub_sockets"

_LISTENING = "0A"
_Socket = collections.namedtuple("_Socket", "local port remote remote_port state uid inode")


def __virtual__():
    return __virtualname__


def listeners(address, port):
    """
    Return the uids, sorted, of those who listen on a TCP port of this machine.

    address
        The address that is asked for; a listener on all addresses counts. With a name, those on any address count.

    port
        Number of the port.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_sockets.listeners 127.0.0.1 80
    """
    try:
        wanted = _address(address)
    except ValueError:
        wanted = None
    return sorted(
        {
            found.uid
            for found in _sockets()
            if found.state == _LISTENING
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

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_sockets.peer '[127.0.0.1, 40000]' '[127.0.0.1, 80]'
    """
    theirs = (_address(remote[0]), remote[1], _address(local[0]), local[1])
    if theirs[:2] == theirs[2:]:
        return None  # connected to itself, as happens on a port that nobody listens on
    for found in _sockets():
        # One that waits to be accepted belongs to no file yet: it has no inode, and 0 stands where the uid would.
        if tuple(found[:4]) == theirs and found.inode:
            return found.uid
    return None


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


def _sockets():
    for table in ("tcp", "tcp6"):
        try:
            lines = pathlib.Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            yield _Socket(*_place(fields[1]), *_place(fields[2]), fields[3], int(fields[7]), int(fields[9]))
