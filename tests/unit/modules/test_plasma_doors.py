"""Who may come through the host's doors, and what the files and rules that see to it say."""

from __future__ import annotations

import ast
import grp
import json
import pwd
import subprocess
import sys

import pytest

import plasma_doors
import plasma_doors_files
import plasma_doors_rules
from _pillar.plasma import schema
from tests.support.paths import REPOSITORY

LIMITS = {"memory": 2**31, "cpu": 1.5, "tasks": 256}
CONFIG = {"users": ["anna"], "groups": ["assistants"], "came_as": ["salty"], "limits": LIMITS}
PEOPLE = {
    "root": (0, 0, "/bin/bash"),
    "daemon": (1, 1, "/usr/sbin/nologin"),
    "git": (998, 998, "/bin/sh"),
    "salty": (1000, 1000, "/bin/bash"),
    "ops": (1001, 1001, "/bin/bash"),
    "wheeler": (1002, 4000, "/bin/bash"),
    "builder": (1003, 1003, "/bin/bash"),
    "anna": (1004, 1004, "/bin/bash"),
    "bert": (1005, 1005, "/bin/bash"),
    "carl": (1006, 1006, "/bin/bash"),
    "locked": (1007, 1007, "/usr/sbin/nologin"),
    "far": (70000, 70000, "/bin/bash"),
    "nobody": (65534, 65534, "/usr/sbin/nologin"),
}
GROUPS = {"sudo": (27, []), "wheel": (4000, []), "docker": (101, ["builder"]), "assistants": (2000, ["bert", "ops"])}


def rule(*subjects):
    return {"User_List": list(subjects), "Cmnd_Specs": []}


@pytest.fixture
def tools(monkeypatch):
    """What programs of the server say, by their name; the commands are kept."""
    answers, asked = {}, []

    def run(*command, text=None):
        asked.append((command, text))
        answer = answers.get(command[0], (0, "", ""))
        return subprocess.CompletedProcess(command, *(answer(command) if callable(answer) else answer))

    monkeypatch.setattr(plasma_doors, "run", run)
    monkeypatch.setattr(plasma_doors.shutil, "which", lambda name, path: name)
    answers["asked"] = asked
    return answers


@pytest.fixture
def server(tools, monkeypatch, tmp_path):
    """Accounts, groups and rules of sudo."""
    entries = [
        pwd.struct_passwd((name, "x", uid, gid, "", f"/home/{name}", sh)) for name, (uid, gid, sh) in PEOPLE.items()
    ]
    groups = [grp.struct_group((name, "x", gid, members)) for name, (gid, members) in GROUPS.items()]

    def find(rows, index, key):
        found = [row for row in rows if row[index] == key]
        if not found:
            raise KeyError(key)
        return found[0]

    monkeypatch.setattr(pwd, "getpwall", lambda: entries)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: find(entries, 0, name))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: find(entries, 2, uid))
    monkeypatch.setattr(grp, "getgrnam", lambda name: find(groups, 0, name))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: find(groups, 2, gid))
    rules = [
        rule({"username": "root"}),
        rule({"usergroup": "sudo"}, {"username": "ALL"}, {"username": "carl", "negated": True}),
        rule({"userid": "1001"}, {"usergid": "4000"}, {"username": "not here"}),
    ]
    tools["cvtsudoers"] = (0, json.dumps({"User_Specs": rules}), "")
    (tmp_path / "subuid").write_text(
        "salty:100000:65536\nanna:165536:65536\n1005:300000:10\nops:400000:5\ncarl:500000:10\nbroken:x\n"
    )
    (tmp_path / "sudoers").write_text("")
    (tmp_path / "login.defs").write_text("# UID_MIN 5\nUID_MIN\t1000\nUID_MAX 60000\n")
    monkeypatch.setattr(plasma_doors._own_uids, "__defaults__", (str(tmp_path / "subuid"),))
    monkeypatch.setattr(plasma_doors.sudoers, "__defaults__", (str(tmp_path / "sudoers"),))
    monkeypatch.setattr(plasma_doors.people_range, "__defaults__", (str(tmp_path / "login.defs"),))
    return tools


def test_people_without_rights_of_root_are_shut_out_but_for_those_named(server):
    who = plasma_doors.standing(CONFIG)
    assert who["privileged"] == {
        "salty": "Salt comes as this user",
        "ops": "sudo",
        "wheeler": "group wheel",
        "builder": "group docker",
    }
    assert who["open"] == ["anna", "bert"]
    assert who["shut"] == ["carl"]
    # An account of the system that logs in, one of another range, and the groups by which sudo goes.
    assert who["users"] == ["anna", "far", "git", "ops", "root", "salty"]
    assert {"sudo", "wheel", "docker", "assistants"} <= set(who["groups"])
    assert who["free_uids"] == [0, 998, 1000, 1001, 1002, 1003, 70000]
    # Further numbers of people count as theirs; those of the privileged do not.
    assert who["session_uids"] == [1000, 1001, 1002, 1003, 1004, 1005]
    assert who["bound"] == [[1000, 60000], [165536, 300009], [500000, 500009]]


def test_without_pillars_leave_nobody_of_the_hub_comes_in(server):
    who = plasma_doors.standing(None)
    assert who["open"] == []
    assert who["shut"] == ["anna", "bert", "carl", "salty"]


@pytest.mark.parametrize(
    ("who", "door", "allowed"),
    [
        ("root", "job", True),
        ("git", "job", True),
        ("ops", "job", True),
        ("anna", "job", False),
        ("anna", "session", True),
        ("1004", "session", True),
        ("carl", "session", False),
        ("1006", "session", False),
        ("nowhere", "session", False),
    ],
)
def test_sessions_and_jobs(server, who, door, allowed):
    assert plasma_doors.allows(who, door, CONFIG) is allowed


@pytest.mark.parametrize("answer", [(1, "", "sudoers:3: syntax error"), (0, "no JSON", "")])
def test_nobody_is_shut_out_where_it_cannot_be_told_who_may_use_sudo(server, answer):
    server["cvtsudoers"] = answer
    with pytest.raises(RuntimeError, match="It cannot be told who may use sudo"):
        plasma_doors.standing(CONFIG)


def test_without_sudos_tool_its_files_are_read(server, tmp_path, monkeypatch):
    monkeypatch.setattr(plasma_doors.shutil, "which", lambda name, path: None)
    (tmp_path / "sudoers").write_text(
        "# anna ALL=(ALL) ALL\nDefaults env_reset\nDefaults:carl !lecture\nUser_Alias TEAM = ops, \\\n  %docker\n"
        "Cmnd_Alias SHELL = /bin/sh\nroot\tALL=(ALL:ALL) ALL\nALL ALL = NOPASSWD: SHELL\n"
        "@includedir sudoers.d\n#include more\n"
    )
    (tmp_path / "sudoers.d").mkdir()
    (tmp_path / "sudoers.d/people").write_text("TEAM , #1004 ALL = (root) NOPASSWD: /bin/x\n%#4000, !bert ALL=ALL\n")
    (tmp_path / "sudoers.d/README.txt").write_text("carl ALL=(ALL) ALL\n")
    (tmp_path / "more").write_text('"salty" ALL=(ALL) ALL\n')
    assert plasma_doors.sudoers(str(tmp_path / "sudoers")) == {
        "users": ["anna", "ops", "root", "salty"],
        "groups": ["docker", "wheel"],
    }
    (tmp_path / "more").unlink()
    with pytest.raises(RuntimeError, match="It cannot be told who may use sudo"):
        plasma_doors.sudoers(str(tmp_path / "sudoers"))


def test_the_configuration(tmp_path):
    path = tmp_path / "doors.json"
    assert plasma_doors.read(path) is None
    path.write_text(json.dumps(CONFIG))
    assert plasma_doors.read(path) == CONFIG
    path.write_text("{")
    with pytest.raises(RuntimeError, match="apply the state ssh"):
        plasma_doors.read(path)


# Files.


@pytest.fixture
def etc(server, tmp_path, monkeypatch):
    """The server's files, with cron, and sshd as it comes from the distribution."""
    for name, text in {
        "ssh/sshd_config": "Include x\n",
        "pam.d/cron": "@include common-auth\n",
        "sbin/sshd": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    files = plasma_doors_files
    monkeypatch.setattr(files, "SSHD", str(tmp_path / "sbin/sshd"))
    monkeypatch.setattr(files, "DROP_IN", str(tmp_path / "ssh/sshd_config.d/10-plasma.conf"))
    monkeypatch.setattr(files, "UNITS", str(tmp_path / "systemd"))
    monkeypatch.setattr(files, "PAM", (str(tmp_path / "pam.d/cron"), str(tmp_path / "pam.d/atd")))
    monkeypatch.setattr(files, "SSHD_RUN", str(tmp_path / "run/sshd"))

    def sshd(command):
        if command[1] == "-t":
            return 0, "", ""
        name = command[3].partition(",")[0].partition("=")[2]
        text = (tmp_path / "ssh/sshd_config.d/10-plasma.conf").read_text()
        free = f"!{name}," in text.replace(" Group", ", Group") or PEOPLE[name][0] in (1002, 1003)
        return 0, "port 22\n" + ("" if free else "denyusers *\n"), ""

    server[str(tmp_path / "sbin/sshd")] = sshd
    return tmp_path


def test_files_are_written_read_and_taken_back(etc, server):
    who = plasma_doors.standing(CONFIG)
    done = plasma_doors_files.put(CONFIG, who)
    assert plasma_doors_files.compare(CONFIG, who) == {}
    text = (etc / "ssh/sshd_config.d/10-plasma.conf").read_text()
    assert text.endswith("    DenyUsers *\nMatch all\n")
    assert "Match User *,!anna,!far,!git,!ops,!root,!salty Group *,!assistants," in text
    cron = (etc / "pam.d/cron").read_text()
    assert cron.startswith("# Plasma")
    assert cron.endswith("@include common-auth\n")
    assert not (etc / "pam.d/atd").exists()
    limits = (etc / "systemd/user-.slice.d/50-plasma.conf").read_text()
    for line in ("MemoryMax=2147483648", "CPUQuota=150%", "TasksMax=256"):
        assert line in limits
    assert "Max" not in (etc / "systemd/user-1001.slice.d/50-plasma.conf").read_text()
    commands = [command for command, _ in server["asked"]]
    assert ("systemctl", "daemon-reload") in commands
    assert ("systemctl", "reload", "ssh.service") in commands
    assert len(done) == 11
    # Somebody has no rights any more.
    fewer = plasma_doors.standing({**CONFIG, "came_as": []})
    assert list(plasma_doors_files.compare(CONFIG, fewer)) != []
    plasma_doors_files.put(CONFIG, fewer)
    assert not (etc / "systemd/user-1000.slice.d").exists()
    plasma_doors_files.put(None, fewer)
    assert (etc / "pam.d/cron").read_text() == "@include common-auth\n"
    assert list((etc / "systemd").iterdir()) == []
    assert list((etc / "ssh/sshd_config.d").iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda command: (255, "", "line 3: Bad configuration option: x"), "does not take its configuration: line 3"),
        (lambda command: (0, "denyusers *\n", ""), "would shut out 'root'"),
        (lambda command: (0, "port 22\n", ""), "does not read .*put the line `Include"),
    ],
)
@pytest.mark.parametrize("before", [None, "# as it was\n"])
def test_sshd_keeps_what_it_had_when_somebody_would_be_locked_out(etc, server, answer, sentence, before):
    drop_in = etc / "ssh/sshd_config.d/10-plasma.conf"
    if before:
        drop_in.parent.mkdir()
        drop_in.write_text(before)
    server[str(etc / "sbin/sshd")] = answer
    with pytest.raises(RuntimeError, match=sentence):
        plasma_doors_files.put(CONFIG, plasma_doors.standing(CONFIG))
    assert (drop_in.read_text() if drop_in.exists() else None) == before
    assert ("systemctl", "reload", "ssh.service") not in [command for command, _ in server["asked"]]


def test_managers_of_people_without_leave_are_stopped(server):
    lines = [f"user@{uid}.service loaded active running User Manager" for uid in (0, 1001, 1004, 1006, 70000)]
    server["systemctl"] = lambda command: (0, "\n".join(lines) if command[1] == "list-units" else "", "")
    assert plasma_doors_files.stop_managers(plasma_doors.standing(CONFIG)) == [1006]
    assert (("systemctl", "stop", "user@1006.service"), None) in server["asked"]


# Rules.


class Tables:
    """The filter table of one tool, as far as these rules go."""

    def __init__(self):
        self.rules = {"OUTPUT": ["-A OUTPUT -j SOMEBODY"]}

    def save(self, command):
        lines = [f":{chain} ACCEPT [0:0]" for chain in self.rules]
        return 0, "\n".join([*lines, *(line for chain in self.rules.values() for line in chain)]) + "\n", ""

    def restore(self, text):
        for line in text.splitlines()[1:-1]:
            words = line.split()
            if line.startswith(":"):
                self.rules[words[0][1:]] = []
            elif words[0] == "-A":
                self.rules[words[1]].append(line)
            elif words[0] == "-D":
                self.rules[words[1]].remove(line.replace("-D", "-A", 1))
            elif words[0] == "-I":
                self.rules[words[1]].insert(0, f"-A {words[1]} {' '.join(words[3:])}")
            elif words[0] == "-X":
                del self.rules[words[1]]


@pytest.fixture
def tables(tools, monkeypatch):
    made = Tables()
    monkeypatch.setattr(plasma_doors_rules, "_tools", lambda: ["iptables"])
    monkeypatch.setattr(
        plasma_doors_rules.shutil, "which", lambda name, path: name if name == "iptables-save" else None
    )
    tools["iptables-save"] = made.save

    def run(*command, text=None):
        if command[0] == "iptables-restore":
            made.restore(text)
        return subprocess.CompletedProcess(
            command, *(made.save(command) if command[0] == "iptables-save" else (0, "", ""))
        )

    monkeypatch.setattr(plasma_doors, "run", run)
    return made


WHO = {"bound": [[1000, 60000], [165536, 296607]], "free_uids": [0, 1000, 70000]}


def test_rules_are_entered_first_mended_and_taken_away(tables):
    state = {}
    assert not plasma_doors_rules.in_place(WHO)
    assert plasma_doors_rules.put(WHO, state)
    assert plasma_doors_rules.in_place(WHO)
    assert not plasma_doors_rules.put(WHO, state)
    assert [line.split()[-1] for line in tables.rules["OUTPUT"]] == ["PLASMA-OUT", "PLASMA-OUT", "SOMEBODY"]
    assert tables.rules["PLASMA-OUT"][0].endswith("--uid-owner 1000 -j RETURN")
    # Flushed; another rule before ours; somebody has rights of root now.
    tables.rules["PLASMA-OUT"].clear()
    assert not plasma_doors_rules.in_place(WHO)
    assert plasma_doors_rules.put(WHO, state)
    tables.rules["OUTPUT"].insert(0, "-A OUTPUT -j ACCEPT")
    assert not plasma_doors_rules.in_place(WHO)
    assert plasma_doors_rules.put(WHO, state)
    assert plasma_doors_rules.put({**WHO, "free_uids": [0, 1000, 1001]}, state)
    assert len(tables.rules["OUTPUT"]) == 4
    assert plasma_doors_rules.remove()
    assert not plasma_doors_rules.remove()
    assert set(tables.rules) == {"OUTPUT"}
    assert tables.rules["OUTPUT"] == ["-A OUTPUT -j ACCEPT", "-A OUTPUT -j SOMEBODY"]


def test_a_bridge_that_is_the_way_out_is_left_alone(tmp_path, monkeypatch):
    for name in ("br-lan/bridge", "br-plasma/bridge", "virbr0/bridge", "eth0"):
        (tmp_path / "net" / name).mkdir(parents=True)
    (tmp_path / "route").write_text("Iface Destination\nbr-lan\t00000000\t01\neth1\t0000A8C0\t00\n")
    monkeypatch.setattr(plasma_doors_rules, "_NET", str(tmp_path / "net"))
    monkeypatch.setattr(plasma_doors_rules, "_ROUTES", str(tmp_path / "route"))
    assert plasma_doors_rules.bridges() == ["docker+", "br-plasma", "virbr0"]
    (tmp_path / "route").write_text("Iface Destination\neth0\t00000000\t01\n")
    assert plasma_doors_rules.bridges() == ["docker+", "br-+", "virbr0"]


def test_the_keeper_needs_nothing_but_its_files(tmp_path):
    """No Salt, no other module of the tree: with the system's own Python, as on a server."""
    for source in (REPOSITORY / "salt/ssh/files/doors.py", *(REPOSITORY / "_utils").glob("plasma_doors*.py")):
        (tmp_path / source.name).write_text(source.read_text())
    command = [sys.executable, "-I", "-S", str(tmp_path / "doors.py"), "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[1]) == (
        2,
        "Keeps the host's doors as pillar wants them "
        "(plasma.ssh), whoever comes and goes: run by plasma-doors.service.",
    )


def test_the_groups_that_make_root_are_those_that_pillar_refuses():
    assert set(plasma_doors.ROOT_GROUPS) >= schema("names").ROOT_GROUPS
    # Whose server no administrator opens: those, and whoever reads what others do.
    text = (REPOSITORY / "plugin/src/tljh_plasma/privileged.py").read_text(encoding="utf-8")
    node = next(
        node for node in ast.parse(text).body if isinstance(node, ast.Assign) and node.targets[0].id == "GROUPS"
    )
    in_the_hub = {word.value for word in ast.walk(node) if isinstance(word, ast.Constant)}
    assert in_the_hub >= set(plasma_doors.ROOT_GROUPS)
