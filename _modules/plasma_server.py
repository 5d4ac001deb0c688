"""
What the wrappers of ``plasma.status`` and ``plasma.prove``, which run on the controller, call on a server.
"""

from __future__ import annotations

import os

from salt.exceptions import CommandExecutionError

import plasma_prove_run
import plasma_status_report


def status(**options):
    """
    Return how this server is; see ``plasma.status``.

    options
        ``wanted`` (what tree and pillar want), ``warn_at``, ``mistakes`` and ``tool``; see
        ``plasma_status_report.report``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_server.status
    """
    options = {key: value for key, value in options.items() if not key.startswith("__")}
    return plasma_status_report.report(__salt__, __grains__, os.path.dirname(__file__), **options)


def prove(only=None, clean=False, prefix="/opt/tljh"):
    """
    Play the known attacks on this server; see ``plasma.prove``.

    only, clean
        As for ``plasma.prove``.
    prefix
        Where the hub is installed.

    Returns what ``plasma.prove`` does; where nothing can be played the sentence that says why, as salt-ssh makes five
    lines about a command that failed of an error.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_server.prove
    """
    try:
        return plasma_prove_run.run(only=only, clean=clean, prefix=prefix)
    except CommandExecutionError as exc:
        return str(exc)
