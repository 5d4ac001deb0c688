"""What the operator tells people: who is shown what, and what a page does with a file that is none."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
from tljh_plasma import announcement, disk_quota, notices, theme
from tljh_plasma.announcement import FILE, Announcement

GOOD = {"message": "Upgrade at 18:00.", "level": "info", "until": None, "for": "everyone"}
EVIL = '<script>alert("x")</script>'


@pytest.fixture
def write(tmp_path):
    def _write(content=None, mode=0o600, **values):
        path = tmp_path / FILE
        path.unlink(missing_ok=True)
        path.write_text(json.dumps({**GOOD, **values}) if content is None else content)
        path.chmod(mode)
        return path

    return _write


def test_a_message_is_read(tmp_path, write):
    assert announcement.read(tmp_path) is None
    write()
    assert announcement.read(tmp_path) == Announcement("Upgrade at 18:00.", "info", True)
    write(level="warning", until=time.time() + 60)
    assert announcement.read(tmp_path).level == "warning"
    write(until=time.time() - 1)
    assert announcement.read(tmp_path) is None


@pytest.mark.parametrize(
    "values",
    [
        {"message": ""},
        {"message": "  "},
        {"message": 3},
        {"message": "x" * 501},
        {"level": "danger"},
        {"level": ["info"]},
        {"until": "tomorrow"},
        {"for": "nobody"},
        {"content": "{"},
        {"content": "[]"},
        {"content": "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")},
        {"content": "[" * 8000},
        {"content": json.dumps({**GOOD, "more": "x" * 9000})},
        {"mode": 0o622},
    ],
)
def test_what_is_no_message_shows_nothing(tmp_path, write, values):
    write(**values)
    assert announcement.read(tmp_path) is None


def test_links_and_other_things_are_not_followed(tmp_path, write):
    path = write()
    os.rename(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert announcement.read(tmp_path) is None
    path.unlink()
    os.mkfifo(path)
    assert announcement.read(tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_not_read(tmp_path, write):
    os.chown(write(), 65534, 65534)
    assert announcement.read(tmp_path) is None


def test_who_is_told(tmp_path, write):
    shown = announcement.shown_to(tmp_path)
    anna, root = SimpleNamespace(admin=False), SimpleNamespace(admin=True)
    write()
    assert [bool(shown(user)) for user in (None, anna, root)] == [True, True, True]
    write(**{"for": "administrators"})
    assert [bool(shown(user)) for user in (None, anna, root)] == [False, False, True]


def test_markup_is_text():
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(str(theme.TEMPLATES)), autoescape=True)
    template = environment.get_template("shared/announcement.html")
    text = template.render(plasma_announcement=Announcement(EVIL, "warning", True))
    assert EVIL not in text
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in text
    assert "alert-warning" in text
    assert template.render(plasma_announcement=None).strip() == ""


def test_running_servers_show_it_unless_the_disk_is_full(tmp_path, write, monkeypatch):
    (tmp_path / "state").mkdir()
    os.rename(write(), tmp_path / "state" / FILE)
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(tmp_path))
    full = disk_quota.Notice("error", "Your disk is full", "Delete something.")
    found = []
    for disk in (None, full):
        monkeypatch.setattr(disk_quota, "notice_for", lambda name, disk=disk: disk)
        directory = notices.refresh(str(tmp_path / "notices"), "anna", 1500)
        found.append(json.loads(Path(directory, notices.FILE).read_text())["text"])
    assert found == ["Upgrade at 18:00.", "Delete something."]
