"""
Writes the reference of Salt modules and states from their docstrings, at every build of the documentation: a folder for
each kind, a page of reStructuredText for each module.

Only the source is read: nothing of it is imported, so Salt need not be installed. A function is public when its name
has no underscore in front.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools import ROOT

Member = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Kind:
    """One folder of the tree and its chapter."""

    folder: str
    title: str
    about: str

    @property
    def name(self) -> str:
        return Path(self.folder).name.strip("_").replace("plasma_", "")


KINDS = (
    Kind(
        "_modules",
        "Execution modules",
        "They act on a server. Each function is called by ``salt-ssh ID MODULE.FUNCTION``, or by a state.",
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
    members: tuple[Member, ...]
    aliases: dict[str, str]

    def called(self, name: str) -> str:
        """The name under which Salt calls a function (``list_`` is ``list``)."""
        return self.aliases.get(name, name)


def read(path: Path) -> Module:
    """The module in a file, under the name that Salt gives it."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    assigned = {
        target.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(target := node.targets[0], ast.Name)
        and target.id in ("__virtualname__", "__func_alias__")
    }
    name = assigned.get("__virtualname__", path.stem)
    members = (*_public(tree.body), *_public(_imported(tree)))
    return Module(name, ast.get_docstring(tree) or "", members, assigned.get("__func_alias__", {}))


def _imported(tree: ast.Module) -> Iterator[ast.AST]:
    """The functions that a module takes from ``_utils``: Salt offers them as its own."""
    for statement in tree.body:
        path = ROOT / "_utils" / f"{getattr(statement, 'module', None)}.py"
        if isinstance(statement, ast.ImportFrom) and path.exists():
            names = {alias.name for alias in statement.names}
            yield from (
                node
                for node in ast.parse(path.read_text(encoding="utf-8"), str(path)).body
                if isinstance(node, ast.FunctionDef) and node.name in names
            )


def modules(kind: Kind) -> dict[str, Module]:
    """The modules of a kind by the name of their file."""
    return {path.stem: read(path) for path in sorted((ROOT / kind.folder).glob("*.py")) if path.stem != "__init__"}


def _public(nodes: Iterable[ast.AST]) -> tuple[Member, ...]:
    return tuple(node for node in nodes if isinstance(node, Member) and not node.name.startswith("_"))


def page(kind: Kind, module: Module) -> Iterator[str]:
    """The page of one module. Only one of the kinds is indexed where two have a function of the same name."""
    yield f"{module.name}\n{'=' * len(module.name)}\n\n.. py:currentmodule:: {module.name}\n\n{module.docstring}\n"
    for node in module.members:
        yield from _member(kind, module, node, "")


def _member(kind: Kind, module: Module, node: Member, margin: str) -> Iterator[str]:
    # Sections of the schema say what they are in their keys, which have a page of their own.
    if not (docstring := ast.get_docstring(node)):
        return
    is_class = isinstance(node, ast.ClassDef)
    arguments = ", ".join(map(ast.unparse, node.bases)) if is_class else ast.unparse(node.args)
    yield f"{margin}.. py:{'class' if is_class else 'function'}:: {module.called(node.name)}({arguments})"
    if kind.folder != "_modules":
        yield f"{margin}   :no-index:"
    yield from ("", *(f"{margin}   {line}".rstrip() for line in inspect.cleandoc(docstring).splitlines()), "")
    for member in _public(node.body) if is_class else ():
        yield from _member(kind, module, member, f"{margin}   ")


def index(kind: Kind, chapter: dict[str, Module]) -> Iterator[str]:
    """The first page of a kind, with one line for each module."""
    yield f"{kind.title}\n{'=' * len(kind.title)}\n\n{kind.about}\n\n.. list-table::\n   :widths: 30 70\n"
    for stem, module in chapter.items():
        first = module.docstring.strip().split("\n\n")[0].replace("\n", " ")
        yield f"   * - :doc:`{module.name} <{stem}>`\n     - {first}"
    yield "\n.. toctree::\n   :hidden:\n"
    yield from (f"   {stem}" for stem in chapter)


def write(directory: Path) -> None:
    """Write all pages; those that are as they should be are left alone, so that Sphinx does not read them again."""
    wanted = {}
    for kind in KINDS:
        chapter = modules(kind)
        wanted[directory / kind.name / "index.rst"] = "\n".join(index(kind, chapter)) + "\n"
        for stem, module in chapter.items():
            wanted[directory / kind.name / f"{stem}.rst"] = "\n".join(page(kind, module)) + "\n"
    for path in set(directory.glob("*/*.rst")) - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
