"""
Salt's renderer of YAML; what is wrong in a file of pillar or the roster is told in one line, without its content.

The work is in `_pillar/plasma_schema/sls_file.py`. Other files, such as states, are Salt's own business.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import salt.renderers.yaml

_spec = importlib.util.spec_from_file_location(
    "plasma_pillar", Path(__file__).resolve().parents[1] / "_pillar" / "plasma.py"
)
assert _spec and _spec.loader
plasma_pillar = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plasma_pillar)
salts_own = plasma_pillar.schema("sls_file").borrow(salt.renderers.yaml, globals())


def render(yaml_data, saltenv="base", sls="", argline="", **kws):
    """
    Return the data of a text.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' pillar.items
    """
    files = plasma_pillar.schema("sls_file")
    file = files.read_by_us(kws.get("tmplpath"), sls, saltenv, __opts__, kws.get("_pillar_rend"))
    if not file:
        return salts_own["render"](yaml_data, saltenv, sls, argline, **kws)
    return file.data(yaml_data if isinstance(yaml_data, str) else yaml_data.read())
