"""Environments of pillar whose image is given up and whose recipe is kept, and what is told of the use of all."""

from __future__ import annotations

import pytest

import plasma_environment_api as api
import plasma_environment_plan as plan
import plasma_environment_run as run
from _modules import plasma_environment
from tests.unit.modules.environments.stand_in_environments import both, entry, item


@pytest.fixture
def configure_loader_modules(functions):
    return {run: {"__salt__": functions}, plan: {}, plasma_environment: {}}


def test_the_image_is_given_up_and_the_rest_is_brought_about(service, functions):
    service.listed = {"r:main": item("r:main")}
    # Nobody asks where the branch is, and limits are those of the next build.
    functions["plasma_git.commit"].side_effect = AssertionError
    done = both(service, [entry("r", "main", archived=True, memory="4G", groups=["maths"])])
    assert done["changes"] == {
        "r": {"old": {"status": "built", "groups": []}, "new": {"status": "archived", "groups": ["maths"]}}
    }
    assert service.asked == [("archive", "r:main"), ("change", "r:main")]
    assert (service.listed["r:main"]["status"], service.listed["r:main"]["groups"]) == ("archived", ["maths"])


def test_it_is_built_again_when_the_key_is_taken_out(service):
    service.listed = {"r:main": item("r:main")}
    both(service, [entry("r", "main", archived=True)])
    done = both(service, [entry("r", "main")])
    assert done["changes"] == {"r": {"old": {"status": "archived"}, "new": {"status": "built"}}}
    assert done["built"] == ["r"] and service.asked == [("archive", "r:main"), ("build", "r:main")]
    assert (service.listed["r:main"]["status"], service.listed["r:main"]["has_image"]) == ("built", True)


def test_a_ready_image_too(service, functions):
    functions["plasma_environment_image.engine_id"].return_value = "sha256:ready"
    ready = entry("r", repository=None, image="registry.example.org/r:1", ref="HEAD")
    service.listed = {"r:1": item("r:1", repo="", reference="registry.example.org/r:1", base="sha256:ready", commit="")}
    both(service, [{**ready, "archived": True}])
    assert both(service, [ready])["changes"]["r"]["new"] == {"status": "built"}


def test_what_the_page_has_archived_is_built_again_where_pillar_wants_it(service):
    service.listed = {"r:main": item("r:main", status="archived", has_image=False)}
    done = both(service, [entry("r", "main")])
    assert done["changes"] == {"r": {"old": {"status": "archived"}, "new": {"status": "built"}}}


def test_what_was_never_built_is_not_built_for_it(service):
    assert both(service, [entry("r", "main", archived=True)])["changes"] == {}
    assert service.asked == []


def test_what_people_use_is_not_given_up(service):
    service.listed = {"r:main": item("r:main", users=["anna"])}
    sentence = "r:main cannot be archived while anna uses it: have the servers stopped."
    for find in (run.compare, run.apply):
        found = find([entry("r", "main", archived=True, groups=["maths"])])
        assert (found["problems"], found["changes"]) == ({"r": [sentence]}, {})
    assert service.listed["r:main"]["groups"] == []


def test_what_is_exported_stays_archived():
    (found,) = plan.exported([item("r:main", status="archived", has_image=False)])["plasma"]["environments"]
    assert found["archived"] is True
    (found,) = plan.exported([item("r:main")])["plasma"]["environments"]
    assert "archived" not in found


def test_the_table_says_what_is_used(monkeypatch):
    used = {"build_seconds": 200, "last_used": "2026-11-03T10:00:00+00:00", "used_by": 12}
    rows = [item("r:main", groups=["maths"], **used), item("python:v1", status="archived", size=0, previous=True)]
    monkeypatch.setattr(api, "items", lambda prefix: rows)
    head, first, second = plasma_environment.list_().splitlines()
    assert " ".join(head.split()) == "IMAGE STATUS SIZE BUILT IN LAST USED BY FROM GROUPS MADE OF"
    assert first.split()[:9] == ["r:main", "built", "2.5", "GB", "3.3", "min", "2026-11-03", "12", "pillar"]
    assert second.split()[:5] == ["python:v1", "archived,", "former", "image", "pillar"]
