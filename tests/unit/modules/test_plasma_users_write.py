"""Changes of the account files through vipw and vigr, and the notes of earlier runs."""

from __future__ import annotations

import os
import stat

import pytest
from salt.exceptions import CommandExecutionError

import plasma_users_write as write
from tests.unit.modules.stand_in_accounts import PASSWD, SHADOW, StandInServer

ADDED = PASSWD + "anna:x:1001:1001::/home/anna:/bin/bash\n"


@pytest.fixture
def server(tmp_path, monkeypatch):
    return StandInServer(tmp_path, monkeypatch)


@pytest.fixture
def configure_loader_modules(server):
    return server.loader_modules()


def commit(server, kind, old, new):
    return write._swap(kind, old, new, server.root)


def test_two_edits_within_one_second(server):
    """vipw drops the second one when the time of last change did not move by a whole second."""
    assert commit(server, "passwd", PASSWD, ADDED) is None
    assert commit(server, "passwd", ADDED, PASSWD) is None
    assert server.text("passwd") == PASSWD
    assert server.path("etc/passwd-").read_text() == ADDED
    assert server.written() == ["passwd", "passwd"]


@pytest.mark.parametrize(
    ("order", "written"), [(write.ADDING, ["shadow", "passwd"]), (write.REMOVING, ["passwd", "shadow"])]
)
def test_the_line_in_passwd_comes_last_and_goes_first(server, order, written):
    rows = {"passwd": "anna:x:1001:1001::/home/anna:/bin/bash", "shadow": "anna:!:20000:0:99999:7:::"}
    plans = iter([{kind: {"anna": row.split(":")} for kind, row in rows.items()}, {}])
    write.change(lambda tables: next(plans), order=order, root=server.root)
    assert server.written() == written


def test_what_somebody_else_wrote_meanwhile_is_not_lost(server):
    server.meanwhile("passwd", 'echo "eve:x:1001:1001::/home/eve:/bin/sh" >> "$1"')
    assert "changed by somebody else" in commit(server, "passwd", PASSWD, ADDED)
    assert server.text("passwd").endswith("eve:x:1001:1001::/home/eve:/bin/sh\n")


def test_a_lock_of_somebody_else_is_told(server):
    server.write("etc/shadow.lock", "1")
    assert commit(server, "shadow", SHADOW, "") == "vipw: Couldn't lock file: File exists"
    assert server.text("shadow") == SHADOW


def test_no_hash_is_in_arguments_environment_or_files(server, tmp_path):
    """The editor gets the content in memory."""
    spy = tmp_path / "tools" / "vipw"
    spy.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/seen\nenv >> {tmp_path}/seen\nls -R {server.root} >> {tmp_path}/seen\n'
    )
    secret = "x:$y$j9T$secret:20000:0:99999:7:::\n"
    assert commit(server, "shadow", SHADOW, SHADOW + secret)  # the spy changes nothing, and that shows
    assert "$y$" not in (tmp_path / "seen").read_text()
    assert "VISUAL" in (tmp_path / "seen").read_text()


def change(server, plan):
    return write.change(plan, root=server.root)


def test_a_change_is_planned_again_until_it_is_there(server):
    server.meanwhile("group", 'echo "eve:x:1001:" >> "$1"')
    asked = []

    def plan(tables):
        rows = tables["group"]["rows"]
        asked.append("eve" in rows)
        return {} if "biology" in rows else {"group": {"biology": ["biology", "x", "1002", ""]}, "shadow": {}}

    change(server, plan)
    assert asked == [False, True, True]
    assert {"eve", "biology"} <= set(server.rows("group"))


@pytest.mark.parametrize("end", ["x:2000:", "x:2000:\n\n", "+"])
def test_a_file_whose_last_line_has_no_end(server, end):
    server.write("etc/group", f"{server.text('group')}{'' if end == '+' else 'maths:'}{end}")
    row = ["biology", "x", "2002", ""]
    change(server, lambda tables: {} if "biology" in tables["group"]["rows"] else {"group": {"biology": row}})
    assert server.text("group").endswith("\n")
    assert server.rows("group")["biology"] == row


def test_a_change_ends_when_it_never_gets_through(server, monkeypatch):
    monkeypatch.setattr(write.time, "sleep", lambda seconds: None)
    server.write("etc/group.lock", "1")
    with pytest.raises(CommandExecutionError, match=r"could not be changed \(vigr: .*lock.*\): apply again"):
        change(server, lambda tables: {"group": {"biology": ["biology", "x", "1002", ""]}})


def test_a_server_without_gshadow(server):
    server.path("etc/gshadow").unlink()
    rows = {"biology": ["biology", "!", "", ""]}
    change(server, lambda tables: {"gshadow": rows})
    assert not server.path("etc/gshadow").exists()


def test_two_applies_come_one_after_the_other(server):
    held, second = (write.lock(timeout=0, root=server.root) for _ in range(2))
    with held, pytest.raises(CommandExecutionError, match="Another apply changes accounts"), second:
        pass
    with write.lock(timeout=0, root=server.root):
        pass


def test_notes_are_roots_alone_and_come_back(server):
    names = ("given", "making", "removing", "uids", "gids", "forgotten", "marks", "renaming", "renamed")
    empty = {key: {} for key in names}
    assert write.recall(server.root) == empty
    notes = {**empty, "given": {"anna": ["video"]}, "uids": {"1002": "ben"}}
    old = os.umask(0)
    try:
        server.write("var/lib/plasma/.users.json.99999999.new", "left by a run that was killed")
        write.remember(notes, server.root)
    finally:
        os.umask(old)
    path = server.path("var/lib/plasma/users.json")
    assert write.recall(server.root) == notes
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["users.json"]


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_damaged_notes_are_refused(server, content):
    server.write("var/lib/plasma/users.json", content)
    with pytest.raises(CommandExecutionError, match=r"users.json is damaged \(.*\): move it away"):
        write.recall(server.root)
