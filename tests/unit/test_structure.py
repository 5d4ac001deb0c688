"""The shape of the code: nothing is written twice, and no modules import each other in a circle."""

from __future__ import annotations

import ast
import graphlib
import io
import tokenize
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY

FOLDERS = (
    "_modules",
    "_utils",
    "_states",
    "_pillar",
    "_renderers",
    "_wrapper",
    "_output",
    "plugin/src",
    "plugin/dev",
    "tools",
    "salt",
    "benchmarks",
)
# The most lines of code that two files may share.
LONGEST = 12
# Packages whose modules import each other: where they are, and what they are called.
PACKAGES = {"plugin/src/tljh_plasma": "tljh_plasma", "_pillar/plasma_schema": "plasma_schema", "tools": "tools"}
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def sources() -> list[Path]:
    files = [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py")]
    # salt/ has links to the folders of modules.
    return sorted({path.resolve() for path in files if path.resolve().is_relative_to(REPOSITORY)})


def code(text: str) -> list[tuple[int, str]]:
    """The lines that hold code, with their numbers: no comments, docstrings, imports; blanks do not count."""
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring or isinstance(node, ast.Import | ast.ImportFrom):
            skipped.update(range(node.lineno, (node.end_lineno or 0) + 1))
    lines: dict[int, list[str]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE and token.start[0] not in skipped:
            lines[token.start[0]].append(token.string)
    return [(number, " ".join(words)) for number, words in sorted(lines.items())]


def repeated(texts: dict[str, str]) -> list[str]:
    """Places where more than LONGEST lines of code in one file are those of another."""
    seen: dict[tuple[str, ...], tuple[str, int]] = {}
    faults, last = [], {}
    for name, text in texts.items():
        lines = code(text)
        for index in range(len(lines) - LONGEST):
            block = tuple(line for _, line in lines[index : index + LONGEST + 1])
            other, place = seen.setdefault(block, (name, index))
            # Of a longer repetition only its begin is told.
            if (other, place) != (name, index) and last.get(name) != (other, place - 1):
                faults.append(f"{name}:{lines[index][0]} is written in {other} too: {block[0]}")
            last[name] = (other, place)
    return faults


def imports(folder: Path, package: str) -> dict[str, set[str]]:
    """The modules of a package, each with those that it needs while it is imported."""
    names = {
        ".".join((package, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in folder.rglob("*.py")
    }
    graph = {}
    for name, path in names.items():
        here = name if path.stem == "__init__" else name.rpartition(".")[0]
        needed = set()
        for node in toplevel(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                above = here.rsplit(".", node.level - 1)[0] if node.level else ""
                base = ".".join(filter(None, (above, node.module)))
                needed |= {full if (full := f"{base}.{alias.name}") in names else base for alias in node.names}
            else:
                needed |= {alias.name for alias in node.names}
        graph[name] = (needed & names.keys()) - {name}
    return graph


def toplevel(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    """Imports outside of functions, and outside of `if TYPE_CHECKING`."""
    blocks: list[ast.AST] = [tree]
    found = []
    while blocks:
        for node in ast.iter_child_nodes(blocks.pop()):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found.append(node)
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not (
                isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            ):
                blocks.append(node)
    return found


def circle(graph: dict[str, set[str]]) -> str | None:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(error.args[1])
    return None


def test_nothing_is_written_twice():
    faults = repeated({str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8") for path in sources()})
    assert not faults, "\n".join(faults)


def test_repetitions_are_found():
    lines = [f"x{number} = {number}" for number in range(LONGEST + 1)]
    text = "\n".join(lines)
    other = '"""Other words."""\n# A comment.\n\ndef f():\n' + "\n\n".join(f"    {line}  # why" for line in lines)
    assert repeated({"a.py": text, "b.py": other}) == ["b.py:5 is written in a.py too: x0 = 0"]
    assert repeated({"a.py": "\n".join(lines[1:]), "b.py": other}) == []


@pytest.mark.parametrize(("folder", "package"), PACKAGES.items())
def test_no_modules_import_each_other_in_a_circle(folder, package):
    graph = imports(REPOSITORY / folder, package)
    assert any(graph.values())
    assert circle(graph) is None


def test_circles_are_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "__init__.py").touch()
    (tmp_path / "a.py").write_text("from .sub import b\n")
    (tmp_path / "sub" / "__init__.py").write_text("")
    (tmp_path / "sub" / "b.py").write_text("import p.c\n")
    (tmp_path / "c.py").write_text("try:\n    from p import a\nexcept ImportError:\n    pass\n")
    assert set(circle(imports(tmp_path, "p")).split(" -> ")) == {"p.a", "p.sub.b", "p.c"}
    (tmp_path / "c.py").write_text("def f():\n    from p import a\n")
    assert circle(imports(tmp_path, "p")) is None
