"""
What containers may reach in private networks: addresses with ports.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from .base import Rule, refuse
from .rules import HOST_NAME

_WORDS = "an IPv4 address or network with or without :PORT, such as 10.1.2.3:5432 or 10.1.2.0/24"


def _port(text: str, port: str) -> None:
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise refuse("has no port from 1 to 65535 after the colon")


def _network(text: str) -> str:
    host, colon, port = text.partition(":")
    if "::" in text or text.count(":") > 1:
        raise refuse("is an IPv6 address, which user servers do not have")
    if colon:
        _port(text, port)
    try:
        ipaddress.IPv4Network(host)
    except ValueError:
        try:
            network = ipaddress.IPv4Network(host, strict=False)
        except ValueError:
            raise refuse("is no IPv4 address and no network") from None
        raise refuse(f"has host bits set (the network is {network})") from None
    return text


def _place(text: str) -> str:
    host, colon, port = text.partition(":")
    if not HOST_NAME.fullmatch(host) or host.rpartition(".")[2].isdigit():
        return _network(text)
    if colon:
        _port(text, port)
    return text


def reached(url: str) -> str | None:
    """Return the place that a URL leads to, or None where it cannot be one: an IPv6 address."""
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    return None if ":" in (parts.hostname or ":") else place


NetworkEntry = Annotated[str, AfterValidator(_network), Rule(_WORDS)]
BuildEntry = Annotated[str, AfterValidator(_place), Rule(f"{_WORDS}, or a host's name such as git.example.org:443")]
