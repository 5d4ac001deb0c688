"""Routes of the hub that follow it from HTTP to HTTPS and back."""

from __future__ import annotations

import pytest
import toml
from tljh_plasma import routes

RULES = """
[http.routers.route_api]
entryPoints = ["auth_api"]
service = "api@internal"

[http.routers.router__2F]
rule = "PathPrefix(`/`)"
service = "service__2F"
entryPoints = ["http"]

[http.services.service__2F.loadBalancer]
passHostHeader = true
"""


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


def entry_points(path):
    return {name: router["entryPoints"] for name, router in toml.loads(path.read_text())["http"]["routers"].items()}


def test_routes_follow_there_and_back_and_nothing_else_moves(rules):
    before = toml.loads(RULES)
    assert routes.follow(rules, "https") is True
    assert entry_points(rules) == {"route_api": ["auth_api"], "router__2F": ["https"]}
    assert rules.stat().st_mode & 0o777 == 0o600
    assert routes.follow(rules, "https") is False
    assert routes.follow(rules, "http") is True
    assert toml.loads(rules.read_text()) == before
    assert [path.name for path in rules.parent.iterdir()] == ["rules.toml"]


@pytest.mark.parametrize("text", [None, "", "not toml", "[http]\nrouters = 1\n", "[http.routers.a]\nrule = 'x'\n"])
def test_what_is_no_list_of_routes_is_left_to_the_hub(tmp_path, text):
    path = tmp_path / "rules.toml"
    if text is not None:
        path.write_text(text)
    assert routes.follow(path, "https") is False
    assert (path.read_text() if path.exists() else None) == text


@pytest.mark.parametrize("other", ["", "web", None])
def test_another_entry_point_moves_nothing(rules, other):
    assert routes.follow(rules, other) is False
    assert rules.read_text() == RULES
