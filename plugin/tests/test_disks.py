"""Administrators, and nobody else, are told about full disks; a disk that does not answer holds up no page."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest
from tljh_plasma import disks
from tljh_plasma.settings import Settings

MOUNTS = """\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 8:2 / /srv/with\\040space rw shared:1 - xfs /dev/sdb rw
3 1 0:50 / /home rw - nfs4 files:/home rw
4 1 8:3 / /var/lib/docker rw - ext4 /dev/sdc rw
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server with these mounts; ``used`` says how full each is, in percent."""
    (tmp_path / "mountinfo").write_text(MOUNTS)
    monkeypatch.setattr(disks, "MOUNTS", tmp_path / "mountinfo")
    found = SimpleNamespace(used={}, asked=[])

    def statvfs(path):
        found.asked.append(path)
        free = 100 - found.used.get(path, 0)
        return SimpleNamespace(f_blocks=100, f_bfree=free, f_bavail=free, f_frsize=1024**3)

    monkeypatch.setattr(disks.os, "statvfs", statvfs)
    return found


def notice(watch, admin=True):
    page = watch.asked_for(SimpleNamespace(name="ada", admin=admin))
    return asyncio.run(page()) if page else None


def test_only_disks_of_this_machine_are_asked_and_each_once(server):
    server.used = {"/": 85, "/srv/with space/x": 84}
    assert disks.full(["/", "/opt/tljh/state", "/home/ada", "/srv/with space/x"], 85) == [("/", 85, 15 * 1024**3)]
    assert server.asked == ["/", "/srv/with space/x"]


def test_administrators_alone_are_told(server):
    server.used = {"/var/lib/docker": 91}
    watch = disks.Watch(Settings())
    said = notice(watch)
    assert said.level == "warning"
    assert "The disk of /var/lib/docker is 91 % full, 9 GB are free." in said.text
    assert notice(watch, admin=False) is None
    assert watch.asked_for(None) is None


def test_nothing_is_said_while_there_is_room(server):
    assert notice(disks.Watch(Settings())) is None


def test_pages_ask_once_a_minute(server):
    watch = disks.Watch(Settings())
    notice(watch)
    asked = len(server.asked)
    server.used = {"/": 99}
    assert notice(watch) is None
    assert len(server.asked) == asked
    watch._until = 0
    assert notice(watch)


def test_a_disk_that_does_not_answer_holds_up_no_page(server, monkeypatch):
    monkeypatch.setattr(disks, "PATIENCE", 0.01)
    monkeypatch.setattr(disks, "full", lambda *_: time.sleep(0.5))
    assert notice(disks.Watch(Settings())) is None


def test_what_cannot_be_read_fails_no_page(server, monkeypatch, tmp_path):
    monkeypatch.setattr(disks, "MOUNTS", tmp_path / "none")
    assert notice(disks.Watch(Settings())) is None
