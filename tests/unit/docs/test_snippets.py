"""Pillar files in the pages are taken by the schema as they stand there."""

from __future__ import annotations

import pytest
import yaml

from tests.render.pillars import AUTHORITY
from tests.support.pages import Page, pages
from tests.support.paths import REPOSITORY
from tests.unit.pillar.conftest import load_external_pillar

CHECK = load_external_pillar().schema("check").check
SNIPPETS = [
    pytest.param(block.pillar, id=f"{page.name}:{block.line}")
    for page in pages()
    for block in page.blocks
    if block.pillar is not None
]


@pytest.fixture
def opts(tmp_path):
    """A controller with the files that the pages name."""
    file = tmp_path / "students.csv"
    file.write_text("username,password,group\nstudent,correct horse battery,biology\n", encoding="utf-8")
    file.chmod(0o600)
    (tmp_path / "own-ca.pem").write_text(AUTHORITY, encoding="utf-8")
    return {"pillar_roots": {"base": [str(tmp_path)]}, "cachedir": str(tmp_path / "cache")}


@pytest.mark.parametrize("plasma", SNIPPETS)
def test_the_schema_takes_it(plasma, opts):
    assert CHECK({"plasma": plasma}, opts)[1] == []


def test_there_are_snippets():
    assert len(SNIPPETS) > 40


def test_a_wrong_one_is_found(opts):
    assert CHECK({"plasma": {"limts": {}}}, opts)[1] == ["plasma.limts: unknown key; did you mean 'limits'?"]


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=f"{page.name}:{block.line}") for page in pages() for block in page.blocks]
)
def test_yaml_is_yaml(block):
    if block.language == "yaml":
        yaml.safe_load(block.text)


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("nginx", "proxy_set_header X-Forwarded-For $remote_addr;"),
        ("apache", "RequestHeader unset X-Forwarded-For"),
        ("text", "http-request del-header X-Forwarded-For"),
    ],
)
def test_web_servers_in_front_throw_away_what_clients_say_of_themselves(language, line):
    """They only add otherwise, and a client from an address of `behind` passes for whom it likes."""
    page = Page(REPOSITORY / "docs" / "configuration" / "front.md")
    (block,) = [block for block in page.blocks if block.language == language]
    assert line in [one.strip() for one in block.text.splitlines()]
