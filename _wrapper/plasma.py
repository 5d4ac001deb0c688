"""
``plasma.status`` and ``plasma.prove`` under salt-ssh. Modules on a server see neither pillar nor tree there; this runs
on the controller, which has both, and hands what the server needs of them to its one call. No secrets are in that.
"""

from __future__ import annotations

import pathlib
from typing import Any

import plasma_site_record


def status(warn_at: int | None = None) -> dict[str, Any]:
    """
    Return how a server is, see ``plasma.status`` in ``_modules/plasma_status.py``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma.status
    """
    mistakes = [str(line) for line in __pillar__.get("_errors") or []]
    report = __salt__["plasma_server.status"](
        wanted=_wanted(), warn_at=warn_at, mistakes=mistakes, tool="salt-ssh '{id}'"
    )
    return _answer(report, report["healthy"])


def prove(only: str | None = None, clean: bool = False) -> dict[str, Any]:
    """
    Play the known attacks on a running server, see ``plasma.prove`` in ``_modules/plasma_prove.py``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma.prove
    """
    hub = (__pillar__.get("plasma") or {}).get("hub") or {}
    run = __salt__["plasma_server.prove"](only=only, clean=clean, prefix=hub.get("prefix") or "/opt/tljh")
    return _answer(run, isinstance(run, dict) and run.get("refused") is True)


def _answer(value: Any, good: bool) -> dict[str, Any]:
    """Salt takes a result of this form as it is: the outputter is in _output/, and the code is that of salt-ssh."""
    if not good:
        __context__["retcode"] = 1
    return {"local": {"return": value, "retcode": int(not good), "out": "plasma"}}


def _wanted() -> dict[str, Any]:
    """What the server would be like if this tree were applied to it now."""
    for root in map(pathlib.Path, __opts__["file_roots"]["base"]):
        folder = root / "tljh" / "plugin"
        if folder.is_dir():
            requirements, package = folder / "requirements.txt", folder / "src" / "tljh_plasma" / "__init__.py"
            return plasma_site_record.wanted(
                __pillar__.get("plasma") or {},
                plasma_site_record.plugin_files(folder),
                requirements.read_text(encoding="utf-8"),
                package.read_text(encoding="utf-8"),
            )
    return {}
