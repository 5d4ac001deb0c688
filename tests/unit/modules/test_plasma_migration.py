"""Permissions of the old plugin: read from a database with its schema, which stays as it is."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
from unittest.mock import create_autospec

import pytest
import yaml
from salt.exceptions import CommandExecutionError

import _modules.plasma_migration as migration
import plasma_engine
import plasma_environment_image as environment_image
import plasma_files as files
from tests.unit.pillar.conftest import load_external_pillar

# As SQLAlchemy makes it of tljh_plasma.Permissions, release 0.7.
SCHEMA = """
CREATE TABLE permissions (
    id INTEGER NOT NULL,
    "group" VARCHAR(255),
    image VARCHAR(255),
    PRIMARY KEY (id)
)
"""
COMMIT = "a4edf334c6b4b16be3a184d0d6e8196137ee1b06"
PYTHON, OLDER = "python-course:a4edf33", "python-course:1111111"
LABELS = {
    PYTHON: {
        "repo2docker.repo": "https://git.example.org/teacher/python-course",
        "repo2docker.ref": COMMIT,
        "tljh_repo2docker.mem_limit": "3.5G",
        "tljh_repo2docker.cpu_limit": "2",
    },
    "r-course:HEAD": {
        "repo2docker.repo": "https://git.example.org/teacher/r-course",
        "repo2docker.ref": "HEAD",
        "tljh_repo2docker.mem_limit": "",
        "tljh_repo2docker.cpu_limit": "",
    },
    "by-hand:1": None,
}


class StandInEngine:
    """Says the labels of its images."""

    def __init__(self):
        self.labels, self.away = {}, False

    def connection(self, path=None, timeout=None):
        return self

    def request(self, method, target, body=None, headers=None):
        if self.away:
            raise ConnectionRefusedError(111, "Connection refused")
        image = target.removeprefix("/images/").removesuffix("/json")
        self.status = 200 if image in self.labels else 404
        created = "2025-01-01T00:00:00Z" if image == OLDER else "2026-01-01T00:00:00Z"
        self.content = {"Created": created, "Config": {"Labels": self.labels.get(image)}}

    def getresponse(self):
        answer = io.BytesIO(json.dumps(self.content).encode())
        answer.status = self.status
        return answer

    def close(self):
        pass


@pytest.fixture
def engine():
    return StandInEngine()


@pytest.fixture
def configure_loader_modules(engine):
    functions = {
        "plasma_engine.connection": create_autospec(plasma_engine.connection, side_effect=engine.connection),
        "plasma_files.trouble": create_autospec(files.trouble, return_value=None),
        "plasma_files.check": files.check,
        "plasma_environment_image.inspect": environment_image.inspect,
    }
    return {module: {"__salt__": functions} for module in (migration, files, environment_image)}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "tljh_plasma.sqlite"
    rows = [
        ("maths", PYTHON),
        ("biology", PYTHON),
        ("biology", PYTHON),
        ("maths", "r-course:HEAD"),
        ("biology", "by-hand:1"),
        ("maths", "gone:1"),
        ("", PYTHON),
        (None, PYTHON),
    ]
    with sqlite3.connect(path) as database:
        database.execute(SCHEMA)
        database.executemany('INSERT INTO permissions ("group", image) VALUES (?, ?)', rows)
    database.close()
    path.chmod(0o644)
    return path


def test_what_is_to_be_ticked_and_the_pillar(engine, table):
    engine.labels = LABELS
    before = hashlib.sha256(table.read_bytes()).hexdigest()
    found = migration.permissions(str(table))
    assert found["tick"] == {
        "by-hand:1": ["biology"],
        "gone:1": ["maths"],
        PYTHON: ["biology", "maths"],
        "r-course:HEAD": ["maths"],
    }
    assert found["plasma"] == {
        "groups": ["biology", "maths"],
        "environments": [
            {
                "name": "python-course",
                "repository": "https://git.example.org/teacher/python-course",
                "ref": COMMIT,
                "memory": "3.5G",
                "cpu": 2.0,
                "groups": ["biology", "maths"],
            },
            {
                "name": "r-course",
                "repository": "https://git.example.org/teacher/r-course",
                "groups": ["maths"],
            },
        ],
    }
    assert hashlib.sha256(table.read_bytes()).hexdigest() == before
    assert [path.name for path in table.parent.iterdir()] == [table.name]


def test_the_schema_takes_the_pillar(engine, table, tmp_path):
    engine.labels = LABELS
    pillar = yaml.safe_load(yaml.safe_dump({"plasma": migration.permissions(str(table))["plasma"]}))
    opts = {"pillar_roots": {"base": [str(tmp_path)]}, "cachedir": str(tmp_path / "cache")}
    assert load_external_pillar().schema("check").check(pillar, opts)[1] == []


def test_the_newest_of_a_name_is_in_pillar(engine, table):
    with sqlite3.connect(table) as database:
        database.execute('INSERT INTO permissions ("group", image) VALUES (?, ?)', ("maths", OLDER))
    database.close()
    engine.labels = {**LABELS, OLDER: {**LABELS[PYTHON], "repo2docker.ref": "1" * 40}}
    found = migration.permissions(str(table))
    entries = found["plasma"]["environments"]
    assert [(entry["name"], entry.get("ref")) for entry in entries] == [("python-course", COMMIT), ("r-course", None)]
    assert {PYTHON, OLDER} <= set(found["tick"])


@pytest.mark.parametrize("away", [True, False])
def test_without_the_images_there_is_what_to_tick(engine, table, away):
    engine.away = away
    assert set(migration.permissions(str(table))) == {"tick"}


def test_nothing_ticked(tmp_path):
    path = tmp_path / "tljh_plasma.sqlite"
    with sqlite3.connect(path) as database:
        database.execute(SCHEMA)
    database.close()
    assert migration.permissions(str(path)) == {"tick": {}}


def test_what_is_not_there_is_not_made(tmp_path):
    with pytest.raises(CommandExecutionError, match="No such file"):
        migration.permissions(str(tmp_path / "none.sqlite"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"no database, but a text that is long enough to be taken for one" * 20, b""])
def test_another_file_is_told(tmp_path, content):
    path = tmp_path / "other.sqlite"
    path.write_bytes(content)
    with pytest.raises(CommandExecutionError, match="has no table of permissions that can be read"):
        migration.permissions(str(path))


def test_a_file_that_others_can_write_is_not_read(table):
    table.chmod(0o666)
    with pytest.raises(CommandExecutionError, match="nobody else can write"):
        migration.permissions(str(table))


def test_a_link_is_not_followed(table):
    link = table.with_name("link.sqlite")
    link.symlink_to(table)
    with pytest.raises(CommandExecutionError, match="has to be a file that belongs to root"):
        migration.permissions(str(link))


def test_a_directory_of_somebody_else_is_not_looked_into(configure_loader_modules, table):
    trouble = configure_loader_modules[migration]["__salt__"]["plasma_files.trouble"]
    trouble.return_value = "/home/anna belongs to uid 1001 and not to root"
    with pytest.raises(CommandExecutionError, match="is not read: /home/anna belongs to uid 1001"):
        migration.permissions(str(table))
    trouble.assert_called_once_with(str(table.parent))
