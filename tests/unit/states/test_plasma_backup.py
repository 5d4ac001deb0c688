"""The states of backups and restores, in dry runs and for real."""

from __future__ import annotations

import contextlib
from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_restore as restore
import _states.plasma_backup as plasma_backup
import plasma_backup_program as backup
import plasma_timer as timer
import plasma_upgrade_plan

pytestmark = pytest.mark.usefixtures("test_mode")
TIMER = {"plasma-backup.timer": {"old": None, "new": "written"}}
HUB = {"hub": {"old": "as it is", "new": "as of 2026-03-01T00:00:00+00:00"}}
ARCHIVE = "/var/opt/plasma/backups/plasma-hub-20260301T000000Z-manual.tar.gz"


@pytest.fixture
def functions(tmp_path):
    done = {"path": "/b/x.tar.gz", "seconds": 1.2, "bytes": 2**20, "parts": ["hub"], "sha256": "abc"}
    return {
        "cp.cache_dir": None,
        "plasma_hub_installed.misplaced": lambda prefix: None,
        "plasma_timer.compare": create_autospec(timer.compare, return_value={}),
        "plasma_timer.apply": create_autospec(timer.apply, return_value=TIMER),
        "plasma_backup_program.create": create_autospec(backup.create, return_value=done),
        "plasma_backup_program.program": create_autospec(backup.program, return_value=["python3", str(tmp_path)]),
        "plasma_restore.plan": create_autospec(restore.plan, return_value={"changes": HUB}),
        "plasma_restore.apply": create_autospec(restore.apply, return_value={"changes": HUB, "comment": "Done."}),
    }


@pytest.fixture
def configure_loader_modules(functions, test_mode):
    return {plasma_backup: {"__salt__": functions, "__opts__": {"test": test_mode}}}


@pytest.mark.parametrize(
    ("schedule", "comment"), [("daily", "Backups are made: daily."), (None, "No timer makes backups.")]
)
def test_the_right_timer_changes_nothing(functions, schedule, comment):
    ret = plasma_backup.scheduled("t", schedule=schedule, keep=3)
    assert ret == {"name": "t", "changes": {}, "result": True, "comment": comment}
    functions["plasma_timer.compare"].assert_called_once_with(backup.timer(schedule, keep=3))
    functions["plasma_timer.apply"].assert_not_called()


def test_no_timer_looks_where_the_hub_is_not(functions):
    functions["plasma_hub_installed.misplaced"] = {"/srv/new": "It is in /opt/tljh."}.get
    ret = plasma_backup.scheduled("t", schedule="daily", prefix="/srv/new")
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "It is in /opt/tljh.")
    functions["plasma_timer.apply"].assert_not_called()
    assert plasma_backup.scheduled("t", prefix="/srv/new")["result"] is True


@pytest.mark.parametrize(("schedule", "word"), [("daily", "set"), (None, "removed")])
def test_another_timer(functions, test_mode, schedule, word):
    functions["plasma_timer.compare"].return_value = TIMER
    ret = plasma_backup.scheduled("t", schedule=schedule)
    assert ret["changes"] == TIMER
    if test_mode:
        assert (ret["result"], ret["comment"]) == (None, f"The timer of backups would be {word}.")
        functions["plasma_timer.apply"].assert_not_called()
    else:
        assert ret["result"] is True


def test_a_backup_now(functions, test_mode):
    ret = plasma_backup.created("n", homes=True, __env__="base")
    if test_mode:
        assert ret["result"] is None
        assert ret["changes"] == {"backup": {"old": None, "new": "made"}}
        functions["plasma_backup_program.create"].assert_not_called()
    else:
        functions["plasma_backup_program.create"].assert_called_once_with(homes=True)
        assert ret["changes"]["backup"]["new"] == "/b/x.tar.gz"
        assert "SHA-256 abc" in ret["comment"]


def test_a_restore(functions, test_mode):
    ret = plasma_backup.restored("r", archive=ARCHIVE, other_machine=True, timeout=5, directory="/b")
    functions["plasma_restore.plan"].assert_called_once_with(ARCHIVE, prefix="/opt/tljh", other_machine=True)
    assert ret["changes"] == HUB
    if test_mode:
        assert (ret["result"], ret["comment"]) == (None, f"{ARCHIVE} would be restored.")
        functions["plasma_restore.apply"].assert_not_called()
    else:
        assert (ret["result"], ret["comment"]) == (True, "Done.")
        functions["plasma_restore.apply"].assert_called_once_with(
            ARCHIVE, prefix="/opt/tljh", other_machine=True, timeout=5, directory="/b"
        )


def test_nothing_to_restore(functions):
    functions["plasma_restore.plan"].return_value = {"changes": {}}
    ret = plasma_backup.restored("r", archive=ARCHIVE, hub=False)
    assert (ret["result"], ret["changes"]) == (True, {})
    functions["plasma_restore.apply"].assert_not_called()


def test_a_dry_run_where_no_hub_is_yet(functions, test_mode):
    functions["plasma_backup_program.program"].return_value = ["python3", "/nowhere"]
    ret = plasma_backup.restored("r", archive=ARCHIVE)
    if test_mode:
        assert ret["result"] is None
        assert "once the hub is installed" in ret["comment"]


def test_without_an_archive():
    ret = plasma_backup.restored("r")
    assert (ret["result"], ret["changes"]) == (False, {})
    assert "plasma_backup.list shows them" in ret["comment"]


@pytest.mark.parametrize("failing", ["plasma_timer.compare", "plasma_backup_program.create", "plasma_restore.plan"])
def test_what_is_in_the_way_is_the_comment(functions, test_mode, failing):
    functions[failing].side_effect = CommandExecutionError("One sentence.")
    if failing == "plasma_backup_program.create" and test_mode:
        return
    ret = {
        "plasma_timer.compare": lambda: plasma_backup.scheduled("x", schedule="daily"),
        "plasma_backup_program.create": lambda: plasma_backup.created("x"),
        "plasma_restore.plan": lambda: plasma_backup.restored("x", archive=ARCHIVE),
    }[failing]()
    assert ret == {"name": "x", "changes": {}, "result": False, "comment": "One sentence."}


@pytest.fixture
def tree(monkeypatch):
    @contextlib.contextmanager
    def staged(cache_dir, saltenv):
        yield "/staged"

    monkeypatch.setattr(plasma_upgrade_plan, "staged", staged)


@pytest.mark.usefixtures("tree")
def test_an_archive_is_looked_at_with_the_program_of_the_tree(functions):
    ret = plasma_backup.acceptable("a", archive=ARCHIVE, other_machine=True, hub=False, __env__="base")
    assert ret == {"name": "a", "changes": {}, "result": True, "comment": f"{ARCHIVE} can be restored here."}
    functions["plasma_restore.plan"].assert_called_once_with(
        ARCHIVE, prefix="/opt/tljh", plugin="/staged", other_machine=True, hub=False
    )
    functions["plasma_restore.plan"].side_effect = CommandExecutionError("Of another machine.")
    ret = plasma_backup.acceptable("a", archive=ARCHIVE)
    assert (ret["result"], ret["changes"], ret["comment"]) == (False, {}, "Of another machine.")


def test_no_archive_is_refused_at_once(functions):
    assert plasma_backup.acceptable("a")["result"] is False
    functions["plasma_restore.plan"].assert_not_called()
