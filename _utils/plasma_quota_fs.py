"""
The file system that holds the homes: whether it can have disk quotas, and whether they are on. Changes nothing.

The kernel is asked: /proc/self/mountinfo (proc(5)), /sys, quotactl(2), and the superblock of ext4
(https://docs.kernel.org/filesystems/ext4/super.html).
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import re
import stat
import struct
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_mounts
import plasma_run

EXT = ("ext3", "ext4")
KINDS = {"user": 0, "group": 1}  # USRQUOTA and GRPQUOTA in linux/quota.h
_ADVICE = {
    "btrfs": "btrfs limits subvolumes and not people",
    "zfs": "ZFS has quotas of its own (`zfs set userquota@NAME=10G POOL/HOMES`), which are not set here",
    "overlay": "an overlay has no quotas",
    **dict.fromkeys(("tmpfs", "ramfs"), "it is in memory and gone after a reboot"),
    **dict.fromkeys(
        ("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "glusterfs", "fuse", "fuseblk"),
        "only the server of that share can limit it",
    ),
}
# linux/quota.h, linux/dqblk_xfs.h
_Q_GETINFO, _Q_XGETQSTAT = 0x800005, (ord("X") << 8) + 5
_FEATURE_RO_COMPAT_QUOTA = 0x100


def holder(path: str) -> dict[str, Any]:
    """
    Return the mount that holds ``path``, or will: the one of its nearest existing parent. It is an entry of
    ``plasma_mounts.mounts``; of a bind mount, the one of the whole file system where there is one.

    Raises SaltInvocationError when ``path`` is not absolute.
    """
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise SaltInvocationError(f"plasma.home_path must be an absolute path, not {path!r}.")
    existing = pathlib.Path(path)
    while not existing.exists():
        existing = existing.parent
    mounts = plasma_mounts.mounts()
    mount = plasma_mounts.holder(os.path.realpath(existing), mounts)
    if mount is None:
        raise CommandExecutionError(f"/proc/self/mountinfo names nothing that holds {path}.")
    return next((whole for whole in mounts if whole["device"] == mount["device"] and whole["root"] == "/"), mount)


def resolve(device: str) -> dict[str, str]:
    """
    Return ``{"path", "device": "major:minor"}`` of a block device.

    device
        A path below /dev, or ``UUID=``, ``LABEL=``, ``PARTUUID=`` or ``PARTLABEL=`` with its value.

    Raises SaltInvocationError, in one line, when it is no such name or no block device.
    """
    name = device if isinstance(device, str) and device.isprintable() else ""
    if re.match(r"(PART)?(UUID|LABEL)=.", name):
        command = ["blkid", "--list-one", "--output", "device", "--match-token", name]
        path = plasma_run.run(command).stdout or "/nowhere"
    elif name.startswith("/dev/"):
        path = name
    else:
        raise SaltInvocationError(
            f"plasma.quotas.device {device!r} is no name of a device: write /dev/..., UUID=..., LABEL=..., "
            "PARTUUID=... or PARTLABEL=..."
        )
    path = os.path.realpath(path)
    try:
        status = os.stat(path)
    except OSError:
        status = None
    if status is None or not path.startswith("/dev/") or not stat.S_ISBLK(status.st_mode):
        raise SaltInvocationError(
            f"plasma.quotas.device {device}: there is no such block device on this server (`lsblk -f` lists them)."
        )
    return {"path": path, "device": f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"}


def node(mount: dict[str, Any]) -> str | None:
    """
    Return the path of the block device of a mount, or None.

    The kernel's name for it is taken: the source of the root file system may be /dev/root, which does not exist, where
    the kernel boots without an initial RAM disk, as those of clouds do.
    """
    try:
        uevent = pathlib.Path(f"/sys/dev/block/{mount['device']}/uevent").read_text(encoding="ascii")
    except OSError:
        return None
    name = re.search(r"^DEVNAME=(.+)$", uevent, re.MULTILINE)
    return f"/dev/{name[1]}" if name and os.path.exists(f"/dev/{name[1]}") else None


def built_in(path: str) -> bool:
    """Return whether an ext4 file system on this device has quotas built in (``mkfs.ext4 -O quota``)."""
    with open(path, "rb") as device:
        device.seek(1024)
        superblock = device.read(1024)
    return bool(struct.unpack_from("<I", superblock, 0x64)[0] & _FEATURE_RO_COMPAT_QUOTA)


def identity(path: str) -> dict[str, str | None]:
    """Return ``{"uuid", "label"}`` of the file system on a block device."""
    lines = plasma_run.run(["blkid", "--probe", "--output", "export", path]).stdout.splitlines()
    names = dict(line.split("=", 1) for line in lines if "=" in line)
    return {"uuid": names.get("UUID"), "label": names.get("LABEL")}


def state(path: str) -> dict[str, str]:
    """
    Return what the kernel does about quotas of a file system: ``{"user", "group"}``, each ``off``, ``counting`` (use is
    counted and nothing is limited) or ``on``.

    path
        The block device.
    """
    answer = _quotactl(_Q_XGETQSTAT, 0, path, 80)
    flags = struct.unpack_from("=H", answer, 2)[0] if answer else 0
    # FS_QUOTA_UDQ_ACCT, _ENFD, FS_QUOTA_GDQ_ACCT, _ENFD
    words = {0: "off", 1: "counting", 2: "on", 3: "on"}
    return {"user": words[flags & 3], "group": words[(flags >> 2) & 3]}


def grace(path: str) -> dict[str, dict[str, int] | None]:
    """
    Return how long soft limits may be exceeded: ``{"user": {"block": seconds, "inode": seconds}, "group": the same}``;
    None where quotas are off.
    """
    times: dict[str, dict[str, int] | None] = dict.fromkeys(KINDS)
    for kind, number in KINDS.items():
        answer = _quotactl(_Q_GETINFO, number, path, 24)
        if answer:
            times[kind] = dict(zip(("block", "inode"), struct.unpack_from("=QQ", answer), strict=True))
    return times


def container() -> str | None:
    """Return the name of the container manager when this server is a container, on the kernel of its host, or None."""
    name = plasma_run.run(["systemd-detect-virt", "--container"]).stdout
    return name if name != "none" else None


def refusal(mount: dict[str, Any], home_path: str) -> str | None:
    """
    Return in one sentence why the file system of a mount cannot have disk quotas, with what to do; None when it can.

    mount
        What ``holder`` returned.
    home_path
        Where the homes are, for the sentence.
    """
    kind, where = mount["type"], f"{home_path} is on {mount['target']}"
    manager = container()
    if manager:
        return (
            f"This server is a container ({manager}) and its kernel is its host's, where quotas would count for "
            "others: use a server with a kernel of its own, or set quotas on the host."
        )
    ours = "put the homes on ext4 or XFS (plasma.home_path), or set plasma.quotas.enabled to false"
    advice = _ADVICE.get(kind.partition(".")[0])
    if advice:
        return f"{where}, which is {kind}: {advice}; {ours}."
    if kind not in (*EXT, "xfs"):
        return f"{where}, which is {kind}, and quotas are set up on ext4 and XFS only: {ours}."
    if mount["root"] != "/":
        return (
            f"{where}, which is the directory {mount['root']} of a file system that is mounted nowhere as a whole: "
            "mount it, and apply again."
        )
    if "ro" in mount["options"]:
        return f"{where}, which is mounted read-only: mount it writable, and apply again."
    if kind != "xfs" and _others_write(mount["target"]):
        return (
            f"{mount['target']}, where the tables of the quotas lie, can be written by others than root: "
            f"`chown root {mount['target']}; chmod go-w {mount['target']}`, and apply again."
        )
    return None


def _others_write(path: str) -> bool:
    status = os.stat(path)
    return status.st_uid != 0 or bool(status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX)


def _quotactl(command: int, kind: int, path: str, size: int) -> bytes | None:
    """The answer of quotactl(2) in ``size`` bytes, or None when it fails (quotas are off, or there are none)."""
    buffer = ctypes.create_string_buffer(size)
    # Q_XGETQSTAT answers to a version of the structure that is asked for: FS_QSTAT_VERSION.
    buffer[0] = 1 if command == _Q_XGETQSTAT else 0
    number = ctypes.c_int32((command << 8) | kind).value
    library = ctypes.CDLL(None, use_errno=True)
    if library.quotactl(number, os.fsencode(path), 0, buffer):
        return None
    return buffer.raw
