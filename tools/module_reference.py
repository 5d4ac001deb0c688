"""
Writes the reference of Salt modules and states from their docstrings, at every build of the documentation.

    python tools/module_reference.py DIRECTORY      reStructuredText, a folder for each kind, a page for each module

Only the source is read: nothing of it is imported, so Salt need not be installed. A function is public when its name
has no underscore in front.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Kind:
    """One folder of the tree and its chapter."""

    folder: str
    title: str
    about: str

    @property
    def name(self) -> str:
        return self.folder.rsplit("/", 1)[-1].strip("_").replace("plasma_", "")


KINDS = (
    Kind(
        "_modules",
        "Execution modules",
        "They act on a server. Each function is called by ``salt-ssh ID MODULE.FUNCTION``, or by a state. Many are "
        "parts of another one, which says so at its top; those are not meant to be called by hand.",
    ),
    Kind(
        "_states", "State modules", "They compare with what is wanted, and call the execution modules where it differs."
    ),
    Kind("_wrapper", "Wrappers of salt-ssh", "They run on the controller, in place of the module of the same name."),
    Kind("_roster", "Rosters", "They run on the controller, and say where servers are and how salt-ssh comes to them."),
    Kind("_output", "Outputters", "They write on the terminal what a function returned."),
    Kind("_pillar", "External pillar", "It runs on the controller: checks and completes the pillar, hashes passwords."),
    Kind(
        "_pillar/plasma_schema",
        "Schema of the pillar",
        "What the external pillar is made of. Keys and sections are in :doc:`the pillar reference <../../pillar>`.",
    ),
)


@dataclass(frozen=True)
class Module:
    """What a source file says of itself."""

    name: str
    docstring: str
    members: tuple[ast.AST, ...]
    aliases: dict[str, str]

    def called(self, name: str) -> str:
        """The name under which Salt calls a function (``list_`` is ``list``)."""
        return self.aliases.get(name, name)


def read(path: Path) -> Module:
    """The module in a file, under the name that Salt gives it."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    said = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and getattr(node.targets[0], "id", None) in ("__virtualname__", "__func_alias__")
    }
    members = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and _public(node)]
    name = said.get("__virtualname__", path.stem)
    return Module(name, ast.get_docstring(tree) or "", tuple(members), said.get("__func_alias__", {}))


def modules(kind: Kind) -> dict[str, Module]:
    """The modules of a kind by the name of their file."""
    files = sorted((ROOT / kind.folder).glob("*.py"))
    return {path.stem: read(path) for path in files if path.stem != "__init__"}


def _public(node: ast.AST) -> bool:
    return not node.name.startswith("_")


def page(kind: Kind, module: Module) -> Iterator[str]:
    """The page of one module. Only one of the kinds is indexed where two have a function of the same name."""
    yield from _heading(module.name, "=")
    yield f".. py:currentmodule:: {module.name}\n"
    yield f"{module.docstring}\n"
    for node in module.members:
        # Sections of the schema say what they are in their keys, which have a page of their own.
        if ast.get_docstring(node):
            yield from _member(kind, module, node, "")


def _member(kind: Kind, module: Module, node: ast.AST, margin: str) -> Iterator[str]:
    arguments = ast.unparse(node.args) if isinstance(node, ast.FunctionDef) else ", ".join(map(ast.unparse, node.bases))
    directive = "py:function" if isinstance(node, ast.FunctionDef) else "py:class"
    yield f"{margin}.. {directive}:: {module.called(node.name)}({arguments})"
    if kind.folder != "_modules":
        yield f"{margin}   :no-index:"
    yield ""
    inner = margin + "   "
    for line in inspect.cleandoc(ast.get_docstring(node) or "").splitlines():
        yield f"{inner}{line}".rstrip()
    yield ""
    if isinstance(node, ast.ClassDef):
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and _public(member) and ast.get_docstring(member):
                yield from _member(kind, module, member, inner)


def _heading(text: str, line: str) -> Iterator[str]:
    yield text
    yield line * len(text)
    yield ""


def index(kind: Kind, found: dict[str, Module]) -> Iterator[str]:
    """The first page of a kind, with one line for each module."""
    yield from _heading(kind.title, "=")
    yield f"{kind.about}\n"
    yield ".. list-table::\n   :widths: 30 70\n"
    for stem, module in found.items():
        first = module.docstring.strip().split("\n\n")[0].replace("\n", " ")
        yield f"   * - :doc:`{module.name} <{stem}>`"
        yield f"     - {first}"
    yield "\n.. toctree::\n   :hidden:\n"
    yield from (f"   {stem}" for stem in found)


def write(directory: Path) -> None:
    """Write all pages; those that are as they should be are left alone, so that Sphinx does not read them again."""
    wanted = {}
    for kind in KINDS:
        found = modules(kind)
        wanted[f"{kind.name}/index.rst"] = "\n".join(index(kind, found)) + "\n"
        for stem, module in found.items():
            wanted[f"{kind.name}/{stem}.rst"] = "\n".join(page(kind, module)) + "\n"
    for path in directory.glob("*/*.rst"):
        if str(path.relative_to(directory)) not in wanted:
            path.unlink()
    for name, text in wanted.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("directory", type=Path)
    write(parser.parse_args().directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
