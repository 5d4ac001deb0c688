"""Which file system it is: read from the kernel's tables, devices by any name, refusals with advice."""

from __future__ import annotations

import os
import stat
import struct
import types

import pytest
from salt.exceptions import CommandExecutionError, SaltInvocationError

import _modules.plasma_quota_fs as fs

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
        assert options["python_shell"] is False
        code, text = said.get(command[0], (1, ""))
        return {"retcode": code, "stdout": text, "stderr": ""}

    functions = {
        "cmd.run_all": run,
        "plasma_quota_fs.mounts": lambda: fs.mounts(tmp_path / "mountinfo"),
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
    fs.__salt__["plasma_quota_fs.container"] = lambda: "lxc"
    said = fs.refusal({"type": "ext4", "target": "/", "root": "/", "options": ["rw"]}, "/home")
    assert said.startswith("This server is a container (lxc) and its kernel is its host's")


@pytest.mark.parametrize(
    ("answer", "file", "name"),
    [
        ((0, "lxc\n"), False, "lxc"),
        ((1, "none\n"), False, None),
        ((1, "none\n"), True, None),  # a server made from the image of a container
        ((127, ""), False, None),
        ((127, ""), True, "docker"),
    ],
)
def test_containers_are_recognised(monkeypatch, said, answer, file, name):
    monkeypatch.setattr(fs.os.path, "exists", lambda path: file and path == "/.dockerenv")
    said["systemd-detect-virt"] = answer
    assert fs.container() == name


@pytest.fixture
def devices(monkeypatch):
    """Block devices by path, and what else there is."""
    blocks = {"/dev/sda1": (8, 1), "/dev/dm-0": (254, 0)}
    links = {
        "/dev/disk/by-label/cloudimg-rootfs": "/dev/sda1",
        "/dev/disk/by-label/my\\x20disk": "/dev/sda1",
        "/dev/disk/by-label/\\x2e\\x2e": "/dev/sda1",
        "/dev/disk/by-label/häuser": "/dev/sda1",
        "/dev/disk/by-uuid/aaef63c7-8c31": "/dev/sda1",
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
        ("/dev/mapper/data-homes", "/dev/dm-0", "254:0"),
    ],
)
def test_devices_by_any_name(devices, name, path, device):
    assert fs.resolve(name) == {"path": path, "device": device}


def test_what_udev_does_not_know_is_asked_of_blkid(devices, said):
    said["blkid"] = (0, "/dev/sda1\n")
    assert fs.resolve("PARTLABEL=homes")["path"] == "/dev/sda1"


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
    monkeypatch.setattr(
        fs.pathlib.Path, "read_text", lambda path, **_: "MAJOR=8\nDEVNAME=sda1\n" if "/8:1/" in str(path) else 1 / 0
    )
    assert fs.node({"source": "/dev/root", "device": "8:1"}) == "/dev/sda1"
    assert fs.node({"source": "/dev/mapper/data-homes", "device": "254:0"}) == "/dev/dm-0"


def test_superblocks_are_read_and_nothing_else_is_taken_for_one(tmp_path):
    image = tmp_path / "image"
    block = bytearray(2048)
    struct.pack_into("<H", block, 1024 + 0x38, 0xEF53)
    struct.pack_into("<III", block, 1024 + 0x5C, 0x3C, 0x2C2, 0x56B)
    block[1024 + 0x78 : 1024 + 0x7E] = b"rootfs"
    image.write_bytes(block)
    found = fs.superblock(image)
    assert (found["journal"], found["quota"], found["label"]) == (True, True, "rootfs")
    struct.pack_into("<III", block, 1024 + 0x5C, 0x38, 0x2C2, 0x46B)
    image.write_bytes(block)
    assert (fs.superblock(image)["journal"], fs.superblock(image)["quota"]) == (False, False)
    image.write_bytes(b"XFSB" + bytes(4096))
    assert fs.superblock(image) is None
    image.write_bytes(b"")
    assert fs.superblock(image) is None
    assert fs.superblock(tmp_path / "none") is None


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
    assert any(mount["target"] == "/" for mount in fs.mounts())
    with pytest.raises((CommandExecutionError, OSError)):
        fs.mounts("/proc/self/no-mountinfo")
