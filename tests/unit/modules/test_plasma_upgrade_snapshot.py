"""Snapshots of a hub on a real file system, and what comes back of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import sqlite3
import stat
from types import SimpleNamespace

import pytest
from salt.exceptions import CommandExecutionError

import plasma_upgrade_snapshot as snapshot
from tests.unit.modules.hub_prefix import HubPrefix


@pytest.fixture
def configure_loader_modules():
    return {snapshot: {}}


def execute(path, *statements):
    with contextlib.closing(sqlite3.connect(path)) as database:
        found = [database.execute(statement).fetchall() for statement in statements]
        database.commit()
    return found[-1]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An installed hub with a database, settings, secrets and units."""
    prefix = HubPrefix(tmp_path / "tljh").install()
    units = tmp_path / "units"
    (units / "jupyterhub.service.d").mkdir(parents=True)
    (units / "jupyterhub.service").write_text("old hub")
    (units / "traefik.service").write_text("old proxy")
    (units / "jupyterhub.service.d" / "plasma.conf").write_text("old drop-in")
    monkeypatch.setattr(snapshot, "UNITS_DIRECTORY", str(units))
    monkeypatch.setattr(snapshot, "KEPT", str(tmp_path / "kept" / "plasma"))
    prefix.write("config/config.yaml", "limits: {memory: 2G}\n")
    prefix.write("state/plasma-operator.token", "secret").chmod(0o600)
    prefix.write("state/rules/rules.toml", "old routes")
    database = prefix.root / "state" / "jupyterhub.sqlite"
    execute(
        database,
        "CREATE TABLE alembic_version (version_num TEXT)",
        "INSERT INTO alembic_version VALUES ('old')",
        "CREATE TABLE users (name TEXT)",
        "INSERT INTO users VALUES ('ada')",
    )
    return SimpleNamespace(
        prefix=prefix, root=str(prefix.root), path=prefix.root, units=units, database=database, kept=tmp_path / "kept"
    )


def upgrade(hub):
    """What another version leaves."""
    hub.prefix.write("hub/new.py", "new")
    (hub.path / "hub" / "bin" / "python3").unlink()
    hub.prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    hub.prefix.write_receipt(complete=False)
    (hub.units / "jupyterhub.service").write_text("new hub")
    (hub.units / "jupyterhub.service.d" / "plasma.conf").unlink()


def tree(path):
    return {
        str(found.relative_to(path)): found.read_bytes()
        for found in sorted(path.rglob("*"))
        if found.is_file() and not found.is_symlink()
    }


def test_all_of_the_hub_comes_back(hub):
    before = {part: tree(hub.path / part) for part in ("hub", "plasma/plugin")}
    receipt = hub.prefix.receipt.read_text()
    snapshot.take(hub.root)
    assert stat.S_IMODE((hub.path / "plasma" / "upgrade").stat().st_mode) == 0o700
    upgrade(hub)
    assert snapshot.restore(hub.root) == {"data": [], "kept": None}
    assert {part: tree(hub.path / part) for part in before} == before
    assert hub.prefix.receipt.read_text() == receipt
    assert (hub.path / "hub" / "bin" / "python3").is_symlink()
    assert (hub.units / "jupyterhub.service").read_text() == "old hub"
    assert (hub.units / "jupyterhub.service.d" / "plasma.conf").read_text() == "old drop-in"
    assert snapshot.drop(hub.root) is True
    assert not (hub.path / "plasma" / "upgrade").exists()
    assert snapshot.drop(hub.root) is False


def test_a_database_with_the_same_tables_keeps_what_was_written_meanwhile(hub):
    snapshot.take(hub.root)
    execute(hub.database, "INSERT INTO users VALUES ('grace')")
    hub.prefix.write("state/rules/rules.toml", "new routes")
    assert snapshot.restore(hub.root)["data"] == []
    assert execute(hub.database, "SELECT name FROM users") == [("ada",), ("grace",)]
    assert (hub.path / "state" / "rules" / "rules.toml").read_text() == "new routes"


@pytest.mark.parametrize(
    "statement",
    ["UPDATE alembic_version SET version_num = 'new'", "ALTER TABLE users ADD COLUMN more TEXT"],
)
def test_a_migrated_database_is_put_back_and_the_other_one_kept(hub, statement):
    snapshot.take(hub.root)
    execute(hub.database, statement, "INSERT INTO users (name) VALUES ('grace')")
    pathlib.Path(f"{hub.database}-journal").write_text("")
    done = snapshot.restore(hub.root)
    assert done["data"] == ["state/jupyterhub.sqlite"]
    assert execute(hub.database, "SELECT * FROM users") == [("ada",)]
    assert snapshot.revisions(hub.root) == {"jupyterhub.sqlite": "old"}
    assert not pathlib.Path(f"{hub.database}-journal").exists()
    kept = pathlib.Path(done["kept"])
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert ("grace",) in execute(kept / "state" / "jupyterhub.sqlite", "SELECT name FROM users")


@pytest.mark.parametrize("damage", ["broken", "gone"])
def test_a_database_that_cannot_be_read_is_put_back(hub, damage):
    snapshot.take(hub.root)
    hub.database.unlink()
    if damage == "broken":
        hub.database.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    assert snapshot.restore(hub.root)["data"] == ["state/jupyterhub.sqlite"]
    assert execute(hub.database, "SELECT * FROM users") == [("ada",)]


def test_settings_and_secrets_are_put_back(hub):
    snapshot.take(hub.root)
    hub.prefix.write("config/config.yaml", "limits: {memory: 3G, unheard: of}\n")
    (hub.path / "state" / "plasma-operator.token").unlink()
    done = snapshot.restore(hub.root)
    assert sorted(done["data"]) == ["config/config.yaml", "state/plasma-operator.token"]
    assert (hub.path / "config" / "config.yaml").read_text() == "limits: {memory: 2G}\n"
    assert stat.S_IMODE((hub.path / "state" / "plasma-operator.token").stat().st_mode) == 0o600
    assert "unheard" in (pathlib.Path(done["kept"]) / "config" / "config.yaml").read_text()


def test_the_copy_of_a_database_is_consistent_while_somebody_writes(hub):
    with contextlib.closing(sqlite3.connect(hub.database)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("INSERT INTO users VALUES ('grace')")
        writer.commit()
        snapshot.take(hub.root)
    copy = hub.path / "plasma" / "upgrade" / "data" / "state" / "jupyterhub.sqlite"
    assert execute(copy, "PRAGMA integrity_check", "SELECT name FROM users") == [("ada",), ("grace",)]
    assert not pathlib.Path(f"{copy}-wal").exists()


@pytest.mark.parametrize("cut", range(1, 7))
def test_a_restore_may_be_cut_off_anywhere(hub, monkeypatch, cut):
    """Each rename is a point of no return of its own."""
    before = {part: tree(hub.path / part) for part in ("hub", "plasma/plugin")}
    snapshot.take(hub.root)
    upgrade(hub)
    rename, calls = os.rename, []

    def interrupted(*paths):
        calls.append(paths)
        if len(calls) == cut:
            raise KeyboardInterrupt
        rename(*paths)

    monkeypatch.setattr(snapshot.os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        snapshot.restore(hub.root)
    monkeypatch.setattr(snapshot.os, "rename", rename)
    snapshot.restore(hub.root)
    assert {part: tree(hub.path / part) for part in before} == before
    assert '"complete": true' in hub.prefix.receipt.read_text()


def test_without_room_nothing_is_begun(hub, monkeypatch):
    monkeypatch.setattr(snapshot, "ROOM", 10**18)
    with pytest.raises(CommandExecutionError, match="Nothing was changed: an upgrade that can be undone needs"):
        snapshot.take(hub.root)
    assert not (hub.path / "plasma" / "upgrade").exists()


def test_an_installation_that_goes_on_is_waited_for(hub, monkeypatch):
    monkeypatch.setattr(snapshot, "LOCK_TIMEOUT", 0)
    with open(hub.path / "plasma" / "install.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CommandExecutionError, match="fuser -v"):
            snapshot.take(hub.root)


def test_data_alone(hub):
    snapshot.take(hub.root, data_alone=True)
    assert os.listdir(hub.path / "plasma" / "upgrade" / "units") == []
    assert sorted(os.listdir(hub.path / "plasma" / "upgrade")) == ["data", "units"]
    copy = hub.path / "plasma" / "upgrade" / "data" / "state" / "jupyterhub.sqlite"
    assert execute(copy, "SELECT name FROM users") == [("ada",)]


def test_data_without_an_archive_is_kept(hub):
    snapshot.take(hub.root)
    kept = pathlib.Path(snapshot.keep_data(hub.root))
    assert (kept / "config" / "config.yaml").exists()
    assert kept.parent == hub.kept / "plasma"
    snapshot.drop(hub.root)
    assert snapshot.keep_data(hub.root) is None
