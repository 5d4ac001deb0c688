"""
``plasma.status``: how a server is, problems first. Under salt-ssh the function of the same name in ``_wrapper/`` is
called instead, on the controller; this one serves minions, which have pillar and tree themselves.
"""

from __future__ import annotations

import os

from salt.exceptions import SaltException

import plasma_site_record
import plasma_status_report

__virtualname__ = "plasma"
__outputter__ = {"status": "plasma"}

_PLUGIN = "tljh/plugin/"


def __virtual__():
    return __virtualname__


def status(warn_at=None):
    """
    Return how this server is. Nothing is changed.

    warn_at
        Percent of a disk from which on it is a problem; that of pillar (``plasma.docker.prune.warn_at``) otherwise.

    Returns ``healthy`` (bool), ``problems`` (``[{"severity": error|warning, "problem", "mend"}]``, errors first, but
    before them that an apply runs), ``server``, ``versions`` (``{name: {"installed", "available"}}``, available being
    what this tree installs), ``services``, ``certificate``, ``disks``, ``quotas``, ``environments``, ``servers`` (those
    of people that run), ``applied`` (when the whole site was applied last, and what is pending), and what the function
    ``health`` of each module says: ``databases``, ``backup``, ``cockpit``, ``gpu``, ``prune``, ``upgrade``, ``ssh``
    (who may log in to the host). A part that this server has not, or that could not be looked at, is null. The exit
    code of Salt is not 0 when there is an error; warnings alone leave it 0.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma.status
        salt-ssh '*' plasma.status --out=json
        salt '*' plasma.status
        salt-call plasma.status
    """
    # What a minion keeps in memory is older than its master's files.
    pillar = __salt__["pillar.items"](unmask=True)
    plasma = pillar.get("plasma") or {}
    mistakes = [str(line) for line in pillar.get("_errors") or []]
    local = __opts__.get("file_client") == "local"
    found = plasma_status_report.report(
        __salt__,
        __grains__,
        os.path.dirname(__file__),
        wanted=_wanted(plasma) if plasma else {},
        warn_at=warn_at,
        mistakes=mistakes,
        tool="salt-call --local" if local else "salt '{id}'",
    )
    if not found["healthy"]:
        __context__["retcode"] = 1
    return found


def _wanted(plasma):
    """What the tree of the master, or of this minion, wants; without the tree where it cannot be read."""
    try:
        files = {
            name[len(_PLUGIN) :]: (__salt__["cp.hash_file"](f"salt://{name}") or {}).get("hsum")
            for name in __salt__["cp.list_master"](prefix=_PLUGIN)
            if "/tests/" not in name
        }
        lock = __salt__["cp.get_file_str"](f"salt://{_PLUGIN}requirements.txt") or ""
        plugin = __salt__["cp.get_file_str"](f"salt://{_PLUGIN}src/tljh_plasma/__init__.py") or ""
    except SaltException:
        files, lock, plugin = {}, "", ""
    return plasma_site_record.wanted(plasma, files, lock, plugin)
