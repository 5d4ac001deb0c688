"""
``plasma.status`` under salt-ssh. Modules on a server see neither pillar nor tree there; this runs on the controller,
which has both, and hands what the server compares itself with to its one call. No secrets are in that.
"""

from __future__ import annotations

import importlib.util
import pathlib

__virtualname__ = "plasma"


def __virtual__():
    return __virtualname__


def status(warn_at=None):
    """
    Return how a server is, see ``plasma.status`` in ``_modules/plasma_status.py``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma.status
    """
    plasma = __pillar__.get("plasma") or {}
    mistakes = __pillar__.get("_errors") or []
    found = __salt__["plasma_status_report.report"](
        wanted=_wanted(plasma), warn_at=warn_at, mistakes=[str(line) for line in mistakes], tool="salt-ssh '{id}'"
    )
    # Salt takes a result of this form as it is: the outputter is in _output/, and the code is that of salt-ssh.
    code = 0 if found["healthy"] else 1
    if code:
        __context__["retcode"] = code
    return {"local": {"return": found, "retcode": code, "out": "plasma_status"}}


def _wanted(plasma):
    for root in __opts__["file_roots"]["base"]:
        folder = pathlib.Path(root) / "tljh" / "plugin"
        module = pathlib.Path(root) / "_modules" / "plasma_site.py"
        if folder.is_dir() and module.is_file():
            spec = importlib.util.spec_from_file_location("plasma_site_on_the_controller", module)
            site = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(site)
            return site.wanted(
                plasma,
                site.plugin_files(folder),
                (folder / "requirements.txt").read_text(encoding="utf-8"),
                (folder / "src" / "tljh_plasma" / "__init__.py").read_text(encoding="utf-8"),
            )
    return {}
