"""Backups made while the hub is in use, and brought back: onto the same server, onto a fresh one, or refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import pytest

from tests.e2e.conftest import Kept, fresh_target, site_pillar
from tests.support.hub import HubUser
from tests.support.paths import REPOSITORY
from tests.support.shell import wait_for
from tests.support.site import Site

# It puts directories of the hub aside, and one of an image's layer cannot be renamed.
FROM_SNAPSHOT = False

PLACE = "/var/opt/plasma/backups"
PASSWORD = "a phrase that is long enough"
PEOPLE = {"users": [{"name": "bea", "password": PASSWORD, "groups": ["maths"]}], "backup": {"homes": True}}
RESTORED, LOOKED_AT = "restore-hub|restore-hub", "restore-archive|restore-archive"


@pytest.fixture(scope="module")
def person(kept_server):
    """Somebody from pillar with a file, a token at the hub, and an archive that has all of it."""
    kept_server.with_pillar(**PEOPLE)
    assert kept_server.site.apply("users").failed == {}
    kept_server.target.sudo(
        "sh -c 'echo chapter one > /home/bea/thesis.txt; chown bea: /home/bea/thesis.txt; "
        "chmod 640 /home/bea/thesis.txt; rm -f /home/bea/trap /home/bea/pipe; "
        "ln -s /etc/shadow /home/bea/trap; mkfifo /home/bea/pipe'"
    )
    user = HubUser(f"http://{kept_server.target.host}", "bea")
    user.login(PASSWORD)
    assert user.logged_in
    yield user
    kept_server.with_pillar(users=[{"name": "bea", "absent": True, "remove_home": True}])
    kept_server.site.apply("users")
    kept_server.target.sudo(f"sh -c 'rm -rf {PLACE} /root/bad.tar.gz /srv/in'")


@pytest.fixture
def server(kept, person):
    kept.with_pillar(**PEOPLE)
    return kept


@pytest.fixture(scope="module")
def archive(kept_server, person):
    kept_server.with_pillar(**PEOPLE)
    result = kept_server.site.apply("backup.now")
    assert result.failed == {}
    return result.changed["backup-created|backup-created"]["backup"]["new"]


def restore(server, path, *arguments, **more):
    return server.site.apply("restore", f"pillar={json.dumps({'restore': {'archive': path, **more}})}", *arguments)


def backups(server, *arguments):
    """The tool of the controller; what it prints."""
    roster = str(server.site.directory / "roster")
    command = [sys.executable, "-m", "tools.backups", *arguments, "--roster", roster]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_in_it(server, archive):
    names = server.target.sudo(f"tar tzf {archive}").stdout.splitlines()
    for name in (
        "config/config.yaml",
        "state/jupyterhub.sqlite",
        "state/jupyterhub_cookie_secret",
        "state/plasma.sqlite",
        "accounts/shadow",
        "environments.json",
        "homes/bea/thesis.txt",
        "homes/bea/trap",
        "manifest.json",
    ):
        assert name in names, name
    assert "homes/bea/pipe" not in names
    modes = server.target.sudo(f"stat -c '%U %a' {PLACE} {archive} {archive}.sha256").stdout.split("\n")[:3]
    assert modes == ["root 700", "root 600", "root 600"]
    assert server.target.sudo(f"cd {PLACE} && sha256sum --check {archive}.sha256").stdout.endswith(": OK\n")
    about = server.site.salt("plasma_backup.verify", archive).value
    assert (about["ok"], about["this_machine"], about["reason"]) == (True, True, "manual")
    assert about["versions"]["jupyterhub"]
    assert server.site.salt("plasma_backup.list").value[0]["path"] == archive


def test_the_dry_run_makes_none(server, archive):
    before = server.target.sudo(f"ls {PLACE}").stdout
    result = server.site.apply("backup.now", "test=True")
    assert set(result.predicted) == {"backup-created|backup-created"}
    assert server.target.sudo(f"ls {PLACE}").stdout == before


def test_a_copy_of_the_database_is_whole_while_it_is_written_to(server, person):
    """Logins go on while a backup is made: what is in the archive is one moment of the database."""
    tokens = [person.api("POST", "/users/bea/tokens", json={"note": f"n{number}"}).json()["id"] for number in range(3)]
    writing = subprocess.Popen(
        [
            *server.target.ssh_command(),
            'sudo /opt/tljh/hub/bin/python3 -c "import sqlite3, time; '
            "c = sqlite3.connect('/opt/tljh/state/jupyterhub.sqlite', timeout=60)\nfor n in range(400):\n"
            "  c.execute(\\\"update users set last_activity = datetime('now') where name = 'bea'\\\"); c.commit(); "
            'time.sleep(0.01)"',
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    made = server.site.salt("plasma_backup.create").value
    writing.wait(timeout=60)
    assert server.site.salt("plasma_backup.verify", made["path"]).value["ok"]
    assert len(tokens) == 3


def test_the_same_server_after_a_disaster(server, person, archive):
    token = person.api("POST", "/users/bea/tokens", json={"note": "later"}).json()
    assert token["id"]
    server.target.sudo(
        "systemctl stop jupyterhub; sh -c 'echo damaged > /opt/tljh/state/jupyterhub.sqlite'; "
        "sh -c 'head -c 32 /dev/urandom | sha256sum | cut -c1-64 > /opt/tljh/state/jupyterhub_cookie_secret'; "
        "systemctl start jupyterhub"
    )
    predicted = restore(server, archive, "test=True")
    assert RESTORED in predicted.changed
    # The hub does not start, so what looks at it fails; the restore comes after that, and mends it.
    result = restore(server, archive)
    assert RESTORED not in result.failed, result.failed[RESTORED]
    assert predicted.changed[RESTORED] == result.changed[RESTORED]
    assert person.logged_in  # with the session of before: database and secret are those of the archive
    kept = result.states[RESTORED]["comment"]
    assert "/var/backups/plasma/before-restore-" in kept
    assert server.target.sudo("stat -c %a /var/backups/plasma").stdout.strip() == "700"
    # Only parts of the site were applied with this pillar before: that is noted, and nothing else is to do.
    assert set(server.site.apply().changed) <= {"site-applied|site-applied"}
    assert server.site.apply().changed == {}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            "python3 -c \"f = open('{}', 'r+b'); b = f.read(901)[900]; f.seek(900); f.write(bytes([b ^ 255]))\"",
            "cannot be read as an archive",
        ),
        ("sh -c 'cd /etc && tar czf {} hostname'", "none of ours has"),
    ],
)
def test_what_is_damaged_or_foreign_is_refused(server, archive, damage, said):
    bad = "/root/bad.tar.gz"
    server.target.sudo(f"cp {archive} {bad}")
    server.target.sudo(damage.format(bad))
    seen = "find /opt/tljh/config /opt/tljh/state -type f | sort | xargs sha256sum | grep -v sqlite"
    before = server.target.sudo(seen).stdout
    result = restore(server, bad)
    assert list(result.failed) == [LOOKED_AT]
    assert said in result.failed[LOOKED_AT]
    assert "Nothing was changed" in result.failed[LOOKED_AT]
    assert server.target.sudo(seen).stdout == before


@pytest.mark.parametrize("trick", ["../../etc/evil", "link"])
def test_an_archive_that_wants_out_is_refused(server, trick, tmp_path):
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("state/link" if trick == "link" else trick)
        if trick == "link":
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(info)
    server.target.sudo(f"install -d -o {server.target.user} /srv/in")
    server.target.copy_to(path, "/srv/in/")
    result = restore(server, "/srv/in/evil.tar.gz")
    assert "Nothing was changed" in result.failed[LOOKED_AT]
    assert server.target.ssh("ls /etc/evil /evil", check=False).returncode != 0


def test_an_archive_with_cockpit_where_there_is_none(server, person):
    """The hub would offer what is not there, and be unhealthy for that."""
    key = "plasma.cockpit.enabled"
    server.site.salt("tljh_config.update", f"{{{key}: true}}")
    made = server.site.salt("plasma_backup.create").value["path"]
    server.site.salt("tljh_config.update", "{}", "unset=[plasma.cockpit]")
    result = restore(server, made)
    assert "Cockpit is not offered, as this server has none" in result.states[RESTORED]["comment"]
    assert server.site.salt("tljh_config.get", key).value is None
    assert server.site.apply().failed == {}
    assert server.site.salt("plasma.status").value["healthy"]
    server.target.sudo(f"rm {made} {made}.sha256")


def test_data_that_the_hub_cannot_live_with_is_taken_back(server, person, archive):
    """An archive in order whose configuration breaks the hub."""
    server.target.ssh(
        "sudo tee /opt/tljh/config/jupyterhub_config.d/breaks.py >/dev/null", input="raise RuntimeError('broken')\n"
    )
    made = server.site.salt("plasma_backup.create").value["path"]
    server.target.sudo("rm /opt/tljh/config/jupyterhub_config.d/breaks.py")
    result = restore(server, made)
    assert "what was there before was put back, the hub is back" in result.failed[RESTORED]
    assert "RuntimeError: broken" in result.failed[RESTORED]
    assert person.logged_in
    server.target.sudo(f"rm {made} {made}.sha256")


def test_images_of_environments(server):
    server.target.sudo(
        "sh -c 'tar c -C /etc hostname | docker import --change \"LABEL tljh_repo2docker.image_name=tiny-course:1 "
        "repo2docker.repo=https://example.org/tiny\" - tiny-course:1'"
    )
    server.with_pillar(**{**PEOPLE, "backup": {"images": True}})
    made = server.site.apply("backup.now").changed["backup-created|backup-created"]["backup"]["new"]
    server.target.sudo("docker image rm tiny-course:1")
    result = restore(server, made, hub=False, people=False)
    assert result.failed == {}
    assert "Added: 1 image." in result.states[RESTORED]["comment"]
    assert server.target.sudo("docker image inspect tiny-course:1", check=False).returncode == 0
    server.target.sudo(f"docker image rm tiny-course:1; rm {made} {made}.sha256")


def test_a_disk_without_room(server):
    server.target.sudo("mkdir -p /srv/small; mount -t tmpfs -o size=8m none /srv/small")
    try:
        server.with_pillar(**{**PEOPLE, "backup": {"directory": "/srv/small"}})
        result = server.site.apply("backup.now")
        assert "MB are free on the disk of /srv/small" in result.failed["backup-created|backup-created"]
        assert server.target.sudo("ls /srv/small").stdout == ""
    finally:
        server.target.sudo("umount /srv/small; rmdir /srv/small")


def test_killed_in_the_middle(server, archive):
    server.target.sudo("sh -c 'head -c 400M /dev/urandom > /home/bea/large'")
    process = server.site.start("state.apply", "backup.now", stdout=subprocess.DEVNULL, start_new_session=True)
    partial = f"sh -c 'ls {PLACE}/*.partial'"
    wait_for(lambda: server.target.sudo(partial, check=False).returncode == 0, timeout=60, what="it", interval=0.1)
    server.target.sudo("pkill -9 -f '[t]ljh_plasma/backup'; pkill -9 -f '[s]alt-call'", check=False)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    server.target.sudo("rm -f /home/bea/large")
    assert server.target.sudo(partial, check=False).returncode == 0
    assert all(".partial" not in entry["path"] for entry in server.site.salt("plasma_backup.list").value)
    assert server.site.apply("backup.now").failed == {}
    assert server.target.sudo(partial, check=False).returncode != 0


def test_by_a_timer(server, archive):
    server.with_pillar(**{**PEOPLE, "backup": {"enabled": True, "keep": 2, "schedule": "*-*-* 03:30:00"}})
    predicted = server.site.apply("backup", "test=True")
    result = server.site.apply("backup")
    assert result.failed == {}
    assert predicted.changed == result.changed
    assert server.site.apply("backup").changed == {}
    assert "plasma-backup.timer" in server.target.ssh("systemctl list-timers --no-pager").stdout
    for _ in range(3):
        server.target.sudo("systemctl start plasma-backup.service")
        time.sleep(1)
    reasons = [entry["reason"] for entry in server.site.salt("plasma_backup.list").value]
    assert reasons.count("scheduled") == 2
    assert "manual" in reasons
    health = server.site.salt("plasma_backup.health").value
    assert (health["timer"], health["problem"]) == ("active", None)
    assert health["age_hours"] < 1
    server.target.sudo("mv /opt/tljh/config /opt/tljh/config-away")
    failed = server.target.sudo("systemctl start plasma-backup.service", check=False)
    server.target.sudo("mv /opt/tljh/config-away /opt/tljh/config")
    assert failed.returncode != 0
    assert "systemctl start plasma-backup.service" in server.site.salt("plasma_backup.health").value["problem"]
    server.target.sudo("systemctl start plasma-backup.service")
    server.with_pillar(**PEOPLE)
    assert set(server.site.apply("backup").changed) == {"backup-scheduled|backup-scheduled"}
    assert server.target.ssh("systemctl cat plasma-backup.timer", check=False).returncode != 0
    assert "scheduled" in [entry["reason"] for entry in server.site.salt("plasma_backup.list").value]


def test_a_schedule_that_is_none(server):
    server.with_pillar(backup={"enabled": True, "schedule": "sometimes"})
    result = server.site.apply("backup")
    assert "plasma.backup.schedule" in result.failed["backup-scheduled|backup-scheduled"]


def test_a_fresh_server(server, archive, tmp_path_factory):
    """Another machine: the hub is installed, and people log in with their passwords and find their homes."""
    target = fresh_target("kept-fresh")
    try:
        other = Kept(target, Site(target, tmp_path_factory.mktemp("fresh"), site_pillar()))
        # By way of the controller, as people do it.
        here = tmp_path_factory.mktemp("here")
        fetched = backups(server, "fetch", "--archive", archive, "--into", str(here))
        brought = backups(other, "push", target.name, fetched)
        assert brought == archive
        refused = restore(other, brought)
        assert (list(refused.failed), refused.changed) == ([LOOKED_AT], {})
        assert "is of another machine" in refused.failed[LOOKED_AT]
        assert target.ssh("ls /opt; which docker", check=False).stdout == ""
        result = restore(other, brought, other_machine=True)
        assert result.failed == {}
        bea = HubUser(f"http://{target.host}", "bea")
        bea.login(PASSWORD)
        assert bea.logged_in
        listing = target.sudo("stat -c '%U %G %a' /home/bea /home/bea/thesis.txt; cat /home/bea/thesis.txt").stdout
        assert "bea bea 640" in listing and "chapter one" in listing
        assert "maths" in target.ssh("id -nG bea").stdout
        other.with_pillar(**PEOPLE)
        assert other.site.apply("users").changed == {}
    finally:
        if not os.environ.get("PLASMA_KEEP"):
            target.down()
