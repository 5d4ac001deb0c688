"""
Salt's renderer of Jinja; what is wrong in a file of pillar or the roster is told in one line, without its content.

The work is in `_pillar/plasma_schema/sls_file.py`. Other files, such as states, are Salt's own business.
"""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path

import salt.renderers.jinja
import salt.utils.templates

_spec = importlib.util.spec_from_file_location(
    "plasma_pillar", Path(__file__).resolve().parents[1] / "_pillar" / "plasma.py"
)
assert _spec and _spec.loader
plasma_pillar = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(plasma_pillar)
salts_own = plasma_pillar.schema("sls_file").borrow(salt.renderers.jinja, globals())


def render(template_file, saltenv="base", sls="", argline="", context=None, tmplpath=None, **kws):
    """
    Return the text that the templates of a text make.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' pillar.items
    """
    files = plasma_pillar.schema("sls_file")
    file = files.read_by_us(tmplpath, sls, saltenv, __opts__, kws.get("_pillar_rend"))
    if not file:
        return salts_own["render"](template_file, saltenv, sls, argline, context, tmplpath, **kws)
    text = template_file if isinstance(template_file, str) else template_file.read()
    try:
        file.check_templates(text)
        # Not by Salt's wrapper of this function, which logs the file's lines around a mistake.
        made = salt.utils.templates.render_jinja_tmpl(
            text,
            {
                "salt": salt.utils.templates.AliasedLoader(salts_own["_split_module_dicts"]()),
                "grains": __grains__,
                "opts": __opts__,
                "pillar": __pillar__,
                "proxy": __proxy__,
                "saltenv": saltenv,
                "sls": sls,
                **salt.utils.templates.generate_sls_context(tmplpath, sls),
                **kws,
                **(context or {}),
            },
            tmplpath,
        )
    except files.Mistake as mistake:
        made = json.dumps(file.wrong(mistake))
    except Exception as error:  # pylint: disable=broad-except
        made = json.dumps(file.wrong(file.template_mistake(text, error)))
    return io.StringIO(made)
