"""Routes of the hub that follow it from HTTP to HTTPS and back."""

from __future__ import annotations

import pytest
import toml
from tljh_plasma import routes

RULES = """
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
    assert routes.prepare(rules, "https") is True
    assert entry_points(rules) == {"router__2F": ["https"]}
    assert rules.stat().st_mode & 0o777 == 0o600
    assert routes.prepare(rules, "https") is False
    assert routes.prepare(rules, "http") is True
    assert toml.loads(rules.read_text()) == before
    assert [path.name for path in rules.parent.iterdir()] == ["rules.toml"]


@pytest.mark.parametrize("text", [None, "", "[tls]\nstores = {}\n"])
def test_what_has_no_routes_is_left_alone(tmp_path, text):
    path = tmp_path / "rules.toml"
    if text is not None:
        path.write_text(text)
    assert routes.prepare(path, "https") is False
    assert (path.read_text() if path.exists() else None) == text


@pytest.mark.parametrize(
    "text", [b"not toml", b"[http]\nrouters = 1\n", b"[http.routers.a]\nrule = 'x'\n", b"\xff\x00", b"a = [1, 'b'"]
)
def test_what_is_no_list_of_routes_is_removed(tmp_path, text):
    """JupyterHub would not start with it."""
    path = tmp_path / "rules.toml"
    path.write_bytes(text)
    assert routes.prepare(path, "https") is True
    assert not path.exists()


API = """
[http.routers.route_api]
entryPoints = ["auth_api"]
service = "api@internal"
middlewares = ["auth_api"]

[http.middlewares.auth_api.basicAuth]
users = ["api_admin:hash"]
"""


def test_the_password_of_the_api_is_not_kept(rules):
    """What the file has goes before what the hub has: after a change of the password it would be shut out."""
    rules.write_text(RULES + API)
    assert routes.prepare(rules, "http") is True
    assert toml.loads(rules.read_text()) == toml.loads(RULES)
    rules.write_text(API)
    assert routes.prepare(rules, "http") is True
    assert toml.loads(rules.read_text()) == {}


def route(name, target, data):
    return {
        "http": {
            "routers": {f"router_{name}": {"rule": name, "entryPoints": ["http"], "service": f"service_{name}"}},
            "services": {f"service_{name}": {"loadBalancer": {"servers": [{"url": target}]}}},
        },
        "jupyterhub": {
            "routes": {
                f"router_{name}": {
                    "data": data,
                    "target": target,
                    "router": f"router_{name}",
                    "service": f"service_{name}",
                }
            }
        },
    }


def merged(*parts):
    result = {"http": {"routers": {}, "services": {}}, "jupyterhub": {"routes": {}}}
    for part in parts:
        for section, names in part.items():
            for name, content in names.items():
                result[section][name].update(content)
    return result


def test_routes_to_ports_that_anybody_could_take_are_forgotten(tmp_path, monkeypatch):
    """Of hub and services; servers of people are containers and listen where they like."""
    monkeypatch.setattr(routes, "INNER_PORT", (1, 511))
    path = tmp_path / "rules.toml"
    old = route("hub", "http://172.20.0.1:15001", {"hub": True})
    person = route("ada", "http://172.20.0.2:8888", {"user": "ada", "server_name": ""})
    cockpit = route("cockpit", "http://127.0.0.1:301", {"service": "cockpit"})
    service = route("plasma", "http://127.0.0.1:15002", {"service": "plasma"})
    path.write_text(toml.dumps(merged(old, person, cockpit, service)))
    assert routes.hub_port(path) == 15001
    assert routes.prepare(path, "http") is True
    assert toml.loads(path.read_text()) == merged(person, cockpit)
    assert routes.hub_port(path) is None
    new = route("hub", "http://172.20.0.1:303", {"hub": True})
    path.write_text(toml.dumps(merged(new, person, cockpit)))
    assert routes.prepare(path, "http") is False


@pytest.mark.parametrize("other", ["", "web", None])
def test_another_entry_point_moves_nothing(rules, other):
    assert routes.prepare(rules, other) is False
    assert rules.read_text() == RULES
