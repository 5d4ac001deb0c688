"""
Whether names lead to this server, so that an authority, and later people, find it there.
"""

from __future__ import annotations

import contextlib
import secrets
import socket

import plasma_https_certificates


def sample(domain: str) -> str:
    """Return a name for which a wildcard is good, one that nobody has; another name as it is."""
    return f"plasma-{secrets.token_hex(4)}{domain[1:]}" if domain.startswith("*.") else domain


def elsewhere(domain: str) -> str | None:
    """Return why a name does not lead to this server, as a sentence, or None."""
    try:
        addresses = _addresses(domain)
    except OSError as exc:
        return (
            f"{domain} has no address ({exc.strerror}): add an A or AAAA record for it that names this server, and "
            "wait until it is known"
        )
    # Behind a router the address is the router's: what is reached through it then has to be this server.
    if all(map(_ours, addresses)) or all(_ours(address) or _leads_here(address, domain) for address in addresses):
        return None
    return (
        f"{domain} leads to {', '.join(addresses)}, where port 443 is not this server's: correct its A and AAAA "
        "records, or forward ports 80 and 443 to this server; for names that only outsiders reach, set "
        "plasma.https.check: false"
    )


def below_elsewhere(hub: str) -> str | None:
    """Return why names of people's servers do not lead where the hub's name does, as a sentence, or None."""
    name = sample(f"*.{hub}")
    outsiders = "for names that only outsiders know, set plasma.https.check: false"
    try:
        addresses = _addresses(name)
    except OSError as exc:
        return (
            f"{name} has no address ({exc.strerror}), and people's servers get such names: add a wildcard record for "
            f"*.{hub} that leads to this server; {outsiders}"
        )
    hub_addresses = []
    with contextlib.suppress(OSError):
        hub_addresses = _addresses(hub)
    if all(map(_ours, addresses)) or set(addresses) <= set(hub_addresses):
        return None
    return (
        f"{name} leads to {', '.join(addresses)} and {hub} to {', '.join(hub_addresses) or 'no address'}: correct the "
        f"records, people's servers are where the hub is; {outsiders}"
    )


def _addresses(domain):
    return sorted({entry[4][0] for entry in socket.getaddrinfo(domain, 443, type=socket.SOCK_STREAM)})


def _ours(address):
    """Whether an address is one of this machine: nobody can bind to another."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _leads_here(address, domain, timeout=5):
    """Whether port 443 of an address is this machine's: while it is free, a random word sent there arrives here."""
    shown = plasma_https_certificates.served(domain)
    if shown:
        return plasma_https_certificates.served(domain, address=address) == shown
    word = secrets.token_bytes(32)
    try:
        with (
            socket.create_server(("", 443)) as listener,
            socket.create_connection((address, 443), timeout=timeout) as sender,
        ):
            sender.sendall(word)
            listener.settimeout(timeout)
            while True:
                caller = listener.accept()[0]
                with caller, contextlib.suppress(OSError):
                    caller.settimeout(timeout)
                    # Strangers may call as well, in the meantime.
                    if caller.recv(len(word), socket.MSG_WAITALL) == word:
                        return True
    except OSError:
        return False
