"""What /etc/docker/daemon.json said before comes back."""

from __future__ import annotations

import json
import pathlib

import pytest
from salt.exceptions import CommandExecutionError

import plasma_docker_undo as undo
import plasma_files

OURS = {"live-restore": True, "log-driver": "journald"}


@pytest.fixture
def configure_loader_modules():
    return {undo: {"__salt__": {"plasma_files.write": plasma_files.write}}}


@pytest.fixture
def files(tmp_path):
    return {
        "path": str(tmp_path / "etc" / "daemon.json"),
        "note": str(tmp_path / "lib" / "docker.json"),
    }


def write(files, value):
    path = pathlib.Path(files["path"])
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def read(files):
    try:
        with open(files["path"], encoding="utf-8") as handle:
            return json.load(handle)
    except FileNotFoundError:
        return None


@pytest.mark.parametrize(
    "before",
    [None, {"mtu": 1400}, {"live-restore": False}, {"log-driver": "local"}, {"log-driver": "journald", "mtu": 1400}],
)
def test_what_was_there_comes_back(files, tmp_path, before):
    if before is not None:
        write(files, before)
    assert undo.remember(**files)
    write(files, {**(before or {}), **OURS})
    assert not undo.remember(**files)
    foretold = undo.compare(**files)
    assert foretold
    assert undo.restore(**files, backups=str(tmp_path / "backups")) == foretold
    assert read(files) == before
    (kept,) = (tmp_path / "backups").iterdir()
    assert json.loads(kept.read_text()) == {**(before or {}), **OURS}
    assert kept.stat().st_mode & 0o777 == 0o600
    assert undo.restore(**files, backups=str(tmp_path / "backups")) == {}


def test_what_others_set_since_stays(files, tmp_path):
    undo.remember(**files)
    write(files, {**OURS, "log-driver": "local", "mtu": 1400})
    assert undo.restore(**files, backups=str(tmp_path / "backups")).keys() == {"live-restore"}
    assert read(files) == {"log-driver": "local", "mtu": 1400}


def test_a_server_from_before_there_were_notes(files, tmp_path):
    write(files, {**OURS, "mtu": 1400})
    undo.remember(**files)
    undo.restore(**files, backups=str(tmp_path / "backups"))
    assert read(files) == {"mtu": 1400}


def test_without_a_note_nothing_is_ours(files):
    write(files, OURS)
    assert undo.compare(**files) == {}


def test_damaged_files_are_said(files):
    undo.remember(**files)
    write(files, OURS)
    for path in files.values():
        with open(path, "w", encoding="utf-8") as handle:
            handle.write("{")
        with pytest.raises(CommandExecutionError, match="remove it"):
            undo.compare(**files)
        write(files, OURS)
