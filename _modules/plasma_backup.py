"""
Backups of the hub: made, listed, looked at, and brought back.

The work is done by a program of the standard library alone, which lies on the server beside the hub's plugin, so that
a timer can run it without Salt, and so that it works while the hub's own environment does not.
"""

from __future__ import annotations

from salt.exceptions import SaltInvocationError

import plasma_public
from plasma_backup_program import create, extract, health, list_, verify

__func_alias__ = {"list_": "list"}

plasma_public.offer(globals(), create, extract, health, list_, verify)


def restore(path, prefix="/opt/tljh", what=("hub",), **options):
    """
    Bring an archive back: see ``plasma_restore``, which does it.

    path
        The archive.
    prefix
        Where the hub is installed.
    what
        ``hub`` (configuration, databases, secrets), ``people`` (accounts and homes that are missing), ``images``.
    options
        What ``plasma_restore.apply`` takes besides, such as ``other_machine`` and ``timeout``.

    Returns ``{"changes", "comment", "kept"}``. Raises CommandExecutionError with one sentence.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_backup.restore /var/opt/plasma/backups/plasma-hub-20261125T033000Z-manual.tar.gz
    """
    parts = {name: name in what for name in ("hub", "people", "images")}
    if not any(parts.values()):
        raise SaltInvocationError("what must name hub, people or images.")
    options = {key: value for key, value in options.items() if not key.startswith("__")}
    return __salt__["plasma_restore.apply"](path, prefix=prefix, **parts, **options)
