"""
The commands of the documentation do what they are there for, page by page, against a throwaway server.

A command runs with the pillar that stands above it on its page. Which ones are not run, and why, is said in the pages:
docs/contributing/documentation.md. The page about a course from A to Z is gone through by a test of its own, with a
repository and students.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import site_pillar
from tests.support.builder_image import builder_image
from tests.support.environment_image import environment_image, load_into
from tests.support.git_repository import ENVIRONMENT, Repository, bridge_address, dockerfile, serve
from tests.support.hub import HubUser
from tests.support.pages import Block, Page, on_the_server, pages, salt_call
from tests.support.paths import REPOSITORY

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


def only_looks(command: str) -> bool:
    """Whether it is enough to run a command once, whatever the pillar: nothing is applied."""
    return not on_the_server(command) and ("state.apply" not in command or "test=True" in command)


PAGES = [page for page in pages() if steps(page)]


@pytest.fixture(scope="module")
def server(kept_server):
    file = kept_server.site.directory / "pillar" / "students.csv"
    file.touch(mode=0o600)
    file.write_text(CLASS, encoding="utf-8")
    return kept_server


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
        if (step := command if only_looks(command) else (repr(plasma), command)) not in seen:
            server.site.set_pillar(plasma)
            said = run(server, command)
            assert not said, f"{page.name}: {command}\n{said}"
            seen.add(step)


def test_a_command_that_fails_is_seen(server):
    server.site.set_pillar({**site_pillar(), "cockpit": {"enabled": True}})
    assert "plasma.cockpit.enabled" in run(server, "salt-ssh '*' state.apply cockpit")
    server.site.set_pillar(site_pillar())
    assert "/root/none.tar.gz" in run(server, "salt-ssh ID plasma_backup.restore /root/none.tar.gz")
    assert "No such file" in run(server, "sudo ls /root/none")


COURSE = Page(REPOSITORY / "docs" / "course.md")
IN_ITS_OWN_WAY = "tests/e2e/test_docs.py does it"


class Class:
    """What the page about a course says, done by an operator whose repository is served here."""

    def __init__(self, server, home: Path, git: str):
        self.server, self.home, self.git = server, home, git
        # The commands find there what they name.
        self.tree = home / "plasma"
        self.tree.mkdir()
        for name, path in (("docs", REPOSITORY / "docs"), ("pillar", server.site.directory / "pillar")):
            (self.tree / name).symlink_to(path)
        self.course = Repository(home / "python-course")
        self.plasma = {**site_pillar(), **WITHOUT_QUOTAS}
        self.said = ""

    def follow(self, block: Block) -> None:
        if block.language == "text":
            (self.tree / "names.txt").write_text(block.text, encoding="utf-8")
        elif block.language == "yaml":
            self.write_pillar(block)
        elif block.not_run and IN_ITS_OWN_WAY in block.not_run:
            if not salt_call(block.commands[0]):
                self.shell(block.commands)
                return
            for command in block.commands:
                call = salt_call(command)
                done = self.server.site.salt(call.function, *call.arguments)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                self.said += done.stdout

    def write_pillar(self, block: Block) -> None:
        if block.pillar is None:  # lines that are changed
            (changed,) = yaml.safe_load(block.text)
            (entry,) = self.plasma["environments"]
            assert entry["name"] == changed["name"]
            self.plasma = merged(self.plasma, {"environments": [{**entry, **changed}]})
        else:
            self.plasma = merged(self.plasma, block.pillar)
        # The names of the example lead elsewhere.
        self.plasma.pop("https", None)
        for entry in self.plasma["environments"]:
            if "repository" in entry:
                entry["repository"] = entry["repository"].replace("https://git.example.org/teacher", self.git)
        self.server.site.set_pillar(self.plasma)

    def shell(self, commands: list[str]) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {**os.environ, **ENVIRONMENT, "PATH": path, "PYTHONPATH": str(REPOSITORY)}
        script = "\n".join(["set -eu", *commands])
        done = subprocess.run(["bash", "-c", script], cwd=self.tree, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"

    def read(self, path: str) -> str:
        return self.server.target.sudo(["cat", path]).stdout


@pytest.fixture
def klass(server, tmp_path):
    file = server.site.directory / "pillar" / "students.csv"
    file.unlink()
    load_into(server.target, environment_image())
    load_into(server.target, builder_image())
    with serve(tmp_path, bridge_address()) as git:
        yield Class(server, tmp_path, git)
    file.write_text(CLASS, encoding="utf-8")


def test_a_class_works_as_the_page_from_a_to_z_says(klass):
    home, student = "/home/anna.muller/python-course", None
    for block in COURSE.blocks:
        said = block.text
        if "git tag v2" in said:
            # A class that works, and a teacher who goes on.
            student = first_lesson(klass, home)
            (klass.course.path / "second.ipynb").write_text((klass.course.path / "course.ipynb").read_text())
            (klass.course.path / "course.ipynb").write_text("the teacher's second edition")
        klass.follow(block)
        if "git tag v1" in said:
            # The packages of the template come from the internet: those of the tests' image take their place.
            klass.course.commit({"Dockerfile": dockerfile(environment_image())})
            klass.course.git("tag", "--force", "v1")
        if "state.apply environments" in said:
            student.stop()
            student.start("python-course:v2")
            assert "nbformat" in klass.read(f"{home}/second.ipynb")
            assert klass.read(f"{home}/course.ipynb") == "what anna wrote"
    # After the term.
    left = klass.server.target.sudo("id anna.muller; docker images --format '{{.Repository}}'", check=False)
    assert "no such user" in left.stderr
    assert "python-course" not in left.stdout.split()
    assert "what anna wrote" in klass.server.target.sudo("cat /home/.plasma-removed/anna.muller*/home/*/*.ipynb").stdout


def first_lesson(klass: Class, home: str) -> HubUser:
    """A student logs in with what is on the card, starts the environment, and finds the notebook."""
    with (klass.tree / "pillar" / "students.csv").open(encoding="utf-8") as file:
        accounts = {row["username"]: row["password"] for row in csv.DictReader(file)}
    assert list(accounts) == ["anna.muller", "li.wei", "bob"]
    assert accounts["anna.muller"] in (klass.tree / "sheet.html").read_text(encoding="utf-8")
    assert re.search(r"python-course:v1 +built [^\\]* biology ", klass.said), klass.said
    student = HubUser(f"http://{klass.server.target.host}", "anna.muller")
    student.login(accounts["anna.muller"])
    assert student.logged_in
    student.start("python-course:v1")
    student.status()
    assert klass.read(f"{home}/course.ipynb") == (klass.course.path / "course.ipynb").read_text(encoding="utf-8")
    klass.server.target.sudo(f"printf 'what anna wrote' > {home}/course.ipynb")
    return student
