"""The execution module plasma_announce."""

from __future__ import annotations

import json
import stat
import time

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _modules.plasma_announce as plasma_announce
import plasma_files


@pytest.fixture
def configure_loader_modules():
    return {plasma_announce: {"__salt__": {"plasma_files.write": plasma_files.write}}}


@pytest.fixture
def prefix(tmp_path):
    (tmp_path / "state").mkdir()
    return str(tmp_path)


def test_set_show_and_clear(prefix, tmp_path):
    assert plasma_announce.show(prefix) is None
    assert plasma_announce.set_("Upgrade at 18:00.", prefix=prefix) is True
    path = tmp_path / "state" / "plasma-announcement.json"
    assert json.loads(path.read_text()) == {
        "message": "Upgrade at 18:00.",
        "level": "info",
        "until": None,
        "for": "everyone",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert plasma_announce.set_("Upgrade at 18:00.", prefix=prefix) is False
    assert plasma_announce.show(prefix)["message"] == "Upgrade at 18:00."
    assert plasma_announce.clear(prefix) is True
    assert plasma_announce.clear(prefix) is False
    assert plasma_announce.show(prefix) is None


def test_a_message_ends_by_itself(prefix):
    plasma_announce.set_("Soon.", seconds=60, level="warning", audience="administrators", prefix=prefix)
    assert 0 < plasma_announce.show(prefix)["until"] - time.time() <= 60
    plasma_announce.set_("Over.", seconds=-1, prefix=prefix)
    assert plasma_announce.show(prefix) is None


def test_a_link_in_the_place_of_the_new_file_is_replaced(prefix, tmp_path):
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / "state" / "plasma-announcement.new").symlink_to(tmp_path / "elsewhere")
    plasma_announce.set_("Hello.", prefix=prefix)
    assert (tmp_path / "elsewhere").read_text() == "theirs"


@pytest.mark.parametrize("message", ["", "  ", None, 7, "x" * 501, "two\nlines"])
def test_what_is_no_message_is_refused(prefix, message):
    with pytest.raises(SaltInvocationError, match="one line of 1 to 500 characters"):
        plasma_announce.set_(message, prefix=prefix)


@pytest.mark.parametrize("values", [{"level": "danger"}, {"audience": "nobody"}])
def test_other_levels_and_audiences_are_refused(prefix, values):
    with pytest.raises(SaltInvocationError, match="info or warning"):
        plasma_announce.set_("Hello.", prefix=prefix, **values)


def test_without_a_hub(tmp_path):
    with pytest.raises(CommandExecutionError, match="apply the state tljh"):
        plasma_announce.set_("Hello.", prefix=str(tmp_path / "none"))
    assert plasma_announce.clear(str(tmp_path / "none")) is False


def test_a_broken_file_is_no_message(prefix, tmp_path):
    (tmp_path / "state" / "plasma-announcement.json").write_text("{")
    assert plasma_announce.show(prefix) is None
