"""Names of images as the service makes them, and environments of the hub as pillar."""

from __future__ import annotations

import pytest

import plasma_environment_plan as plan
from _pillar.plasma import schema
from tests.unit.modules.environments.stand_in_environments import item


@pytest.mark.parametrize(
    ("source", "image"),
    [
        ({"repository": "https://a.org/b", "ref": "HEAD"}, "a.b:HEAD"),
        ({"repository": "https://a.org/b", "ref": "v1.2"}, "a.b:v1.2"),
        ({"repository": "https://a.org/b", "ref": "feature/x+y"}, "a.b:feature-x-y"),
        ({"repository": "https://a.org/b", "ref": "0123456789" * 4}, "a.b:0123456"),
        ({"repository": "https://a.org/b", "ref": "0123456789" * 3}, "a.b:012345678901234567890123456789"),
        ({"image": "registry.example.org:5000/x/y:2026.1", "ref": "HEAD"}, "a.b:2026.1"),
        ({"image": f"registry.example.org/y@sha256:{'ab' * 32}"}, "a.b:abababa"),
        ({"image": f"registry.example.org:5000/y:1@sha256:{'ab' * 32}"}, "a.b:abababa"),
    ],
)
def test_names_of_images(source, image):
    assert plan.key({"name": "a.b", **source}) == image


ITEMS = [
    item(
        "r:v2",
        groups=["maths"],
        description="R",
        opens="rstudio",
        gpus=2,
        buildargs="A=1=2\n",
        limits={"memory": 2**29, "cpu": 1.5},
    ),
    item("r:v1", created="2025-01-01T00:00:00+00:00"),
    item("python:HEAD", source="browser"),
    item("old:1", name="Old Course", repo="https://example.org/old"),
    item("ready:2026", repo="", reference="registry.example.org/ready:2026", commit="", base="sha256:x"),
    item("loaded:1", repo=""),
]


def test_what_is_exported_is_valid_pillar_that_wants_nothing():
    found = plan.exported(ITEMS)
    assert found["left_out"] == {
        "r:v1": "pillar holds one environment of a name, and r is in it already",
        "loaded:1": "nobody knows what it was made from",
    }
    entries = {one["name"]: one for one in found["plasma"]["environments"]}
    assert list(entries) == ["old", "python", "r", "ready"]
    assert entries["r"] == {
        "name": "r",
        "repository": "https://example.org/r",
        "ref": "v2",
        "memory": "512M",
        "cpu": 1.5,
        "opens": "rstudio",
        "gpus": 2,
        "groups": ["maths"],
        "description": "R",
        "build_args": {"A": "1=2"},
    }
    assert entries["ready"] == {"name": "ready", "image": "registry.example.org/ready:2026", "groups": []}
    completed, problems = schema("check").check(
        {"plasma": {**found["plasma"], "groups": ["maths"], "gpu": {"enabled": True}}}
    )
    assert problems == []
    for one in completed["environments"]:
        secrets = completed["environment_secrets"].get(one["name"], {})
        items = [each for each in ITEMS if each["image"] != "r:v1"]
        step = plan.step(one, items, secrets.get("build_args"), "a" * 40)
        assert not step["build"], one
        assert (step["changed"] or {}).get("new") in (None, {"source": "pillar"}), one


def test_nothing_to_export():
    assert plan.exported([]) == {"plasma": {"environments": []}}


@pytest.mark.parametrize(
    ("size", "text"), [(2**40, "1T"), (3 * 2**30, "3G"), (1536 * 2**20, "1536M"), (300 * 2**20 + 1024, "307201K")]
)
def test_sizes(size, text):
    assert plan.size_text(size) == text


def test_sizes_that_are_no_whole_kilobytes():
    assert plan.size_text(2**30 + 512) == "1048576.500K"
