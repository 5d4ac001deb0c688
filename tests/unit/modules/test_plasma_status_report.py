"""What is wrong with a server, and what mends it."""

from __future__ import annotations

import threading

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_site as plasma_site
import _modules.plasma_status_report as report

UNIT = {"ActiveState": "active", "SubState": "running"}
DISK = {"mount": "/", "holds": ["system"], "percent": 40, "free": "60 GB", "inodes_percent": 3}
WANTED = {"digests": {"limits": "1"}, "plugin": None, "available": {"jupyterhub": "5.5.4"}}


class Server:
    """What each part answers: a value, an error, or a function to call."""

    def __init__(self):
        self.answers = {
            "plasma_status_parts.system": {"os": "Debian 12", "docker": "26.1"},
            "plasma_status_parts.environments": [],
            "plasma_status_parts.servers": [],
            "plasma_status_parts.pages": None,
            "plasma_status_parts.disks": [DISK],
            "plasma_status_parts.docker_root": "/srv/docker",
            "plasma_status_parts.exceeded": [],
            "plasma_hub.packages": {"jupyterhub": "5.5.4", "pip": "24"},
            "plasma_hub.receipt": {"provider": "pypi", "complete": True},
            "plasma_hub.provider": "pypi",
            "tljh_service.units": {"traefik.service": dict(UNIT), "jupyterhub.service": dict(UNIT)},
            "tljh_config.ready": {"ready": True, "problem": None},
            "tljh_config.pending": None,
            "plasma_site.record": {"at": "2026-11-25T08:00:00Z", "sections": {"limits": "1"}},
            "plasma_site.plugin_files": {"pyproject.toml": "0"},
        }
        self.asked = {}

    def function(self, name):
        def answer(*arguments):
            self.asked[name] = arguments
            found = self.answers[name]
            if isinstance(found, Exception):
                raise found
            return found() if callable(found) else found

        return answer


class Functions(dict):
    """``__salt__`` for a server whose answers change during a test."""

    def __init__(self, server):
        super().__init__()
        self.server = server

    def __contains__(self, name):
        return name in self.server.answers

    def __getitem__(self, name):
        if name == "plasma_site.compare":
            old = self.server.answers["plasma_site.record"]["sections"]
            return lambda new: {key: {} for key in {*old, *new} if old.get(key) != new.get(key)}
        if name == "plasma_site.plugin_digest":
            return plasma_site.plugin_digest
        return self.server.function(name)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def configure_loader_modules(server):
    return {report: {"__salt__": Functions(server), "__grains__": {"id": "course"}, "__opts__": {}}}


def told(wanted=WANTED, **options):
    found = report.report(wanted, **options)
    return found, [(one["severity"], one["problem"], one["mend"]) for one in found["problems"]]


def test_a_server_that_is_well(server):
    found, problems = told()
    assert (found["healthy"], problems) == (True, [])
    assert found["versions"] == {"jupyterhub": {"installed": "5.5.4", "available": "5.5.4"}}
    assert found["applied"] == {"at": "2026-11-25T08:00:00Z", "pending": []}
    assert found["services"] == {
        "docker": "running",
        "traefik": "active (running)",
        "jupyterhub": "active (running)",
        "hub answers": True,
    }
    assert found["certificate"] is None


def test_places_of_pillar_are_looked_at(server):
    server.answers["plasma_backup.health"] = {"problem": None}
    told({"prefix": "/srv/hub", "home_path": "/srv/homes", "backups": "/srv/b", "quota_device": "/dev/sdb"})
    assert server.asked["plasma_hub.packages"] == ("/srv/hub",)
    assert server.asked["plasma_status_parts.exceeded"] == ("/srv/homes", "/dev/sdb")
    assert server.asked["plasma_backup.health"] == ("/srv/b",)
    places = server.asked["plasma_status_parts.disks"][0]
    assert (places["homes"], places["docker"]) == ("/srv/homes", "/srv/docker")


def test_docker_down_is_one_error(server):
    server.answers["plasma_status_parts.system"]["docker"] = None
    for part in ("environments", "servers"):
        server.answers[f"plasma_status_parts.{part}"] = CommandExecutionError("Docker does not answer (x)")
    found, problems = told()
    assert not found["healthy"]
    assert problems == [
        (
            "error",
            "Docker does not answer: nobody can start a server",
            "salt-ssh 'course' service.restart docker",
        )
    ]
    assert found["environments"] is None


@pytest.mark.parametrize(("down", "component"), [("jupyterhub.service", "hub"), ("traefik.service", "proxy")])
def test_the_hub_down(server, down, component):
    server.answers["tljh_service.units"][down]["ActiveState"] = "failed"
    server.answers["tljh_config.ready"] = {"ready": False, "problem": f"{down} failed"}
    _, problems = told()
    assert problems == [
        ("error", f"The hub does not answer: {down} failed", f"salt-ssh 'course' tljh_config.reload {component}")
    ]


def test_damaged_files_come_first_and_no_reload_is_offered(server):
    server.answers["plasma_databases.health"] = {
        "problems": ["plasma.sqlite, which says it, is gone: `plasma_databases.mend plasma.sqlite`"]
    }
    server.answers["tljh_config.ready"] = {"ready": False, "problem": "it crashes"}
    mend = "salt-ssh 'course' plasma_databases.mend plasma.sqlite"
    assert told()[1] == [
        ("error", "plasma.sqlite, which says it, is gone", mend),
        ("error", "The hub does not answer: it crashes", mend),
    ]


def test_pages_of_the_service_that_do_not_answer(server):
    server.answers["plasma_status_parts.pages"] = "HTTP status 502"
    assert told()[1] == [
        (
            "error",
            "The pages of environments do not answer: HTTP status 502",
            "salt-ssh 'course' tljh_config.reload hub",
        )
    ]


def test_no_hub(server):
    server.answers.update({"plasma_hub.provider": None, "plasma_hub.receipt": {}, "plasma_hub.packages": {}})
    server.answers["tljh_config.ready"] = {"ready": False, "problem": "there is none"}
    _, problems = told()
    assert problems == [("error", "No hub is installed here", "salt-ssh 'course' state.apply")]


def test_an_interrupted_installation(server):
    server.answers["plasma_hub.receipt"]["complete"] = False
    _, problems = told()
    assert problems == [("error", "The installation of the hub was interrupted", "salt-ssh 'course' state.apply")]


def test_an_interrupted_reload(server):
    server.answers["tljh_config.pending"] = "proxy"
    _, problems = told()
    assert [(one[0], one[2]) for one in problems] == [("error", "salt-ssh 'course' tljh_config.reload proxy")]


@pytest.mark.parametrize(
    ("percent", "inodes", "options", "severity"),
    [
        (84, 3, {}, None),
        (85, 3, {}, "warning"),
        (98, 3, {}, "error"),
        (40, 99, {}, "error"),
        (85, None, {"warn_at": 90}, None),
        (40, 3, {"warn_at": 40}, "warning"),
    ],
)
def test_a_disk_that_fills_up(server, percent, inodes, options, severity):
    server.answers["plasma_status_parts.disks"] = [{**DISK, "percent": percent, "inodes_percent": inodes}]
    _, problems = told(**options)
    assert [one[0] for one in problems] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("timer", "mend"),
    [(None, "cmd.run 'docker image prune --force'"), ("active", "plasma_prune.run")],
)
def test_a_full_disk_is_mended_by_what_the_server_has(server, timer, mend):
    server.answers["plasma_status_parts.disks"] = [{**DISK, "percent": 90}]
    server.answers["plasma_prune.health"] = {"timer": timer, "problem": None}
    assert told()[1][0][2] == f"salt-ssh 'course' {mend}"


def test_the_threshold_of_pillar(server):
    server.answers["plasma_status_parts.disks"] = [{**DISK, "percent": 88}]
    assert told({**WANTED, "warn_at": 90})[1] == []
    assert told({**WANTED, "warn_at": 88})[1][0][1] == "/ (system) is 88 % full, 60 GB are free"


def test_exceeded_quotas_only_warn(server):
    row = {"name": "ada", "used": "2.0 GB", "limit": "1.0 GB"}
    server.answers["plasma_status_parts.exceeded"] = [row] * 7
    found, problems = told()
    assert found["healthy"]
    assert problems[0][0] == "warning"
    assert problems[0][1].endswith("ada (2.0 GB of 1.0 GB) and 2 more")
    assert found["quotas"]["on"] is True


def test_quotas_that_are_off_are_no_problem_unless_pillar_wants_them(server):
    server.answers["plasma_status_parts.exceeded"] = CommandExecutionError("Quotas of / are not on.")
    found, problems = told()
    assert (problems, found["quotas"]) == ([], {"on": False, "exceeded": []})
    _, problems = told({**WANTED, "quotas": True})
    assert [one[1] for one in problems] == ["quotas could not be looked at: Quotas of / are not on"]
    del server.asked["plasma_status_parts.exceeded"]
    told({**WANTED, "quotas": False})
    assert "plasma_status_parts.exceeded" not in server.asked


@pytest.mark.parametrize(
    ("part", "sentence", "days", "severity", "problem", "mend"),
    [
        (
            "https",
            "The certificate expires in 4.0 days and was not renewed. Mend it, and: salt-ssh '*' state.apply https",
            4.0,
            "warning",
            "The certificate expires in 4.0 days and was not renewed. Mend it, and",
            "salt-ssh 'course' state.apply https",
        ),
        (
            "https",
            "The certificate has expired on 2026-11-01. Renew it with: salt-ssh '*' state.apply https",
            -3.0,
            "error",
            "The certificate has expired on 2026-11-01. Renew it with",
            "salt-ssh 'course' state.apply https",
        ),
        (
            "cockpit",
            "Cockpit is not installed any more: run `state.apply cockpit`.",
            None,
            "error",
            "Cockpit is not installed any more",
            "salt-ssh 'course' state.apply cockpit",
        ),
        (
            "backup",
            "Backups are scheduled, and their timer is stopped: systemctl start plasma-backup.timer",
            None,
            "error",
            "Backups are scheduled, and their timer is stopped",
            "salt-ssh 'course' cmd.run 'systemctl start plasma-backup.timer'",
        ),
        ("prune", "The timer is stopped: x y", None, "warning", "The timer is stopped", "x y"),
        (
            "upgrade",
            "It is open: salt-ssh ID state.apply upgrade ends it, salt-ssh ID plasma_upgrade.roll_back undoes it.",
            None,
            "error",
            "It is open",
            "salt-ssh 'course' state.apply upgrade ends it, salt-ssh 'course' plasma_upgrade.roll_back undoes it",
        ),
        ("upgrade", "An upgrade was begun.", None, "error", "An upgrade was begun", "An upgrade was begun"),
    ],
)
def test_problems_of_other_parts(server, part, sentence, days, severity, problem, mend):
    server.answers[f"plasma_{part}.health"] = {"problem": sentence, "days_left": days}
    found, problems = told()
    assert problems == [(severity, problem, mend)]
    assert found["healthy"] is (severity == "warning")


def test_pending_settings(server):
    found, problems = told({**WANTED, "digests": {"limits": "2", "cull": "1"}})
    assert problems == [
        ("warning", "Pillar was changed since the last apply: cull, limits", "salt-ssh 'course' state.apply")
    ]
    assert (found["healthy"], found["applied"]["pending"]) == (True, ["cull", "limits"])


def test_never_applied_completely(server):
    server.answers["plasma_site.record"] = {}
    assert told()[0]["applied"] == {"at": None, "pending": ["the whole site"]}
    # Where pillar is not known, nothing is compared.
    assert told({})[1] == []


@pytest.mark.parametrize(("module", "state"), [(None, "tljh"), ("plasma_upgrade.health", "upgrade")])
def test_another_release_in_the_tree(server, module, state):
    if module:
        server.answers[module] = {"problem": None}
    found, problems = told({**WANTED, "plugin": "other", "available": {"jupyterhub": "6.0.0"}})
    assert problems == [
        (
            "warning",
            "This tree has another release of the hub's plugin or packages: jupyterhub 5.5.4 -> 6.0.0",
            f"salt-ssh 'course' state.apply {state}",
        )
    ]
    assert found["applied"]["pending"] == ["versions"]
    assert told({**WANTED, "plugin": plasma_site.plugin_digest({"pyproject.toml": "0"})})[1] == []


def test_mistakes_in_pillar_come_first(server):
    server.answers["plasma_site.record"] = {}
    _, problems = told(mistakes=["plasma.limts: unknown key"], tool="salt '{id}'")
    assert [one[0] for one in problems] == ["error", "warning"]
    assert problems[0][1].endswith("plasma.limts: unknown key")
    assert problems[1][2] == "salt 'course' state.apply"


def test_whatever_fails_is_a_line(server):
    for name in server.answers.keys() - {"plasma_status_parts.docker_root"}:
        server.answers[name] = ValueError(f"broken {name}")
    found, problems = told()
    assert not found["healthy"]
    assert ("error", "It cannot be told whether the hub answers", "salt-ssh 'course' tljh_config.ready") in problems
    assert any(
        "disks could not be looked at: ValueError: broken plasma_status_parts.disks" in one[1] for one in problems
    )


def test_what_hangs_is_a_line(server):
    released = threading.Event()
    server.answers["plasma_status_parts.servers"] = lambda: released.wait(30)
    try:
        found, problems = told(timeout=0.2)
    finally:
        released.set()
    assert found["servers"] is None
    assert [one[1] for one in problems] == ["servers could not be looked at: there was no answer within 0.2 seconds"]
