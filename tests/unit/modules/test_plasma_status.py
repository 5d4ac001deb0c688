"""``plasma.status`` as minions have it, as the controller of salt-ssh has it, and as a terminal shows it."""

from __future__ import annotations

import pathlib

import pytest

import _modules.plasma_status as plasma_status
import _output.plasma as shown
import _wrapper.plasma as wrapper
import plasma_site_record as plasma_site
from tests.support.paths import REPOSITORY
from tests.unit.salt_options import minion_options

PILLAR = {"plasma": {"limits": {"memory": "2G"}, "hub": {"provider": "pypi", "prefix": "/srv/hub"}}}
FOUND = {
    "healthy": False,
    "problems": [
        {"severity": "error", "problem": "It is broken", "mend": "mend it"},
        {"severity": "warning", "problem": "It is old", "mend": "renew it"},
    ],
    "server": {"os": "Debian 12", "docker": "26.1"},
    "versions": {"jupyterhub": {"installed": "5.5.4", "available": "5.5.5"}},
    "services": {"jupyterhub": "active (running)", "hub answers": True},
    "certificate": {
        "enabled": True,
        "domains": ["hub.example.org"],
        "not_after": "2027-01-02T00:00:00Z",
        "days_left": 38.2,
        "user_domains": False,
    },
    "disks": [{"mount": "/", "percent": 43, "size": "109 GB", "free": "62 GB", "holds": ["hub", "system"]}],
    "quotas": {"on": True, "exceeded": [{"name": "ada", "used": "2.0 GB", "limit": "1.0 GB"}]},
    "environments": [{"name": f"e{n}", "image": f"e{n}:1", "size": "1.0 GB", "bytes": 10**9} for n in range(14)],
    "servers": [{"user": "ada", "server": ""}, {"user": "ada", "server": "two"}],
    "backup": {"last": "2026-11-25T03:30:00Z", "age_hours": 5.2, "timer": "active"},
    "cockpit": None,
    "prune": None,
    "upgrade": None,
    "ssh": {"kept": True, "open": [], "privileged": ["ops"], "shut": 34, "problem": None},
    "applied": {"at": "2026-11-24T10:00:00Z", "pending": ["limits"]},
}


@pytest.fixture
def asked():
    return []


@pytest.fixture
def functions(asked):
    def report(*functions_and_grains, **arguments):
        asked.append(arguments)
        return FOUND

    files = {"pyproject.toml": "a", "tests/test_x.py": "b"}
    texts = {"requirements.txt": "jupyterhub==5.5.4\n", "src/tljh_plasma/__init__.py": '__version__ = "1.0"\n'}
    begin = "salt://tljh/plugin/"
    return {
        "plasma_status_report.report": report,
        "plasma_server.status": report,
        "pillar.items": lambda unmask: PILLAR,
        "plasma_site_record.wanted": plasma_site.wanted,
        "cp.list_master": lambda prefix: [f"{prefix}{name}" for name in files],
        "cp.hash_file": lambda url: {"hsum": files[url[len(begin) :]]},
        "cp.get_file_str": lambda url: texts[url[len(begin) :]],
    }


@pytest.fixture
def configure_loader_modules(functions, tmp_path):
    opts = minion_options(tmp_path, file_client="remote", color=False, color_theme=None)
    return {
        plasma_status: {"__salt__": functions, "__opts__": opts, "__context__": {}},
        wrapper: {
            "__salt__": functions,
            "__opts__": {"file_roots": {"base": [str(REPOSITORY / "salt")]}},
            "__pillar__": PILLAR,
            "__context__": {},
        },
        shown: {"__opts__": opts},
    }


def test_a_minion_compares_itself_with_its_master(asked):
    assert plasma_status.status(warn_at=70) is FOUND
    assert plasma_status.__context__["retcode"] == 1
    (arguments,) = asked
    assert (arguments["tool"], arguments["warn_at"], arguments["mistakes"]) == ("salt '{id}'", 70, [])
    wanted = arguments["wanted"]
    assert wanted["available"] == {"jupyterhub": "5.5.4", "tljh-plasma": "1.0"}
    assert wanted["plugin"] == plasma_site.plugin_digest({"pyproject.toml": "a"})
    assert wanted["digests"].keys() == PILLAR["plasma"].keys()


def test_without_a_master(asked):
    plasma_status.__opts__["file_client"] = "local"
    plasma_status.status()
    assert asked[0]["tool"] == "salt-call --local"


def test_a_healthy_server_ends_with_0(monkeypatch):
    monkeypatch.setitem(FOUND, "healthy", True)
    plasma_status.status()
    assert "retcode" not in plasma_status.__context__
    assert wrapper.status()["local"]["retcode"] == 0
    assert "retcode" not in wrapper.__context__


def test_the_controller_hands_over_what_its_tree_wants(asked):
    assert wrapper.status() == {"local": {"return": FOUND, "retcode": 1, "out": "plasma"}}
    assert wrapper.__context__["retcode"] == 1
    (arguments,) = asked
    assert arguments["tool"] == "salt-ssh '{id}'"
    wanted = arguments["wanted"]
    assert wanted["plugin"] == plasma_site.plugin_digest(plasma_site.plugin_files(REPOSITORY / "plugin"))
    assert {"jupyterhub", "tljh-plasma"} <= wanted["available"].keys()
    assert wanted["prefix"] == "/srv/hub"


def test_the_controller_says_what_is_wrong_with_pillar(asked):
    wrapper.__pillar__ = {"_errors": ["plasma.limts: unknown key"], "plasma": None}
    wrapper.status()
    assert asked[0]["mistakes"] == ["plasma.limts: unknown key"]
    assert "digests" not in asked[0]["wanted"]


def test_a_minion_says_what_is_wrong_with_pillar(asked):
    plasma_status.__salt__["pillar.items"] = lambda unmask: {"_errors": ["plasma.limts: unknown key"], "plasma": None}
    plasma_status.status()
    assert (asked[0]["mistakes"], asked[0]["wanted"]) == (["plasma.limts: unknown key"], {})


def test_a_tree_elsewhere_is_not_compared(asked, tmp_path):
    wrapper.__opts__["file_roots"] = {"base": [str(tmp_path)]}
    wrapper.status()
    assert asked[0]["wanted"] == {}


def test_problems_come_first_each_with_its_mend():
    lines = shown.output({"course": FOUND}).splitlines()
    assert lines[:5] == [
        "course: NOT HEALTHY, 1 error, 1 warning",
        "  !! It is broken",
        "       -> mend it",
        "   ! It is old",
        "       -> renew it",
    ]
    text = "\n".join(lines[5:])
    for line in (
        "  versions     jupyterhub 5.5.4 (5.5.5 available)",
        "  certificate  hub.example.org, until 2027-01-02 (38 days), people's servers share the hub's name "
        "(plasma.https.user_domains is off)",
        "  quotas       ada 2.0 GB of 1.0 GB",
        "               and 2 more",
        "  servers      2 servers: ada, ada/two",
        "  backup       2026-11-25T03:30:00Z (5 hours ago), timer active",
        "  ssh          open to nobody of the hub, and to root, ops; 34 shut out",
        "  applied      2026-11-24T10:00:00Z; pending: limits",
    ):
        assert line in text


def test_a_status_without_any_part_is_shown_too():
    empty = {key: None for key in FOUND} | {"healthy": False, "problems": []}
    assert shown.output({"course": empty}).startswith("course: NOT HEALTHY\n")


@pytest.mark.parametrize(
    ("ssh", "line"),
    [
        ({"kept": True, "open": ["ada"], "privileged": [], "shut": 0}, "open to ada, and to root; 0 shut out"),
        ({"kept": False}, "open to everybody with a key or a password"),
    ],
)
def test_who_may_log_in_is_shown(ssh, line):
    assert f"  ssh          {line}" in shown.output({"course": {**FOUND, "ssh": ssh}})


def test_gpus_are_counted_where_there_are_any():
    gpu = {"count": 4, "used": 2, "problem": None}
    assert "  GPUs         2 of 4 in use\n" in shown.output({"course": {**FOUND, "gpu": gpu}})
    assert "GPUs" not in shown.output({"course": {**FOUND, "gpu": {}}})


def test_a_part_without_lines_of_its_own_is_shown_as_it_is():
    lamps = {"lit": 3, "problem": None, "broken": []}
    assert "  lamps        lit 3\n" in shown.output({"course": {**FOUND, "lamps": lamps}})


@pytest.mark.parametrize("problem", [None, "They are dark."])
def test_a_part_that_has_nothing_but_a_problem_has_no_line(problem):
    assert "lamps" not in shown.output({"course": {**FOUND, "lamps": {"problem": problem}}})


def test_what_is_no_status_looks_as_always():
    assert "Permission denied" in shown.output({"course": "Permission denied"})


def test_the_files_are_where_conf_master_says():
    text = (REPOSITORY / "conf" / "master").read_text(encoding="utf-8")
    for folder in ("_wrapper", "_output"):
        assert f"- {folder}\n" in text
        assert pathlib.Path(REPOSITORY, folder, "plasma.py").is_file()
