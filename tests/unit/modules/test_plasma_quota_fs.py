"""Which file system it is: read from the kernel's tables, devices by any name, refusals with advice."""

from __future__ import annotations

import os
import stat
import struct
import types

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_mounts
import plasma_quota_fs as fs

CONTAINER = fs.container
REAL_MOUNTS = plasma_mounts.mounts
MOUNTINFO = r"""22 27 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw,errors=remount-ro
40 27 8:16 / /srv/my\040homes rw,nodev - xfs /dev/mapper/data-homes rw,usrquota
41 27 8:1 /srv/data /data rw,relatime master:1 shared:2 - ext4 /dev/root rw
42 27 8:32 /part /only rw - ext4 /dev/sdc rw
43 27 0:50 / /mem rw - tmpfs tmpfs rw
44 27 0:51 / /mem rw - tmpfs later rw
"""


@pytest.fixture
def said():
    """What programs answer, by their name."""
    return {}


@pytest.fixture
def configure_loader_modules(tmp_path, said):
    (tmp_path / "mountinfo").write_text(MOUNTINFO, encoding="utf-8")

    def run(command, **options):
        code, text = said.get(" ".join((command[0], command[-1])), said.get(command[0], (1, "")))
        return {"retcode": code, "stdout": text, "stderr": ""}

    functions = {
        "cmd.run_all": run,
        "plasma_mounts.mounts": lambda: REAL_MOUNTS(tmp_path / "mountinfo"),
        "plasma_quota_fs.container": lambda: None,
    }
    return {fs: {"__salt__": functions}}


@pytest.fixture
def existing(monkeypatch):
    """Paths that exist; symbolic links are names for others."""
    paths = {"/": "/", "/srv": "/srv", "/srv/my homes": "/srv/my homes", "/home": "/data/home", "/data": "/data"}
    paths |= {"/only": "/only", "/mem": "/mem", "/srv/my": "/srv/my"}
    monkeypatch.setattr(fs.pathlib.Path, "exists", lambda path: str(path) in paths)
    monkeypatch.setattr(fs.os.path, "realpath", lambda path: paths.get(str(path), str(path)))


@pytest.mark.parametrize(
    ("path", "target", "device"),
    [
        ("/srv/not/yet", "/", "8:1"),
        ("/srv/my homes/ada", "/srv/my homes", "8:16"),
        # Like the beginning of another mount point is not below it.
        ("/srv/my/x", "/", "8:1"),
        # A symbolic link into a bind mount: quotas are those of the whole file system.
        ("/home/ada", "/", "8:1"),
        ("/only/x", "/only", "8:32"),
        ("/mem", "/mem", "0:51"),
    ],
)
def test_the_mount_that_holds_a_path(existing, path, target, device):
    found = fs.holder(path)
    assert (found["target"], found["device"]) == (target, device)


@pytest.mark.parametrize("path", ["home", "", None, 5, "/a\0b"])
def test_a_home_path_that_is_none_is_refused(path):
    with pytest.raises(SaltInvocationError, match=r"plasma\.home_path must be an absolute path"):
        fs.holder(path)


def test_options_are_those_of_mount_and_file_system(existing):
    assert fs.holder("/srv/my homes")["options"] == ["rw", "nodev", "usrquota"]


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("btrfs", "limits subvolumes and not people; put the homes on ext4 or XFS"),
        ("zfs", "zfs set userquota@NAME"),
        ("overlay", "an overlay has no quotas; put the homes on ext4 or XFS (plasma.home_path)"),
        ("tmpfs", "it is in memory"),
        ("nfs4", "only the server of that share can limit it"),
        ("cifs", "only the server of that share can limit it"),
        ("fuse.sshfs", "only the server of that share can limit it"),
        ("f2fs", "quotas are set up on ext4 and XFS only"),
    ],
)
def test_other_file_systems_are_refused_with_advice(kind, advice):
    mount = {"type": kind, "target": "/", "root": "/", "options": ["rw"]}
    said = fs.refusal(mount, "/home")
    assert said.startswith(f"/home is on /, which is {kind}: ") or f"which is {kind}, and" in said
    assert advice in said
    assert "\n" not in said
    assert said.endswith(".")


def test_a_part_of_a_file_system_is_refused(existing):
    assert "which is the directory /part of a file system that is mounted nowhere as a whole" in fs.refusal(
        fs.holder("/only"), "/only"
    )


def test_what_is_read_only_or_writable_by_others_is_refused(tmp_path):
    mount = {"type": "ext4", "target": str(tmp_path), "root": "/", "options": ["ro"]}
    assert "mounted read-only" in fs.refusal(mount, "/home")
    mount["options"] = ["rw"]
    tmp_path.chmod(0o777)
    # Somebody could put a link in the place of the tables.
    assert f"chmod go-w {tmp_path}" in fs.refusal(mount, "/home")
    tmp_path.chmod(0o755)
    assert (fs.refusal(mount, "/home") is None) is (os.geteuid() == 0)


def test_a_container_is_refused_whatever_it_is_on(monkeypatch):
    monkeypatch.setattr(fs, "container", lambda: "lxc")
    said = fs.refusal({"type": "ext4", "target": "/", "root": "/", "options": ["rw"]}, "/home")
    assert said.startswith("This server is a container (lxc) and its kernel is its host's")


@pytest.mark.parametrize(("answer", "name"), [((0, "lxc\n"), "lxc"), ((1, "none\n"), None), ((127, ""), "")])
def test_containers_are_recognised(said, answer, name):
    said["systemd-detect-virt"] = answer
    assert CONTAINER() == name


@pytest.fixture
def devices(monkeypatch):
    """Block devices by path, and what else there is."""
    blocks = {"/dev/sda1": (8, 1), "/dev/dm-0": (254, 0)}
    links = {
        "/dev/mapper/data-homes": "/dev/dm-0",
        "/dev/log": "/run/systemd/journal/dev-log",
        "/dev/evil": "/etc/passwd",
    }

    def status(path):
        path = links.get(path, path)
        if path in blocks:
            return types.SimpleNamespace(st_mode=stat.S_IFBLK, st_rdev=os.makedev(*blocks[path]))
        if path in ("/etc/passwd", "/run/systemd/journal/dev-log"):
            return types.SimpleNamespace(st_mode=stat.S_IFREG, st_rdev=0)
        raise FileNotFoundError(path)

    monkeypatch.setattr(fs.os.path, "realpath", lambda path: links.get(str(path), str(path)))
    monkeypatch.setattr(fs.os.path, "exists", lambda path: str(path) in links or str(path) in blocks)
    monkeypatch.setattr(fs.os, "stat", status)


@pytest.mark.parametrize(
    ("name", "path", "device"),
    [
        ("/dev/sda1", "/dev/sda1", "8:1"),
        ("LABEL=cloudimg-rootfs", "/dev/sda1", "8:1"),
        ("LABEL=my disk", "/dev/sda1", "8:1"),
        ("LABEL=häuser", "/dev/sda1", "8:1"),
        ("UUID=aaef63c7-8c31", "/dev/sda1", "8:1"),
        ("PARTLABEL=homes", "/dev/sda1", "8:1"),
        ("/dev/mapper/data-homes", "/dev/dm-0", "254:0"),
    ],
)
def test_devices_by_any_name(devices, said, name, path, device):
    said[f"blkid {name}"] = (0, f"{path}\n")
    assert fs.resolve(name) == {"path": path, "device": device}


@pytest.mark.parametrize(
    "name",
    [
        "sda1",
        "/etc/passwd",
        "/dev/../etc/passwd",
        "/dev/evil",
        "/dev/log",
        "/dev/nothing",
        "LABEL=",
        "LABEL=../../../etc/passwd",
        "LABEL=nothing",
        "LABEL=a\nb",
        "ID=1",
        "--help",
        "-o",
        "$(reboot)",
        "/dev/sda1; reboot",
        "/dev/sda1\n",
        7,
    ],
)
def test_hostile_names_of_devices_are_refused_in_one_line(devices, name):
    with pytest.raises(SaltInvocationError, match=r"^plasma\.quotas\.device ") as refused:
        fs.resolve(name)
    assert "\n" not in str(refused.value)


def test_the_node_of_what_the_kernel_calls_dev_root(devices, monkeypatch):
    uevents = {"8:1": "MAJOR=8\nDEVNAME=sda1\n", "254:0": "DEVNAME=dm-0\n", "9:9": "DEVNAME=gone\n"}
    monkeypatch.setattr(fs.pathlib.Path, "read_text", lambda path, **_: uevents[path.parent.name])
    assert fs.node({"source": "/dev/root", "device": "8:1"}) == "/dev/sda1"
    assert fs.node({"source": "/dev/mapper/data-homes", "device": "254:0"}) == "/dev/dm-0"
    assert fs.node({"source": "/dev/gone", "device": "9:9"}) is None


def test_the_names_of_a_file_system(said):
    said["blkid"] = (0, "DEVNAME=/dev/sda1\nLABEL=my\\ root\nUUID=aaef63c7\nTYPE=ext4\n")
    assert fs.identity("/dev/sda1") == {"uuid": "aaef63c7", "label": "my\\ root"}
    said["blkid"] = (2, "")
    assert fs.identity("/dev/sda1") == {"uuid": None, "label": None}


@pytest.mark.parametrize(("features", "built_in"), [(0x56B, True), (0x46B, False)])
def test_the_superblock_says_whether_quotas_are_built_in(tmp_path, features, built_in):
    block = bytearray(2048)
    struct.pack_into("<III", block, 1024 + 0x5C, 0x3C, 0x2C2, features)
    (tmp_path / "image").write_bytes(block)
    assert fs.built_in(tmp_path / "image") is built_in


@pytest.mark.parametrize(
    ("flags", "state"),
    [(0, ("off", "off")), (0x5, ("counting", "counting")), (0xF, ("on", "on")), (0x7, ("on", "counting"))],
)
def test_the_state_is_what_the_kernel_says(monkeypatch, flags, state):
    answer = struct.pack("=bxH", 1, flags) + bytes(76) if flags else None
    monkeypatch.setattr(fs, "_quotactl", lambda *_: answer)
    assert fs.state("/dev/sda1") == {"user": state[0], "group": state[1]}


def test_what_has_no_quotas_is_off():
    assert fs.state("/dev/null") == {"user": "off", "group": "off"}
    assert fs.grace("/dev/null") == {"user": None, "group": None}


def test_the_real_mounts_of_this_machine_can_be_read():
    assert any(mount["target"] == "/" for mount in REAL_MOUNTS())
    with pytest.raises((CommandExecutionError, OSError)):
        REAL_MOUNTS("/proc/self/no-mountinfo")
