"""The execution module plasma_files."""

from __future__ import annotations

import os

import pytest

import plasma_files


@pytest.mark.parametrize(
    ("content", "found"), [("Grüße\n", "Grüße\n".encode()), (b"\x00\xff", b"\x00\xff"), ("\udcff", b"\xff"), ("", b"")]
)
def test_a_file_is_replaced(tmp_path, content, found):
    path = tmp_path / "note.json"
    path.write_text("before", encoding="utf-8")
    assert plasma_files.write(path, content) == str(path)
    assert path.read_bytes() == found
    assert os.listdir(tmp_path) == ["note.json"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_as_asked_for_whatever_the_umask(tmp_path, mode):
    before = os.umask(0o077)
    try:
        plasma_files.write(tmp_path / "new", "text", mode=mode)
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == mode


def test_what_a_killed_run_left_and_links_do_no_harm(tmp_path):
    for left in (f".note.{os.getpid()}.new", ".note.99999999.new"):
        (tmp_path / left).symlink_to(tmp_path / "other")
    (tmp_path / ".note.1.new").write_text("being written by another run")
    (tmp_path / "note").symlink_to(tmp_path / "other")
    plasma_files.write(tmp_path / "note", "text")
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "note").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".note.1.new", "note"]


def test_a_failure_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "note"
    path.write_text("before", encoding="utf-8")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plasma_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        plasma_files.write(path, "after")
    assert path.read_text(encoding="utf-8") == "before"
