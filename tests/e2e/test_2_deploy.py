"""From a bare server to a hub that answers; then nothing more to do."""

from __future__ import annotations

import urllib.request

from tests.e2e.conftest import PROVIDER


def test_the_first_apply_succeeds(deployment):
    assert deployment.first.returncode == 0
    assert deployment.first.changed


def test_the_dry_run_predicted_the_first_apply(deployment):
    assert not deployment.predicted.failed
    # The hub that is not there yet cannot answer: a check, which changes nothing in the apply either.
    assert deployment.predicted.predicted - {"hub-ready|hub-ready"} == set(deployment.first.changed)


def test_the_second_apply_changes_nothing(deployment):
    assert deployment.second.returncode == 0
    assert deployment.second.changed == {}
    assert not deployment.second.failed


def test_a_dry_run_afterwards_predicts_nothing(deployment):
    assert deployment.after.changed == {}
    assert all(state["result"] is True for state in deployment.after.states.values())


def test_the_hub_answers_when_the_apply_returns(deployment, url):
    with urllib.request.urlopen(f"{url}/hub/login", timeout=10) as answer:
        assert answer.status == 200
        assert b"password" in answer.read()


def test_the_layout_is_the_one_of_tljh(deployment, target):
    listing = target.sudo(
        "stat -c '%n %U %a' /opt/tljh/hub /opt/tljh/config /opt/tljh/state /opt/tljh/config/config.yaml"
    ).stdout.splitlines()
    modes = {line.split()[0]: line.split()[1:] for line in listing}
    assert modes["/opt/tljh/hub"] == ["root", "755"]
    assert modes["/opt/tljh/config"] == ["root", "700"]
    assert modes["/opt/tljh/state"] == ["root", "700"]
    assert target.ssh("systemctl is-active jupyterhub traefik docker").stdout.split() == ["active"] * 3
    assert target.ssh("systemctl is-enabled jupyterhub traefik docker").stdout.split() == ["enabled"] * 3


def test_settings_of_the_pillar_are_in_config_yaml(deployment, site):
    config = site.salt("tljh_config.show").value
    assert config["limits"] == {"memory": "2G", "cpu": 2}
    assert config["services"]["cull"]["timeout"] == 3600
    assert config["plasma"]["named_servers"] == {"limit": 2}


def test_the_deployed_packages_are_the_locked_ones(deployment, target):
    check = target.sudo("/opt/tljh/hub/bin/python3 -m pip check", check=False)
    assert check.returncode == 0, check.stdout
    installed = target.sudo("/opt/tljh/hub/bin/python3 -m pip list --format freeze").stdout.lower().splitlines()
    assert "jupyterhub==5.5.4" in installed
    assert any(line.startswith("aiodocker==0.21") for line in installed)


def test_docker_logs_to_the_journal_and_restores_live(deployment, target):
    info = target.sudo(["docker", "info", "--format", "{{.LoggingDriver}} {{.LiveRestoreEnabled}}"]).stdout
    assert info.split() == ["journald", "true"]


def test_switching_the_provider_is_refused(deployment, site, target, pillar):
    other = "pypi" if PROVIDER == "tljh" else "tljh"
    pillar(hub={"provider": other})
    before = target.sudo("cat /opt/tljh/plasma/receipt.json").stdout
    result = site.apply()
    assert result.returncode != 0
    comment = result.failed["preflight-server-is-fit|preflight-server-is-fit"]
    assert f"a hub of the provider '{PROVIDER}'" in comment
    assert "uninstall" in comment
    assert target.sudo("cat /opt/tljh/plasma/receipt.json").stdout == before


def test_every_capability_can_be_applied_alone(deployment, site):
    for name in ("preflight", "docker", "utils", "tljh"):
        result = site.apply(name)
        assert result.returncode == 0, result.failed
        assert result.changed == {}, name
