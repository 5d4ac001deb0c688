"""
Salt's renderer of encrypted values; one that cannot be decrypted in a file of pillar is told in one line.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import salt.renderers.gpg
from salt.exceptions import SaltRenderError

_spec = importlib.util.spec_from_file_location(
    "plasma_pillar", Path(__file__).resolve().parents[1] / "_pillar" / "plasma.py"
)
assert _spec and _spec.loader
plasma_pillar = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plasma_pillar)
salts_own = plasma_pillar.schema("sls_file").borrow(salt.renderers.gpg, globals())


def render(gpg_data, saltenv="base", sls="", argline="", **kws):
    """
    Return data with its encrypted values decrypted.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' pillar.items
    """
    try:
        return salts_own["render"](gpg_data, saltenv, sls, argline, **kws)
    except SaltRenderError:
        files = plasma_pillar.schema("sls_file")
        file = files.read_by_us(kws.get("tmplpath"), sls, saltenv, __opts__, kws.get("_pillar_rend"))
        if not file:
            raise
        return file.wrong(files.Mistake(1, files.SEALED))
