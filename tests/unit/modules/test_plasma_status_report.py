"""What is wrong with a server, and what mends it."""

from __future__ import annotations

import inspect
import threading

import pytest
from salt.exceptions import CommandExecutionError

import plasma_site_record as plasma_site
import plasma_status_report as report
from tests.support.paths import REPOSITORY

UNIT = {"ActiveState": "active", "SubState": "running"}
DISK = {"mount": "/", "holds": ["system"], "percent": 40, "free": "60 GB", "inodes_percent": 3}
HEALTH = (
    "plasma_databases.health",
    "plasma_https.health",
    "plasma_cockpit.health",
    "plasma_backup.health",
    "plasma_prune.health",
    "plasma_upgrade.health",
    "plasma_hub_ports.health",
    "plasma_hub_secrets.health",
    "plasma_ssh.health",
    "plasma_directory.health",
)
WANTED = {"digests": {"limits": "1"}, "plugin": None, "available": {"jupyterhub": "5.5.4"}}


class Server:
    """What each part answers: a value, an error, or a function to call."""

    def __init__(self):
        self.answers = {
            "plasma_status_parts.system": {"os": "Debian 12", "docker": "26.1"},
            "plasma_status_parts.environments": [],
            "plasma_status_parts.servers": [],
            "plasma_status_parts.pages": None,
            "plasma_status_parts.program": None,
            "plasma_status_parts.disks": [DISK],
            "plasma_docker_daemon.docker_root": "/srv/docker",
            "plasma_status_parts.exceeded": [],
            "plasma_lock.turn_taken": False,
            "plasma_hub_installed.packages": {"jupyterhub": "5.5.4", "pip": "24"},
            "plasma_hub_installed.receipt": {"provider": "pypi", "complete": True},
            "plasma_hub_installed.provider": "pypi",
            "plasma_hub_installed.misplaced": None,
            "tljh_service.units": {"traefik.service": dict(UNIT), "jupyterhub.service": dict(UNIT)},
            "tljh_settings.ready": {"ready": True, "problem": None},
            "tljh_settings.pending": None,
            "plasma_site_record.record": {"at": "2026-11-25T08:00:00Z", "sections": {"limits": "1"}},
            "plasma_site_record.plugin_files": {"pyproject.toml": "0"},
            **dict.fromkeys(HEALTH),
        }
        self.asked = {}

    def function(self, name):
        def answer(*arguments, **options):
            self.asked[name] = arguments or options
            found = self.answers[name]
            if isinstance(found, Exception):
                raise found
            return found() if callable(found) else found

        # Of the functions ``health``, each takes one of these.
        taken = "directory" if name == "plasma_backup.health" else "prefix"
        answer.__signature__ = inspect.Signature([inspect.Parameter(taken, inspect.Parameter.KEYWORD_ONLY)])
        return answer


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def configure_loader_modules(server):
    return {report: {"__salt__": {name: server.function(name) for name in server.answers}}}


def told(wanted=WANTED, **options):
    found = report.report(report.__salt__, {"id": "course"}, REPOSITORY / "_modules", wanted, **options)
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
    assert server.asked["plasma_hub_installed.packages"] == ("/srv/hub",)
    assert server.asked["plasma_status_parts.exceeded"] == ("/srv/homes", "/dev/sdb")
    assert server.asked["plasma_backup.health"] == {"directory": "/srv/b"}
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


def test_a_hub_below_another_prefix_is_one_error(server):
    """Applying is refused, and nothing below the prefix of pillar is lost."""
    server.answers["plasma_hub_installed.provider"] = None
    server.answers["plasma_hub_installed.receipt"] = {}
    server.answers["plasma_hub_installed.packages"] = {}
    server.answers["plasma_hub_installed.misplaced"] = (
        "The hub of this server is in /opt/tljh, and pillar says /srv/hub: set plasma.hub.prefix to /opt/tljh, or "
        "uninstall that hub first (a hub is never moved)."
    )
    server.answers["tljh_settings.ready"] = CommandExecutionError("no hub")
    server.answers["plasma_hub_secrets.health"] = {
        "problem": "Lost or spoilt: /srv/hub/state: tljh_config.reload proxy"
    }
    server.answers["plasma_databases.health"] = {"problems": ["jupyterhub.sqlite is gone: `state.apply`"]}
    _, problems = told()
    (first, *others) = problems
    assert first[1] == "The hub of this server is in /opt/tljh, and pillar says /srv/hub"
    assert first[2].startswith("set plasma.hub.prefix to /opt/tljh, or uninstall that hub first")
    assert [one for one in others if one[0] == "error"] == []


@pytest.mark.parametrize("up", [True, False])
def test_a_program_of_the_proxy_that_a_restart_does_not_bring_back(server, up):
    server.answers["plasma_status_parts.program"] = "/opt/tljh/hub/bin/traefik is gone: `state.apply tljh`"
    if not up:
        server.answers["tljh_service.units"]["traefik.service"]["ActiveState"] = "failed"
        server.answers["tljh_settings.ready"] = {"ready": False, "problem": "traefik.service failed"}
    _, problems = told()
    mend = "salt-ssh 'course' state.apply tljh"
    down = [("error", "The hub does not answer: traefik.service failed", mend)]
    assert problems == [("error", "/opt/tljh/hub/bin/traefik is gone", mend), *([] if up else down)]


@pytest.mark.parametrize(("down", "component"), [("jupyterhub.service", "hub"), ("traefik.service", "proxy")])
def test_the_hub_down(server, down, component):
    server.answers["tljh_service.units"][down]["ActiveState"] = "failed"
    server.answers["tljh_settings.ready"] = {"ready": False, "problem": f"{down} failed"}
    _, problems = told()
    assert problems == [
        ("error", f"The hub does not answer: {down} failed", f"salt-ssh 'course' tljh_config.reload {component}")
    ]


def test_damaged_files_come_first_and_no_reload_is_offered(server):
    server.answers["plasma_databases.health"] = {
        "problems": ["plasma.sqlite, which says it, is gone: `plasma_databases.mend plasma.sqlite`"]
    }
    server.answers["tljh_settings.ready"] = {"ready": False, "problem": "it crashes"}
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
    server.answers.update(
        {"plasma_hub_installed.provider": None, "plasma_hub_installed.receipt": {}, "plasma_hub_installed.packages": {}}
    )
    server.answers["tljh_settings.ready"] = {"ready": False, "problem": "there is none"}
    _, problems = told()
    assert problems == [("error", "No hub is installed here", "salt-ssh 'course' state.apply")]


NO_PYTHON = (
    "error",
    "The hub will not start again: it was installed for a Python that this server no longer has",
    "salt-ssh 'course' state.apply",
)


def test_an_upgrade_of_the_system_took_the_hubs_python(server):
    """It goes on until the server is rebooted."""
    server.answers["plasma_hub_installed.packages"] = {}
    assert told()[1] == [NO_PYTHON]
    server.answers["tljh_settings.ready"] = {"ready": False, "problem": "the unit failed"}
    assert told()[1] == [NO_PYTHON, ("error", "The hub does not answer: the unit failed", NO_PYTHON[2])]


def test_an_interrupted_installation(server):
    server.answers["plasma_hub_installed.receipt"]["complete"] = False
    _, problems = told()
    assert problems == [("error", "The installation of the hub was interrupted", "salt-ssh 'course' state.apply")]


def test_an_interrupted_reload(server):
    server.answers["tljh_settings.pending"] = "proxy"
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
    server.answers[next(name for name in HEALTH if part in name)] = {"problem": sentence, "days_left": days}
    found, problems = told()
    assert problems == [(severity, problem, mend)]
    assert found["healthy"] is (severity == "warning")


@pytest.mark.parametrize("off", [["cockpit"], ["ssh"]])
def test_what_pillar_does_not_ask_for_is_mended_by_taking_it_away(server, off):
    """The state itself does nothing then."""
    server.answers["plasma_cockpit.health"] = {
        "problem": "Cockpit is not installed any more: run `state.apply cockpit`."
    }
    mend = "state.apply cockpit.disabled" if off == ["cockpit"] else "state.apply cockpit"
    assert told({**WANTED, "off": off})[1] == [
        ("error", "Cockpit is not installed any more", f"salt-ssh 'course' {mend}")
    ]


@pytest.mark.parametrize("problem", [None, "People of x.org cannot log in: systemctl restart sssd.service"])
def test_a_directory_that_pillar_names_no_more_is_taken_away(server, problem):
    """What mends sssd would help nobody."""
    server.answers["plasma_directory.health"] = {"domain": "x.org", "online": not problem, "problem": problem}
    found, problems = told({**WANTED, "off": ["directory"]})
    assert problems == [
        (
            "warning",
            "Pillar names no directory any more, and this server is still joined to x.org",
            "salt-ssh 'course' state.apply directory.disabled",
        )
    ]
    assert found["healthy"] is True
    # Where none was joined there is nothing to take away; and where pillar names one, it is to run.
    server.answers["plasma_directory.health"] = None
    assert told({**WANTED, "off": ["directory"]})[1] == []
    server.answers["plasma_directory.health"] = {"domain": "x.org", "online": not problem, "problem": problem}
    assert [one[0] for one in told()[1]] == (["error"] if problem else [])


def test_pending_settings(server):
    found, problems = told({**WANTED, "digests": {"limits": "2", "cull": "1"}})
    assert problems == [
        ("warning", "Pillar was changed since the last apply: cull, limits", "salt-ssh 'course' state.apply")
    ]
    assert (found["healthy"], found["applied"]["pending"]) == (True, ["cull", "limits"])


def test_never_applied_completely(server):
    server.answers["plasma_site_record.record"] = {}
    assert told()[0]["applied"] == {"at": None, "pending": ["the whole site"]}
    # Where pillar is not known, nothing is compared.
    assert told({})[1] == []


def test_another_release_in_the_tree(server):
    found, problems = told({**WANTED, "plugin": "other", "available": {"jupyterhub": "6.0.0"}})
    assert problems == [
        (
            "warning",
            "This tree has another release of the hub's plugin or packages: jupyterhub 5.5.4 -> 6.0.0",
            "salt-ssh 'course' state.apply upgrade",
        )
    ]
    assert found["applied"]["pending"] == ["versions"]
    assert told({**WANTED, "plugin": plasma_site.plugin_digest({"pyproject.toml": "0"})})[1] == []


def test_mistakes_in_pillar_come_first(server):
    server.answers["plasma_site_record.record"] = {}
    _, problems = told(mistakes=["plasma.limts: unknown key"], tool="salt '{id}'")
    assert [one[0] for one in problems] == ["error", "warning"]
    assert problems[0][1].endswith("plasma.limts: unknown key")
    assert problems[1][2] == "salt 'course' state.apply"


def test_whatever_fails_is_a_line(server):
    for name in server.answers.keys() - {"plasma_docker_daemon.docker_root"}:
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


def test_the_health_of_a_new_capability_is_found_and_shown(server, tmp_path):
    """A module is all that it needs: one that has no such function, or none that Salt offers, is passed over."""
    for name, text in {"lamps": "def health(): ...", "motd": "", "gone": "def health(): ..."}.items():
        (tmp_path / f"plasma_{name}.py").write_text(text)
    server.answers["plasma_lamps.health"] = {"lit": 3, "problem": "A lamp is broken: state.apply lamps"}
    salt = {"plasma_lamps.health": server.function("plasma_lamps.health")}
    found = report.report(salt, {"id": "course"}, tmp_path, WANTED)
    assert found["lamps"]["lit"] == 3
    assert {"gone", "motd"}.isdisjoint(found)
    mend = "salt-ssh 'course' state.apply lamps"
    assert {"severity": "error", "problem": "A lamp is broken", "mend": mend} in found["problems"]


def test_an_apply_that_runs_is_said_before_what_it_may_be_at(server):
    server.answers["plasma_status_parts.system"] = {"os": "Debian 12", "docker": None}
    server.answers["plasma_lock.turn_taken"] = True
    _, problems = told()
    assert [severity for severity, *_ in problems[:2]] == ["warning", "error"]
    assert problems[0][1].startswith("An apply runs on this server") and "make follow ID=course" in problems[0][2]
    server.answers["plasma_lock.turn_taken"] = False
    assert not any(problem.startswith("An apply runs") for _, problem, _ in told()[1])
