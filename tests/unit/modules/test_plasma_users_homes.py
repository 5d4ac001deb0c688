"""Homes and what is around them on a server in a directory: looked at, made, put aside, deleted."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat

import pytest
from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_users_homes as homes
import plasma_users_observe as observe
from tests.unit.modules.stand_in_accounts import StandInServer

REAL_STATUS = observe.status  # the stand-in has one of its own


@pytest.fixture
def server(tmp_path, monkeypatch):
    return StandInServer(tmp_path, monkeypatch)


@pytest.fixture
def configure_loader_modules(server):
    return server.loader_modules()


def home(path="/home/anna", **keys):
    return {
        "name": path.rpartition("/")[2],
        "uid": 1001,
        "gid": 1002,
        "path": path,
        "mode": 0o750,
        "archive": None,
        **keys,
    }


def mode(server, name):
    return stat.S_IMODE(os.lstat(server.path(name)).st_mode)


# Looking.


def test_directories_that_only_root_can_change_are_fine(server):
    assert plasma_files.trouble("/home", server.root) is None
    assert plasma_files.trouble("/srv/not/there/yet", server.root) is None


@pytest.mark.parametrize(
    ("bits", "sentence"), [(0o1777, "(mode 1777)"), (0o757, "(mode 0757)"), (0o775, "(mode 0775)")]
)
def test_a_directory_that_others_may_write_to(server, bits, sentence):
    server.path("srv/homes").mkdir(parents=True)
    server.path("srv").chmod(bits)
    assert plasma_files.trouble("/srv/homes", server.root).startswith("/srv can be written by others than root")
    assert sentence in plasma_files.trouble("/srv/homes", server.root)


def test_a_directory_of_somebody_else(server, monkeypatch):
    monkeypatch.setattr(plasma_files, "_ROOT_UID", os.getuid() + 1)
    assert "belongs to uid" in plasma_files.trouble("/home", server.root)


def test_links_above_a_home(server):
    server.path("data").mkdir()
    server.path("link").symlink_to(server.path("data"))
    assert (
        plasma_files.trouble("/link/homes", server.root) == "/link is a symbolic link, name the directory it leads to"
    )
    server.write("file", "")
    assert plasma_files.trouble("/file/homes", server.root) == "/file is no directory"


def test_mounts(server):
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw",
        r"2 1 0:5 / /home/anna/my\040data rw - tmpfs none rw",
        "3 1 0:6 / /home/ben rw shared:1 - nfs host:/ben rw",
        "5 1 0:7 / /home/ben/a rw shared:1 - fuse.sshfs user_id=0 rw,user_id=1001,group_id=1001,allow_other",
        "6 1 0:8 / /home/ben/b rw - fuse evil rw,user_id=0,group_id=0",
        "7 1 0:9 / /home/ben/c rw - ext4 user_id=1001 rw,user_id=1001",
        "4 1 0:7 / /home/benjamin/x rw - tmpfs none rw",
    ]
    server.write("proc/self/mountinfo", "\n".join(lines) + "\n")
    found = observe.mounts(["/home/anna", "/home/ben", "/home/cleo", "/home/benja"], server.root)
    assert found == {
        "/home/anna": [{"point": "/home/anna/my data", "owner": None}],
        "/home/ben": [
            {"point": "/home/ben", "owner": None},
            {"point": "/home/ben/a", "owner": 1001},
            {"point": "/home/ben/b", "owner": None},
            {"point": "/home/ben/c", "owner": None},
        ],
    }


def test_what_cannot_be_looked_at_is_not_missing(monkeypatch):
    """Root sees nothing below what somebody mounts by FUSE."""

    def lstat(path, error):
        raise OSError(error, os.strerror(error))

    for error, seen_as in ((errno.EACCES, "unreadable"), (errno.ENOTCONN, "unreadable"), (errno.EIO, "unreadable")):
        with monkeypatch.context() as patched:
            patched.setattr(observe.os, "lstat", lambda path, error=error: lstat(path, error))
            found = REAL_STATUS("/home/kim")
            trouble = plasma_files.trouble("/home/kim/deep")
        assert found == {"kind": seen_as, "uid": -1, "gid": -1}
        assert "cannot be looked at" in trouble
    assert REAL_STATUS("/nonexistent/kim") is None
    assert REAL_STATUS("/etc/passwd/kim") is None


def test_mounts_of_a_leaver_are_detached_outermost_first(server, monkeypatch):
    lines = [
        f"{number} 1 0:7 / {point} rw - fuse.x x rw,user_id=1001,group_id=1001"
        for number, point in enumerate(["/home/ben/a", "/home/ben/a/deep", "/home/ben/ab", "/home/ben/a"])
    ]
    server.write("proc/self/mountinfo", "\n".join(lines) + "\n")
    done = []

    def detach(point):
        done.append(point)
        last = max(number for number, line in enumerate(lines) if line.split()[4] == point)
        lines[:] = [line for n, line in enumerate(lines) if n != last and not line.split()[4].startswith(f"{point}/")]
        server.write("proc/self/mountinfo", "".join(f"{line}\n" for line in lines))

    monkeypatch.setattr(homes, "_detach", detach)
    assert homes.release("/home/ben", 1001, root=server.root) == ["/home/ben/a", "/home/ben/ab"]
    assert done == ["/home/ben/a", "/home/ben/ab", "/home/ben/a"]


@pytest.mark.parametrize("line", ["fuse x rw,user_id=1002", "tmpfs none rw"])
def test_mounts_of_others_in_a_home_stay(server, monkeypatch, line):
    server.write("proc/self/mountinfo", f"2 1 0:5 / /home/ben/data rw - {line}\n")
    monkeypatch.setattr(homes, "_detach", pytest.fail)
    with pytest.raises(CommandExecutionError, match="/home/ben/data is mounted in the home: unmount it"):
        homes.release("/home/ben", 1001, root=server.root)


@pytest.mark.skipif(os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK), reason="mounting takes root and FUSE")
def test_a_real_mount_that_root_cannot_look_into(tmp_path, monkeypatch, request):
    """Two on top of each other, by somebody who answers no request."""
    libc, uid = ctypes.CDLL(None, use_errno=True), 54321
    (tmp_path / "thesis").write_text("work")
    home = str(tmp_path)
    for _ in range(2):
        handle = os.open("/dev/fuse", os.O_RDWR)
        request.addfinalizer(functools.partial(os.close, handle))
        options = f"fd={handle},rootmode=40000,user_id={uid},group_id={uid}"
        if libc.mount(b"x", home.encode(), b"fuse", 6, options.encode()):
            pytest.skip(f"no mounts here: {os.strerror(ctypes.get_errno())}")
        request.addfinalizer(lambda: libc.umount2(home.encode(), 2))
    assert observe.mounts([home]) == {home: [{"point": home, "owner": uid}] * 2}
    assert REAL_STATUS(home) == {"kind": "unreadable", "uid": -1, "gid": -1}
    assert homes.release(home, uid) == [home]
    assert (tmp_path / "thesis").read_text() == "work"
    assert observe.mounts([home]) == {}


def test_detaching_follows_no_link(tmp_path):
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert homes._detach(f"{tmp_path}/link/inner") == os.strerror(errno.ENOTDIR)
    # Not a mount point, or not allowed; in any case looked up.
    assert homes._detach(f"{tmp_path}/real/inner") in {os.strerror(errno.EINVAL), os.strerror(errno.EPERM)}


def test_uids_of_files_that_are_still_there(server):
    server.home("left", 1500)
    server.home("ben", 1501)
    server.path("home/.plasma-removed/carl.smith.uid1502.2026-01-31.2").mkdir(parents=True)
    server.path("home/.plasma-removed/notes.txt").write_text("")
    passwd = {"ben": ["ben", "x", "1501", "1501", "", "/home/ben", "/bin/sh"]}
    found = observe.reserved(["/home"], {**passwd, "ubuntu": ["ubuntu", "x", "1000", "1000", "", "", ""]}, server.root)
    assert found == {1500: "/home/left", 1502: "carl.smith"}


# Making.


def test_a_home_from_the_skeleton(server):
    server.path("etc/skel/.config/a").mkdir(parents=True)
    server.path("etc/skel/.config").chmod(0o700)
    server.write("etc/skel/run.sh", "#!/bin/sh\n").chmod(0o4755)
    server.path("etc/skel/data").symlink_to("/srv/data")
    assert homes.make([home()], server.root) == ["/home/anna"]
    assert mode(server, "home/anna") == 0o750
    assert mode(server, "home/anna/.config") == 0o700
    assert mode(server, "home/anna/run.sh") == 0o755  # never with the uid of its owner
    assert os.readlink(server.path("home/anna/data")) == "/srv/data"
    for name in ("", "/.config", "/.config/a", "/run.sh", "/data", "/.profile"):
        assert server.owner(f"home/anna{name}") == (1001, 1002)
    assert server.owner("home") is None


def test_what_is_there_is_not_touched(server):
    server.home("anna", 1001)
    before = server.snapshot()
    assert homes.make([home()], server.root) == []
    assert server.snapshot() == before


def test_directories_above_are_made_for_everybody_to_enter(server):
    old = os.umask(0o077)
    try:
        homes.make([home("/srv/school/homes/anna")], server.root)
    finally:
        os.umask(old)
    assert [mode(server, name) for name in ("srv", "srv/school", "srv/school/homes")] == [0o755] * 3


def test_what_a_killed_run_left_is_replaced(server):
    server.write("home/.plasma-new.anna/half", "")
    server.write("home/.plasma-new.gone/half", "")
    homes.make([home()], server.root)
    assert sorted(path.name for path in server.path("home").iterdir()) == ["anna", "ubuntu"]
    assert not server.path("home/anna/half").exists()


def test_a_home_that_cannot_be_made(server, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(homes.os, "rename", full)
    with pytest.raises(CommandExecutionError, match="^The home /home/anna could not be made: No space left"):
        homes.make([home()], server.root)


def test_one_home_that_cannot_be_made_keeps_no_other(server, monkeypatch):
    real = os.rename

    def rename(old, new):
        if new.endswith("/kim"):
            raise OSError(errno.EBUSY, "Device or resource busy")
        real(old, new)

    monkeypatch.setattr(homes.os, "rename", rename)
    with pytest.raises(CommandExecutionError, match="^The home /home/kim could not be made: Device or resource busy.$"):
        homes.make([home("/home/kim"), home("/home/lea")], server.root)
    assert sorted(path.name for path in server.path("home").iterdir()) == ["lea", "ubuntu"]


# Putting aside.

NOTE = {"name": "anna", "uid": 1001, "home": "/home/anna", "archive": "/home/.plasma-removed/anna.uid1001.2026-01-31"}


def test_one_rename_whatever_is_in_it(server):
    path = server.home("anna", 1001)
    inode = path.stat().st_ino
    (path / "loop").symlink_to("/")
    assert homes.put_aside(NOTE, server.root) is True
    assert server.path(f"{NOTE['archive']}/home").stat().st_ino == inode
    assert homes.put_aside(NOTE, server.root) is False


@pytest.mark.parametrize("what", ["another owner", "a link", "a file"])
def test_what_is_not_their_home_stays(server, what):
    if what == "another owner":
        server.home("anna", 1002)
    elif what == "a link":
        server.path("home/anna").symlink_to(server.path("home/ubuntu"))
        server._chown(server.path("home/anna"), 1001, 1001)
    else:
        server.write("home/anna", "")
    assert homes.put_aside(NOTE, server.root) is False
    assert os.path.lexists(server.path("home/anna"))
    assert server.path("home/ubuntu/work.txt").exists()


def test_a_home_that_cannot_be_looked_at_is_not_taken_for_none(server, monkeypatch):
    monkeypatch.setattr(observe, "status", lambda path, root: {"kind": "unreadable", "uid": -1, "gid": -1})
    with pytest.raises(CommandExecutionError, match="The home /home/anna cannot be looked at"):
        homes.put_aside(NOTE, server.root)


def test_an_archive_is_never_overwritten(server):
    server.home("anna", 1001)
    server.write(f"{NOTE['archive']}/home/old.txt", "old")
    server.path("home/.plasma-removed").chmod(0o700)
    with pytest.raises(CommandExecutionError, match="/home/anna is there again, and .*home too: move one of them away"):
        homes.put_aside(NOTE, server.root)


def test_a_link_in_the_place_of_the_archives(server):
    server.home("anna", 1001)
    server.path("elsewhere").mkdir(mode=0o700)
    server.path("home/.plasma-removed").symlink_to(server.path("elsewhere"))
    with pytest.raises(CommandExecutionError, match="must be a directory of root's with mode 0700"):
        homes.put_aside(NOTE, server.root)
    assert list(server.path("elsewhere").iterdir()) == []


# Deleting.


def test_deleting_follows_no_link(server):
    outside = server.write("srv/precious", "of others")
    server.path(f"{NOTE['archive']}/home").mkdir(parents=True)
    server.path(f"{NOTE['archive']}/home/dir").symlink_to(outside.parent)
    os.link(outside, server.path(f"{NOTE['archive']}/home/hard"))
    assert homes.delete(NOTE["archive"], server.root) is True
    assert outside.read_text() == "of others"
    assert homes.delete(NOTE["archive"], server.root) is False


def test_an_archive_that_is_a_link_is_not_followed(server):
    server.path("home/.plasma-removed").mkdir()
    server.path(NOTE["archive"]).symlink_to(server.path("home/ubuntu"))
    assert homes.delete(NOTE["archive"], server.root) is True
    assert server.path("home/ubuntu/work.txt").exists()


def test_nothing_is_deleted_while_something_is_mounted_there(server):
    server.write(f"{NOTE['archive']}/home/file", "")
    server.write("proc/self/mountinfo", f"2 1 0:5 / {NOTE['archive']}/home/mnt rw - tmpfs none rw\n")
    with pytest.raises(CommandExecutionError, match="Something is mounted in .*: unmount it"):
        homes.delete(NOTE["archive"], server.root)
    assert server.path(f"{NOTE['archive']}/home/file").exists()
