"""The private code of ``_utils``: one name space with Python's own modules, and no circle of imports."""

from __future__ import annotations

import ast
import graphlib

from tests.support.paths import REPOSITORY

UTILS = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in (REPOSITORY / "_utils").glob("*.py")}


def imported(tree: ast.Module) -> set[str]:
    names = {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    }
    return (names | {getattr(node, "module", None) for node in ast.walk(tree)}) & UTILS.keys()


def test_no_module_imports_itself_by_way_of_others():
    graphlib.TopologicalSorter({name: imported(tree) for name, tree in UTILS.items()}).prepare()


def test_names_have_a_prefix_and_are_nobody_elses():
    """A minion puts the folder on Python's path, and Salt finds modules of ``_modules`` by their names, too."""
    assert [name for name in UTILS if not name.startswith(("plasma_", "tljh_"))] == []
    assert UTILS.keys() & {path.stem for path in (REPOSITORY / "_modules").glob("*.py")} == set()


def test_they_are_imported_at_the_top_and_know_nothing_of_salts_loader():
    """While a function runs, the folder need not be on the path any more; ``__salt__`` is given to modules alone."""
    for name, tree in UTILS.items():
        for node in ast.walk(tree):
            assert not (
                isinstance(node, ast.Name) and node.id in ("__salt__", "__opts__", "__grains__", "__pillar__")
            ), name
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(function)), (
                name,
                function.name,
            )
