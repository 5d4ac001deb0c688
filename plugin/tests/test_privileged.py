"""Who may become root: groups, sockets, what sudo says, and accounts that share a user id."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
from types import SimpleNamespace

import pytest
from tljh_plasma import privileged, rights
from tljh_plasma.rights import AllBut, Entering, maker_of

# As sudo 1.9.13 of Debian 12 says it.
NO_RULE = "User {name} is not allowed to run sudo on hub.\n"
A_RULE = (
    "Matching Defaults entries for anna on hub:\n    env_reset, mail_badpass\n\n"
    "User anna may run the following commands on hub:\n    (root) NOPASSWD: /usr/bin/systemctl restart x\n"
)


@pytest.fixture
def person(accounts):
    return accounts.add("plain")


@pytest.fixture
def sudo(tmp_path, monkeypatch):
    """Puts a program in the place of sudo, which says and does what it is told."""
    program = tmp_path / "sudo"

    def say(text, code=0, more=""):
        program.write_text(
            f"#!/bin/sh\nprintf '%s\\n' \"$*\" >> {tmp_path}/asked\n{more}\ncat <<'E'\n{text}\nE\nexit {code}\n"
        )
        program.chmod(0o755)
        monkeypatch.setattr(privileged.shutil, "which", lambda name, path=None: str(program))

    say.asked = lambda: (tmp_path / "asked").read_text().splitlines()
    return say


def test_groups_that_give_the_server_away(accounts, person):
    assert privileged.reason(person.name) == ""
    for group in ("sudo", "adm", "shadow"):
        other = accounts.add("grouped", "--groups", group)
        assert privileged.reason(other.name) == f"{other.name} is in the group {group}"
    first = accounts.add("primary", "--gid", "disk")
    assert "disk" in privileged.reason(first.name)
    assert privileged.reason("root") and privileged.reason("plasmat-nobody-of-this-name") == ""


def test_another_name_of_the_same_user_id(accounts):
    operator = accounts.add("both", "--groups", "sudo")
    other = accounts.add("same", "--non-unique", "--uid", str(operator.uid))
    assert operator.name in privileged.reason(other.name)


def test_the_group_of_an_engines_socket(accounts, tmp_path, monkeypatch):
    group = accounts.add_group("engine")
    person = accounts.add("engineer", "--groups", group.gr_name)
    path = tmp_path / "engine.sock"
    monkeypatch.setattr(privileged, "SOCKETS", (str(path),))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        os.chown(path, 0, group.gr_gid)
        path.chmod(0o660)
        assert "engine that is root" in privileged.reason(person.name)
        path.chmod(stat.S_IRUSR)
        assert privileged.reason(person.name) == ""


def test_what_sudo_says(person, sudo):
    no_rule = NO_RULE.format(name=person.name)
    sudo(no_rule)
    assert privileged.reason(person.name) == ""
    assert sudo.asked() == [f"-n -l -U {person.name}"]
    sudo(no_rule, 1)
    assert privileged.reason(person.name) == ""
    sudo(A_RULE)
    assert privileged.reason(person.name) == "it may use sudo"
    # No answer is no leave.
    for text, code in ((NO_RULE, 0), ("", 1), ("sudo: unable to initialize policy plugin", 1), ("syntax error", 3)):
        sudo(text, code)
        assert privileged.reason(person.name)


def test_a_sudo_that_does_not_end(person, sudo, monkeypatch):
    monkeypatch.setattr(privileged, "PATIENCE", 0.2)
    sudo("", more="exec sleep 30")
    assert "cannot be asked" in privileged.reason(person.name)


def test_answers_are_kept_until_a_file_changes(accounts, monkeypatch):
    person = accounts.add("kept")
    asked = []
    remembered = privileged.Remembered(lambda name: asked.append(name) or privileged.reason(name), "unknown")
    assert remembered.answer(person.name) == "unknown"
    asyncio.run(remembered.look([person.name, person.name]))
    asyncio.run(remembered.look([person.name]))
    assert (asked, remembered.answer(person.name), remembered.generation) == ([person.name], "", 1)
    subprocess.run(["usermod", "--append", "--groups", "sudo", person.name], check=True)
    asyncio.run(remembered.look([person.name]))
    assert "sudo" in remembered.answer(person.name)
    # And not for ever where no file changes, as with a directory.
    monkeypatch.setattr(privileged, "MAX_AGE", -1)
    asyncio.run(remembered.look([person.name]))
    assert len(asked) == 3
    monkeypatch.setattr(privileged, "MAX_AGE", -100)
    assert remembered.answer(person.name) == "unknown"


def test_everybody_but_some(monkeypatch):
    known = SimpleNamespace(generation=1, answer=lambda name: "sudo" if name in ("root1", "me") else "")
    monkeypatch.setattr(privileged, "accounts", known)
    mine = AllBut("me")
    assert ("anna" in mine, "root1" in mine, "me" in mine) == (True, False, True)
    same, other = AllBut("me"), AllBut("you")
    assert mine == same and hash(mine) == hash(same) and mine != other
    known.generation = 2
    assert AllBut("me") != mine
    with pytest.raises(TypeError):
        list(mine)


def test_who_may_enter(accounts):
    group = accounts.add_group("helpers")
    helper = accounts.add("helper", "--groups", group.gr_name)
    assert Entering.of(("administrators",)).ask("anybody")
    assert not Entering.of(()).ask("anybody")
    listed = Entering.of(("anna", f"%{group.gr_name}"))
    assert listed.ask("anna") and listed.ask(helper.name) and not listed.ask("bea") and not listed.ask("administrators")


@pytest.mark.parametrize(
    ("note", "maker"),
    [
        ("mine", None),
        ("", None),
        (None, None),
        ("script (requested by user anna)", ("user", "anna")),
        ("x (requested by user bea) (requested by service tests)", ("service", "tests")),
        # As JupyterHub says it by itself.
        ("Requested via api by user a.b@c", ("user", "a.b@c")),
        ("Requested via api", None),
        ("two words\n(requested by service a service)", ("service", "a service")),
    ],
)
def test_who_made_a_token(note, maker):
    assert maker_of(note) == maker


def test_the_gate_is_there_and_needs_its_places(monkeypatch):
    from jupyterhub.handlers.base import BaseHandler

    monkeypatch.setattr(rights, "_gate", None)
    monkeypatch.delattr(BaseHandler, "_resolve_roles_and_scopes")
    with pytest.raises(RuntimeError, match="no place for the plugin's gate"):
        rights.install(Entering())
