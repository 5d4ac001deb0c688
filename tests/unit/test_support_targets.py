"""tests.support: rosters, cache keys, mirrors, names, what is remembered about targets."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from tests.support import __main__ as command_line
from tests.support import debian, images, paths, registry
from tests.support.container import ContainerTarget
from tests.support.environment_image import labels
from tests.support.shell import SupportError
from tests.support.target import Target, write_roster
from tests.support.vm import VMTarget


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("PLASMA_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def target(name="dev", **fields):
    return Target(name, host="192.0.2.7", key=Path("/keys/id_ed25519"), **fields)


def test_roster_entry():
    entry = target(port=2222).roster_entry()
    options = dict(option.split("=", 1) for option in entry.pop("ssh_options"))
    assert entry == {
        "host": "192.0.2.7",
        "port": 2222,
        "user": "ubuntu",
        "sudo": True,
        "priv": "/keys/id_ed25519",
        "set_path": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    assert options["ControlMaster"] == "auto"
    assert options["ControlPersist"] == "120"
    assert options["StrictHostKeyChecking"] == "no"
    assert options["UserKnownHostsFile"] == "/dev/null"
    # %C is a SHA-1 in hexadecimal, and ssh adds 17 characters while it makes the socket.
    assert len(options["ControlPath"].replace("%C", "c" * 40)) + 17 < 104


def test_tests_and_salt_use_one_connection():
    one = target()
    assert set(one.roster_entry()["ssh_options"]) <= set(one.ssh_command())


def test_roster_is_the_yaml_of_the_entries(tmp_path):
    targets = [target("first"), target("second", port=2222)]
    file = write_roster(tmp_path / "roster", targets)
    assert yaml.safe_load(file.read_text()) == {one.name: one.roster_entry() for one in targets}
    assert yaml.safe_load(write_roster(tmp_path / "roster", []).read_text()) == {}


def test_cache_key_depends_on_contents_and_nothing_else():
    key = images.cache_key("bookworm", ["sudo"], b"data")
    assert key == images.cache_key("bookworm", ["sudo"], b"data")
    others = [
        ("trixie", ["sudo"], b"data"),
        ("bookworm", ["dbus"], b"data"),
        ("bookworm", ["sudo"], b"dat"),
        ("ab", "c"),
    ]
    keys = {images.cache_key(*parts) for parts in [*others, ("a", "bc")]}
    assert len(keys) == 5
    assert key not in keys


def test_labels_name_the_real_tag():
    found = labels("python-course:2026", "2G", "1.5")
    assert found["tljh_repo2docker.image_name"] == "python-course:2026"
    assert found["tljh_repo2docker.display_name"] == "python-course"
    assert found["repo2docker.ref"] == "2026"
    assert found["tljh_repo2docker.mem_limit"] == "2G"
    assert found["tljh_repo2docker.cpu_limit"] == "1.5"


DEB822 = """\
# the release
Types: deb deb-src
URIs: http://mirror.example.org/debian/
Suites: bookworm
 bookworm-updates
Components: main contrib

Types: deb
URIs: https://mirror.example.org/security
Suites: bookworm-security
Components: main

Types: deb
URIs: https://disabled.example.org/debian
Suites: bookworm-updates
Components: main
Enabled: no
"""
ONE_LINE = """\
# deb http://comment.example.org/debian bookworm-updates main
deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://mirror.example.org/debian/ bookworm-updates main contrib
deb-src http://source.example.org/debian bookworm-updates main
deb http://mirror.example.org/security bookworm-security main # security
deb https://packages.example.com/linux/debian bookworm stable
"""


def test_sources_of_both_styles():
    assert debian.parse_deb822(DEB822) == [
        debian.Source("http://mirror.example.org/debian", "bookworm", ("main", "contrib")),
        debian.Source("http://mirror.example.org/debian", "bookworm-updates", ("main", "contrib")),
        debian.Source("https://mirror.example.org/security", "bookworm-security", ("main",)),
    ]
    assert debian.parse_one_line(ONE_LINE) == [
        debian.Source("http://mirror.example.org/debian", "bookworm-updates", ("main", "contrib")),
        debian.Source("http://mirror.example.org/security", "bookworm-security", ("main",)),
        debian.Source("https://packages.example.com/linux/debian", "bookworm", ("stable",)),
    ]


def test_mirrors_of_a_debian_machine_and_of_another():
    known = debian.parse_one_line(ONE_LINE)
    assert debian.mirrors(known, "bookworm") == (
        "http://mirror.example.org/debian",
        "http://mirror.example.org/security",
    )
    default = (debian.DEFAULT_MIRROR, debian.DEFAULT_SECURITY_MIRROR)
    assert debian.mirrors(known, None) == default
    assert debian.mirrors([], "bookworm") == default


def test_sources_of_the_machine_are_read_from_files(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "notes.txt").write_text(ONE_LINE)
    assert len(debian.machine_sources(tmp_path)) == 6


@pytest.mark.parametrize("name", ["", "Upper", "under_score", "-dash", "a/b", "..", "x" * 60])
@pytest.mark.parametrize("kind", [ContainerTarget, VMTarget])
def test_names_that_cannot_be_host_names_are_refused(kind, name):
    with pytest.raises(SupportError, match="is no name for a target"):
        kind(name)


def test_targets_are_remembered_across_processes():
    made = [ContainerTarget("one", host="192.0.2.1", suite="trixie"), VMTarget("two", memory=4096, key=Path("/k"))]
    for one in made:
        one.remember()
    assert registry.load_all() == made
    assert registry.load("two") == made[1]
    with pytest.raises(SupportError, match="of kind vm"):
        registry.make("container", "two")
    made[0].forget()
    assert registry.load("one") is None


def test_a_new_object_learns_where_its_server_is():
    VMTarget("two", host="192.0.2.2", port=40022, key=Path("/k"), memory=4096).remember()
    again = VMTarget("two")
    again.recall("host", "port", "key")
    assert (again.host, again.port, again.key, again.memory) == ("192.0.2.2", 40022, Path("/k"), 2048)
    nobody = VMTarget("three")
    nobody.recall("host")
    assert nobody.host == ""


def test_clones_do_not_share_container_names(monkeypatch, tmp_path):
    here = {kind("dev").container for kind in registry.KINDS.values()}
    monkeypatch.setenv("PLASMA_STATE_DIR", str(tmp_path / "other"))
    assert here.isdisjoint(kind("dev").container for kind in registry.KINDS.values())


def test_ssh_key_is_made_once_and_private():
    key = paths.ssh_key()
    text = key.read_text()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert paths.public_key_file(key).read_text().startswith("ssh-ed25519 ")
    assert paths.ssh_key().read_text() == text


def test_errors_end_the_command_line_without_a_traceback(capsys):
    assert command_line.main(["up", "--name", "Not_A_Name"]) == 1
    assert capsys.readouterr().err.startswith("Error: 'Not_A_Name' is no name")


def test_command_line_without_targets(capsys, tmp_path):
    assert command_line.main(["status"]) == 0
    assert command_line.main(["down", "--name", "nobody"]) == 0
    assert command_line.main(["roster", "--out", str(tmp_path / "roster")]) == 0
    assert "no server is up" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "roster").read_text()) == {}
