"""Accounts and groups of other sources than this server's files.

Real accounts and groups of this machine stand for those of a directory: the plugin is shown files of accounts in which
they are not, so that all it knows of them comes from the account database.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import stat
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from tljh_plasma import accounts as module
from tljh_plasma import environments, homes, policy, privileged
from tljh_plasma.access import Entry
from tljh_plasma.accounts import AccountError, canonical, find_account, find_entry, group_names
from tljh_plasma.auth import PlasmaPAMAuthenticator
from tljh_plasma.rights import Entering
from tljh_plasma.servers import Servers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make accounts")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A function that makes this server's own files forget names, and takes lines that they have instead."""

    def forget(*names: str, passwd: str = "", group: str = "") -> None:
        for attribute, more in (("PASSWD", passwd), ("GROUP", group)):
            lines = Path(f"/etc/{attribute.lower()}").read_text().splitlines(keepends=True)
            path = tmp_path / attribute
            path.write_text("".join(line for line in lines if line.partition(":")[0] not in names) + more)
            monkeypatch.setattr(module, attribute, path)

    return forget


@pytest.fixture
def place():
    """A directory of root's for homes, as a pillar may name it."""
    path = Path(tempfile.mkdtemp(prefix="plasmat-", dir="/srv"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_uid_of_any_size_is_a_persons_where_it_comes_from_elsewhere(accounts, elsewhere):
    uid = 1_300_000_000 + secrets.randbelow(100_000_000)
    person = accounts.add("big", "--uid", str(uid), "--gid", "100")
    with pytest.raises(AccountError, match=f"system account: uid {uid} is not between"):
        find_entry(person.name)
    elsewhere(person.name)
    assert find_account(person.name).uid == uid


@pytest.mark.parametrize("uid", [1, 999, 61184, 65534, 65535])
def test_ids_of_the_system_are_no_persons_wherever_they_come_from(accounts, elsewhere, monkeypatch, uid):
    person = accounts.add("low")
    entry = pwd.struct_passwd((person.name, "x", uid, person.gid, "", str(person.home), "/bin/bash"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entry)
    elsewhere(person.name)
    with pytest.raises(AccountError, match="system account"):
        find_entry(person.name)


def test_directory_that_gives_somebody_the_uid_of_a_local_account_opens_nothing(accounts, elsewhere):
    # Whoever writes the directory could so log in with a password of their own, and get that account's home.
    victim = accounts.add("victim")
    thief = accounts.add("thief", "--uid", str(victim.uid), "--non-unique", "--no-user-group", home=str(victim.home))
    elsewhere(thief.name)
    with pytest.raises(AccountError, match=f"uid {victim.uid} of this server's own account '{victim.name}'"):
        find_entry(thief.name)


def test_primary_group_of_the_system_is_none_of_a_directorys(accounts, elsewhere):
    system = accounts.add_group("sys", "--system")
    person = accounts.add("insys", "--gid", system.gr_name)
    assert find_entry(person.name).pw_gid == system.gr_gid
    elsewhere(person.name)
    with pytest.raises(AccountError, match="own 'plasmat-sys"):
        find_entry(person.name)


@pytest.mark.parametrize("name", ["ann:x", "a/b", "a,b", "-rf", "a\nb"])
def test_names_that_no_file_of_accounts_could_hold_are_refused(monkeypatch, name):
    entry = pwd.struct_passwd((name, "x", 1234501105, 1234500513, "", "/home/x", "/bin/bash"))
    monkeypatch.setattr(pwd, "getpwnam", lambda asked: entry)
    with pytest.raises(AccountError, match="character that no account"):
        find_entry(name)


@pytest.mark.parametrize("name", ["fred@example.org", "EXAMPLE\\fred", "Fred Smith", "20231234", "jörg", "a.b-c_d$"])
def test_names_that_directories_have_are_names(monkeypatch, name):
    entry = pwd.struct_passwd((name, "x", 1234501105, 1234500513, "", "/home/x", "/bin/bash"))
    monkeypatch.setattr(pwd, "getpwnam", lambda asked: entry)
    assert find_entry(name) == entry


def test_all_spellings_of_a_name_are_one_user(monkeypatch):
    known = {"fred@example.org", "FRED@EXAMPLE.ORG", "EXAMPLE\\fred", "example\\fred", "Fred@example.org"}

    def getpwnam(name):
        if name not in known:
            raise KeyError(name)
        return SimpleNamespace(pw_name="fred@example.org")

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    assert {canonical(name) for name in known} == {"fred@example.org"}
    authenticator = PlasmaPAMAuthenticator(admin_users={"EXAMPLE\\fred"})
    assert {authenticator.normalize_username(name) for name in known} == {"fred@example.org"}
    assert canonical("Nobody@Example.org") is None
    assert authenticator.normalize_username("Nobody@Example.org") == "nobody@example.org"


def test_group_of_a_directory_with_the_name_of_a_local_one_is_not_that_group(accounts, monkeypatch):
    # Whoever names groups in the directory calls one "sudo", or as a course of this server.
    course = accounts.add_group("course")
    person = accounts.add("spoof")
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 1234501200])
    getgrgid = module.grp.getgrgid

    def with_spoof(gid):
        return module.grp.struct_group((course.gr_name, "x", gid, [])) if gid == 1234501200 else getgrgid(gid)

    monkeypatch.setattr(module.grp, "getgrgid", with_spoof)
    assert group_names(person.name) == {person.name}
    assert [group.name for group in find_account(person.name).groups] == ["group1234501200"]
    # sudo takes it for the group of that name, so the account is guarded as one that may become root.
    assert course.gr_name in module.alleged_groups(person.name)
    monkeypatch.setattr(privileged, "GROUPS", frozenset({course.gr_name}))
    assert "is in the group" in privileged.reason(person.name)


def test_directory_that_gives_its_people_the_number_of_a_local_group_puts_nobody_in_it(accounts, monkeypatch):
    course = accounts.add_group("numbered")
    member = accounts.add("member", "--groups", course.gr_name)
    other = accounts.add("other")
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, course.gr_gid])
    assert course.gr_name in group_names(member.name)
    assert group_names(other.name) == {other.name}
    assert find_account(other.name).groups == ()


def test_primary_group_that_is_a_local_one_makes_nobody_of_a_directory_its_member(accounts, elsewhere):
    course = accounts.add_group("primary")
    person = accounts.add("prim", "--gid", course.gr_name)
    assert group_names(person.name) == {course.gr_name}
    elsewhere(person.name)
    assert group_names(person.name) == frozenset()


def test_groups_with_blanks_capitals_and_large_numbers_count(accounts, elsewhere, monkeypatch):
    person = accounts.add("maths")
    group = module.grp.struct_group(("Students of Maths@example.org", "x", 1234501300, []))
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, group.gr_gid])
    getgrgid, getgrnam = module.grp.getgrgid, module.grp.getgrnam
    monkeypatch.setattr(module.grp, "getgrgid", lambda gid: group if gid == group.gr_gid else getgrgid(gid))
    monkeypatch.setattr(module.grp, "getgrnam", lambda name: group if name == group.gr_name else getgrnam(name))
    assert group.gr_name in group_names(person.name)
    assert [one.gid for one in find_account(person.name).groups] == [1234501300]


def test_groups_whose_capitals_the_directory_does_not_tell_apart_count_as_they_are_written(accounts, monkeypatch):
    """Active Directory has "Maths Teachers", and sssd calls it "maths teachers" by whichever spelling it is asked."""
    person = accounts.add("anycase")
    own = accounts.add_group("anycase-own")
    group = module.grp.struct_group(("maths teachers", "x", 1234501300, []))
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, group.gr_gid])
    getgrgid, getgrnam = module.grp.getgrgid, module.grp.getgrnam
    monkeypatch.setattr(module.grp, "getgrgid", lambda gid: group if gid == group.gr_gid else getgrgid(gid))
    monkeypatch.setattr(module.grp, "getgrnam", lambda name: group if name.lower() == group.gr_name else getgrnam(name))
    written = {"Maths Teachers", "Nobody's", own.gr_name, person.name.upper()}
    assert group_names(person.name, written) == {person.name, "maths teachers", "Maths Teachers"}
    assert group_names(person.name) == {person.name, "maths teachers"}
    # Whatever asks for rights asks with what pillar says.
    authenticator = PlasmaPAMAuthenticator(admin_groups={"Maths Teachers"})
    assert authenticator._administers(person.name) is True
    assert Entering.of(["%Maths Teachers"]).ask(person.name)
    assert Entering.of([person.name.upper()]).ask(person.name)
    assert not Entering.of(["Nobody"]).ask(person.name)
    keys = ("REPO", "REF", "IMAGE", "NAME", "MEMORY", "CPU")
    texts = ("https://example.org/course", "1", "course:1", "course", "", "")
    labels = {getattr(environments, f"LABEL_{key}"): text for key, text in zip(keys, texts, strict=True)}
    found = environments.from_images([{"Id": "sha256:1", "RepoTags": ["course:1"], "Labels": labels}])
    permissions = policy.Permissions({"course:1": Entry(("Maths Teachers",))}, False)
    servers = Servers(overrides=({"groups": ["Maths Teachers"], "timezone": "Europe/Berlin"},))
    some = policy.Limits(1, 1, 1)
    plan = policy.plan_server(person.name, {"image": "course:1"}, found, permissions, False, some, "", servers)
    assert plan.extras.timezone == "Europe/Berlin"


def test_members_of_a_group_administer_the_hub_from_their_login_on_and_as_long_as_they_are_in_it(accounts, monkeypatch):
    teachers = accounts.add_group("teachers")
    teacher, student = accounts.add("tea", "--groups", teachers.gr_name), accounts.add("stu")
    authenticator = PlasmaPAMAuthenticator(admin_groups={teachers.gr_name}, admin_users={"boss"})

    def admin(name):
        return asyncio.run(authenticator.is_admin(None, {"name": name}))

    assert (admin(teacher.name), admin(student.name), admin("boss")) == (True, False, True)
    monkeypatch.setattr(authenticator, "match_sessions", lambda *args: asyncio.sleep(0, True))
    for was in (True, False):
        user = SimpleNamespace(name=student.name, admin=was)
        answer = asyncio.run(authenticator.refresh_user(user, SimpleNamespace(db=None)))
        assert answer == ({"name": student.name, "admin": False} if was else True)
    # Where no group makes administrators, the hub's own word holds.
    assert asyncio.run(PlasmaPAMAuthenticator().is_admin(None, {"name": teacher.name})) is None


# Homes.


def test_home_is_made_at_the_first_login_and_never_again(accounts, elsewhere, place, tmp_path, monkeypatch):
    skeleton = tmp_path / "skel"
    (skeleton / ".config").mkdir(parents=True)
    (skeleton / ".profile").write_text("echo hello\n")
    (skeleton / "run").write_text("#!/bin/sh\n")
    (skeleton / "run").chmod(0o4755)
    (skeleton / "link").symlink_to("/etc/shadow")
    os.mkfifo(skeleton / "pipe")
    monkeypatch.setattr(homes, "SKELETON", skeleton)
    home = place / "example.org" / "ann"
    person = accounts.add("ann", home=str(home), create_home=False)
    with pytest.raises(AccountError, match="No such file"):
        find_account(person.name)
    # Accounts of this server get none: whoever makes those makes homes, or left them out.
    assert homes.ensure(person.name, [str(place)]) is False
    elsewhere(person.name)
    assert homes.ensure(person.name, [str(place)]) is True
    assert find_account(person.name).real_home == str(home)
    found = {path.name: path.lstat() for path in (home, *home.rglob("*"))}
    assert set(found) == {"ann", ".config", ".profile", "run", "link"}
    assert {(status.st_uid, status.st_gid) for status in found.values()} == {(person.uid, person.gid)}
    assert stat.S_IMODE(found["ann"].st_mode) == 0o700
    assert stat.S_IMODE(found["run"].st_mode) == 0o755
    assert (home.parent.stat().st_uid, stat.S_IMODE(home.parent.stat().st_mode)) == (0, 0o755)
    (home / ".profile").unlink()
    assert homes.ensure(person.name, [str(place)]) is False
    assert not (home / ".profile").exists()


@pytest.mark.parametrize("home", ["/etc/systemd/system/ssh.service.d", "/root/.ssh", "/srv/../etc/x", "/homes", "/srv"])
def test_home_is_made_in_places_for_homes_only(monkeypatch, place, home):
    # Whoever writes the directory says where homes are: a directory of theirs among units of systemd makes them root.
    entry = pwd.struct_passwd(("mallory", "x", 1234501105, 1234500513, "", home + "/new", "/bin/bash"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entry)
    with pytest.raises(AccountError, match="none of the places for homes") as caught:
        homes.ensure("mallory", [str(place)])
    assert caught.value.message.startswith("Your home directory on this server cannot be made: it is in none of")
    assert not os.path.lexists(home + "/new")


def test_home_is_not_made_where_somebody_else_can_change_the_way(accounts, elsewhere, place):
    person = accounts.add("way", home=str(place / "open" / "way"), create_home=False)
    (place / "open").mkdir()
    (place / "open").chmod(0o775)
    elsewhere(person.name)
    with pytest.raises(AccountError, match="writable by others than root"):
        homes.ensure(person.name, [str(place)])
    assert list((place / "open").iterdir()) == []


def test_home_is_not_made_while_its_file_system_is_away(accounts, elsewhere, place, tmp_path, monkeypatch):
    person = accounts.add("away", home=str(place / "away"), create_home=False)
    monkeypatch.setattr(homes, "FSTAB", tmp_path / "fstab")
    (tmp_path / "fstab").write_text(f"# homes\nserver:/homes {place} nfs4 defaults 0 0\n")
    elsewhere(person.name)
    with pytest.raises(AccountError, match=f"{place} is in .*fstab and not mounted"):
        homes.ensure(person.name, [str(place)])
    assert list(place.iterdir()) == []


def test_what_a_killed_hub_left_of_a_home_is_no_hindrance(accounts, elsewhere, place):
    person = accounts.add("left", home=str(place / "left"), create_home=False)
    (place / f"{homes.NEW}{person.uid}").mkdir()
    elsewhere(person.name)
    assert homes.ensure(person.name, [str(place)]) is True
    assert [path.name for path in place.iterdir()] == ["left"]


def test_person_is_told_what_is_wrong_with_the_place_of_homes(accounts, place):
    person = accounts.add("told", home=str(place / "told"))
    place.chmod(0o2775)
    with pytest.raises(AccountError) as caught:
        find_account(person.name)
    assert caught.value.message == (
        f"Your home directory on this server cannot be used: {place} is writable by others than root (mode 2775). "
        "Please ask the administrator of the server."
    )
