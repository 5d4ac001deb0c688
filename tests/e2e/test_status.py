"""How a server is: every problem is real, is named with its mend, and is gone once that command was run."""

from __future__ import annotations

import json
import shlex
import subprocess
import time

import pytest

from tests.e2e.conftest import make_account
from tests.support.environment_image import environment_image, load_into
from tests.support.hub import HubUser
from tests.support.shell import wait_for
from tests.support.site import Site

RECEIPT = "/opt/tljh/plasma/receipt.json"


class Status:
    """``plasma.status`` of one server, and the commands that it names."""

    def __init__(self, kept):
        self.kept = kept

    def ask(self, *arguments):
        self.last = self.kept.site.salt("plasma.status", *arguments)
        return self.last.value

    def healthy(self):
        """Nothing is an error, and salt-ssh says so."""
        found = self.ask()
        assert found["healthy"], found["problems"]
        assert self.last.returncode == 0
        return found

    def problem(self, text, *arguments, severity="error"):
        """The one problem that says this; salt-ssh ends with a code if it is an error."""
        found = self.ask(*arguments)
        named = [one for one in found["problems"] if text in one["problem"]]
        assert len(named) == 1, found["problems"]
        assert named[0]["severity"] == severity
        assert found["healthy"] is (severity != "error")
        assert (self.last.returncode == 0) is found["healthy"]
        return named[0]

    def mend(self, problem):
        """Run the command as it was printed."""
        program, server, *arguments = shlex.split(problem["mend"])
        assert (program, server) == ("salt-ssh", self.kept.target.name)
        done = self.kept.site.salt(*arguments)
        assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def applied(kept_server):
    """The whole site is on record; and a server that starts from the snapshot of another one is as wanted."""
    kept_server.with_pillar()
    done = kept_server.site.apply()
    assert (done.failed, done.changed) == ({}, {})
    return done


@pytest.fixture
def status(kept, applied):
    return Status(kept)


def test_a_server_that_is_well(kept, status):
    found = status.healthy()
    assert not [one for one in found["problems"] if "applied" in one["problem"] or "Pillar" in one["problem"]]
    assert found["applied"]["pending"] == []
    assert found["applied"]["at"]
    assert found["services"]["jupyterhub"] == "active (running)"
    assert found["services"]["hub answers"] is True
    for name in ("jupyterhub", "tljh-plasma"):
        assert found["versions"][name]["installed"] == found["versions"][name]["available"]
    assert "/" in [disk["mount"] for disk in found["disks"]]


def test_the_record_is_no_change_and_roots_alone(kept, status):
    again = kept.site.apply("test=True")
    assert not again.predicted
    path = "/var/lib/plasma/applied.json"
    assert kept.target.sudo(["stat", "-c", "%U %a", path]).stdout.strip() == "root 600"


def test_people_read_it_too(kept, status):
    done = kept.site.salt_text("plasma.status")
    first = done.stdout.splitlines()[0]
    assert first.startswith(f"{kept.target.name}: healthy")
    assert "nothing is pending" in done.stdout


def test_environments_and_the_servers_of_people(kept, status):
    image = environment_image()
    load_into(kept.target, image)
    label = "org.plasma.user=status-ada"
    kept.target.sudo(["docker", "run", "-d", "--name", "status-ada", "--label", label, image, "sleep", "600"])
    try:
        found = status.healthy()
        assert [one["bytes"] > 0 for one in found["environments"] if one["image"] == image] == [True]
        assert [one["image"] for one in found["servers"] if one["user"] == "status-ada"] == [image]
    finally:
        kept.target.sudo(["docker", "rm", "--force", "status-ada"])


@pytest.mark.parametrize("unit", ["jupyterhub", "traefik"])
def test_a_stopped_hub(kept, status, unit):
    kept.target.sudo(["systemctl", "stop", unit])
    status.mend(status.problem("The hub does not answer"))
    status.healthy()


STATE = "/opt/tljh/state"
# How a file that everything hangs on is damaged (A10), the file, and whether the hub is restarted afterwards.
DAMAGES = {
    "sessions truncated under a running hub": ("jupyterhub.sqlite", "truncate -s 0 {}", False),
    "sessions overwritten": ("jupyterhub.sqlite", "head -c 9000 /dev/urandom | tee {} > /dev/null", True),
    "permissions gone": ("plasma.sqlite", "rm {}", True),
    "environments overwritten": ("tljh_repo2docker.sqlite", "head -c 9000 /dev/urandom | tee {} > /dev/null", True),
}


@pytest.fixture(scope="module")
def people(kept_server, applied):
    """Somebody who may log in, somebody whom config.yaml shuts out, and an environment that is closed to both."""
    image = environment_image()
    load_into(kept_server.target, image)
    guest, banned = make_account(kept_server.target, "status-guest"), make_account(kept_server.target, "status-banned")
    closed = f"import sqlite3; c = sqlite3.connect('{STATE}/plasma.sqlite'); "
    closed += f"c.execute('insert into permissions values (?, ?)', ('{image}', 'maths')); c.commit()"
    kept_server.target.sudo(["python3", "-c", closed])
    kept_server.target.sudo(["env", "/opt/tljh/hub/bin/python3", "-I", "-m", "tljh_plasma.config_file"], input=SHUT_OUT)
    assert kept_server.site.salt("tljh_config.reload", "hub").value["ready"]
    yield guest, banned, image
    opened = closed.replace(
        "insert into permissions values (?, ?)", 'delete from permissions where image = ? or ? = ""'
    )
    kept_server.target.sudo(["python3", "-c", opened])
    kept_server.target.sudo(["env", "/opt/tljh/hub/bin/python3", "-I", "-m", "tljh_plasma.config_file"], input=LET_IN)
    assert kept_server.site.salt("tljh_config.reload", "hub").value["ready"]


CONFIG = {"action": "update", "path": "/opt/tljh/config/config.yaml"}
SHUT_OUT = json.dumps({**CONFIG, "set": {"users.banned": ["status-banned"]}})
LET_IN = json.dumps({**CONFIG, "unset": ["users.banned"]})


def guarded(kept, people):
    """People get in as before, and nowhere else."""
    guest, banned, image = people
    url = f"http://{kept.target.host}"
    person = HubUser(url, guest.name)
    assert person.login(guest.password).status_code == 200
    assert person.logged_in
    assert (
        person.api(
            "POST", "/user".replace("/user", f"/users/{guest.name}/server"), check=False, json={"image": image}
        ).status_code
        == 403
    )
    assert HubUser(url, banned.name).login(banned.password).status_code == 403


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database(kept, status, people, damage):
    name, command, restart = DAMAGES[damage]
    kept.target.sudo(command.format(f"{STATE}/{name}"))
    if restart:
        kept.target.sudo("systemctl restart --no-block jupyterhub")
    status.mend(status.problem(f"{name}, "))
    status.healthy()
    guarded(kept, people)


def test_without_its_configuration_the_hub_stays_shut(kept, status, people):
    kept.target.sudo("rm /opt/tljh/config/config.yaml")
    kept.target.sudo("systemctl restart --no-block jupyterhub")
    wait_for(
        lambda: "nobody is let in" in kept.target.sudo("journalctl -u jupyterhub -n 40 -o cat").stdout,
        timeout=60,
        what="the refusal in the journal",
    )
    problem = status.problem("config.yaml is missing or empty")
    assert HubUser(f"http://{kept.target.host}", people[1].name).session.get(
        f"http://{kept.target.host}/hub/login", timeout=10
    ).status_code in (404, 502, 503, 504)
    status.mend(problem)
    status.healthy()
    # What nobody has in pillar came back too.
    guarded(kept, people)


def test_a_server_runs_while_the_database_is_lost(kept, status, people):
    """Its container has the name that the next one needs."""
    guest, _, image = people
    kept.target.sudo(
        [
            "python3",
            "-c",
            f"import sqlite3; c = sqlite3.connect('{STATE}/plasma.sqlite'); "
            "c.execute('delete from permissions'); c.commit()",
        ]
    )
    person = HubUser(f"http://{kept.target.host}", guest.name)
    person.login(guest.password)
    person.start(image)
    kept.target.sudo(f"systemctl stop jupyterhub; rm {STATE}/jupyterhub.sqlite; systemctl start jupyterhub")
    assert kept.site.salt("tljh_config.ready").value["ready"]
    person = HubUser(f"http://{kept.target.host}", guest.name)
    person.login(guest.password)
    assert person.start(image)["ready"]
    person.api("DELETE", f"/users/{guest.name}/server")
    status.healthy()


def test_two_controllers_in_the_same_second(kept, status, tmp_path):
    """Both have the same file on the server: the first one found the other's there, and applied nothing (A13)."""
    other = Site(kept.target, tmp_path / "other", kept.site.pillar)
    other.apply("backup", "test=True")
    for gap in (0.7, 1):
        process = kept.site.start("state.apply", "applied", "test=True", stdout=subprocess.PIPE, text=True)
        time.sleep(gap)  # the attack's own timing
        second = other.apply("applied", "test=True")
        first = json.loads(process.communicate(timeout=120)[0])[kept.target.name]
        assert (len(first), len(second.states)) == (3, 3)


def test_another_controller_with_the_same_pillar_has_nothing_to_do(kept, status, tmp_path):
    """Each makes its own hashes: neither an apply nor the status takes that for a change, or for an edited password."""
    person = {"name": "pia", "password": "correct horse battery"}
    kept.with_pillar(users=[person])
    assert kept.site.apply().failed == {}
    other = Site(kept.target, tmp_path / "second", kept.site.pillar)
    assert other.salt("plasma.status").value["applied"]["pending"] == []
    done = other.apply()
    assert (done.failed, done.changed) == ({}, {})
    assert status.healthy()["applied"]["pending"] == []
    # An edit is told, by the controller that made it.
    other.set_pillar({**kept.site.pillar, "users": [{**person, "password": "quite another horse"}]})
    lines = other.salt_text("state.apply", "users").stdout.splitlines()
    assert any("users-managed: The password in pillar was edited and is not set: pia" in line for line in lines)
    kept.with_pillar(users=[{"name": "pia", "absent": True, "remove_home": True}])
    assert kept.site.apply("users").failed == {}
    kept.with_pillar()
    assert kept.site.apply().failed == {}


def test_docker_is_stopped(kept, status):
    kept.target.sudo(["systemctl", "stop", "docker.socket", "docker.service"])
    status.mend(status.problem("Docker does not answer"))
    status.healthy()


def test_docker_hangs(kept, status):
    kept.target.sudo("kill -STOP $(pidof dockerd)")
    try:
        status.problem("Docker does not answer")
    finally:
        kept.target.sudo("kill -CONT $(pidof dockerd)")
    status.healthy()


def test_an_interrupted_installation(kept, status):
    receipt = json.loads(kept.target.sudo(["cat", RECEIPT]).stdout)
    kept.target.ssh(f"sudo tee {RECEIPT} > /dev/null", input=json.dumps({**receipt, "complete": False}))
    status.mend(status.problem("The installation of the hub was interrupted"))
    status.healthy()


def test_a_disk_that_fills_up(kept, status):
    found = status.ask("warn_at=1")
    assert [one for one in found["problems"] if one["problem"].startswith("/ (") and "% full" in one["problem"]]
    assert not [one for one in status.healthy()["problems"] if "% full" in one["problem"]]


def test_what_was_not_applied_yet(kept, status):
    kept.with_pillar(limits={"memory": "1G"})
    status.mend(status.problem("Pillar was changed since the last apply: limits", severity="warning"))
    assert status.healthy()["applied"]["pending"] == []
    kept.with_pillar()
    status.mend(status.problem("Pillar was changed since the last apply: limits", severity="warning"))
    assert status.healthy()["applied"]["pending"] == []


def test_a_pillar_with_a_mistake(kept, status):
    kept.with_pillar(limits={"memory": "lots"})
    assert "plasma.limits.memory" in status.problem("The pillar of this server is wrong")["problem"]
