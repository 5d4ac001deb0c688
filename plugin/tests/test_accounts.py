"""Which accounts are people's, on the real account database of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from tljh_plasma import accounts as module
from tljh_plasma.accounts import AccountError, Group, find_account, find_entry, resolve_trusted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make accounts")


@pytest.fixture
def place(accounts):
    """A directory of root's outside /tmp, where trusted paths can be."""
    path = Path(tempfile.mkdtemp(prefix="plasmat-", dir="/srv"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_person_is_found_with_own_group_and_course_groups_only(accounts):
    team = accounts.add_group("team")
    course = accounts.add_group("course")
    system = accounts.add_group("sys", "--system")
    person = accounts.add("person", "--gid", team.gr_name, "--groups", f"{course.gr_name},{system.gr_name}")
    account = find_account(person.name)
    assert account.uid == person.uid
    assert account.group == Group(team.gr_name, team.gr_gid)
    assert account.groups == (Group(course.gr_name, course.gr_gid),)
    assert account.home == account.real_home == str(person.home)


@pytest.mark.parametrize("name", ["root", "games", "daemon", "nobody", "www-data"])
def test_system_accounts_are_refused(name):
    with pytest.raises(AccountError, match="system account|login shell") as caught:
        find_account(name)
    # The person is not told which rule it was; the log is.
    assert "ask the administrator" in caught.value.message


@pytest.mark.parametrize(
    "name", ["", "no-such-account", "a\0b", "../root", "root ", "ROOT", "x" * 10_000, "\udcff", "0"]
)
def test_strange_names_are_no_accounts(name):
    with pytest.raises(AccountError, match="no account"):
        find_account(name)


def test_shell_that_refuses_logins_is_refused(accounts):
    for shell in ("/usr/sbin/nologin", "/bin/false"):
        person = accounts.add("noshell", "--shell", shell)
        with pytest.raises(AccountError, match="no login shell"):
            find_entry(person.name)


def test_primary_group_of_root_is_refused(accounts):
    person = accounts.add("wheel", "--gid", "0")
    with pytest.raises(AccountError, match="primary group"):
        find_entry(person.name)


@pytest.mark.parametrize(
    ("date", "gone"),
    [
        ("1", True),
        ("0", True),
        ("20000", True),
        ("20001", True),  # today
        ("20002", False),
        ("-2", True),  # as pam_unix does
        ("-1", False),
        ("", False),
        ("soon", False),
    ],
)
def test_account_expires_on_the_day_that_shadow_says(tmp_path, monkeypatch, date, gone):
    monkeypatch.setattr(module.time, "time", lambda: 20001 * 86400 + 5)
    shadow = tmp_path / "shadow"
    shadow.write_text(f"anna2:x:1:0:99999:7::1:\nanna:!$6$hash:19000:0:99999:7::{date}:\nanna:x:1:0:9:7::1:\n")
    assert module.expired("anna", shadow) is gone


@pytest.mark.parametrize("line", ["", "anna", "anna:!:1", "anna2:!:1:::::1:", "ann:!:1:::::1:", ":!:1:::::1:"])
def test_account_without_a_date_of_its_own_does_not_expire(tmp_path, line):
    """Directory services have accounts without a line in shadow."""
    shadow = tmp_path / "shadow"
    shadow.write_bytes(line.encode() + b"\n\xff\xfe:!:1:::::1:\n")
    assert not module.expired("anna", shadow)


def test_nothing_is_known_where_shadow_cannot_be_read(tmp_path, monkeypatch):
    """As for the one who develops it, and is not root."""
    assert not module.expired("anna", tmp_path / "missing")

    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(module.Path, "read_bytes", denied)
    assert not module.expired("anna")


def test_account_that_is_locked_by_its_date_is_refused_and_one_with_a_locked_password_is_not(accounts):
    person = accounts.add("expiring")
    subprocess.run(["usermod", "--lock", person.name], check=True)
    assert find_entry(person.name).pw_uid == person.uid
    subprocess.run(["usermod", "--expiredate", "1", person.name], check=True)
    for function in (find_entry, find_account):
        with pytest.raises(AccountError, match="has expired") as caught:
            function(person.name)
        assert caught.value.message.endswith("has expired. Please ask the administrator of the server.")
    subprocess.run(["usermod", "--expiredate", "", person.name], check=True)
    assert find_entry(person.name).pw_uid == person.uid


def test_home_must_exist_and_be_ones_own(accounts, place):
    missing = accounts.add("nohome", home=str(place / "missing"), create_home=False)
    with pytest.raises(AccountError, match="No such file"):
        find_account(missing.name)
    foreign = accounts.add("foreign", home=str(place), create_home=False)
    with pytest.raises(AccountError, match="belongs to uid 0") as caught:
        find_account(foreign.name)
    assert "home directory" in caught.value.message
    subprocess.run(["usermod", "--home", str(place / "missing"), foreign.name], check=True)


def test_uid_range_of_login_defs_counts(accounts, tmp_path, monkeypatch):
    person = accounts.add("range")
    defs = tmp_path / "login.defs"
    monkeypatch.setattr(module, "LOGIN_DEFS", defs)
    assert module.id_ranges(defs) == module.ID_DEFAULTS
    defs.write_text(f"# comment\nUID_MAX\t\t{person.uid - 1}\nUID_MIN 500\nGID_MIN nonsense\n")
    assert module.id_ranges(defs) == {"UID_MIN": 500, "UID_MAX": person.uid - 1, "GID_MIN": 1000, "GID_MAX": 60000}
    with pytest.raises(AccountError, match="system account"):
        find_entry(person.name)


def test_path_through_roots_links_is_followed(place):
    (place / "real" / "home").mkdir(parents=True)
    (place / "link").symlink_to("real")
    (place / "real" / "back").symlink_to(f"../link/../{place.name}/real/home".replace(f"../{place.name}/", ""))
    assert resolve_trusted(f"{place}/link/home") == f"{place}/real/home"
    assert resolve_trusted(f"{place}/./link//home/") == f"{place}/real/home"
    (place / "absolute").symlink_to(place / "link" / "home")
    assert resolve_trusted(f"{place}/absolute") == f"{place}/real/home"


@pytest.mark.parametrize("bad", ["group", "others", "owner", "sticky"])
def test_directory_that_somebody_else_can_change_is_refused(place, bad):
    """Also when it is only reached through a link."""
    inner = place / "between"
    (inner / "home").mkdir(parents=True)
    if bad == "owner":
        os.chown(inner, 12345, 0)
    else:
        inner.chmod({"group": 0o775, "others": 0o757, "sticky": 0o1777}[bad])
    (place / "link").symlink_to(inner)
    for path in (inner / "home", place / "link" / "home"):
        with pytest.raises(AccountError, match="not to root|writable by others"):
            resolve_trusted(str(path))
    # The last component may be anybody's.
    assert resolve_trusted(str(inner)) == str(inner)


@pytest.mark.parametrize("path", ["", "relative", "~", "/etc/passwd", "/no/such/place", "/proc/self/cwd/x", "/\0"])
def test_path_that_is_no_trusted_directory_is_refused(path):
    with pytest.raises(AccountError):
        resolve_trusted(path)


def test_endless_links_are_refused(place):
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    with pytest.raises(AccountError, match="too many symbolic links"):
        resolve_trusted(str(place / "a"))
