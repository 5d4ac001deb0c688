"""The references of states and of modules have everything that there is, under the names that Salt gives it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from tests.support.paths import REPOSITORY
from tools import module_reference, state_reference
from tools.generated_page import filled
from tools.module_reference import KINDS, modules

PAGE = REPOSITORY / "docs" / "reference" / "states.md"

MODULES = [
    pytest.param(kind, stem, module, id=f"{kind.name}/{stem}")
    for kind in KINDS
    for stem, module in modules(kind).items()
]
FUNCTIONS = [
    pytest.param(node, id=f"{module.name}.{module.called(node.name)}")
    for module in modules(KINDS[0]).values()
    for node in module.members
    if isinstance(node, ast.FunctionDef)
]


def states(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tools.state_reference", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_page_of_states_matches_their_files():
    result = states("--check")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_check_finds_a_page_that_does_not(tmp_path):
    page = tmp_path / "states.md"
    text = PAGE.read_text(encoding="utf-8")
    page.write_text(text.replace("| `utils` |", "| `tools` |"), encoding="utf-8")
    result = states("--check", "--page", str(page))
    assert result.returncode == 1
    assert "tools" in result.stdout
    assert states("--page", str(page)).returncode == 0
    assert page.read_text(encoding="utf-8") == text


def test_a_part_needs_its_place():
    with pytest.raises(ValueError, match="0 places for the part 'keys'"):
        filled("<!-- generated: other -->", {"keys": "x"})


def test_every_state_is_on_its_page():
    files = list((REPOSITORY / "salt").glob("*/*.sls"))
    named = re.findall(r"^\| `([a-z_.]+)` \|", "\n".join(state_reference.parts().values()), re.MULTILINE)
    assert len(named) == len(set(named)) == len(files)
    assert named[: len(state_reference.site())] == state_reference.site()


@pytest.mark.parametrize("name", state_reference.states())
def test_a_state_says_what_it_does(name):
    said = state_reference.comment(state_reference.states()[name])
    assert said.endswith(".") and len(said) > 20
    assert "|" not in said


@pytest.mark.parametrize(("kind", "stem", "module"), MODULES)
def test_a_module_says_what_it_is_and_does(kind, stem, module):
    text = "\n".join(module_reference.page(kind, module))
    assert text.startswith(f"{module.name}\n=")
    assert len(module.docstring) > 20
    for node in module.members:
        if kind.name == "schema" and not ast.get_docstring(node):
            continue
        assert ast.get_docstring(node), f"{module.name}.{node.name} has no docstring"
        assert re.search(rf"^\.\. py:(function|class):: {module.called(node.name)}\(", text, re.MULTILINE)


@pytest.mark.parametrize("node", FUNCTIONS)
def test_a_function_shows_how_it_is_called(node):
    assert "CLI Example:\n\n.. code-block:: bash\n" in ast.get_docstring(node)


def test_names_are_those_of_salt():
    module = modules(KINDS[0])["plasma_backup"]
    assert "py:function:: list(" in "\n".join(module_reference.page(KINDS[0], module))


def test_pages_are_written_once_and_old_ones_go(tmp_path):
    module_reference.write(tmp_path)
    pages = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.rst")}
    assert len(pages) == len(MODULES) + len(KINDS)
    old = tmp_path / "modules" / "plasma_gone.rst"
    old.write_text("gone", encoding="utf-8")
    module_reference.write(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.rst")} == pages
