"""Uninstalling a hub from a directory that stands for a server."""

from __future__ import annotations

import fcntl
import json
import os
from unittest.mock import MagicMock

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_uninstall as uninstall
import plasma_run
import plasma_uninstall_host as host

PREFIX = "/opt/tljh"
NOTHING = {"servers": [], "builds": [], "networks": [], "images": []}


class Killed(BaseException):
    """kill -9, between two steps."""


@pytest.fixture
def server(tmp_path):
    """Files of a hub."""
    for path, text in {
        "opt/tljh/hub/bin/python3": "",
        "opt/tljh/plasma/receipt.json": "{}",
        "opt/tljh/config/config.yaml": "users: {}",
        "opt/tljh/state/jupyterhub.sqlite": "database",
        "etc/systemd/system/jupyterhub.service": f"ExecStart={PREFIX}/hub/bin/python3",
        "etc/systemd/system/traefik.service": f"ExecStart={PREFIX}/hub/bin/traefik",
        "etc/systemd/system/jupyterhub.service.d/plasma.conf": "[Unit]",
        "etc/systemd/system/traefik.service.d/plasma-limits.conf": "[Service]",
        "etc/systemd/system/traefik.service.d/plasma-dns.conf": "[Service]",
        "etc/systemd/system/ssh.service": "ExecStart=/usr/sbin/sshd",
        "etc/sudoers.d/jupyterhub-admins": "%jupyterhub-admins ALL=(ALL) NOPASSWD: ALL",
        "usr/bin/ls": "",
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "usr/bin/tljh-config").symlink_to(f"{PREFIX}/hub/bin/tljh-config")
    return tmp_path


@pytest.fixture
def functions():
    def mock(value=None):
        return MagicMock(return_value=value)

    made = {
        "plasma_uninstall_engine.found": mock(dict(NOTHING)),
        "plasma_uninstall_engine.packages": mock([]),
        "plasma_uninstall_engine.remove_containers": mock(),
        "plasma_uninstall_engine.remove_networks": mock([]),
        "plasma_uninstall_engine.remove_images": mock([]),
        "plasma_uninstall_engine.purge": mock(),
        "plasma_uninstall_host.stop": mock(),
        "plasma_uninstall_host.chains": mock(set()),
        "plasma_uninstall_host.remove_chains": mock(),
        "plasma_uninstall_host.empty_groups": mock({"empty": [], "used": []}),
        "plasma_uninstall_host.remove_groups": mock(),
        "plasma_engine.engine": mock(None),
        "plasma_quota_fstab.noted": mock({}),
        "plasma_quota_setup.disable": mock({"changes": {}, "notes": []}),
        "plasma_mounts.mounts": mock([{"target": "/"}]),
        "plasma_hub_installed.provider": mock("pypi"),
        "plasma_hub_installed.misplaced": mock(None),
        "plasma_users_leave.protected": mock({}),
        "plasma_users.problems": mock([]),
        "plasma_users.apply": mock({"error": None}),
        "plasma_upgrade.health": mock({}),
        "plasma_backup_program.create": mock({"path": "/backups/one.tar.gz"}),
    }
    for name in ("files", "remove_files", "put_aside", "delete"):
        made[f"plasma_uninstall_host.{name}"] = getattr(host, name)
    made["plasma_run.run"] = mock(plasma_run.Result(0))
    return made


@pytest.fixture
def configure_loader_modules(functions):
    return {uninstall: {"__salt__": functions}, host: {"__salt__": functions}}


def apply(server, **options):
    return uninstall.apply(PREFIX, options, root=str(server), directory=str(server))


def compare(server, **options):
    return uninstall.compare(PREFIX, options, root=str(server), directory=str(server))


def test_what_is_foretold_is_done_and_then_there_is_nothing(server, functions):
    (server / "opt/tljh/mine").mkdir()
    foretold = compare(server)
    assert (server / "opt/tljh/hub").exists()
    done = apply(server)
    assert done["removed"] == foretold["removed"]
    assert done["aside"].keys() == foretold["aside"].keys() == {f"{PREFIX}/config", f"{PREFIX}/state"}
    assert done["backup"] == "/backups/one.tar.gz"
    functions["plasma_backup_program.create"].assert_called_once()
    assert os.listdir(server / "opt/tljh") == ["mine"]
    assert any("mine" in sentence for sentence in done["left"])
    assert sorted(os.listdir(server / "etc/systemd/system")) == ["ssh.service"]
    assert os.listdir(server / "usr/bin") == ["ls"]
    assert not list((server / "etc/sudoers.d").iterdir())
    (place,) = (server / "var/backups/plasma").iterdir()
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "state/jupyterhub.sqlite").read_text() == "database"
    again = apply(server)
    assert (again["removed"], again["aside"], again["backup"]) == ({}, {}, None)
    functions["plasma_backup_program.create"].assert_called_once()


def test_an_empty_prefix_goes(server):
    apply(server)
    assert not (server / "opt/tljh").exists()


def test_data_is_deleted_only_when_named(server):
    done = apply(server, data=True)
    assert not done["aside"]
    assert not (server / "var/backups/plasma").exists()


def test_without_a_backup_nothing_goes(server, functions):
    functions["plasma_backup_program.create"].side_effect = CommandExecutionError("No space is left.")
    with pytest.raises(CommandExecutionError, match="No space is left"):
        apply(server)
    assert (server / "opt/tljh/hub").exists()
    functions["plasma_uninstall_host.stop"].assert_not_called()


@pytest.mark.parametrize(
    "where",
    ["stop", "remove_files", "remove_groups", "put_aside", "delete"],
)
def test_a_killed_run_is_finished_by_the_next(server, functions, where):
    key = f"plasma_uninstall_host.{where}"
    real, calls = functions[key], []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise Killed
        return real(*arguments)

    functions[key] = killed
    with pytest.raises(Killed):
        apply(server)
    done = apply(server)
    assert done["backup"] == "/backups/one.tar.gz"
    functions["plasma_backup_program.create"].assert_called_once()
    assert not (server / "opt/tljh").exists()
    assert len(list((server / "var/backups/plasma").iterdir())) == 1
    assert not (server / "var/lib/plasma/uninstall.json").exists()
    assert apply(server)["removed"] == {}


@pytest.mark.parametrize("prefix", ["/", "/opt", "/opt/../etc/x", "opt/tljh", "/opt/tljh/", ""])
def test_prefixes_that_are_none(server, prefix):
    with pytest.raises(CommandExecutionError, match=r"plasma\.hub\.prefix"):
        uninstall.compare(prefix, root=str(server))


def test_a_link_is_no_prefix(server):
    (server / "opt/tljh").rename(server / "opt/real")
    (server / "opt/tljh").symlink_to(server / "opt/real")
    with pytest.raises(CommandExecutionError, match="by a link"):
        apply(server)
    assert (server / "opt/real/hub").exists()


def test_links_in_the_prefix_are_not_followed(server):
    precious = server / "precious"
    precious.mkdir()
    (precious / "work").write_text("years")
    (server / "opt/tljh/user").symlink_to(precious)
    (server / "opt/tljh/hub/link").symlink_to(precious)
    apply(server)
    assert (precious / "work").read_text() == "years"
    assert not (server / "opt/tljh").exists()


def test_a_hub_below_another_prefix_stays_whole(server, functions):
    functions["plasma_hub_installed.misplaced"].return_value = "The hub of this server is in /srv/hub."
    before = sorted(map(str, server.rglob("*")))
    with pytest.raises(CommandExecutionError, match="is in /srv/hub"):
        apply(server)
    assert sorted(map(str, server.rglob("*"))) == before
    functions["plasma_uninstall_host.stop"].assert_not_called()


def test_mounts_are_refused(server, functions):
    functions["plasma_mounts.mounts"].return_value = [{"target": f"{PREFIX}/state/nfs"}]
    with pytest.raises(CommandExecutionError, match="/opt/tljh/state/nfs is mounted"):
        apply(server)


def test_an_installation_that_runs_is_not_disturbed(server):
    with open(server / "opt/tljh/plasma/install.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(CommandExecutionError, match="installation of the hub is running"):
            apply(server)
    assert (server / "opt/tljh/hub").exists()


def test_an_open_upgrade_is_finished_first(server, functions):
    functions["plasma_upgrade.health"] = MagicMock(return_value={"open": {"from": "1"}})
    with pytest.raises(CommandExecutionError, match="apply the state upgrade"):
        apply(server)


def test_a_hub_of_somebody_else_is_left_alone(server):
    for path in ("receipt.json",):
        (server / "opt/tljh/plasma" / path).unlink()
    (server / "opt/tljh/plasma").rmdir()
    with pytest.raises(CommandExecutionError, match="not installed from this tree"):
        apply(server)


def test_units_of_others_with_these_names_stay(server):
    (server / "etc/systemd/system/traefik.service").write_text("ExecStart=/usr/local/bin/traefik")
    done = apply(server)
    assert (server / "etc/systemd/system/traefik.service").exists()
    assert not any(path.endswith("traefik.service") for path in done["removed"]["units"])


@pytest.mark.parametrize(("option", "needed"), [("homes", "users"), ("docker", "environments")])
def test_options_that_need_another(server, option, needed):
    with pytest.raises(CommandExecutionError, match=f"needs plasma.uninstall.{needed}"):
        compare(server, **{option: True})


def test_environments_stay_unless_they_are_named(server, functions):
    functions["plasma_uninstall_engine.found"].return_value = {**NOTHING, "images": ["course:1", "used:1"]}
    assert any("2 environments" in sentence for sentence in compare(server)["left"])
    functions["plasma_uninstall_engine.remove_images"].return_value = ["used:1"]
    done = apply(server, environments=True)
    assert done["removed"]["environments"] == ["course:1"]
    assert any("used:1" in sentence for sentence in done["left"])


def test_people_stay_unless_they_are_named(server, functions, monkeypatch):
    people = {"ada": 1500, "me": 1000}

    accounts = [MagicMock(pw_name=name, pw_uid=uid) for name, uid in people.items()]
    monkeypatch.setattr(uninstall.pwd, "getpwall", lambda: accounts)
    functions["plasma_users_leave.protected"].return_value = {1000: "is the account this apply comes from"}
    arguments = {"users": ["ada", "gone", "me"], "root": str(server), "directory": str(server)}
    assert any("2 accounts" in sentence for sentence in uninstall.compare(PREFIX, {}, **arguments)["left"])
    done = uninstall.apply(PREFIX, {"users": True}, **arguments)
    assert done["removed"]["users"] == ["ada"]
    (call,) = functions["plasma_users.apply"].call_args_list
    assert call.args[0] == [{"name": "ada", "absent": True, "remove_home": False}]
    assert any("1 account with its home" in sentence and "comes from" in sentence for sentence in done["left"])


def test_the_last_backup_stays(server, functions):
    def archive(number):
        path = server / f"plasma-host-{number}-manual.tar.gz"
        path.write_text("")
        os.utime(path, (number, number))
        return {"path": str(path)}

    for number in (1, 2):
        archive(number)
    functions["plasma_backup_program.create"].side_effect = lambda **_: archive(3)
    foretold = compare(server, backups=True)
    done = apply(server, backups=True)
    assert done["removed"]["backups"] == foretold["removed"]["backups"]
    assert [path.name for path in server.glob("*.tar.gz")] == ["plasma-host-3-manual.tar.gz"]
    assert any("1 backup in " in sentence for sentence in done["left"])
    assert apply(server, backups=True)["removed"] == {}


def test_a_hub_that_was_never_complete_needs_no_backup(server, functions):
    functions["plasma_backup_program.create"].side_effect = CommandExecutionError("There is no hub.")
    (server / "opt/tljh/state/jupyterhub.sqlite").unlink()
    with pytest.raises(CommandExecutionError, match="no hub"):
        apply(server, data=True)
    done = apply(server)
    assert done["backup"] is None
    assert len(done["aside"]) == 2


def test_a_damaged_note_counts_as_none(server):
    note = server / "var/lib/plasma/uninstall.json"
    note.parent.mkdir(parents=True)
    note.write_text("{")
    apply(server)
    assert not note.exists()
    assert json.dumps(compare(server)["removed"]) == "{}"


# The firewall, as iptables-save shows it.

SAVED = """*filter
:INPUT ACCEPT [0:0]
:PLASMA-IN-br-plasma - [0:0]
:PLASMA-FW-br-plasma - [0:0]
:OTHERS - [0:0]
-A INPUT -i br-plasma -j PLASMA-IN-br-plasma
-A INPUT -j OTHERS
-A DOCKER-USER -i br-plasma -j PLASMA-FW-br-plasma
-A PLASMA-IN-br-plasma -j REJECT
COMMIT
"""
REMOVE_CHAINS = host.remove_chains


def test_only_chains_of_ours_go(functions, monkeypatch):
    fed = []

    def run(command, stdin="", **_):
        if stdin:
            fed.append((command[0], stdin))
        return plasma_run.Result(0, SAVED if command[0] == "iptables-save" and not fed else ":INPUT ACCEPT [0:0]")

    functions["plasma_run.run"] = run
    monkeypatch.setattr(host.shutil, "which", lambda *_, **__: "/usr/sbin/x")
    REMOVE_CHAINS()
    ((tool, text),) = fed
    assert tool == "iptables-restore"
    assert text.splitlines() == [
        "*filter",
        "-D INPUT -i br-plasma -j PLASMA-IN-br-plasma",
        "-D DOCKER-USER -i br-plasma -j PLASMA-FW-br-plasma",
        "-F PLASMA-IN-br-plasma",
        "-F PLASMA-FW-br-plasma",
        "-X PLASMA-IN-br-plasma",
        "-X PLASMA-FW-br-plasma",
        "COMMIT",
    ]
