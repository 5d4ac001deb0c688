"""Accounts and groups of any source, and what this server's own files say against them."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

import plasma_accounts as accounts


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A server with the accounts root and ubuntu and the groups ubuntu and biology, and a directory with two people."""
    (tmp_path / "passwd").write_text("root:x:0:0::/root:/bin/bash\nubuntu:x:1000:1000::/home/ubuntu:/bin/bash\n")
    (tmp_path / "group").write_text("root:x:0:\nsudo:x:27:ubuntu\nubuntu:x:1000:\nbiology:x:2000:ubuntu\n")
    monkeypatch.setattr(accounts, "PASSWD", str(tmp_path / "passwd"))
    monkeypatch.setattr(accounts, "GROUP", str(tmp_path / "group"))
    people = {
        "ubuntu": (1000, 1000, [1000, 27, 2000]),
        "fred@example.org": (1234501105, 1234500513, [1234500513, 1234501200]),
        # A directory that gives its own the numbers of this server's groups.
        "mallory@example.org": (1234501106, 2000, [2000, 27, 1234501300]),
    }
    groups = {
        "sudo": (27, ["ubuntu"]),
        "ubuntu": (1000, []),
        "biology": (2000, ["ubuntu"]),
        "Students of Maths": (1234501200, ["fred@example.org"]),
        "domain users": (1234500513, []),
    }

    def getpwnam(name):
        name = {"EXAMPLE\\fred": "fred@example.org"}.get(name, name)
        return SimpleNamespace(pw_name=name, pw_uid=people[name][0], pw_gid=people[name][1])

    def getpwuid(uid):
        return getpwnam({uid: name for name, (uid, _, _) in people.items()}[uid])

    def getgrgid(gid):
        name = {gid: name for name, (gid, _) in groups.items()}[gid]
        return SimpleNamespace(gr_name=name, gr_gid=gid, gr_mem=groups[name][1])

    monkeypatch.setattr(accounts.pwd, "getpwnam", getpwnam)
    monkeypatch.setattr(accounts.pwd, "getpwuid", getpwuid)
    monkeypatch.setattr(accounts.grp, "getgrgid", getgrgid)
    monkeypatch.setattr(accounts.grp, "getgrnam", lambda name: getgrgid(groups[name][0]))
    monkeypatch.setattr(accounts.os, "getgrouplist", lambda name, gid: people[name][2])


def test_spellings_of_one_account_are_one_name(directory):
    assert [accounts.canonical(name) for name in ("EXAMPLE\\fred", "fred@example.org")] == ["fred@example.org"] * 2
    assert accounts.canonical("Nobody@Example.org") == "nobody@example.org"


def test_members_are_those_whom_the_group_itself_knows(directory):
    everybody = ["ubuntu", "fred@example.org", "mallory@example.org", "gone"]
    assert accounts.members_among(everybody, ["Students of Maths"]) == {"fred@example.org"}
    assert accounts.members_among(everybody, ["domain users"]) == {"fred@example.org"}
    # Numbers that a directory gives away put nobody into groups of this server.
    assert accounts.members_among(everybody, ["biology", "sudo"]) == {"ubuntu"}
    assert accounts.members_among(everybody, ["no such group"]) == set()
    assert accounts.listed("Students of Maths") == ["fred@example.org"]
    assert accounts.listed("no such group") == []


@pytest.mark.parametrize(
    ("number", "person"),
    [(0, False), (999, False), (1000, True), (60001, True), (61184, False), (65534, False), (1234501105, True)]
    + [(2**32 - 2, False), (2**32 - 1, False), (200000, True)],
)
def test_numbers_of_people(directory, number, person):
    assert accounts.person(number) is person


def test_numbers_of_this_servers_own_accounts_end_where_those_of_the_system_begin(directory, tmp_path):
    with open(tmp_path / "passwd", "a") as file:
        file.write(
            "libvirt-qemu:x:64055:107::/var/lib/libvirt:/usr/sbin/nologin\nlate:x:60001:60001::/home/late:/bin/sh\n"
        )
    assert not accounts.person(60001)
    assert accounts.person(60001, "group")


def test_owners_of_homes_are_people_whom_no_list_names(directory, tmp_path, monkeypatch):
    homes = tmp_path / "homes"
    for name, uid in (("fred", 1234501105), ("ubuntu", 1000), ("gone", 4711), ("service", 33)):
        (homes / name).mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(homes / name, uid, uid)
    (homes / "link").symlink_to("/root")
    if os.geteuid() != 0:
        pytest.skip("needs root to give directories away")
    assert [entry.pw_name for entry in accounts.owners(str(homes))] == ["ubuntu", "fred@example.org"]
    assert accounts.owners(str(tmp_path / "none")) == []
