"""What containers may reach beside the internet, as ``plasma.network`` says it."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# What is no address of the internet: "this" network, private ones, of carriers, loopback, link-local, of protocols and
# of clouds' own services, of benchmarks, multicast, reserved with broadcast. Docker's own networks are among them.
PRIVATE = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
ENTRY_WORDS = "an IPv4 address or network such as 10.1.2.3 or 10.1.2.0/24, with :PORT where it is only that one"
HOST_WORDS = "an IPv4 address, a network or a name, with :PORT where it is only that one"


@dataclass(frozen=True)
class Entry:
    """Addresses that may be reached: ``host`` is a network ("10.1.2.0/24") or a name; without a port, all ports."""

    host: str
    port: int | None = None


def entry(value: Any, *, names: bool = False) -> Entry:
    """Return what an entry of the settings says.

    Args:
        value: "10.1.2.0/24:5432" and the like.
        names: whether the name of a host will do.

    Raises:
        ValueError: it says something else.
    """
    host, colon, port = value.partition(":") if isinstance(value, str) else ("", "", "")
    if colon and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise ValueError(value)
    try:
        host = str(ipaddress.IPv4Network(host))
    except ValueError:
        # A last part of digits would make an address of it, if a wrong one.
        if not (names and _NAME.fullmatch(host.lower()) and not host.rpartition(".")[2].isdigit()):
            raise ValueError(value) from None
        host = host.lower()
    return Entry(host, int(port) if colon else None)


@dataclass(frozen=True)
class Reach:
    """What the containers of a network reach beside the internet.

    Attributes:
        allow: private addresses and their ports.
        host_ports: TCP ports of this machine, on any address of it.
    """

    allow: tuple[Entry, ...] = ()
    host_ports: tuple[int, ...] = ()

    def resolved(self) -> Reach:
        """Return the same with addresses in place of names; a name that nobody knows is left out."""
        # Each address once, in the order of the entries.
        addresses = dict.fromkeys(address for allowed in self.allow for address in _addresses(allowed))
        return Reach(tuple(addresses), self.host_ports)


INTERNET = Reach()


def _addresses(allowed: Entry) -> Iterable[Entry]:
    if "/" in allowed.host:
        return [allowed]
    try:
        answers = socket.getaddrinfo(allowed.host, allowed.port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return [Entry(f"{address}/32", allowed.port) for address in sorted({answer[4][0] for answer in answers})]
