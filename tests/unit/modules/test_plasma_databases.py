"""The hub's databases and configuration: what is wrong with them, and what brings them back."""

from __future__ import annotations

import sqlite3
from unittest.mock import Mock

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _modules.plasma_databases as databases
import plasma_run
import plasma_systemd

READY = {"ready": True, "seconds": 1, "version": "5", "problem": None, "journal": []}


@pytest.fixture
def server(tmp_path):
    """A prefix with all three databases and a configuration."""
    (tmp_path / "state" / "kept").mkdir(parents=True)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("users: {admin: [ada]}\n")
    for name, (_, tables) in databases.DATABASES.items():
        with sqlite3.connect(tmp_path / "state" / name) as database:
            for table in tables:
                database.execute(f"CREATE TABLE {table} (name TEXT)")
                database.executemany(f"INSERT INTO {table} VALUES (?)", [("x" * 400,)] * 200)
        database.close()
    kept = tmp_path / "state" / "kept" / databases.PERMISSIONS
    kept.write_bytes((tmp_path / "state" / databases.PERMISSIONS).read_bytes())
    return tmp_path


@pytest.fixture
def ready():
    return Mock(return_value=READY)


@pytest.fixture
def called(monkeypatch):
    commands = []

    def run(*words, **_):
        commands.append(" ".join(words))
        return plasma_run.Result(0)

    monkeypatch.setattr(plasma_systemd, "run", run)
    return commands


@pytest.fixture
def configure_loader_modules(ready):
    salt = {
        "plasma_hub_containers.owned": lambda: [{"user": "ada"}, {"user": "ada"}, {"user": "bob"}],
        "plasma_hub_containers.remove": Mock(side_effect=lambda names: {name: [""] for name in names}),
        "tljh_settings.ready": ready,
    }
    return {databases: {"__salt__": salt}}


def overwrite(path, content, at=0):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(content)


DAMAGES = {
    "is gone": lambda path: path.unlink(),
    "is empty": lambda path: path.write_bytes(b""),
    "is damaged (file is not a database)": lambda path: path.write_bytes(b"garbage" * 1000),
    "is damaged (": lambda path: overwrite(path, b"\xff" * 400, at=4096),
}


def test_a_server_that_is_well(server):
    assert databases.health(server) == {"problems": []}


def test_a_hub_that_never_started(tmp_path):
    (tmp_path / "state").mkdir()
    assert databases.health(tmp_path) == {"problems": []}


@pytest.mark.parametrize("what", DAMAGES)
@pytest.mark.parametrize("name", databases.DATABASES)
def test_each_damage_of_each_database_is_seen_and_mended(server, called, name, what):
    path = server / "state" / name
    DAMAGES[what](path)
    before = path.read_bytes() if path.exists() else None
    (problem,) = databases.health(server)["problems"]
    assert what in problem
    assert problem.endswith(f"`plasma_databases.mend {name}`")
    done = databases.mend(name, server)
    assert done["mended"]
    assert called == [
        "stop jupyterhub.service",
        "reset-failed traefik.service jupyterhub.service",
        "start jupyterhub.service",
    ]
    if before is not None:
        aside = server / "state" / "damaged"
        assert (next(aside.iterdir()) / name).read_bytes() == before
        assert aside.stat().st_mode & 0o077 == 0 or next(aside.iterdir()).stat().st_mode & 0o077 == 0
    assert (done["stopped"] == {"ada": [""], "bob": [""]}) is (name == databases.HUB)
    if name == databases.PERMISSIONS:
        assert databases.damage(name, server) is None
    else:
        assert not path.exists()  # the hub makes it


def test_nothing_is_mended_that_can_be_used(server, called):
    assert not databases.mend(databases.HUB, server)["mended"]
    assert called == []


def test_permissions_without_a_copy(server, called):
    (server / "state" / "kept" / databases.PERMISSIONS).unlink()
    DAMAGES["is empty"](server / "state" / databases.PERMISSIONS)
    with pytest.raises(CommandExecutionError, match="there is no copy of it.*afresh=True"):
        databases.mend(databases.PERMISSIONS, server)
    assert called == []


def test_permissions_afresh_put_the_copy_aside(server, called):
    DAMAGES["is empty"](server / "state" / databases.PERMISSIONS)
    aside = databases.mend(databases.PERMISSIONS, server, afresh=True)["aside"]
    assert not (server / "state" / "kept" / databases.PERMISSIONS).exists()
    assert (server / "state" / "damaged" / aside.rsplit("/")[-1] / f"copy-{databases.PERMISSIONS}").exists()


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_text("")])
def test_a_configuration_that_is_gone(server, change):
    change(server / "config" / "config.yaml")
    (problem,) = databases.health(server)["problems"]
    assert problem.endswith("`state.apply tljh`")


def test_somebody_writes_just_now(server, monkeypatch):
    monkeypatch.setattr(databases, "BUSY", 0.1)
    writer = sqlite3.connect(server / "state" / databases.HUB)
    writer.execute("BEGIN EXCLUSIVE")
    assert databases.damage(databases.HUB, server) is None
    writer.close()


def test_a_hub_that_does_not_come_back(server, ready, called):
    ready.return_value = {**READY, "ready": False, "problem": "it crashes", "journal": ["why"]}
    DAMAGES["is gone"](server / "state" / databases.HUB)
    with pytest.raises(CommandExecutionError, match="it crashes.\nwhy"):
        databases.mend(databases.HUB, server)


def test_no_other_file(server):
    with pytest.raises(SaltInvocationError, match="jupyterhub.sqlite, plasma.sqlite"):
        databases.mend("../config/config.yaml", server)
