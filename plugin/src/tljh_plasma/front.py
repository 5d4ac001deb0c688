"""Proxies in front of ours (``plasma.http.behind`` in pillar): whose word is believed for whom they ask."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from tornado import httputil

_IN_FRONT: list[IPv4Network | IPv6Network] = []


def believe(proxies: Iterable[str]) -> None:
    """Take the word of proxies in front of ours for whom they ask.

    Args:
        proxies: the addresses, or networks, that they connect to ours from.
    """
    global _IN_FRONT
    _IN_FRONT = [ip_network(proxy) for proxy in proxies]


def asked_by(headers: httputil.HTTPHeaders) -> str:
    """Return the address of the client that our proxy asks for, and let the headers name no other.

    Each proxy adds whom it was asked by at the end, and clients may write whatever they like before that: the last one
    that is no proxy in front is the client.

    Args:
        headers: those of a request that comes from our proxy; empty where they name nobody.
    """
    steps = [step.strip()[:64] for step in headers.get("X-Forwarded-For", "").split(",")]
    if not _IN_FRONT:
        return headers.get("X-Real-Ip", "").strip()[:64] or steps[-1]
    client = steps[-1]
    for client in reversed(steps):
        try:
            address = ip_address(client)
        except ValueError:
            break
        if not any(address in proxies for proxies in _IN_FRONT):
            break
    for name in ("X-Real-Ip", "X-Forwarded-For"):
        headers[name] = client
    return client
