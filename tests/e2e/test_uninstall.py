"""A hub is taken away: exactly what was said goes, what people made stays, and the next apply brings a new one."""

from __future__ import annotations

import pytest

from tests.support.environment_image import environment_image, load_into
from tests.support.hub import HubUser
from tests.support.shell import wait_for

ADA = {"name": "k6ada", "password": "Right-horse-battery-6", "admin": True}
BEN = {"name": "k6ben", "password": "Right-horse-battery-7"}
PREFIX = "/opt/tljh"


def state_of(result, name="hub-removed"):
    (state,) = [state for key, state in result.states.items() if key.startswith(name)]
    return state


def exists(target, path):
    return target.sudo(["test", "-e", path], check=False).returncode == 0


def containers(target):
    words = ["docker", "ps", "--all", "--quiet", "--filter", "label=org.plasma.user"]
    return target.sudo(words).stdout.split()


def nothing_left(target):
    """What a hub would leave."""
    places = "ls /etc/systemd/system; ls /usr/bin/tljh-config /etc/sudoers.d/jupyterhub-admins"
    rules = "iptables-save; iptables-legacy-save; docker network ls --format {{.Name}}"
    found = target.sudo(f"{places}; {rules}; true").stdout
    for word in ("jupyterhub", "traefik", "tljh-config", "PLASMA-", "plasma-backup"):
        assert word not in found, word
    assert "plasma" not in found.split()
    assert not target.sudo("pgrep -f [t]ljh_plasma", check=False).stdout
    assert not exists(target, PREFIX)


@pytest.fixture(scope="module", autouse=True)
def afterwards(kept_server):
    """Whatever happened, there is a hub for the tests that follow."""
    yield
    kept_server.with_pillar()
    for name in ("k6ada", "k6ben"):
        kept_server.target.sudo(["userdel", "--remove", name], check=False)
    done = kept_server.site.apply()
    assert not done.failed, done.failed


@pytest.fixture
def inhabited(kept):
    """The hub with two people, of whom one has a server, and an environment."""
    kept.with_pillar(users=[ADA, BEN], admins=["k6ada"])
    done = kept.site.apply()
    assert not done.failed, done.failed
    course = environment_image()
    load_into(kept.target, course)
    ada = HubUser(f"http://{kept.target.host}", "k6ada")
    ada.login(ADA["password"])
    if not ada.server():
        ada.start(course)
    kept.target.sudo("touch /home/k6ben/thesis")
    return kept, course


def test_what_must_not_be_removed_is_refused(kept):
    target = kept.target
    target.sudo("mkdir -p /opt/tljh/elsewhere")
    target.sudo("mount -t tmpfs none /opt/tljh/elsewhere")
    try:
        state = state_of(kept.site.apply("uninstall"))
    finally:
        target.sudo("umount /opt/tljh/elsewhere")
        target.sudo("rmdir /opt/tljh/elsewhere")
    assert state["result"] is False
    assert state["comment"].startswith("/opt/tljh/elsewhere is mounted")
    assert target.sudo("systemctl is-active jupyterhub").stdout.strip() == "active"


def test_a_hub_is_removed_and_comes_back(inhabited):
    kept, course = inhabited
    target = kept.target
    target.sudo(f"touch {PREFIX}/notes-of-the-operator")
    assert containers(target)
    predicted = state_of(kept.site.apply("uninstall", "test=True"))
    assert predicted["result"] is None
    assert exists(target, f"{PREFIX}/hub")
    assert containers(target)

    done = kept.site.apply("uninstall")
    assert not done.failed, done.failed
    state = state_of(done)
    # What was foretold is what happened, but for the time in a name.
    assert set(state["changes"]) == set(predicted["changes"])
    for what, change in predicted["changes"].items():
        if not what.startswith("/"):
            assert state["changes"][what] == change, what
    assert {"units", "servers", "firewall", "networks", "prefix"} <= set(state["changes"])
    assert state["changes"]["servers"]["old"] == ["k6ada"]
    assert not containers(target)
    for path in ("config", "state"):
        aside = state["changes"][f"{PREFIX}/{path}"]["new"]
        assert target.sudo(["stat", "--format", "%a", aside.rpartition("/")[0]]).stdout.strip() == "700"
        assert exists(target, aside)
    assert target.sudo(["ls", PREFIX]).stdout.split() == ["notes-of-the-operator"]
    assert "notes-of-the-operator" in state["comment"]
    target.sudo(f"rm -r {PREFIX}")
    nothing_left(target)
    # What was there is in an archive, too.
    assert "-uninstall.tar.gz" in state["comment"]
    # What people made.
    assert "1 environment" in state["comment"]
    assert "2 accounts" in state["comment"]
    assert exists(target, "/home/k6ben/thesis")
    assert target.sudo(["docker", "image", "inspect", "--format", "ok", course]).stdout.strip() == "ok"

    again = kept.site.apply("uninstall")
    assert not again.failed
    assert not again.changed
    assert not kept.site.apply("uninstall", "test=True").predicted

    back = kept.site.apply()
    assert not back.failed, back.failed
    ada = HubUser(f"http://{target.host}", "k6ada")
    ada.login(ADA["password"])
    assert ada.logged_in
    ada.start(course)
    ada.stop()
    assert not kept.site.apply().changed


def test_an_interrupted_run_is_finished_by_the_next(inhabited):
    kept, _ = inhabited
    target = kept.target
    run = kept.site.start("state.apply", "uninstall")
    try:
        # In the middle: the units are gone, the prefix is being deleted.
        wait_for(
            lambda: not exists(target, "/etc/systemd/system/jupyterhub.service"), timeout=120, what="the units are gone"
        )
        target.sudo("pkill -9 -f [s]tate.pkg", check=False)
    finally:
        run.wait(timeout=120)
    done = kept.site.apply("uninstall")
    assert not done.failed, done.failed
    nothing_left(target)
    assert not kept.site.apply("uninstall").changed


def test_what_is_named_goes_too(inhabited):
    kept, course = inhabited
    target = kept.target
    named = dict.fromkeys(("users", "homes", "environments", "data", "backups"), True)
    kept.with_pillar(users=[ADA, BEN], admins=["k6ada"], uninstall=named)
    predicted = state_of(kept.site.apply("uninstall", "test=True"))
    done = kept.site.apply("uninstall")
    assert not done.failed, done.failed
    state = state_of(done)
    assert set(state["changes"]) == set(predicted["changes"])
    assert state["changes"]["users"]["old"] == ["k6ada", "k6ben"]
    assert state["changes"]["environments"]["old"]
    nothing_left(target)
    archives = target.sudo("ls /var/opt/plasma/backups").stdout.split()
    assert len([name for name in archives if name.endswith(".tar.gz")]) == 1
    assert not target.sudo(["getent", "passwd", "k6ben"], check=False).stdout
    assert not exists(target, "/home/k6ben")
    assert not target.sudo("find /home/.plasma-removed -name thesis", check=False).stdout
    assert target.sudo(["docker", "image", "inspect", course], check=False).returncode
    assert not kept.site.apply("uninstall").changed


def test_the_engine_goes_when_it_is_named(kept):
    """With what is in it, and with its configuration put aside; the next apply installs it again."""
    target = kept.target
    course = environment_image()
    load_into(target, course)
    kept.with_pillar(uninstall={"environments": True, "docker": True})
    predicted = state_of(kept.site.apply("uninstall", "test=True"))
    assert predicted["changes"]["docker"]["old"]
    done = kept.site.apply("uninstall")
    assert not done.failed, done.failed
    assert set(state_of(done)["changes"]) == set(predicted["changes"])
    assert target.ssh("command -v dockerd", check=False).returncode
    assert not target.sudo("find /var/lib/docker -mindepth 1", check=False).stdout
    assert target.sudo("ls /var/backups/plasma/uninstalled-*/daemon.json").stdout
    assert not kept.site.apply("uninstall").changed
    # Pillar that names it does not keep an apply from bringing everything back.
    back = kept.site.apply()
    assert not back.failed, back.failed
    assert target.sudo("systemctl is-active docker jupyterhub").stdout.split() == ["active", "active"]
    assert not kept.site.apply().changed


def test_mirrors_take_back_what_was_set(kept):
    target = kept.target
    folders = ("docker", "utils", "groups", "users", "admins", "preflight")
    mirrors = ",".join(f"{folder}.disabled" for folder in folders)
    predicted = kept.site.apply(mirrors, "test=True")
    done = kept.site.apply(mirrors)
    assert not done.failed, done.failed
    assert set(done.changed) == predicted.predicted == {"docker-settings-given-back|docker-settings-given-back"}
    assert not kept.site.apply(mirrors).changed
    assert "live-restore" not in target.sudo("cat /etc/docker/daemon.json", check=False).stdout
    assert target.sudo("systemctl is-active docker").stdout.strip() == "active"
    back = kept.site.apply()
    assert not back.failed, back.failed
    assert "live-restore" in target.sudo("cat /etc/docker/daemon.json").stdout
