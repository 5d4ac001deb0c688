"""Commands that tests/e2e/test_docs.py does not run say why."""

from __future__ import annotations

import re

import pytest

from tests.support.pages import pages, runnable
from tests.support.paths import REPOSITORY

BLOCKS = [(page, block) for page in pages() for block in page.blocks]
MARKED = [(page, block) for page, block in BLOCKS if block.not_run]


@pytest.mark.parametrize(
    ("page", "block"), [pytest.param(*pair, id=f"{pair[0].name}:{pair[1].line}") for pair in BLOCKS if pair[1].commands]
)
def test_what_cannot_be_run_says_why(page, block):
    others = [] if block.not_run else [command for command in block.commands if not runnable(command)]
    assert not others, f"{page.name}:{block.line}: say above it why it is not run: {others}"


@pytest.mark.parametrize(
    ("page", "block"), [pytest.param(*pair, id=f"{pair[0].name}:{pair[1].line}") for pair in MARKED]
)
def test_a_test_that_is_named_exists(page, block):
    for name in re.findall(r"[\w/]+/test_\w+\.py", block.not_run):
        assert (REPOSITORY / name).exists(), f"{page.name}:{block.line}: there is no {name}"


def test_marks_stand_above_blocks():
    written = sum(len(re.findall(r"^\s*<!-- not run: ", page.text, re.MULTILINE)) for page in pages())
    # One of them is an example on the page about documentation.
    assert written == len(MARKED) + 1


def test_most_commands_are_run():
    commands = [(command, block.not_run) for _, block in BLOCKS for command in block.commands]
    # The end-to-end test does those of a page as well that say so.
    assert sum(not said or "tests/e2e/test_docs.py does it" in said for _, said in commands) > 45
