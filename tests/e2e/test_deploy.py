"""From a bare server to a hub that answers; then nothing more to do."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import PROVIDER, bare_server, hub_answers, snapshot_tag
from tests.support import paths, snapshot
from tests.support.images import image_id
from tests.support.shell import wait_for
from tests.support.site import Result


@pytest.fixture(scope="module")
def target():
    """A bare one."""
    with bare_server("e2e-deploy") as started:
        # As hardening guides advise it: nothing that people have to read may depend on it.
        started.sudo("echo 'Defaults umask=0077, umask_override' >/etc/sudoers.d/umask")
        yield started


@dataclass
class Deployment:
    """The first runs of the site on a bare server."""

    predicted: Result
    first: Result
    login_page: bytes
    second: Result
    after: Result


@pytest.fixture(scope="module")
def deployment(target, site) -> Deployment:
    """A dry run, the first apply, the second, and a dry run after them; other files start from what has come of it."""
    predicted = site.apply("test=True")
    first = site.apply()
    assert not first.failed, "\n".join(f"{key}: {comment}" for key, comment in first.failed.items())
    with urllib.request.urlopen(f"http://{target.host}/hub/login", timeout=10) as answer:
        page = answer.read()
    done = Deployment(predicted, first, page, site.apply(), site.apply("test=True"))
    # Other files make theirs on it as they like.
    target.sudo("rm /etc/sudoers.d/umask")
    tag = snapshot_tag()
    with paths.lock("snapshot"):
        if not image_id(tag):
            snapshot.take(target, tag)
            wait_for(lambda: hub_answers(target), timeout=120, what="the hub")
    return done


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


def test_the_hub_answers_when_the_apply_returns(deployment):
    assert b"password" in deployment.login_page


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


def test_another_prefix_is_refused(deployment, site, target, pillar):
    """A second, empty hub would take the unit of the first."""
    pillar(hub={**site.pillar["hub"], "prefix": "/srv/hub"})
    seen = "cat /etc/systemd/system/jupyterhub.service /opt/tljh/plasma/receipt.json; ls -d /srv/hub 2>&1 || true"
    before = target.sudo(seen).stdout
    result = site.apply()
    assert list(result.failed) == ["preflight-server-is-fit|preflight-server-is-fit"]
    assert "is in /opt/tljh, and pillar says /srv/hub" in next(iter(result.failed.values()))
    for name, state in (("users", "users-managed"), ("backup.now", "backup-created"), ("uninstall", "hub-removed")):
        result = site.apply(name)
        assert "is in /opt/tljh, and pillar says /srv/hub" in result.failed[f"{state}|{state}"]
    assert target.sudo(seen).stdout == before


def test_a_traefik_that_is_gone_or_another_one_comes_back(deployment, site, target):
    """Whatever the provider, and although the proxy and the hub have gone down with it and given up."""
    program, other = "/opt/tljh/hub/bin/traefik", "/root/traefik"
    target.sudo(f"mv {program} {other}; systemctl restart traefik", check=False)
    result = site.apply("tljh")
    assert result.failed == {}
    assert result.changed["hub-installed|/opt/tljh"] == {"traefik": {"old": None, "new": "present"}}
    mended = f"cmp {program} {other} && systemctl is-active traefik jupyterhub"
    assert target.sudo(mended).stdout.split() == ["active"] * 2
    digests = [target.sudo(["sha256sum", path]).stdout[:12] for path in ("/bin/true", program)]
    target.sudo(f"cp /bin/true {program}.new; mv {program}.new {program}; systemctl restart traefik", check=False)
    result = site.apply("tljh")
    assert result.failed == {}
    assert result.changed["hub-installed|/opt/tljh"] == {"traefik": dict(zip(("old", "new"), digests, strict=True))}
    assert target.sudo(mended).stdout.split() == ["active"] * 2


def test_every_capability_can_be_applied_alone(deployment, site):
    for name in ("preflight", "docker", "utils", "tljh"):
        result = site.apply(name)
        assert result.returncode == 0, result.failed
        assert result.changed == {}, name


def test_nothing_of_the_strict_umask_is_left(deployment, target):
    """sudo had 0077 while all of it was made."""
    places = "/srv/data /opt/tljh /opt/tljh/hub /etc/docker /etc/systemd/system/traefik.service.d /usr/local/lib/plasma"
    shown = target.ssh(f"stat -c '%a %n' {places}").stdout.splitlines()
    assert shown == [f"755 {place}" for place in places.split()]
    assert target.sudo("find /opt/tljh/hub/lib /usr/local/lib/plasma ! -perm -o=r ! -type l | head").stdout == ""
