"""The doors of the host as a state sees them: who loses one, what is written, how they are."""

from __future__ import annotations

import json
import os
import pwd
import sqlite3
import time
from unittest.mock import MagicMock

import pytest
from salt.exceptions import CommandExecutionError

import _modules.plasma_ssh as plasma_ssh
import plasma_doors
import plasma_doors_files
import plasma_files
import plasma_ssh_seen

LIMITS = {"memory": "1.5G", "cpu": 2, "tasks": 256}
DROP_IN = "/etc/ssh/sshd_config.d/10-plasma.conf"
USES = plasma_ssh_seen.uses


class Server:
    """What the doors are set to, and what the other modules say of them."""

    def __init__(self, tmp_path):
        self.path = tmp_path / "lib" / "doors.json"
        self.files = {DROP_IN: {"old": None, "new": "Match"}}
        self.active, self.verdict, self.in_place, self.called, self.privileged = True, True, True, [], {"ops": "sudo"}

    def read(self):
        return json.loads(self.path.read_text()) if self.path.exists() else None

    def standing(self, config):
        users = (config or {}).get("users", [])
        return {
            "privileged": self.privileged,
            "open": users,
            "shut": [name for name in ("anna", "bert", "carl") if name not in users],
        }

    def functions(self):
        def record(name, value):
            def call(*arguments):
                self.called.append(name)
                if isinstance(value, Exception):
                    raise value
                return value

            return call

        return {
            "plasma_doors.read": self.read,
            "plasma_doors.standing": self.standing,
            "plasma_doors.lock": lambda: open(os.devnull),
            "plasma_systemd.check": lambda *words: self.called.append(" ".join(("systemctl", *words))),
            "plasma_systemd.active": lambda unit: self.active,
            "plasma_doors_files.compare": lambda config, who: self.files,
            "plasma_doors_files.put": record("files", {}),
            "plasma_doors_files.verdict": lambda name: self.verdict,
            "plasma_doors_rules.put": record("rules", True),
            "plasma_doors_rules.remove": record("no rules", True),
            "plasma_doors_rules.in_place": lambda who: self.in_place,
            "plasma_files.write": plasma_files.write,
            "plasma_ssh_seen.uses": MagicMock(return_value={"bert": ["keys for SSH", "crontab"]}),
            "plasma_users_leave.protected": lambda: {os.getuid() + 1: "is the account this apply comes from"},
        }


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path)


@pytest.fixture
def configure_loader_modules(server):
    return {plasma_ssh: {"__salt__": server.functions()}}


@pytest.fixture(autouse=True)
def places(server, tmp_path, monkeypatch):
    monkeypatch.setattr(plasma_ssh, "_UNIT_FILE", str(tmp_path / "plasma-doors.service"))
    monkeypatch.setattr(plasma_doors, "CONFIG", str(server.path))
    monkeypatch.setattr(plasma_ssh, "_PROGRAMS", [str(tmp_path / "doors.py")])


def test_the_first_apply_tells_who_loses_what(server):
    changes = plasma_ssh.compare(["anna"], [], LIMITS, {"users": ["anna"]})
    assert changes["shut out"] == {"old": None, "new": ["bert (keys for SSH, crontab)", "carl"]}
    assert changes["open to users"] == {"old": "everybody", "new": ["anna"]}
    assert changes[DROP_IN] == {"old": None, "new": "written"}
    assert server.called == []
    assert plasma_ssh.apply(["anna"], [], LIMITS, {"users": ["anna"]}) == changes
    assert server.called[:2] == ["files", "rules"]
    assert server.called[-1] == "systemctl restart plasma-doors.service"
    assert server.read()["limits"] == {"memory": 3 * 2**29, "cpu": 2, "tasks": 256}
    assert server.path.stat().st_mode & 0o777 == 0o600
    server.files = {}
    assert plasma_ssh.apply(["anna"], [], LIMITS, {"users": ["anna"]}) == {}
    # Only those who lose a door with this change.
    changes = plasma_ssh.compare([], [], LIMITS)
    assert changes["shut out"]["new"] == ["anna"]
    assert changes["open to users"] == {"old": ["anna"], "new": []}


def test_a_keeper_that_stands_still_is_started(server, tmp_path):
    plasma_ssh.apply([], [], LIMITS)
    server.files, server.active = {}, False
    assert plasma_ssh.compare([], [], LIMITS) == {"plasma-doors.service": {"old": "stopped", "new": "running"}}


def test_names_that_nobody_knows_are_refused():
    with pytest.raises(CommandExecutionError, match=r"open_to.users: 'no-such-user' is neither in pillar nor"):
        plasma_ssh.compare(["no-such-user"], [], LIMITS)
    with pytest.raises(CommandExecutionError, match=r"open_to.groups: 'no-such-group' is neither"):
        plasma_ssh.compare([], ["no-such-group"], LIMITS, {"users": ["no-such-group"]})


@pytest.mark.parametrize("privileged", [True, False])
def test_the_account_of_salt_stays_in_whatever_its_rights(server, monkeypatch, privileged):
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("salty", "x", uid, uid, "", "/", "/bin/sh")))
    if privileged:
        server.privileged = {"salty": "sudo"}
    plasma_ssh.apply([], [], LIMITS)
    assert server.read()["came_as"] == ([] if privileged else ["salty"])


def test_what_sshd_refuses_leaves_no_other_door_open(server, monkeypatch):
    def refuse(config, who):
        raise RuntimeError("SSH is left as it was, because ... shut out 'root'.")

    monkeypatch.setattr(plasma_doors_files, "put", refuse)
    with pytest.raises(CommandExecutionError, match="SSH is left as it was"):
        plasma_ssh.apply([], [], LIMITS)
    assert "rules" in server.called
    assert server.called[-1] == "systemctl restart plasma-doors.service"
    # The next apply tries again, as what was to be written is not there.
    assert list(plasma_ssh.compare([], [], LIMITS)) == [DROP_IN]


def test_all_of_it_is_taken_back(server, tmp_path):
    plasma_ssh.apply([], [], LIMITS)
    (tmp_path / "doors.py").write_text("")
    server.files = {DROP_IN: {"old": "Match", "new": None}}
    expected = {DROP_IN, str(server.path), str(tmp_path / "plasma-doors.service"), str(tmp_path / "doors.py")}
    assert set(plasma_ssh.compare_removed()) == expected
    assert set(plasma_ssh.remove()) == expected
    assert "no rules" in server.called
    server.files = {}
    assert plasma_ssh.remove() == {}
    assert plasma_ssh.health()["kept"] is False


@pytest.mark.parametrize(
    ("what", "value", "sentence"),
    [
        ("active", False, "keeper does not run: systemctl restart plasma-doors.service"),
        ("files", {DROP_IN: {"old": None, "new": "Match"}}, f"see {DROP_IN}: state.apply ssh"),
        ("in_place", False, "reach the host's inner ports: systemctl restart"),
    ],
)
def test_what_is_wrong_is_told_with_what_mends_it(server, what, value, sentence):
    plasma_ssh.apply(["anna"], [], LIMITS, {"users": ["anna"]})
    server.files = {}
    healthy = plasma_ssh.health()
    assert healthy == {"kept": True, "open": ["anna"], "privileged": ["ops"], "shut": 2, "problem": None}
    setattr(server, what, value)
    assert sentence in plasma_ssh.health()["problem"]


def test_an_open_door_is_told_before_a_keeper_that_does_not_run(server, monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    plasma_ssh.apply([], [], LIMITS)
    server.active, server.verdict = False, False
    assert f"sshd would let anna in, whom pillar shuts out, see {DROP_IN}: state" in plasma_ssh.health()["problem"]
    server.files = {}
    assert "sshd would let anna in, whom pillar shuts out, see /etc/ssh/sshd_config" in plasma_ssh.health()["problem"]


def test_what_people_have_used(tmp_path, monkeypatch):
    people = {
        name: pwd.struct_passwd((name, "x", uid, uid, "", f"/home/{name}", "/bin/bash"))
        for uid, name in enumerate(("anna", "bert", "carl", "dora"), 1001)
    }
    monkeypatch.setattr(pwd, "getpwnam", people.__getitem__)
    for name in people:
        (tmp_path / "home" / name / ".ssh").mkdir(parents=True)
    (tmp_path / "home/anna/.ssh/authorized_keys").write_text("ssh-ed25519 AAAA\n")
    # Whatever a link leads to is not looked at.
    (tmp_path / "home/dora/.ssh").rmdir()
    (tmp_path / "home/dora/.ssh").symlink_to(tmp_path / "home/anna/.ssh")
    for path in (plasma_ssh_seen.CRONTABS, plasma_ssh_seen.ATJOBS, plasma_ssh_seen.LINGER, plasma_ssh_seen.SESSIONS):
        (tmp_path / path.lstrip("/")).mkdir(parents=True)
    (tmp_path / "var/spool/cron/crontabs/bert").write_text("")
    (tmp_path / "var/lib/systemd/linger/bert").write_text("")
    (tmp_path / "run/systemd/users/1003").write_text("")
    (tmp_path / "var/log").mkdir()
    with open(tmp_path / "var/log/lastlog", "wb") as file:
        file.seek(1001 * plasma_ssh_seen._RECORD.size)
        file.write(plasma_ssh_seen._RECORD.pack(int(time.time()) - 86400, b"pts/0", b"host"))
        file.write(plasma_ssh_seen._RECORD.pack(1_000_000, b"pts/0", b"host"))
    names = [*people, "gone"]
    found = USES(names, root=str(tmp_path))
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86400))
    assert found == {
        "anna": ["keys for SSH", f"logged in on {day}"],
        "bert": ["crontab", "lingering"],
        "carl": ["session that is open"],
    }
    # Debian 13 keeps them in a database.
    (tmp_path / "var/lib/lastlog").mkdir()
    with sqlite3.connect(tmp_path / "var/lib/lastlog/lastlog2.db") as database:
        database.execute("CREATE TABLE Lastlog2 (Name TEXT PRIMARY KEY, Time INTEGER)")
        database.execute("INSERT INTO Lastlog2 VALUES ('dora', ?)", (int(time.time()) - 86400,))
    assert USES(names, root=str(tmp_path))["dora"] == [f"logged in on {day}"]
