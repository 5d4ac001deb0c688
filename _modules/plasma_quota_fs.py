"""
Which file system holds the homes, which kind of disk quotas it can have, and whether they are on.

Everything is asked of the kernel: /proc/self/mountinfo (proc(5)), quotactl(2), the superblock of ext4
(https://docs.kernel.org/filesystems/ext4/super.html). Output of programs is not parsed. Changes nothing.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import re
import stat
import struct

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_quota_fs"

EXT = ("ext2", "ext3", "ext4")
SORTS = {"user": 0, "group": 1}
_TAGS = {"UUID": "uuid", "LABEL": "label", "PARTUUID": "partuuid", "PARTLABEL": "partlabel"}
_ADVICE = {
    "btrfs": "btrfs limits subvolumes and not people",
    "zfs": "ZFS has quotas of its own (`zfs set userquota@NAME=10G POOL/HOMES`), which are not set here",
    "overlay": "an overlay has no quotas",
    "tmpfs": "it is in memory and gone after a reboot",
    "ramfs": "it is in memory and gone after a reboot",
}
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "glusterfs", "afs", "lustre")
# linux/quota.h, linux/dqblk_xfs.h
_Q_GETINFO, _Q_XGETQSTAT = 0x800005, (ord("X") << 8) + 5
_FEATURE_COMPAT_HAS_JOURNAL, _FEATURE_RO_COMPAT_QUOTA = 0x4, 0x100


def __virtual__():
    return __virtualname__


def mounts(path="/proc/self/mountinfo"):
    """
    Return everything that is mounted, in order; what is mounted over something else comes later.

    Each is ``{"device": "major:minor", "root", "target", "options": [str], "type", "source"}``; options are those of
    the mount and of the file system together.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fs.mounts
    """
    found = []
    for line in pathlib.Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(" ")
        rest = fields.index("-")
        options = [*fields[5].split(","), *fields[rest + 3].split(",")]
        found.append(
            {
                "device": fields[2],
                "root": _unescaped(fields[3]),
                "target": _unescaped(fields[4]),
                "options": list(dict.fromkeys(option for option in options if option)),
                "type": fields[rest + 1],
                "source": _unescaped(fields[rest + 2]),
            }
        )
    return found


def holder(path):
    """
    Return the mount that holds ``path``, or will: the one of its nearest existing parent.

    The same as an entry of ``mounts``, with ``"looked_at"``: the path that exists, without symbolic links. Where a part
    of a file system is mounted (a bind mount), it is the mount of the whole one, when there is one.
    Raises SaltInvocationError when ``path`` is not absolute.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fs.holder /home
    """
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise SaltInvocationError(f"plasma.home_path must be an absolute path, not {path!r}.")
    existing = pathlib.Path(path)
    while not existing.exists():
        existing = existing.parent
    real = os.path.realpath(existing)
    everything = __salt__["plasma_quota_fs.mounts"]()
    found = None
    for mount in everything:
        target = mount["target"].rstrip("/")
        if (real == target or real.startswith(target + "/")) and (
            found is None or len(target) >= len(found["target"].rstrip("/"))
        ):
            found = mount
    if found is None:
        raise CommandExecutionError(f"/proc/self/mountinfo names nothing that holds {real}.")
    if found["root"] != "/" and found["type"] in (*EXT, "xfs"):
        same = [m for m in everything if m["device"] == found["device"] and m["root"] == "/"]
        found = same[0] if same else found
    return {**found, "looked_at": real}


def resolve(device):
    """
    Return ``{"path", "device": "major:minor"}`` of a block device that is named somehow.

    device
        A path below /dev, or ``UUID=``, ``LABEL=``, ``PARTUUID=`` or ``PARTLABEL=`` with its value.

    Raises SaltInvocationError, in one line, when it is no such name or no block device.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fs.resolve LABEL=cloudimg-rootfs
    """
    tag, equals, value = str(device).partition("=")
    if equals and tag in _TAGS and value and value.isprintable():
        # As udev names them (blkid_encode_string): with that, no value leads out of the directory.
        name = re.sub(
            r"[^A-Za-z0-9#+\-.:=@_]",
            lambda found: "".join(
                f"\\x{byte:02x}" if byte < 0x80 else chr(byte) for byte in found.group().encode("utf-8")
            ),
            value,
        )
        path = f"/dev/disk/by-{_TAGS[tag]}/" + os.fsdecode(name.encode("latin-1"))
        if name in (".", "..") or not os.path.exists(path):
            path = _blkid(f"{tag}={value}")
    elif isinstance(device, str) and device.startswith("/dev/") and device.isprintable():
        path = device
    else:
        raise SaltInvocationError(
            f"plasma.quotas.device {device!r} is no name of a device: write /dev/..., UUID=..., LABEL=..., "
            "PARTUUID=... or PARTLABEL=..."
        )
    path = os.path.realpath(path) if path else ""
    try:
        status = os.stat(path)
    except OSError:
        status = None
    if status is None or not path.startswith("/dev/") or not stat.S_ISBLK(status.st_mode):
        raise SaltInvocationError(
            f"plasma.quotas.device {device}: there is no such block device on this server (`lsblk -f` lists them)."
        )
    return {"path": path, "device": f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"}


def node(mount):
    """
    Return the path of the block device of a mount, or None; also where the kernel calls it /dev/root.

    mount
        An entry of ``mounts``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fs.node '{device: "8:1", source: /dev/root}'
    """
    try:
        status = os.stat(mount["source"])
        number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        if stat.S_ISBLK(status.st_mode) and number == mount["device"]:
            return os.path.realpath(mount["source"])
    except OSError:
        pass
    try:
        uevent = pathlib.Path(f"/sys/dev/block/{mount['device']}/uevent").read_text(encoding="ascii")
    except OSError:
        return None
    name = re.search(r"^DEVNAME=(.+)$", uevent, re.MULTILINE)
    path = f"/dev/{name.group(1)}" if name else ""
    return path if os.path.exists(path) else None


def superblock(path):
    """
    Return what the superblock of an ext2, ext3 or ext4 file system says, or None for others.

    ``{"journal": bool, "quota": bool, "uuid": str, "label": str}``: whether it has a journal, and quotas built in
    (``mkfs.ext4 -O quota``).

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fs.superblock /dev/sda1
    """
    try:
        with open(path, "rb") as device:
            device.seek(1024)
            block = device.read(1024)
    except OSError:
        return None
    if len(block) < 1024 or struct.unpack_from("<H", block, 0x38)[0] != 0xEF53:
        return None
    compatible, _, readonly = struct.unpack_from("<III", block, 0x5C)
    digits = block[0x68:0x78].hex()
    return {
        "journal": bool(compatible & _FEATURE_COMPAT_HAS_JOURNAL),
        "quota": bool(readonly & _FEATURE_RO_COMPAT_QUOTA),
        "uuid": "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])),
        "label": block[0x78:0x88].rstrip(b"\0").decode("utf-8", "replace"),
    }


def identity(path):
    """
    Return the names under which udev knows a block device: ``{"UUID": ..., "LABEL": ...}``, those there are.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fs.identity /dev/sda1
    """
    found = {}
    for tag in ("UUID", "LABEL"):
        directory = pathlib.Path(f"/dev/disk/by-{_TAGS[tag]}")
        for entry in sorted(directory.iterdir()) if directory.is_dir() else ():
            if os.path.realpath(entry) == os.path.realpath(path):
                name = re.sub(r"\\x([0-9a-f]{2})", lambda byte: chr(int(byte.group(1), 16)), entry.name)
                found[tag] = name
    return found


def state(path):
    """
    Return what the kernel does about quotas of a file system: ``{"user", "group"}``, each ``off``, ``counting`` (use is
    counted and nothing is limited) or ``on``.

    path
        The block device.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fs.state /dev/sda1
    """
    answer = _quotactl(_Q_XGETQSTAT, 0, path, 80)
    flags = struct.unpack_from("=H", answer, 2)[0] if answer else 0
    # FS_QUOTA_UDQ_ACCT, _ENFD, FS_QUOTA_GDQ_ACCT, _ENFD
    words = {0: "off", 1: "counting", 2: "on", 3: "on"}
    return {"user": words[flags & 3], "group": words[(flags >> 2) & 3]}


def grace(path):
    """
    Return how long soft limits may be exceeded: ``{"user": {"block": seconds, "inode": seconds}, "group": the same}``.

    A sort whose quotas are off is None.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fs.grace /dev/sda1
    """
    found = {}
    for sort, number in SORTS.items():
        answer = _quotactl(_Q_GETINFO, number, path, 24)
        found[sort] = dict(zip(("block", "inode"), struct.unpack_from("=QQ", answer), strict=True)) if answer else None
    return found


def container():
    """
    Return the name of the container manager when this server runs in a container, on the kernel of its host, or None.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fs.container
    """
    asked = __salt__["cmd.run_all"](["systemd-detect-virt", "--container"], python_shell=False, ignore_retcode=True)
    name = asked["stdout"].strip()
    if name:
        # It knows better than files do, which a server made from a container's image has, too.
        return None if name == "none" else name
    files = {"docker": "/.dockerenv", "podman": "/run/.containerenv"}
    return next((name for name, path in files.items() if os.path.exists(path)), None)


def refusal(mount, home_path):
    """
    Return in one sentence why the file system of a mount cannot have disk quotas, with what to do; None when it can.

    mount
        What ``holder`` returned.
    home_path
        Where the homes are, for the sentence.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_quota_fs.refusal "$mount" /home
    """
    kind, where = mount["type"], f"{home_path} is on {mount['target']}"
    inside = __salt__["plasma_quota_fs.container"]()
    if inside:
        return (
            f"This server is a container ({inside}) and its kernel is its host's, where quotas would count for others: "
            "use a server with a kernel of its own, or set quotas on the host."
        )
    ours = "put the homes on ext4 or XFS (plasma.home_path), or set plasma.quotas.enabled to false"
    if kind in _ADVICE:
        return f"{where}, which is {kind}: {_ADVICE[kind]}; {ours}."
    if kind in _NETWORK or kind.startswith("fuse"):
        return f"{where}, which is {kind}: only the server of that share can limit it; {ours}."
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


def _others_write(path):
    status = os.stat(path)
    return status.st_uid != 0 or bool(status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX)


def _unescaped(field):
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), field)


def _blkid(token):
    asked = __salt__["cmd.run_all"](
        ["blkid", "--list-one", "--output", "device", "--match-token", token], python_shell=False, ignore_retcode=True
    )
    return asked["stdout"].strip() if asked["retcode"] == 0 else ""


def _quotactl(command, sort, path, size):
    """The answer of quotactl(2) in ``size`` bytes, or None when it fails (quotas are off, or there are none)."""
    buffer = ctypes.create_string_buffer(size)
    # Q_XGETQSTAT answers to a version of the structure that is asked for: FS_QSTAT_VERSION.
    buffer[0] = 1 if command == _Q_XGETQSTAT else 0
    number = ctypes.c_int32((command << 8) | sort).value
    library = ctypes.CDLL(None, use_errno=True)
    if library.quotactl(number, os.fsencode(path), 0, buffer):
        return None
    return buffer.raw
