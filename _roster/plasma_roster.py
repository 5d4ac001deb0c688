"""
The roster: a file as Salt's own (``flat``), with the directory of Salt on a server where nobody but root can make it.

salt-ssh runs as root what it finds in that directory, whoever made it, if a checksum in it is right; and anybody can
compute that. Salt's own place for it is below ``/var/tmp``, with a name that follows from the controller's: whoever has
a shell on a server could make it before an operator comes from another machine, or after it was tidied away.
"""

from __future__ import annotations

import re
import uuid

import salt.loader
import salt.utils.network

__virtualname__ = "plasma_roster"

# Root's on every system, and not tidied.
ABOVE = "/var/lib"


def __virtual__():
    return __virtualname__


def targets(tgt, tgt_type="glob", **kwargs):
    """
    Return the servers of the roster file that match.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' test.ping
    """
    rosters = salt.loader.roster(__opts__, utils=salt.loader.utils(__opts__))
    found = rosters["flat.targets"](tgt, tgt_type, **kwargs)
    if not (__opts__.get("rand_thin_dir") or __opts__.get("relenv")):
        for server in found.values():
            server.setdefault("thin_dir", _directory(server.get("user") or __opts__["ssh_user"]))
    return found


def _directory(user):
    """For each user and each controller another one: each brings a copy of its own."""
    name = re.sub(r"[^a-zA-Z0-9._@-]", "_", user)
    controller = uuid.uuid3(uuid.NAMESPACE_DNS, salt.utils.network.get_fqhostname()).hex[:6]
    return f"{ABOVE}/.{name}_{controller}_salt"
