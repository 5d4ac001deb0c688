"""The parts of a status: what the engine, the file systems and quotas say."""

from __future__ import annotations

import os
from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import plasma_engine
import plasma_hub_installed
import plasma_quota_report
import plasma_status_parts as parts
from tests.unit.modules.hub_prefix import HubPrefix
from tests.unit.modules.test_plasma_hub_containers import StandInEngine

IMAGES = [
    {
        "RepoTags": ["r-course:1", "other:1"],
        "Size": 1_234_000_000,
        "Labels": {"tljh_repo2docker.image_name": "r-course:1", "tljh_repo2docker.display_name": "R"},
    },
    {"RepoTags": ["a:1"], "Size": 2_000_000_000, "Labels": {"tljh_repo2docker.image_name": "gone:1"}},
    {"RepoTags": None, "Size": 5, "Labels": {"tljh_repo2docker.image_name": "r-course:1"}},
    {"RepoTags": ["plasma-former/r:1"], "Size": 9, "Labels": {"tljh_repo2docker.image_name": "r:1"}},
]
CONTAINERS = [
    {"Labels": {"org.plasma.user": name, "org.plasma.server": server}, "Image": "r-course:1", "Status": "Up 2 hours"}
    for name, server in (("grace", ""), ("ada", "two"), ("ada", ""))
]


@pytest.fixture
def engine(tmp_path):
    found = StandInEngine(tmp_path / "docker.sock")
    answers = {"/images/json": IMAGES, "/containers/json": CONTAINERS}
    found.handle = lambda method, url: (200, answers[url.path])
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def rows():
    return create_autospec(plasma_quota_report.rows, return_value=[])


@pytest.fixture
def configure_loader_modules(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(plasma_engine, "SOCKET", str(tmp_path / "docker.sock"))
    return {
        parts: {
            "__salt__": {
                "plasma_engine.info": lambda timeout: {"version": "26.1"},
                "plasma_quota_report.rows": rows,
            },
        }
    }


def test_environments_are_the_named_images_largest_first(engine):
    assert parts.environments() == [
        {"name": "a:1", "image": "a:1", "size": "2.0 GB", "bytes": 2_000_000_000},
        {"name": "R", "image": "r-course:1", "size": "1.2 GB", "bytes": 1_234_000_000},
        {"name": "plasma-former/r:1 (former image)", "image": "plasma-former/r:1", "size": "9 B", "bytes": 9},
    ]


def test_servers_of_people(engine):
    assert [(one["user"], one["server"]) for one in parts.servers()] == [("ada", ""), ("ada", "two"), ("grace", "")]
    assert parts.servers()[0] == {"user": "ada", "server": "", "image": "r-course:1", "since": "Up 2 hours"}


def test_an_engine_that_refuses(engine):
    engine.status = (500, {"message": "no"})
    with pytest.raises(CommandExecutionError, match="HTTP status 500"):
        parts.servers()


def test_no_engine():
    with pytest.raises(CommandExecutionError, match="Docker does not answer"):
        parts.environments()


def test_disks_are_named_once_with_all_they_hold(tmp_path):
    found = parts.disks({"one": str(tmp_path), "two": str(tmp_path / "not" / "yet"), "proc": "/proc"})
    mine = next(one for one in found if "one" in one["holds"])
    assert mine["holds"] == ["one", "two"]
    assert os.path.ismount(mine["mount"])
    assert 0 < mine["percent"] <= 100
    assert mine["bytes_free"] > 0
    # A file system without blocks is not full.
    assert next(one for one in found if one["holds"] == ["proc"])["percent"] == 0


def test_the_program_of_the_proxy(tmp_path):
    prefix = HubPrefix(tmp_path / "tljh").install()
    root, program = str(prefix.root), prefix.root / "hub" / "bin" / "traefik"
    prefix.write_receipt(traefik=plasma_hub_installed.traefik(root))
    assert parts.program(root) is None
    program.write_text("another", encoding="utf-8")
    named = f"{program}, the program of the proxy, is"
    assert parts.program(root) == f"{named} not the one that was installed: `state.apply tljh`"
    program.unlink()
    assert parts.program(root) == f"{named} gone: `state.apply tljh`"
    # Another line says that the installation has to be finished first.
    prefix.write_receipt(complete=False)
    assert parts.program(root) is None
    assert parts.program(str(tmp_path / "none")) is None


def test_the_server(engine):
    grains = {"os": "Debian", "osrelease": "12", "pythonversion": [3, 11, 2, "final", 0]}
    assert parts.system(grains) == {
        "os": "Debian 12",
        "python": "3.11.2",
        "docker": "26.1",
    }


def test_who_is_over_a_limit(rows):
    row = {"kind": "user", "id": 1000, "name": "ada", "used": 3_000_000, "soft": 1_000_000, "hard": 0}
    rows.return_value = [
        {**row, "over_soft": True, "over_hard": False},
        {**row, "name": None, "hard": 2_000_000, "over_soft": True, "over_hard": True},
        {**row, "over_soft": False, "over_hard": False},
    ]
    assert parts.exceeded("/srv/homes", "/dev/sdb") == [
        {"kind": "user", "name": "ada", "used": "3.0 MB", "limit": "1.0 MB", "hard": False},
        {"kind": "user", "name": "#1000", "used": "3.0 MB", "limit": "2.0 MB", "hard": True},
    ]
    rows.assert_called_once_with("/srv/homes", "/dev/sdb")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (12_345, "12 kB"), (2_500_000, "2.5 MB"), (3e12, "3.0 TB")]
)
def test_sizes(number, text):
    assert parts.size(number) == text
