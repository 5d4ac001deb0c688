"""Environments of pillar: those that take the place of others, that are removed, and that are ready images."""

from __future__ import annotations

import pytest
from salt.exceptions import CommandExecutionError

import plasma_environment_plan as plan
import plasma_environment_run as run
from tests.unit.modules.environments.stand_in_environments import both, entry, item

TOKEN = "T0ken-of-nobody-else"


@pytest.fixture
def configure_loader_modules(functions):
    return {run: {"__salt__": functions}, plan: {}}


# --- another reference of the same environment


def test_another_reference_is_built_beside_the_former_with_its_groups(service):
    """Nothing goes that pillar does not say may go."""
    service.listed = {"r:v1": item("r:v1", groups=["maths"], description="R")}
    done = both(service, [entry("r", "v2")])
    assert service.asked == [("add", "r:v2")]
    assert done["changes"]["r"]["old"] is None
    assert (service.listed["r:v2"]["groups"], service.listed["r:v2"]["description"]) == (["maths"], "R")
    note = "r:v1 stays beside r:v2; with `replace: true` an apply removes it."
    assert done["notes"] == [note]
    service.listed["r:v0"] = item("r:v0")
    for again in (run.compare([entry("r", "v2")]), run.apply([entry("r", "v2")])):
        assert (again["changes"], again["problems"]) == ({}, {})
        assert again["notes"] == ["r:v1, r:v0 stay beside r:v2; with `replace: true` an apply removes them."]
    assert set(service.listed) == {"r:v0", "r:v1", "r:v2"}


def test_another_reference_takes_the_place_of_the_former_where_pillar_says_so(service):
    service.listed = {
        "r:v1": item("r:v1", groups=["maths"], description="R"),
        "r:page": item("r:page", source="browser"),
        "r2:v1": item("r2:v1"),
    }
    done = both(service, [entry("r", "v2", replace=True)])
    assert done["changes"]["r"]["old"] == {"image_name": "r:v1", "images": ["r:v1"]}
    assert done["changes"]["r"]["new"]["groups"] == ["maths"]
    assert done["notes"] == []
    assert service.asked == [("add", "r:v2"), ("remove", "r:v1")]
    assert (service.listed["r:v2"]["groups"], service.listed["r:v2"]["description"]) == (["maths"], "R")
    assert set(service.listed) == {"r:v2", "r:page", "r2:v1"}


def test_the_former_one_stays_while_it_is_used_or_the_new_one_fails(service):
    new = [entry("r", "v2", replace=True)]
    service.listed = {"r:v1": item("r:v1", users=["anna", "ben"])}
    service.failing = {"r:v2": ["no"]}
    assert run.apply(new)["changes"] == {}
    assert service.asked == [("add", "r:v2")]
    service.failing = {}
    done = run.apply(new)
    assert done["notes"] == ["r:v1 stays while anna, ben use it; an apply after that removes it."]
    assert "images" not in (done["changes"]["r"]["old"] or {})
    assert run.compare(new)["changes"] == {}
    service.listed["r:v1"]["users"] = []
    assert both(service, new)["changes"] == {"r": {"old": {"images": ["r:v1"]}, "new": None}}


# --- removing


def test_every_environment_of_the_name_is_removed(service):
    service.listed = {"r:v1": item("r:v1"), "r:HEAD": item("r:HEAD", source="browser"), "r2:v1": item("r2:v1")}
    done = both(service, [{"name": "r", "absent": True, "wait": 0}, {"name": "never", "absent": True}])
    assert done["changes"] == {"r": {"old": {"images": ["r:v1", "r:HEAD"]}, "new": None}}
    assert done["removed"] == ["r"]
    assert set(service.listed) == {"r2:v1"}


def test_what_is_in_use_is_not_removed(service):
    service.listed = {"r:v1": item("r:v1", users=["anna", "ben"])}
    absent = [{"name": "r", "absent": True, "wait": 0}]
    sentence = (
        "r:v1 cannot be removed while anna, ben use it: have the servers stopped, or let this wait for it (`wait: "
        "SECONDS` beside `absent`)."
    )
    assert run.compare(absent)["problems"] == {"r": [sentence]}
    done = run.apply(absent)
    assert (done["problems"], done["changes"]) == ({"r": [sentence]}, {})
    assert "r:v1" in service.listed


def test_a_removal_waits_for_servers_when_it_is_told_to(service):
    service.listed = {"r:v1": item("r:v1", users=["anna", "ben"])}
    done = run.apply([{"name": "r", "absent": True, "wait": 60}])
    assert (done["problems"], done["removed"]) == ({}, ["r"])
    assert service.listed == {}


def test_a_container_that_is_nobodys_is_told_in_the_words_of_the_service(service, functions):
    service.listed = {"r:v1": item("r:v1")}
    functions["plasma_environment_api.change"].side_effect = lambda *args, **options: {
        "status": 409,
        "message": "Remove that container with Docker first.",
        "users": [],
    }
    done = run.apply([{"name": "r", "absent": True}])
    assert done["problems"] == {"r": ["Remove that container with Docker first."]}


# --- ready images


def ready(**keys):
    return entry("ready", None, repository=None, image="registry.example.org/ready:2026", **keys)


def test_a_ready_image_is_taken_once(service, functions):
    functions["plasma_environment_image.engine_id"].return_value = "sha256:ready"
    done = both(service, [ready(memory="1G")], {"ready": {"credentials": {"username": "git", "password": TOKEN}}})
    assert service.asked == [("add", "ready:2026")]
    assert done["changes"]["ready"]["new"]["image"] == "registry.example.org/ready:2026"
    assert service.bodies[0]["reference"] == "registry.example.org/ready:2026"
    assert service.bodies[0]["password"] == TOKEN
    functions["plasma_environment_image.load"].assert_not_called()
    # Somebody has pulled a newer one of that name.
    functions["plasma_environment_image.engine_id"].return_value = "sha256:newer"
    assert run.compare([ready(memory="1G")])["changes"] == {
        "ready": {"old": {"id": "sha256:ready"}, "new": {"id": "sha256:newer"}}
    }
    # Pruned after it was taken: the environment goes on.
    functions["plasma_environment_image.engine_id"].return_value = None
    assert run.compare([ready(memory="1G")])["changes"] == {}


def test_a_ready_image_comes_from_an_archive(service, functions):
    environments = [ready(image_file="/srv/ready.tar"), entry("r")]
    both(service, environments)
    functions["plasma_environment_image.load"].assert_called_once_with(
        "/srv/ready.tar", "registry.example.org/ready:2026"
    )
    assert service.asked == [("add", "r:v1"), ("add", "ready:2026")]
    functions["plasma_environment_image.archive_ids"].return_value = ["sha256:newer"]
    assert run.compare(environments)["changes"] == {
        "ready": {"old": {"id": "sha256:ready"}, "new": {"id": "sha256:newer"}}
    }


def test_an_archive_that_cannot_be_used_is_a_problem_of_one_alone(service, functions):
    functions["plasma_environment_image.archive_ids"].side_effect = CommandExecutionError("/srv/ready.tar is not read.")
    done = run.apply([ready(image_file="/srv/ready.tar"), entry("r")])
    assert (done["built"], done["problems"]) == (["r"], {"ready": ["/srv/ready.tar is not read."]})
