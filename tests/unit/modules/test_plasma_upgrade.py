"""The record of an upgrade: how it begins, how it ends, and what an interruption leaves."""

from __future__ import annotations

import json
import stat
from unittest.mock import create_autospec

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_announce as announce_module
import _modules.plasma_upgrade as plasma_upgrade
import plasma_files
import plasma_hub_installed as hub_module
import plasma_upgrade_plan as plan_module
import plasma_upgrade_snapshot as snapshot_module
import tljh_service as service_module

PLANNED = {
    "packages": {"jupyterhub": {"old": "5.3.0", "new": "6.1.1"}},
    "jumps": ["JupyterHub 5 -> 6"],
    "kind": "upgrade",
}
READY = {"ready": True, "seconds": 1.0, "version": "5.3.0", "problem": None, "journal": []}
DOWN = {**READY, "ready": False, "problem": "jupyterhub.service crashes again and again", "journal": ["ImportError: x"]}


@pytest.fixture
def calls():
    """Names of the functions that changed something, in their order."""
    return []


@pytest.fixture
def functions(calls, tmp_path):
    def noted(function, name, **options):
        mock = create_autospec(function, **options)
        effect = options.get("return_value")
        mock.side_effect = lambda *args, **kwargs: calls.append(name) or effect
        return mock

    return {
        "plasma_hub_installed.packages": create_autospec(
            hub_module.packages, return_value={"jupyterhub": "5.3.0", "tljh-plasma": "1.0"}
        ),
        "plasma_announce.set": noted(announce_module.set_, "announced"),
        "plasma_announce.clear": noted(announce_module.clear, "cleared"),
        "plasma_upgrade_plan.plan": create_autospec(
            plan_module.plan, return_value={"packages": {}, "jumps": [], "kind": "nothing"}
        ),
        "plasma_upgrade_plan.fault": create_autospec(plan_module.fault, return_value=None),
        "plasma_hub_installed.config": create_autospec(hub_module.config, return_value={}),
        "plasma_upgrade_snapshot.check_room": create_autospec(snapshot_module.check_room),
        "plasma_upgrade_snapshot.revisions": create_autospec(
            snapshot_module.revisions, return_value={"jupyterhub.sqlite": "a"}
        ),
        "plasma_upgrade_snapshot.take": noted(snapshot_module.take, "taken"),
        "plasma_upgrade_snapshot.restore": noted(
            snapshot_module.restore, "restored", return_value={"data": ["state/jupyterhub.sqlite"], "kept": "/kept"}
        ),
        "plasma_upgrade_snapshot.keep_data": noted(snapshot_module.keep_data, "kept", return_value="/kept-data"),
        "plasma_upgrade_snapshot.drop": noted(snapshot_module.drop, "dropped"),
        "tljh_service.ready": create_autospec(service_module.ready, return_value=READY),
        "cmd.run_all": lambda argv, **options: calls.append(" ".join(argv[:2])) or {"retcode": 0},
        "plasma_backup_program.program": lambda prefix: ["python3", str(tmp_path / "program")],
        "plasma_files.write": plasma_files.write,
        "cp.cache_dir": None,
        "plasma_backup_program.create": lambda **options: calls.append("archived") or {"path": "/archive"},
    }


@pytest.fixture
def configure_loader_modules(functions):
    return {plasma_upgrade: {"__salt__": functions}}


@pytest.fixture
def prefix(tmp_path):
    (tmp_path / "plasma").mkdir()
    (tmp_path / "program").mkdir()
    return str(tmp_path)


def record(prefix):
    with open(f"{prefix}/plasma/upgrade.json", encoding="utf-8") as file:
        return json.load(file)


def write(prefix, **values):
    plasma_upgrade._write(prefix, {"status": "open", "begun": "then", "backup": "/archive", **values})


def test_an_upgrade_begins(prefix, calls, tmp_path):
    done = plasma_upgrade.prepare(prefix, PLANNED, message="Hello.")
    assert done == {"resumed": False, "backup": "/archive", "snapshot": True}
    assert calls == ["announced", "archived", "taken"]
    found = record(prefix)
    assert (found["status"], found["installed"]["jupyterhub"]) == ("open", "5.3.0")
    assert stat.S_IMODE((tmp_path / "plasma" / "upgrade.json").stat().st_mode) == 0o600
    health = plasma_upgrade.health(prefix)
    assert health["open"]["status"] == "open"
    assert "plasma_upgrade.roll_back undoes it" in health["problem"]


def test_nobody_is_told_without_a_message(prefix, calls):
    plasma_upgrade.prepare(prefix, PLANNED, wait=3600)
    assert calls == ["archived", "taken"]


def test_a_version_without_backups_keeps_the_copy_of_its_data(prefix, calls, tmp_path):
    (tmp_path / "program").rmdir()
    assert plasma_upgrade.prepare(prefix, PLANNED)["backup"] is None
    done = plasma_upgrade.settle("pypi", prefix)
    assert done["comment"].endswith("Its data of before is in /kept-data.")
    assert calls == ["taken", "kept", "cleared", "dropped"]


@pytest.mark.parametrize("failing", ["plasma_upgrade_snapshot.take", "plasma_backup_program.create"])
def test_what_cannot_be_saved_is_not_upgraded(prefix, functions, calls, failing):
    def fail(*args, **kwargs):
        raise CommandExecutionError("Nothing was changed: no room.")

    functions[failing] = fail
    with pytest.raises(CommandExecutionError, match="no room"):
        plasma_upgrade.prepare(prefix, PLANNED, message="Hello.")
    assert calls[-2:] == ["cleared", "dropped"]
    assert plasma_upgrade.open_upgrade(prefix) == {}


def test_the_first_snapshot_stays_the_one_to_go_back_to(prefix, calls):
    write(prefix, installed={"jupyterhub": "5.3.0"})
    done = plasma_upgrade.prepare(prefix, PLANNED, message="Hello.")
    assert done == {"resumed": True, "backup": "/archive", "snapshot": True}
    assert calls == ["announced"]
    assert record(prefix)["installed"] == {"jupyterhub": "5.3.0"}


def test_a_snapshot_that_was_cut_off_is_taken_again(prefix, calls):
    write(prefix, status="preparing")
    plasma_upgrade.prepare(prefix, PLANNED)
    assert calls == ["archived", "taken"]


def test_an_interrupted_way_back_is_finished_before_another_upgrade_begins(prefix, calls):
    write(prefix, status="rolling-back")
    assert plasma_upgrade.prepare(prefix, PLANNED)["resumed"] is False
    assert calls.index("restored") < calls.index("taken")


def test_a_broken_hub_has_its_data_saved_and_no_way_back(prefix, calls):
    done = plasma_upgrade.prepare(prefix, {**PLANNED, "kind": "broken"})
    assert done == {"resumed": False, "backup": "/archive", "snapshot": False}
    assert calls == ["archived"]
    assert plasma_upgrade.open_upgrade(prefix) == {}


def test_the_data_of_a_hub_too_broken_for_an_archive_is_copied(prefix, functions, calls):
    def fail(**options):
        raise CommandExecutionError("The hub's Python is gone.")

    functions["plasma_backup_program.create"] = fail
    assert plasma_upgrade.prepare(prefix, {**PLANNED, "kind": "broken"})["backup"] == "/kept-data"
    assert calls == ["taken", "kept", "dropped"]


def test_what_works_is_done(prefix, functions, calls):
    write(prefix, installed={"jupyterhub": "5.3.0", "same": "1"}, databases={"jupyterhub.sqlite": "a"})
    functions["plasma_hub_installed.packages"].return_value = {"jupyterhub": "6.1.1", "same": "1", "more": "2"}
    functions["plasma_upgrade_snapshot.revisions"].return_value = {"jupyterhub.sqlite": "b"}
    done = plasma_upgrade.settle("pypi", prefix)
    assert done["outcome"] == "done"
    assert done["changes"] == {
        "jupyterhub": {"old": "5.3.0", "new": "6.1.1"},
        "jupyterhub.sqlite": {"old": "a", "new": "b"},
        "more": {"old": None, "new": "2"},
    }
    assert calls == ["cleared", "dropped"]
    assert plasma_upgrade.settle("pypi", prefix) == {}
    assert plasma_upgrade.health(prefix)["last"]["status"] == "done"


@pytest.mark.parametrize("fault", ["incomplete", "down"])
def test_what_does_not_work_is_undone(prefix, functions, calls, fault):
    write(prefix, jumps=["JupyterHub 5 -> 6"])
    if fault == "incomplete":
        functions["plasma_upgrade_plan.plan"].return_value = PLANNED
    else:
        functions["plasma_upgrade_plan.fault"].return_value = "the hub did not come up: it crashes\nImportError: x"
    done = plasma_upgrade.settle("pypi", prefix, failures=["pip said no."])
    assert (done["outcome"], done["changes"]) == ("rolled-back", {})
    assert done["comment"].startswith(
        "The upgrade (JupyterHub 5 -> 6) failed and was undone; JupyterHub 5.3.0 with the Plasma plugin 1.0 runs again."
    )
    assert ("pip said no." if fault == "incomplete" else "ImportError: x") in done["comment"]
    assert "Put back: state/jupyterhub.sqlite. What the new version made of them is in /kept." in done["comment"]
    assert calls == [
        "systemctl stop",
        "restored",
        "sh -c",
        "systemctl daemon-reload",
        "systemctl reset-failed",
        "systemctl start",
        "cleared",
        "dropped",
    ]
    health = plasma_upgrade.health(prefix)
    assert (health["open"], health["problem"], health["last"]["status"]) == (None, None, "rolled-back")
    assert "\n" not in health["last"]["problem"]


def test_a_way_back_that_was_cut_off_is_finished(prefix, functions, calls):
    write(prefix, status="rolling-back", problem="the hub did not come up")
    done = plasma_upgrade.settle("pypi", prefix)
    assert done["outcome"] == "rolled-back"
    assert "What was wrong: the hub did not come up" in done["comment"]
    functions["plasma_upgrade_plan.fault"].assert_not_called()


def test_preparations_that_were_cut_off_are_forgotten(prefix, calls):
    write(prefix, status="preparing")
    assert plasma_upgrade.settle("pypi", prefix)["outcome"] == "abandoned"
    assert calls == ["cleared", "dropped"]
    assert plasma_upgrade.health(prefix)["problem"] is None


@pytest.mark.parametrize("backup, place", [("/archive", "/archive"), (None, "/kept-data")])
def test_a_former_hub_that_is_down_too_is_said_with_where_the_data_is(prefix, functions, backup, place):
    write(prefix, backup=backup)
    functions["tljh_service.ready"].return_value = DOWN
    with pytest.raises(CommandExecutionError) as raised:
        plasma_upgrade.roll_back(prefix, "it broke")
    text = str(raised.value)
    assert "was put back but does not come up either" in text
    assert f"Its data is in {place}." in text
    assert "ImportError: x" in text
    assert plasma_upgrade.open_upgrade(prefix) == {}
    assert "state.apply tljh" in plasma_upgrade.health(prefix)["problem"]


def test_nothing_to_go_back_to(prefix):
    with pytest.raises(CommandExecutionError, match="No upgrade is open"):
        plasma_upgrade.roll_back(prefix)
    assert plasma_upgrade.health(prefix) == {"open": None, "last": None, "problem": None}


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_broken_record_is_none(prefix, tmp_path, text):
    (tmp_path / "plasma" / "upgrade.json").write_text(text)
    assert plasma_upgrade.open_upgrade(prefix) == {}
    assert plasma_upgrade.health(prefix)["open"] is None
