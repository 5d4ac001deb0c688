"""
The commands of the documentation do what they are there for, page by page, against a throwaway server.

A command runs with the pillar that stands above it on its page. Which ones are not run, and why, is said in the pages:
docs/contributing/documentation.md.
"""

from __future__ import annotations

import pytest

from tests.e2e.conftest import deployed, site_pillar
from tests.support.pages import Page, on_the_server, pages, salt_call

# The kernel of a container has no quotas: what the pages say of them is there, and not applied.
WITHOUT_QUOTAS = {"quotas": {"enabled": False}}
CLASS = "username,password,group,fullname\nbob,correct horse battery,biology,Bob Example\n"


def steps(page: Page) -> list[tuple[dict, str]]:
    """The commands of a page that are run, each with the pillar that the page has shown before it."""
    plasma = {**site_pillar(), **WITHOUT_QUOTAS}
    found = []
    for block in page.blocks:
        if block.not_run:
            continue
        if block.pillar is not None:
            plasma = merged(plasma, block.pillar)
        found.extend((plasma, command) for command in block.commands)
    return found


def merged(below: dict, above: dict) -> dict:
    """Two pillars as Salt merges them: sections key by key, a list as a whole."""
    both = dict(below)
    for key, value in above.items():
        both[key] = merged(both[key], value) if isinstance(both.get(key), dict) and isinstance(value, dict) else value
    return both


PAGES = [page for page in pages() if steps(page)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with deployed("docs", tmp_path_factory) as server:
        file = server.site.directory / "pillar" / "students.csv"
        file.touch(mode=0o600)
        file.write_text(CLASS, encoding="utf-8")
        yield server


@pytest.fixture(scope="module")
def seen() -> set:
    """What has succeeded already, so that a command of many pages is run once for each pillar."""
    return set()


def run(server, command: str) -> str:
    """Run one command; returns what is wrong with how it went, or nothing."""
    if on_the_server(command):
        done = server.target.ssh(command, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr
    call = salt_call(command)
    result = server.site.salt(call.function, *call.arguments)
    return "" if result.returncode == 0 else result.stdout + result.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_succeed(server, seen, page):
    for plasma, command in steps(page):
        server.site.set_pillar(plasma)
        if (step := (repr(plasma), command)) not in seen:
            said = run(server, command)
            assert not said, f"{page.name}: {command}\n{said}"
            seen.add(step)


def test_a_command_that_fails_is_seen(server):
    server.site.set_pillar({**site_pillar(), "cockpit": {"enabled": True}})
    assert "plasma.cockpit.enabled" in run(server, "salt-ssh '*' state.apply cockpit")
    server.site.set_pillar(site_pillar())
    assert "/root/none.tar.gz" in run(server, "salt-ssh ID plasma_backup.restore /root/none.tar.gz")
    assert "is not available" in run(server, "salt-ssh ID plasma_backup.of_old")
    assert "No such file" in run(server, "sudo ls /root/none")
