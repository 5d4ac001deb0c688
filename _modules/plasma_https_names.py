"""
Whether names lead to this server, so that an authority, and later people, find it there.
"""

from __future__ import annotations

import secrets
import socket
import threading

__virtualname__ = "plasma_https_names"


def __virtual__():
    return __virtualname__


def _addresses(domain):
    return sorted({entry[4][0] for entry in socket.getaddrinfo(domain, 443, type=socket.SOCK_STREAM)})


def below_elsewhere(hub):
    """
    Return why names of people's servers do not lead where the hub's does, as a sentence, or None.

    hub
        The hub's name.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_names.below_elsewhere hub.example.org
    """
    name, record = sample(f"*.{hub}"), f"a wildcard record for *.{hub}"
    outsiders = "for names that only outsiders know, set plasma.https.check: false"
    try:
        found = _addresses(name)
    except OSError as exc:
        return (
            f"{name} has no address ({exc.strerror}), and people's servers get such names: add {record} that leads to "
            f"this server; {outsiders}"
        )
    if all(_ours(address) for address in found):
        return None
    try:
        hubs = _addresses(hub)
    except OSError:
        hubs = []
    if set(found) <= set(hubs):
        return None
    return (
        f"{name} leads to {', '.join(found)} and {hub} to {', '.join(hubs) or 'no address'}: correct the records, "
        f"people's servers are where the hub is; {outsiders}"
    )


def sample(domain):
    """
    Return a name for which a wildcard is good, one that nobody has; another name as it is.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_names.sample '*.example.org'
    """
    return f"plasma-{secrets.token_hex(4)}{domain[1:]}" if domain.startswith("*.") else domain


def elsewhere(domain):
    """
    Return why a name does not lead to this server, as a sentence, or None.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_names.elsewhere hub.example.org
    """
    try:
        addresses = _addresses(domain)
    except OSError as exc:
        return (
            f"{domain} has no address ({exc.strerror}): add an A or AAAA record for it that names this server, and "
            "wait until it is known"
        )
    if all(_ours(address) for address in addresses):
        return None
    # Behind a router the address is the router's: what is reached through it then has to be this server.
    if all(_ours(address) or _leads_here(address, domain) for address in addresses):
        return None
    return (
        f"{domain} leads to {', '.join(addresses)}, where port 443 is not this server's: correct its A and AAAA "
        "records, or forward ports 80 and 443 to this server; for names that only outsiders reach, set "
        "plasma.https.check: false"
    )


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
    """Whether port 443 of an address is this machine's: while it is free a random word is told there."""
    shown = __salt__["plasma_https_certificates.served"](domain)
    if shown:
        return __salt__["plasma_https_certificates.served"](domain, address=address) == shown
    word = secrets.token_bytes(32)
    try:
        listener = socket.create_server(("", 443))
    except OSError:
        return False
    with listener:
        listener.settimeout(timeout)
        teller = threading.Thread(target=_tell, args=(listener, word), daemon=True)
        teller.start()
        try:
            with socket.create_connection((address, 443), timeout=timeout) as asked:
                return asked.recv(len(word), socket.MSG_WAITALL) == word
        except OSError:
            return False


def _tell(listener, word):
    try:
        while True:
            with listener.accept()[0] as caller:
                caller.sendall(word)
    except OSError:
        return  # the time is over, or the listener closed
