"""People out of an archive: who is missing, whose ids do not fit, and that what is here stays."""

from __future__ import annotations

import json
import os
import pathlib

import pytest
from salt.exceptions import CommandExecutionError

import plasma_backup_program as backup
import plasma_restore_people as people
import plasma_users_write as write
from tests.unit.modules.backup_world import BackupWorld
from tests.unit.modules.stand_in_accounts import StandInServer

HASH = "$6$salt$hash-of-bea"


@pytest.fixture
def world(tmp_path):
    return BackupWorld(tmp_path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A fresh server: nobody but its first account, ubuntu (1000). A directory has a group 1002."""
    monkeypatch.setattr(people, "_elsewhere", lambda number: number == 1002)
    return StandInServer(tmp_path, monkeypatch)


@pytest.fixture
def configure_loader_modules(world, server):
    return world.loader_modules()


@pytest.fixture
def then():
    """The account files of the archive."""
    return {
        "passwd": "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n"
        "ubuntu:x:1000:1000::/home/ubuntu:/bin/bash\nbea:x:1001:1001:Bea:/home/bea:/bin/zsh\n",
        "shadow": f"root:*:1::::::\nubuntu:OLD:1::::::\nbea:{HASH}:20000:0:99999:7:::\n",
        "group": "root:x:0:\nsudo:x:27:ubuntu,bea\nubuntu:x:1000:\nbea:x:1001:\nmaths:x:2000:bea,ubuntu,gone\n",
        "gshadow": "root:*::\nsudo:*::ubuntu,bea\nubuntu:!::\nbea:!::\nmaths:!::bea,ubuntu,gone\n",
    }


@pytest.fixture
def about(then, monkeypatch):
    """An archive with those files, and with the home of bea."""

    def extract(path, into, parts, **options):
        for part in parts:
            if part == "accounts":
                pathlib.Path(into, "accounts").mkdir(parents=True)
                for kind, text in then.items():
                    pathlib.Path(into, "accounts", kind).write_text(text)
            else:
                pathlib.Path(into, part).mkdir(parents=True)
                pathlib.Path(into, part, "thesis.txt").write_text("chapter one")

    monkeypatch.setattr(backup, "extract", extract)
    return {"parts": ["hub", "accounts", "homes"], "homes": {"bea": 11}, "home_path": "/home", "seen": "x"}


@pytest.fixture
def looked(server, about, monkeypatch):
    return lambda **options: people.missing("archive", about, root=server.root, **options)


def add(server, about, found):
    return people.add("archive", about, found, root=server.root)


def test_who_is_missing(looked):
    found = looked()
    assert set(found["users"]) == {"bea"}
    assert found["users"]["bea"]["passwd"][2:6] == ["1001", "1001", "Bea", "/home/bea"]
    assert found["groups"] == {"bea": ["bea", "x", "1001", ""], "maths": ["maths", "x", "2000", "bea,ubuntu"]}
    assert found["members"] == {"sudo": ["bea"]}
    assert found["homes"] == ["bea"]


def test_they_are_added_with_their_passwords_and_what_is_here_stays(server, looked, about):
    before = server.rows("shadow")["ubuntu"]
    assert add(server, about, looked()) == {"users": ["bea"], "homes": ["bea"]}
    assert server.rows("passwd")["bea"] == ["bea", "x", "1001", "1001", "Bea", "/home/bea", "/bin/zsh"]
    assert server.rows("shadow")["bea"][1] == HASH
    assert server.rows("shadow")["ubuntu"] == before
    assert server.members("maths") == ["bea", "ubuntu"]
    assert server.members("sudo") == ["ubuntu", "bea"]
    assert server.path("home/bea/thesis.txt").read_text() == "chapter one"
    assert sorted(os.listdir(server.path("home"))) == ["bea", "ubuntu"]
    again = looked()
    assert not any(again.values())
    server.written()
    assert add(server, about, again) == {"users": [], "homes": []}
    assert server.written() == []


def test_a_home_that_is_there_is_left_alone(server, looked, about):
    server.home("bea", 1001)
    found = looked()
    assert found["homes"] == []
    add(server, about, found)
    assert server.path("home/bea/work.txt").exists()
    assert not server.path("home/bea/thesis.txt").exists()


def test_somebody_is_left_out(looked):
    found = looked(without=["bea"])
    assert found["users"] == {}
    assert set(found["groups"]) == {"maths"}
    assert found["groups"]["maths"][3] == "ubuntu"
    assert found["homes"] == []


def test_homes_in_another_place_are_not_restored(looked):
    assert looked(home_path="/srv/home")["homes"] == []


def test_an_archive_without_accounts(looked, about):
    about["parts"] = ["hub"]
    assert not any(looked().values())


@pytest.mark.parametrize(
    ("in_archive", "here", "number"),
    [
        ("jupyterhub-admins:x:1004:bea\n", "jupyterhub-admins:x:1001:\n", "1004"),
        # The archive is of a hub that had no such group, and the number that it has here is that of bea.
        ("", "jupyterhub-admins:x:1001:\n", "1003"),
        # Its number of then is somebody's here: that of here is nobody's then, and stays.
        ("jupyterhub-admins:x:1004:bea\n", "jupyterhub-admins:x:1007:\nother:x:1004:\n", "1007"),
        ("jupyterhub-admins:x:1004:bea\n", "jupyterhub-admins:x:1004:\n", "1004"),
    ],
)
def test_numbers_of_the_hubs_own_groups_make_room(server, then, looked, about, in_archive, here, number):
    then["group"] += in_archive
    then["gshadow"] += in_archive.replace("x:1004", "!:")
    server.write("etc/group", server.text("group") + here)
    server.write("etc/gshadow", server.text("gshadow") + "jupyterhub-admins:!::\n")
    found = looked()
    assert add(server, about, found)["users"] == ["bea"]
    assert server.rows("group")["jupyterhub-admins"][2] == number
    assert server.rows("group")["bea"][2] == "1001"
    assert server.members("jupyterhub-admins") == (["bea"] if in_archive else [])
    assert not any(looked().values())


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        ("bea:x:1500:1500::/home/bea:/bin/sh\n", "passwd", "The user bea has the id 1500 here and 1001 in the archive"),
        (
            "eve:x:1001:1500::/home/eve:/bin/sh\n",
            "passwd",
            "The user bea has the id 1001 in the archive, which is that of eve",
        ),
        ("bea:x:1500:\n", "group", "The group bea has the id 1500 here and 1001 in the archive"),
        ("other:x:1001:\n", "group", "The group bea has the id 1001 in the archive, which is that of other here"),
        ("maths:x:2001:\n", "group", "The group maths has the id 2001 here and 2000 in the archive"),
    ],
)
def test_ids_that_do_not_fit(server, looked, line, kind, said):
    server.write(f"etc/{kind}", server.text(kind) + line)
    before = server.snapshot()
    with pytest.raises(CommandExecutionError) as caught:
        looked()
    assert said in str(caught.value)
    assert "Nothing was changed" in str(caught.value)
    assert server.snapshot() == before


def test_hashes_are_not_in_messages(server, looked):
    server.write("etc/passwd", server.text("passwd") + "eve:x:1001:1500::/home/eve:/bin/sh\n")
    with pytest.raises(CommandExecutionError) as caught:
        looked()
    assert HASH not in json.dumps(str(caught.value))


def test_somebody_new_meanwhile_is_not_replaced(server, looked, about):
    found = looked()
    server.meanwhile("shadow", 'echo "bea:theirs:1::::::" >> "$1"')
    add(server, about, found)
    assert server.rows("shadow")["bea"][1] == "theirs"


def test_who_has_another_name_by_now_is_here(looked, server):
    """The archive is older than the new name: their uid is not somebody else's."""
    row = "beatrice:x:1001:1001:Bea:/home/beatrice:/bin/zsh\n"
    server.write("etc/passwd", server.text("passwd") + row)
    with pytest.raises(CommandExecutionError, match="which is that of beatrice here"):
        looked()
    memory = write.recall(server.root)
    write.remember({**memory, "renamed": {"bea": {"new": "beatrice", "uid": 1001}}}, server.root)
    found = looked()
    assert found["users"] == {} and found["homes"] == []
    # A note of somebody else's, with another number, says nothing.
    write.remember({**memory, "renamed": {"bea": {"new": "beatrice", "uid": 1002}}}, server.root)
    with pytest.raises(CommandExecutionError):
        looked()
