"""Bringing the hub's data back: refusals, the exchange, and the way back."""

from __future__ import annotations

import errno
import os
import pathlib
import stat
import types

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_backup as plasma_backup
import _modules.plasma_restore as restore
import plasma_backup_program as backup
import plasma_cockpit_socket
import plasma_hub_accounts as hub_accounts
import plasma_users_rename as users_rename
import tljh_settings
from tests.support.paths import REPOSITORY
from tests.unit.modules.backup_world import BackupWorld

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to their owners, as only root may")
NOT_READY = {"ready": False, "problem": "jupyterhub.service is failed", "journal": ["a line of its journal"]}


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(restore, "KEPT", str(tmp_path / "kept"))
    return BackupWorld(tmp_path)


@pytest.fixture
def configure_loader_modules(world):
    return world.loader_modules()


@pytest.fixture
def archive(world):
    """Of a hub that says `before`; the hub says `after` since then."""
    path = backup.create(prefix=str(world.prefix), directory=str(world.place))["path"]
    world.say("after")
    (world.prefix / "state" / "new").write_text("")
    return path


def apply(world, archive, **options):
    words = {"prefix": str(world.prefix), "directory": str(world.place), "people": False, **options}
    return restore.apply(archive, **words)


def test_the_data_is_exchanged_and_what_was_there_is_kept(world, archive):
    done = apply(world, archive)
    assert world.word == "before"
    assert not (world.prefix / "state" / "new").exists()
    assert set(done["changes"]) == {"hub"}
    kept = pathlib.Path(done["kept"])
    assert (kept / "state" / "word").read_text() == "after"
    assert sorted(os.listdir(kept)) == ["config", "state"]
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    reasons = [entry["reason"] for entry in backup.list_(str(world.place), str(world.prefix))]
    assert sorted(reasons) == ["manual", "restore"]
    assert not (world.prefix / "plasma" / "restoring").exists()
    stopped = world.calls.index(["stop", "jupyterhub.service"])
    # With TLJH, the proxy's unit alone would start it without a configuration.
    assert stopped < world.calls.index(["reload", "proxy"])
    assert stat.S_IMODE((world.prefix / "state").stat().st_mode) == 0o700
    assert (world.prefix / "state" / "rules").is_dir()


def test_the_plan_changes_nothing(world, archive):
    planned = restore.plan(archive, prefix=str(world.prefix), people=False)
    assert set(planned["changes"]) == {"hub"}
    assert world.word == "after"
    assert world.calls == []


def test_what_the_hub_cannot_live_with_is_taken_back(world, archive):
    world.ready = [NOT_READY, {"ready": True}]
    with pytest.raises(CommandExecutionError) as caught:
        apply(world, archive)
    assert "what was there before was put back, the hub is back" in str(caught.value)
    assert "a line of its journal" in str(caught.value)
    assert world.word == "after"
    assert (world.prefix / "state" / "new").exists()
    assert not (world.prefix / "plasma" / "restoring").exists()


def test_a_hub_that_was_broken_before_is_said(world, archive):
    world.ready = [NOT_READY]
    with pytest.raises(CommandExecutionError, match="still not back"):
        apply(world, archive)
    assert world.word == "after"


@pytest.mark.parametrize("missing", ["config", "state"])
def test_a_hub_that_has_lost_its_data(world, archive, missing):
    (world.prefix / missing).rename(world.prefix / "away")
    done = apply(world, archive)
    assert world.word == "before"
    assert (world.prefix / "config" / "config.yaml").exists()
    assert "No backup of what was there could be made" in done["comment"]


def test_a_damaged_database_does_not_keep_it_from_being_mended(world, archive):
    (world.prefix / "state" / "jupyterhub.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    assert "No backup of what was there could be made" in apply(world, archive)["comment"]
    assert world.word == "before"


def test_what_a_restore_that_was_cut_off_left_is_kept(world, archive, tmp_path):
    left = world.prefix / "plasma" / "restoring"
    (left / "state").mkdir(parents=True)
    (left / "state" / "word").write_text("of before")
    apply(world, archive)
    [kept] = (tmp_path / "kept").glob("interrupted-restore-*")
    assert (kept / "state" / "word").read_text() == "of before"


def test_half_an_exchange_is_undone(world, archive, monkeypatch):
    real = restore._exchange

    def exchange(one, other):
        if one.name == "state" and world.calls[-1] == ["stop", "jupyterhub.service"]:
            monkeypatch.setattr(restore, "_exchange", real)
            raise OSError(5, "Input/output error", str(one))
        real(one, other)

    monkeypatch.setattr(restore, "_exchange", exchange)
    (world.prefix / "config" / "config.yaml").write_text("after: 1\n")
    with pytest.raises(CommandExecutionError, match="all is as it was"):
        apply(world, archive)
    assert world.word == "after"
    assert (world.prefix / "config" / "config.yaml").read_text() == "after: 1\n"
    assert world.calls[-1] == ["start", "jupyterhub.service"]


@pytest.mark.parametrize("atomic", [True, False])
def test_directories_trade_names(tmp_path, monkeypatch, atomic):
    if not atomic:
        monkeypatch.setattr(restore.ctypes, "CDLL", lambda *_, **__: types.SimpleNamespace(renameat2=lambda *_: -1))
        monkeypatch.setattr(restore.ctypes, "get_errno", lambda: errno.EINVAL)
    one, two = tmp_path / "trade/one", tmp_path / "trade/two"
    for path in (one, two):
        path.mkdir(parents=True)
        (path / f"of-{path.name}").write_text("")
    restore._exchange(one, two)
    assert [os.listdir(one), os.listdir(two)] == [["of-two"], ["of-one"]]
    (two / "of-one").unlink()
    two.rmdir()
    restore._exchange(one, two)
    assert os.listdir(two.parent) == ["two"]
    assert os.listdir(two) == ["of-two"]


# --- refusals --------------------------------------------------------------------------------------------------


def refuse(world, archive, said, **options):
    with pytest.raises(CommandExecutionError, match="Nothing was changed") as caught:
        apply(world, archive, **options)
    assert said in str(caught.value)
    assert world.word == "after"
    assert world.calls == []


def test_a_damaged_archive(world, archive):
    with open(archive, "r+b") as file:
        file.seek(2000)
        file.write(b"xxxx")
    refuse(world, archive, "none of ours")


def changed(monkeypatch, **keys):
    real = backup.verify
    monkeypatch.setattr(backup, "verify", lambda *a, **k: {**real(*a, **k), **keys})


def test_one_of_another_machine_unless_it_is_welcome(world, archive, monkeypatch):
    changed(monkeypatch, this_machine=False)
    refuse(world, archive, "other_machine: true")
    apply(world, archive, other_machine=True)
    assert world.word == "before"


def test_one_of_another_prefix(world, archive, monkeypatch):
    changed(monkeypatch, prefix="/srv/hub")
    refuse(world, archive, "plasma.hub.prefix")


def test_one_of_a_newer_hub(world, archive, monkeypatch):
    (world.prefix / "hub/lib/python3.12/site-packages/jupyterhub-5.4.1.dist-info").mkdir(parents=True)
    changed(monkeypatch, versions={"jupyterhub": "5.4.9"})
    restore.plan(archive, prefix=str(world.prefix), people=False)
    changed(monkeypatch, versions={"jupyterhub": "6.0.0"})
    refuse(world, archive, "is of JupyterHub 6.0.0, and 5.4.1 is installed here")


def test_what_is_of_no_use_here_is_refused_before_there_is_a_hub(world, archive, tmp_path, monkeypatch):
    """With the program that a hub is going to be installed with."""
    (world.prefix / "plasma" / "plugin").unlink()
    with pytest.raises(CommandExecutionError, match="No hub with the Plasma plugin"):
        restore.plan(archive, prefix=str(world.prefix), people=False)
    plugin = str(REPOSITORY / "plugin")
    assert set(restore.plan(archive, prefix=str(world.prefix), people=False, plugin=plugin)["changes"]) == {"hub"}
    changed(monkeypatch, versions={"jupyterhub": "99.0"})
    with pytest.raises(CommandExecutionError, match="is of JupyterHub 99.0, and 5"):
        restore.plan(archive, prefix=str(world.prefix), people=False, plugin=plugin)
    changed(monkeypatch, this_machine=False)
    with pytest.raises(CommandExecutionError, match="is of another machine"):
        restore.plan(archive, prefix=str(world.prefix), people=False, plugin=plugin)


def test_an_archive_is_read_once_in_a_run_while_it_is_the_same_file(world, archive, monkeypatch):
    monkeypatch.setattr(backup, "_VERIFIED", {})
    asked, real = [], backup._run
    monkeypatch.setattr(backup, "_run", lambda prefix, words: asked.append(words[0]) or real(prefix, words))
    assert backup.verify(archive, str(world.prefix))["ok"]
    assert backup.verify(archive, str(world.prefix))["ok"]
    assert asked == ["verify"]
    with open(archive, "ab") as file:
        file.write(b"more")
    assert not backup.verify(archive, str(world.prefix))["ok"]


# --- what this server has not ----------------------------------------------------------------------------------


@pytest.mark.parametrize("here", [True, False])
def test_cockpit_is_offered_only_where_it_is(world, archive, tmp_path, monkeypatch, here):
    monkeypatch.setattr(plasma_cockpit_socket, "DROP_IN", tmp_path / "zz-plasma.conf")
    if here:
        (tmp_path / "zz-plasma.conf").touch()
    changes = []
    monkeypatch.setattr(tljh_settings, "get", lambda key, prefix: key == "plasma.cockpit.enabled")
    monkeypatch.setattr(tljh_settings, "update", lambda *words, **options: changes.append((world.word, options)))
    done = apply(world, archive)
    # Of the archive's configuration, before the hub starts with it.
    unset = {"prefix": str(world.prefix), "unset": ["plasma.cockpit"]}
    assert changes == ([] if here else [("before", unset)])
    assert ("Cockpit is not offered" in done["comment"]) is not here


def test_a_configuration_that_cannot_be_read_is_taken_back(world, archive, monkeypatch):
    def broken(*_, **__):
        raise CommandExecutionError("config.yaml is not valid YAML")

    monkeypatch.setattr(tljh_settings, "get", broken)
    world.ready = [NOT_READY, {"ready": True}]
    with pytest.raises(CommandExecutionError, match="what was there before was put back, the hub is back"):
        apply(world, archive)
    assert world.word == "after"


# --- certificates ----------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(world, tmp_path):
    path = pathlib.Path("/var/opt", f"plasma-test-{os.getpid()}", "key.pem")
    path.parent.mkdir(parents=True)
    path.write_text("KEY")
    (world.prefix / "config" / "config.yaml").write_text(
        f"https:\n  tls:\n    key: {path}\n    cert: {tmp_path}/c.pem\n"
    )
    (tmp_path / "c.pem").write_text("CERT")
    yield path
    path.unlink(missing_ok=True)
    if path.parent.exists():
        path.parent.rmdir()


def test_the_pair_of_https_comes_back_where_it_is_missing(world, certificate, archive, tmp_path):
    certificate.unlink()
    certificate.parent.rmdir()
    (tmp_path / "c.pem").unlink()
    apply(world, archive)
    assert certificate.read_text() == "KEY"
    assert stat.S_IMODE(certificate.stat().st_mode) == 0o600
    assert not (tmp_path / "c.pem").exists()  # below /tmp, where others may write
    certificate.write_text("NEW")
    apply(world, archive)
    assert certificate.read_text() == "NEW"


def test_parts_by_the_name_of_the_interface(world, archive):
    done = plasma_backup.restore(archive, prefix=str(world.prefix), what=["hub"], directory=str(world.place))
    assert set(done["changes"]) == {"hub"}
    assert world.word == "before"


def test_the_hub_knows_people_by_their_names_of_now(world, archive, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(hub_accounts, "rename", lambda moves, prefix: asked.append((moves, prefix)))
    note = {"bea": {"new": "beatrice", "uid": 1001}}
    monkeypatch.setattr(users_rename, "former", lambda tables, root: note)
    apply(world, archive)
    move = {"old": "bea", "new": "beatrice", "group": True, "hub": True}
    assert asked == [([move], str(world.prefix))]
    note.clear()
    apply(world, archive)
    assert len(asked) == 1
