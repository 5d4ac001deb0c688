"""Directories of user servers: which the apply makes, and for whom."""

from __future__ import annotations

import pytest

LAB = {"source": "/srv/lab", "writable": True}


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ({}, []),
        ({"volumes": [{"source": "/srv/models"}]}, [("/srv/models", "root", "0755")]),
        # Nobody is to write to what everybody has, unless somebody gives it to them by hand.
        ({"volumes": [LAB]}, [("/srv/lab", "root", "0755")]),
        ({"overrides": [{"groups": ["biology"], "volumes": [LAB]}]}, [("/srv/lab", "biology", "2770")]),
        (
            {"overrides": [{"groups": ["biology"], "volumes": [{"source": "/srv/lab"}]}]},
            [("/srv/lab", "root", "0755")],
        ),
        (
            {"overrides": [{"groups": ["biology", "physics"], "volumes": [LAB]}]},
            [("/srv/lab", "root", "0755")],
        ),
        # One directory, which some see and a group writes to.
        (
            {"volumes": [{"source": "/srv/lab"}], "overrides": [{"groups": ["biology"], "volumes": [LAB]}]},
            [("/srv/lab", "biology", "2770")],
        ),
    ],
)
def test_directories_that_are_made(complete, servers, expected):
    groups = ["biology", "physics"]
    made = complete({"groups": groups, "servers": servers})["server_directories"]
    assert [(one["name"], one["group"], one["mode"]) for one in made] == expected


def test_a_target_is_the_source_unless_it_is_named(complete):
    volumes = [{"source": "/srv/a"}, {"source": "/srv/b", "target": "/srv/c"}]
    completed = complete({"servers": {"volumes": volumes}})["servers"]["volumes"]
    assert [volume["target"] for volume in completed] == ["/srv/a", "/srv/c"]
