"""Sphinx reads this: `make docs`."""

import os
import sys
from pathlib import Path

import tomllib

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

from sphinx import addnodes  # noqa: E402
from sphinx.transforms import SphinxTransform  # noqa: E402

from tools import module_reference  # noqa: E402

metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "Plasma on Salt"
author = copyright = "the authors of Plasma on Salt"
release = version = metadata["version"]

extensions = ["myst_parser", "sphinx.ext.graphviz", "sphinx_copybutton"]
# Templates are repositories of their own, to copy.
exclude_patterns = ["_build", "requirements*", "templates"]
# The pages that show files above docs/.
INCLUDED = {
    "README.md": "index",
    "CONTRIBUTING.md": "contributing/index",
    "CHANGELOG.md": "changelog",
    "plugin/README.md": "contributing/plugin",
}
nitpicky = True
# Docstrings name Python's own types, which no page here describes.
nitpick_ignore_regex = [("py:class", ".*")]
toc_object_entries_show_parents = "hide"

# Enough for every anchor that the pages name; the same as those that the hosts of repositories make.
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
suppress_warnings = ["myst.header"]  # pages that are included begin below the title of the page they are in

graphviz_output_format = "svg"
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

html_theme = "pydata_sphinx_theme"
html_title = "Plasma on Salt"
html_logo = html_favicon = "../plugin/src/tljh_plasma/static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_copy_source = False
# Pages that have none below them need no navigation at the side, and one needs the room.
html_sidebars = {
    name: []
    for name in (
        "reference/pillar",
        "overview",
        "course",
        "troubleshooting",
        "migration",
        "security",
        "performance",
        "pages",
        "changelog",
    )
}
html_theme_options = {
    # No page asks another host for anything.
    "icon_links": [],
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "logo": {"text": "Plasma on Salt"},
}


class Outside(SphinxTransform):
    """
    Links to what is no page: those to Markdown files above docs/ lead to the page that includes the file, or to the
    file itself; those to folders are text, as a site has none.
    """

    default_priority = 200

    def apply(self):
        for link in list(self.document.findall(addnodes.pending_xref)):
            if link["reftype"] == "myst" and (DOCS / self.env.docname).parent.joinpath(link["reftarget"]).is_dir():
                link.replace_self(link.children)
                continue
            target = Path(f"{link['reftarget']}.md")
            if link["refdomain"] != "doc" or DOCS in target.parents or not target.is_absolute():
                continue
            name = str(target.relative_to(ROOT))
            if name in INCLUDED:
                link["reftarget"] = INCLUDED[name]
            else:
                path = os.path.relpath(target, DOCS / Path(self.env.docname).parent)
                file = addnodes.download_reference("", "", *link.children, reftarget=path, refdoc=self.env.docname)
                link.replace_self(file)


def setup(app):
    module_reference.write(DOCS / "reference" / "salt")
    app.add_transform(Outside)
