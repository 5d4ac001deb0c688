"""How a server is: every problem is real, is named with its mend, and is gone once that command was run."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.support.environment_image import environment_image, load_into

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
    """The whole site is on record."""
    kept_server.with_pillar()
    done = kept_server.site.apply()
    assert not done.failed
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
