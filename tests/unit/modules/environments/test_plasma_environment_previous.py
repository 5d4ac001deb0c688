"""Environments of pillar: the image from before the newest build."""

from __future__ import annotations

import pytest

import plasma_environment_api as api
import plasma_environment_plan as plan
import plasma_environment_run as run
from tests.unit.modules.environments.stand_in_environments import (
    COMMIT,
    OF_AN_IMAGE,
    OTHER,
    both,
    entry,
    item,
)

NONE = (
    "`previous` is set, and r:main has no former image on this server: take `previous` out of its entry to use the "
    "newest one."
)


@pytest.fixture
def configure_loader_modules(functions):
    return {run: {"__salt__": functions}, plan: {}}


def built_twice(**keys):
    """An environment whose newest image is of COMMIT, and whose former one is of OTHER."""
    now = item("r:main", **keys)
    return {**now, "former": {**{name: now[name] for name in OF_AN_IMAGE}, "commit": OTHER}}


def test_the_former_image_is_used_and_nothing_is_built(service, functions):
    service.listed = {"r:main": built_twice()}
    # Wherever the branch is by now: nobody even asks.
    functions["plasma_git.commit"].side_effect = AssertionError
    done = both(service, [entry("r", "main", previous=True)])
    assert done["changes"] == {"r": {"old": {"previous": False}, "new": {"previous": True}}}
    assert (service.asked, service.bodies) == ([("change", "r:main")], [{"previous": True}])
    assert service.listed["r:main"]["commit"] == OTHER


def test_without_the_key_the_newest_is_used_again_without_a_build(service):
    service.listed = {"r:main": built_twice()}
    both(service, [entry("r", "main", previous=True)])
    done = both(service, [entry("r", "main", memory="1G")])
    assert done["changes"]["r"]["old"] == {"previous": True, "memory": None}
    assert service.asked == [("change", "r:main")] * 2
    assert (service.listed["r:main"]["commit"], service.listed["r:main"]["previous"]) == (COMMIT, False)


def test_a_branch_that_has_moved_since_is_built_and_the_newest_is_not_used_meanwhile(service, functions):
    service.listed = {"r:main": built_twice()}
    both(service, [entry("r", "main", previous=True)])
    functions["plasma_git.commit"].return_value = "c" * 40
    done = both(service, [entry("r", "main")])
    assert done["changes"]["r"] == {
        "old": {"commit": COMMIT, "previous": True},
        "new": {"commit": "c" * 40, "previous": False},
    }
    assert service.asked[1:] == [("build", "r:main")]
    # What was in use is what can be gone back to.
    assert service.listed["r:main"]["former"]["commit"] == OTHER


def test_limits_that_come_with_a_build_are_predicted_as_they_are_done(service, functions):
    """A dry run used to say more than the apply."""
    service.listed = {"r:main": item("r:main")}
    functions["plasma_git.commit"].return_value = OTHER
    done = both(service, [entry("r", "main", memory="4G")])
    assert done["changes"]["r"]["new"] == {"commit": OTHER, "memory": "4G"}
    assert service.asked == [("build", "r:main")]


def test_a_failed_build_is_not_tried_again_while_the_former_image_is_wanted(service):
    service.listed = {"r:main": built_twice(status="failed", message="no")}
    both(service, [entry("r", "main", previous=True)])
    assert service.asked == [("change", "r:main")]


@pytest.mark.parametrize("there", [True, False])
def test_without_a_former_image_it_says_so_and_the_others_are_done(service, there):
    service.listed = {"r:main": item("r:main")} if there else {}
    for find in (run.compare, run.apply):
        found = find([entry("r", "main", previous=True), entry("s")])
        assert found["problems"] == {"r": [NONE]}
        assert list(found["changes"]) == ["s"]
    assert service.asked == [("add", "s:v1")]


def test_what_is_exported_stays_as_it_is():
    (found,) = plan.exported([{**built_twice(), "previous": True}])["plasma"]["environments"]
    assert found["previous"] is True
    (found,) = plan.exported([built_twice()])["plasma"]["environments"]
    assert "previous" not in found


def test_a_service_of_a_former_release_says_nothing_of_it():
    listed = {name: value for name, value in item("r:main").items() if name not in ("former", "previous")}
    assert plan.step(entry("r", "main"), [{**api.UNKNOWN, **listed}], commit=COMMIT)["settings"] is None
