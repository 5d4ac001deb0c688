"""
Several servers in one roster; and the same tree without salt-ssh, on a server that applies it to itself and under a
Salt master.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import subprocess
import tarfile
from dataclasses import dataclass

import pytest
import yaml

from tests.e2e.conftest import fresh_target, site_pillar
from tests.support.git_repository import bridge_address
from tests.support.paths import REPOSITORY
from tests.support.site import Site

SECOND = "fleet"  # its id and host name
BROKEN = "broken.example"
PLACE = "/srv/plasma"
VENV = "/opt/salt"


@dataclass
class Broken:
    """A server that nobody reaches: nothing listens there."""

    name: str = BROKEN

    def roster_entry(self):
        return {"host": "127.0.0.1", "port": 9, "user": "ubuntu", "ssh_options": ["BatchMode=yes", "ConnectTimeout=5"]}


@pytest.fixture(scope="module")
def second():
    target = fresh_target(SECOND)
    yield target
    target.down()


@pytest.fixture
def fleet(kept, second, tmp_path):
    """A roster of three: the server of the suite, a bare one, and one that is not there."""
    site = Site(kept.target, tmp_path, site_pillar(), others=(second, Broken()))
    yield site
    site.set_server_pillar(kept.target.name, groups_of(site, absent=["fleet-a"]))
    assert not site.salt("state.apply", "groups").failed


def groups_of(site, *names, absent=()):
    """The groups of the suite and these."""
    more = [{"name": name} for name in names] + [{"name": name, "absent": True} for name in absent]
    return {"groups": [*site.pillar["groups"], *more]}


def has_group(target, name):
    return target.ssh(["getent", "group", name], check=False).returncode == 0


# Several servers.


def test_each_server_gets_its_own_and_one_that_is_broken_stops_nobody(kept, second, fleet):
    fleet.set_server_pillar(kept.target.name, groups_of(fleet, "fleet-a"))
    fleet.set_server_pillar(second.name, groups_of(fleet, "fleet-b"))
    done = fleet.salt("state.apply", "groups", everybody=True)
    assert done.returncode != 0
    for target, own, others in ((kept.target, "fleet-a", "fleet-b"), (second, "fleet-b", "fleet-a")):
        assert not done.of(target.name).failed
        assert done.of(target.name).changed
        assert has_group(target, own)
        assert not has_group(target, others)
    assert "Connection refused" in str(done.of(BROKEN).value)
    again = fleet.salt("state.apply", "groups", everybody=True)
    assert again.returncode != 0
    assert not again.of(kept.target.name).changed
    assert not again.of(second.name).changed


def test_a_mistake_in_the_pillar_of_one_stops_only_that_one(kept, second, fleet):
    fleet.set_server_pillar(kept.target.name, groups_of(fleet, "fleet-a"))
    fleet.set_server_pillar(second.name, {"limts": {"memory": "1G"}})
    done = fleet.salt("state.apply", "groups", everybody=True)
    assert done.returncode != 0
    assert not done.of(kept.target.name).failed
    assert "plasma.limts: unknown key" in str(done.of(second.name).value)


def test_they_are_applied_at_the_same_time(kept, second, fleet):
    done = fleet.salt("cmd.run", "date +%s.%N; sleep 15; date +%s.%N", everybody=True)
    begins, ends = zip(
        *(map(float, done.of(target.name).value.split()) for target in (kept.target, second)), strict=True
    )
    assert max(begins) < min(ends)


def test_the_status_of_all_of_them(kept, second, fleet):
    done = fleet.salt("plasma.status", everybody=True)
    assert done.returncode != 0
    assert done.of(kept.target.name).value["healthy"] is True
    (problem,) = [
        one for one in done.of(second.name).value["problems"] if one["severity"] == "error" and "hub" in one["problem"]
    ]
    assert (problem["problem"], problem["mend"]) == ("No hub is installed here", f"salt-ssh '{SECOND}' state.apply")


# The same tree without salt-ssh.


@pytest.fixture(scope="module")
def salted(second):
    """The second server with Salt of its own, the controller's release, and with the packages that the tree needs."""
    second.install("python3-venv")
    lock = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
    # Without hashes pip keeps what it builds for the next time; timelib needs a compiler, and nothing here needs it.
    wanted = [
        line.rstrip(" \\") for line in lock.splitlines() if "==" in line and not line.startswith((" ", "timelib"))
    ]
    second.ssh("cat > /tmp/requirements.txt", input="\n".join(wanted) + "\n")
    pip = f"{VENV}/bin/pip install -q --no-deps -r /tmp/requirements.txt"
    second.sudo(f"python3 -m venv {VENV} && {pip}", timeout=1500)
    return second


@pytest.fixture(scope="module")
def tree(salted, tmp_path_factory):
    """This tree, as it is in the working copy, on that server."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.decode()
    archive = tmp_path_factory.mktemp("tree") / "tree.tar"
    with tarfile.open(archive, "w") as tar:
        for name in listed.split("\0"):
            if name and not name.startswith(("tests/", "docs/", "pillar/")) and (REPOSITORY / name).exists():
                tar.add(REPOSITORY / name, name)
        tar.add(REPOSITORY / "pillar" / "top.sls", "pillar/top.sls")
    salted.copy_to(archive, "/tmp/tree.tar")
    salted.sudo(f"mkdir -p {PLACE} && tar -xf /tmp/tree.tar -C {PLACE} --no-same-owner")
    return salted


def write(target, path, text):
    """A file of root's, through standard input."""
    target.ssh(f"sudo sh -c 'umask 077; mkdir -p $(dirname {path}); cat > {path}'", input=text)


def answer(text, key):
    """What one server returned, from --out=json."""
    found = json.loads(text)[key]
    return found["return"] if isinstance(found, dict) and set(found) >= {"return", "retcode"} else found


def changes(states):
    return {key: state["changes"] for key, state in states.items() if state["changes"]}


def failures(states):
    return {key: state["comment"] for key, state in states.items() if state["result"] is not True}


class Masterless:
    """``salt-call`` on the server itself."""

    def __init__(self, target):
        self.target = target

    def set_pillar(self, plasma):
        write(self.target, f"{PLACE}/pillar/plasma.sls", yaml.safe_dump({"plasma": plasma}))

    def call(self, *arguments, check=True):
        command = [f"{VENV}/bin/salt-call", "--local", "--config-dir=/etc/salt", "--out=json", "--retcode-passthrough"]
        done = self.target.sudo([*command, *arguments], timeout=1500, check=False)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return answer(done.stdout, "local")


@pytest.fixture(scope="module")
def masterless(tree):
    write(
        tree, "/etc/salt/minion.d/plasma.conf", (REPOSITORY / "conf" / "masterless.example").read_text(encoding="utf-8")
    )
    write(tree, "/etc/salt/minion", f"id: {SECOND}\n")
    return Masterless(tree)


def test_masterless(masterless):
    masterless.set_pillar(site_pillar())
    first = masterless.call("state.apply")
    assert not failures(first)
    assert changes(first)
    assert changes(masterless.call("state.apply")) == {}
    found = masterless.call("plasma.status")
    assert found["healthy"] is True
    assert found["applied"]["pending"] == []
    assert found["versions"]["tljh-plasma"]["installed"] == found["versions"]["tljh-plasma"]["available"]


def test_masterless_tells_what_is_pending_and_what_is_wrong(masterless):
    masterless.set_pillar({**site_pillar(), "limits": {"memory": "1G"}})
    (problem,) = [one for one in masterless.call("plasma.status")["problems"] if "Pillar was changed" in one["problem"]]
    # Those of shells follow from those of servers.
    assert problem["problem"].endswith(": limits, ssh")
    assert problem["mend"] == "salt-call --local state.apply"
    masterless.set_pillar({**site_pillar(), "limts": {}})
    assert "plasma.limts: unknown key" in str(masterless.call("state.apply", check=False))


@pytest.fixture(scope="session")
def salt_factories_default_root_dir(tmp_path_factory):
    """Where the fixtures' plugin keeps what the master writes."""
    return tmp_path_factory.mktemp("factories")


@pytest.fixture(scope="module")
def master(masterless, salt_factories, tmp_path_factory):
    """A Salt master on this machine, with the settings that the example gives and a pillar of its own."""
    place = tmp_path_factory.mktemp("master")
    text = (REPOSITORY / "conf" / "salt-master.example").read_text(encoding="utf-8")
    settings = yaml.safe_load(text.replace(PLACE, str(REPOSITORY)))
    settings["pillar_roots"] = {"base": [str(place / "pillar")]}
    (place / "pillar").mkdir()
    top = (REPOSITORY / "pillar" / "top.sls").read_text(encoding="utf-8")
    (place / "pillar" / "top.sls").write_text(top, encoding="utf-8")
    started = salt_factories.salt_master_daemon(
        "plasma-master",
        defaults={"auto_accept": True, "user": "root"},
        overrides={**settings, "interface": "0.0.0.0"},
        start_timeout=120,
    )
    started.pillar = place / "pillar"
    with started.started():
        yield started


@pytest.fixture(scope="module")
def minion(master, salted):
    """A minion on the second server. The tree there is gone: it gets what it needs from its master."""
    salted.sudo(f"rm -rf {PLACE} /etc/salt/minion.d")
    settings = {
        "id": SECOND,
        "master": bridge_address(),
        "master_port": master.config["ret_port"],
        "publish_port": master.config["publish_port"],
        "log_level_logfile": "info",
    }
    write(salted, "/etc/salt/minion", yaml.safe_dump(settings))
    salted.sudo(["systemd-run", "--unit=fleet-minion", f"{VENV}/bin/salt-minion", "--config-dir=/etc/salt"])
    yield salted
    with contextlib.suppress(Exception):
        salted.sudo(["systemctl", "stop", "fleet-minion"])


class Mastered:
    """``salt`` on the master."""

    def __init__(self, master):
        self.master, self.cli = master, master.salt_cli(timeout=900)

    def set_pillar(self, plasma):
        (self.master.pillar / "plasma.sls").write_text(yaml.safe_dump({"plasma": plasma}), encoding="utf-8")

    def call(self, *arguments):
        """Data, and the exit code."""
        done = self.cli.run(*arguments, minion_tgt=SECOND)
        return done.data, done.returncode


@pytest.fixture(scope="module")
def mastered(master, minion):
    found = Mastered(master)
    found.set_pillar(site_pillar())
    for _ in range(20):
        answered, _ = found.call("--timeout=10", "test.ping")
        if answered is True:
            return found
    raise AssertionError(minion.sudo("journalctl --unit=fleet-minion --no-pager | tail -30").stdout)


def test_under_a_master(mastered, minion):
    password = secrets.token_urlsafe(12)
    people = [{"name": "fleet-ada", "password": password}]
    mastered.set_pillar({**site_pillar(), "limits": {"memory": "1500M"}, "users": people})
    first, _ = mastered.call("state.apply")
    assert not failures(first)
    assert {key.split("_|-")[1] for key in changes(first)} >= {"hub-settings", "users-managed"}
    second, code = mastered.call("state.apply")
    assert (changes(second), code) == ({}, 0)
    found, code = mastered.call("plasma.status")
    assert (found["healthy"], found["applied"]["pending"], code) == (True, [], 0)
    assert found["versions"]["tljh-plasma"]["installed"] == found["versions"]["tljh-plasma"]["available"]
    # The hash came, and the password did not.
    pillar, _ = mastered.call("pillar.items", "unmask=True")
    assert password not in json.dumps(pillar)
    shadow = minion.sudo(["getent", "shadow", "fleet-ada"]).stdout
    assert re.match(r"fleet-ada:\$", shadow)
    places = f"/etc/salt /var/cache/salt /var/log/salt /var/lib/plasma {VENV}/var"
    hits = minion.ssh(f"sudo grep -rlsF -f - {places}", input=password + "\n", check=False)
    assert hits.stdout == ""


def test_a_master_tells_what_is_wrong(mastered, minion):
    minion.sudo(["systemctl", "stop", "jupyterhub"])
    found, code = mastered.call("plasma.status")
    assert (found["healthy"], code != 0) == (False, True)
    (problem,) = [one for one in found["problems"] if one["severity"] == "error"]
    assert problem["mend"] == f"salt '{SECOND}' tljh_config.reload hub"
    mastered.call("tljh_config.reload", "hub")
    found, code = mastered.call("plasma.status")
    assert (found["healthy"], code) == (True, 0)


def test_a_master_has_it_proved(mastered, minion):
    found, code = mastered.call("plasma.prove", "only=A2,A3,A4.student")
    assert [one for one in found["attacks"] if one["refused"] is not True] == []
    assert (found["refused"], found["problems"], code) == (True, [], 0)
    assert minion.ssh("getent passwd | grep ^plasma-prove", check=False).stdout == ""
    refused, code = mastered.call("plasma.prove", "only=A99")
    assert refused.startswith("ERROR: There is no attack 'A99': ")
    assert code != 0
