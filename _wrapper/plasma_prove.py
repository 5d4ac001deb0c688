"""
``plasma.prove`` under salt-ssh. Modules on a server do not see pillar there; this runs on the controller, which does.
"""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma"

# What Salt puts before the sentence that a function on the server refuses with.
REFUSED = "Error running 'plasma_prove_run.run': "


def __virtual__():
    return __virtualname__


def prove(only=None, clean=False):
    """
    Play the known attacks on a running server, see ``plasma.prove`` in ``_modules/plasma_prove.py``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma.prove
    """
    hub = (__pillar__.get("plasma") or {}).get("hub") or {}
    try:
        found = __salt__["plasma_prove_run.run"](only=only, clean=clean, prefix=hub.get("prefix") or "/opt/tljh")
    except CommandExecutionError as exc:
        # Salt would show the sentence as one of five lines about a command that failed.
        _, refused, found = getattr(exc, "stderr", "").partition(REFUSED)
        if not refused:
            raise
        found = found.strip()
    # Salt takes a result of this form as it is: the outputter is in _output/, and the code is that of salt-ssh.
    code = 0 if isinstance(found, dict) and found.get("refused") is True else 1
    if code:
        __context__["retcode"] = code
    return {"local": {"return": found, "retcode": code, "out": "plasma_prove"}}
