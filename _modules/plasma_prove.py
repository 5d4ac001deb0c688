"""
``plasma.prove``: play the known attacks against this server and see each refused. Under salt-ssh the function of the
same name in ``_wrapper/`` is called instead, on the controller; this one serves minions, which have pillar themselves.
"""

from __future__ import annotations

import plasma_prove_run

__virtualname__ = "plasma"
__outputter__ = {"prove": "plasma"}


def __virtual__():
    return __virtualname__


def prove(only=None, clean=False):
    """
    Play the known attacks on a running server, with two throwaway people and a throwaway environment that are removed
    at the end. Nothing else is changed; people go on working meanwhile.

    only
        Names of attacks, separated by commas: ``A2``, or one line of it as ``A2.key``. None for all.

    clean
        True to play nothing and only remove what a run that was killed has left. Every run does that first.

    Returns ``refused`` (bool: every attack was), ``attacks`` (``[{"attack", "what", "expected", "seen", "refused"
    (None where this server has not what is attacked), "seconds"}]``), ``problems`` (what could not be removed, one
    sentence each), ``removed`` (what an earlier run had left) and ``seconds``. The exit code of Salt is 0 only when
    every attack was refused and everything was removed.

    Raises CommandExecutionError where there is no hub that throwaway people can log in to, where another run is going
    on, and for attacks that there are not.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma.prove
        salt-ssh '*' plasma.prove only=A2,A9.layer
        salt-ssh '*' plasma.prove clean=True
        salt '*' plasma.prove --out=json
    """
    pillar = __salt__["pillar.items"](unmask=True)
    found = plasma_prove_run.run(only=only, clean=clean, prefix=_prefix(pillar.get("plasma")))
    if not found["refused"]:
        __context__["retcode"] = 1
    return found


def _prefix(plasma):
    hub = (plasma or {}).get("hub")
    return (hub or {}).get("prefix") or "/opt/tljh"
