"""What every capability brought can be taken back, and nothing is taken back by itself."""

from __future__ import annotations

import pytest

from tests.render.compiler import low_state
from tests.render.pillars import compiled
from tests.support.paths import REPOSITORY

# The hub's own mirror is the state uninstall; the others are things to do, and not things to have.
WITHOUT = {"tljh", "uninstall", "upgrade", "restore", "status"}
FOLDERS = sorted(path.parent.name for path in (REPOSITORY / "salt").glob("*/init.sls"))


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name not in WITHOUT])
def test_every_folder_has_its_mirror(folder):
    assert (REPOSITORY / "salt" / folder / "disabled.sls").is_file()
    page = (REPOSITORY / "docs" / "keeping" / "uninstall.md").read_text(encoding="utf-8")
    assert f"`{folder}.disabled`" in page


def test_the_site_takes_nothing_back(system, pillar):
    used = {chunk["__sls__"] for chunk in low_state(system, "amd64", pillar)}
    assert not [sls for sls in used if sls.endswith(".disabled") or sls.startswith("uninstall")]


def test_people_are_removed_only_where_pillar_says_so(system, pillar):
    plasma = compiled(pillar)["plasma"]
    _, chunk = low_state(system, "amd64", pillar, "users.disabled")
    if not plasma["uninstall"]["users"]:
        assert (chunk["state"], chunk["fun"]) == ("test", "nop")
        return
    there = [user["name"] for user in plasma["users"] if not user.get("absent")]
    assert [user["name"] for user in chunk["users"]] == there
    assert all(user["absent"] for user in chunk["users"])
    assert {user["remove_home"] for user in chunk["users"]} <= {plasma["uninstall"]["homes"]}


def test_uninstalling_gets_what_pillar_says(system, pillar):
    plasma = compiled(pillar)["plasma"]
    chunk = next(chunk for chunk in low_state(system, "amd64", pillar, "uninstall") if chunk["__id__"] == "hub-removed")
    assert chunk["options"] == plasma["uninstall"]
    assert chunk["prefix"] == plasma["hub"]["prefix"]
    assert chunk["users"] == [user["name"] for user in plasma["users"] if not user.get("absent")]
    assert chunk["directory"] == plasma["backup"]["directory"]
    assert chunk["source"] == plasma["docker"]["source"]


def test_uninstalling_takes_back_what_every_capability_brought(system, pillar):
    """But what plasma.uninstall has a key for; and only after the hub was removed."""
    named = compiled(pillar)["plasma"]["uninstall"]
    chunks = low_state(system, "amd64", pillar, "uninstall")
    mirrors = {f"{name}.disabled" for name in FOLDERS if name not in {*WITHOUT, *named}}
    assert {chunk["__sls__"] for chunk in chunks} == {"uninstall", "preflight.turn", *mirrors}
    for chunk in chunks:
        if chunk["__sls__"] in mirrors:
            assert {"plasma_uninstall": "hub-removed"} in chunk["require"], chunk["__id__"]


def test_the_timer_of_the_engine_is_there_only_when_it_is_asked_for(system, pillar):
    prune = compiled(pillar)["plasma"]["docker"]["prune"]
    states = {chunk["__id__"]: chunk for chunk in low_state(system, "amd64", pillar)}
    timer = states["docker-prune-timer"]
    assert timer["fun"] == ("scheduled" if prune["enabled"] else "unscheduled")
    assert ("docker-prune-program" in states) is prune["enabled"]
    if prune["enabled"]:
        assert (timer["schedule"], timer["min_age"]) == (prune["schedule"], prune["min_age"])
