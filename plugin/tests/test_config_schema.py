"""Which settings are refused, and that TLJH's schema and ours agree."""

from __future__ import annotations

import sys
import types

import pytest
from tljh_plasma.config_file import ConfigError, update


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config.yaml"


VALID = "limits:\n  memory: 1G  # for each\n"

PROBLEMS = [
    ({"users.admin": ["anna", 7]}, "users.admin.1 must be a string (put it in quotes)"),
    ({"users.admins": ["anna"]}, "users has no key admins (there are admin, allowed, banned, extra_user_groups)"),
    ({"limits.cpu": -1}, "limits.cpu must be 0 or more"),
    ({"limits.cpu": "2"}, "limits.cpu must be a number or null"),
    ({"limits.memory": 2}, "limits.memory must be a string or null (put it in quotes)"),
    ({"http.port": "80"}, "http.port must be an integer"),
    ({"http.port": 80.0}, "http.port must be an integer"),
    ({"https.enabled": "yes"}, "https.enabled must be true or false"),
    ({"https": []}, "https must be a section with keys"),
    ({"https.letsencrypt.domains": "a.org"}, "https.letsencrypt.domains must be a list"),
    ({"services.cull.timeout": True}, "services.cull.timeout must be an integer"),
    ({"user_environment.default_app": "lab"}, "user_environment.default_app must be one of jupyterlab, classic"),
    ({"plasma.named_servers.limit": -1}, "plasma.named_servers.limit must be a whole number from 0 to 1000"),
    ({"plasma.named_servers.limit": True}, "plasma.named_servers.limit must be a whole number"),
    ({"plasma.named_servers": {"limits": 1}}, "plasma.named_servers has no key limits"),
    ({"plasma.shared_data": "srv/data"}, "plasma.shared_data must be an absolute path"),
    ({"plasma.shared_data": "/srv\n/data"}, "plasma.shared_data must be an absolute path"),
    ({"plasma.shared_data": None}, "plasma.shared_data must be an absolute path"),
    ({"plasma.groups": "biology"}, "plasma.groups must be a list"),
    ({"plasma.groups": ["biology", 7]}, "plasma.groups.1 must be the name of a group"),
    ({"plasma.groups": ["a:b"]}, "plasma.groups.0 must be the name of a group, without : , / "),
    ({"plasma.permissions.default": "ajar"}, "plasma.permissions.default must be open or closed"),
    ({"plasma.permissions": {"defualt": "open"}}, "plasma.permissions has no key defualt (there are default)"),
    ({"plasma.builder.image": "repo2docker:latest"}, "plasma.builder.image must be a Docker image with a tag other"),
    ({"plasma.builder.parallel": 0}, "plasma.builder.parallel must be a whole number from 1 to 16"),
    ({"plasma.builder.parallel": 17}, "plasma.builder.parallel must be a whole number from 1 to 16"),
    ({"plasma.builder.timeout": 7200.0}, "plasma.builder.timeout must be a whole number from 60 to 86400"),
    ({"plasma.builder": {"img": 1}}, "plasma.builder has no key img (there are "),
    ({"plasma.network.name": "bridge"}, "plasma.network.name must be lower-case letters, digits, _ and -"),
    (
        {"plasma.network": {"subnet": "10.0.0.0/8"}},
        "plasma.network has no key subnet (there are allow, builds, host_ports, name)",
    ),
    ({"plasma.network.allow": ["10.1.2.3/24"]}, "plasma.network.allow.0 must be an IPv4 address or network"),
    ({"plasma": []}, "plasma must be a section with keys"),
    ({"plasma.service_port": 512}, "plasma.service_port must be a whole number from 1 to 511"),
    ({"plasma.monitoring_url": "javascript:alert(1)"}, "plasma.monitoring_url must be an https:// or http:// URL"),
]


@pytest.mark.parametrize("wanted, problem", PROBLEMS, ids=lambda value: str(value)[:40])
def test_an_invalid_result_is_not_written(path, wanted, problem):
    path.write_text(VALID)
    for dry_run in (True, False):
        with pytest.raises(ConfigError) as refusal:
            update(path, wanted, dry_run=dry_run)
        assert problem in str(refusal.value)
    assert path.read_text() == VALID


def test_tljh_decides_but_for_limits(path, monkeypatch):
    """As TLJH 2.0.0 has it, whose hub takes what its schema does not."""
    whole = {"type": "object", "additionalProperties": False, "properties": {"cpu": {"type": "integer"}}}
    kinds = {"type": "object", "additionalProperties": False, "properties": {"port": {"type": "string"}}}
    module = types.ModuleType("tljh.config_schema")
    module.config_schema = {
        "definitions": {"Limits": whole, "HTTP": kinds},
        "properties": {"limits": {"$ref": "#/definitions/Limits"}, "http": {"$ref": "#/definitions/HTTP"}},
    }
    monkeypatch.setitem(sys.modules, "tljh", types.ModuleType("tljh"))
    monkeypatch.setitem(sys.modules, "tljh.config_schema", module)
    path.write_text("")
    update(path, {"limits.cpu": 1.5, "limits.memory": "2G"})
    assert "cpu: 1.5" in path.read_text()
    with pytest.raises(ConfigError, match="http.port must be a string"):
        update(path, {"http.port": 80})


def test_the_whole_file_is_validated_and_every_problem_named(path):
    path.write_text("limits:\n  memry: 1G\nhttp:\n  port: x\n")
    with pytest.raises(ConfigError, match="http.port must be an integer; limits has no key memry"):
        update(path, {"base_url": "/"})


def test_problems_do_not_repeat_values(path):
    with pytest.raises(ConfigError) as refusal:
        update(path, {"traefik_api.password": ["hunter2"], "limits.cpu": "hunter2"})
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "wanted",
    [
        {"base_url": "/x", "auth.type": "a.B", "auth.B.create_users": False, "elsewhere": {"key": 1}},
        {"limits": {"memory": None, "cpu": 0.5}, "services": {"cull": {"enabled": True, "max_age": 0}, "mine": {}}},
        {"users.extra_user_groups": {"course": ["anna"]}, "traefik_api": {"ip": "127.0.0.1", "port": 304}},
        {"https": {"enabled": True, "letsencrypt": {"email": "a@b.c", "domains": ["b.c"], "staging": True}}},
        {"plasma": {"named_servers": {"limit": 0}, "shared_data": "/srv/data", "later": 1}},
        {
            "plasma": {
                "groups": ["biology", "on"],
                "permissions": {"default": "closed"},
                "builder": {"image": "a.b/c:1", "parallel": 16, "timeout": 60},
                "network": {"name": "plasma-2"},
                "service_port": 302,
                "monitoring_url": "/cockpit/",
            }
        },
        {"plasma": {"groups": [], "monitoring_url": "", "permissions": {}, "builder": {}, "network": {}}},
    ],
)
def test_valid_settings_are_accepted(path, wanted):
    update(path, wanted)
    assert not update(path, wanted)["changed"]
