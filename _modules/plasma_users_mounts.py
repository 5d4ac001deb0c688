"""
What is mounted in homes. With FUSE, anybody may mount something over their own files, where root sees nothing: such
mounts must not keep anybody from being removed, and are detached from the homes of people who leave.
"""

from __future__ import annotations

import ctypes
import os
import re
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_users_mounts"

_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8  # umount(2)


def __virtual__():
    return __virtualname__


def found(homes, root="/"):
    """
    Return ``{home: [{"point", "owner"}]}`` of those homes that are a mount point or have some in them (proc(5),
    mountinfo); ``owner`` is the uid of who mounted it by FUSE, or None where only root could mount it.

    homes
        Paths without a slash at their end.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_mounts.found '[/home/anna]'
    """
    try:
        with open(
            __salt__["plasma_users_seen.at"]("/proc/self/mountinfo", root), encoding="utf-8", errors="surrogateescape"
        ) as file:
            lines = [line.split() for line in file]
    except FileNotFoundError:
        return {}
    wanted, mounts = set(homes), {}
    for words in lines:
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[4])
        part = point.rstrip("/")
        while part:
            if part in wanted:
                mounts.setdefault(part, []).append({"point": point, "owner": _owner(words)})
            part = part.rpartition("/")[0]
    return mounts


def _owner(words):
    """After the hyphen: type, source, options of the file system. The kernel writes user_id of fuse(4) itself."""
    kind, _, *options = words[words.index("-", 6) + 1 :]
    if not re.fullmatch(r"fuse(blk)?(\..*)?", kind) or not options:
        return None
    uids = [option.partition("=")[2] for option in options[-1].split(",") if option.startswith("user_id=")]
    return int(uids[0]) if len(uids) == 1 and uids[0].isdigit() and int(uids[0]) else None


def release(home, uid, timeout=60, root="/"):
    """
    Detach what somebody mounted in their home; for people who run nothing any more.

    home, uid
        Of that person.

    timeout
        Seconds: mounts may be stacked.

    Returns the mount points, sorted. Raises CommandExecutionError when something is mounted there then, for whoever
    mounted it.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_mounts.release /home/anna 1001
    """
    until, detached = time.monotonic() + timeout, set()
    while mounts := found([home], root).get(home, []):
        # What is mounted on top of others takes those with it.
        own = sorted({mount["point"] for mount in mounts if mount["owner"] == uid}, key=len)
        outer = [point for point in own if not any(point.startswith(f"{other}/") for other in own)]
        failed = next((why for why in (_detach(point) for point in outer) if why), None)
        others = [mount["point"] for mount in mounts if mount["owner"] != uid]
        if failed or not own or time.monotonic() > until:
            point = (others or own)[0]
            raise CommandExecutionError(
                f"{point} is mounted in the home{f' ({failed})' if failed else ''}: unmount it, and apply again"
            )
        detached.update(outer)
    return sorted(detached)


def _detach(point):
    """Detach one mount point, along directories only: None, or why it failed."""
    libc = ctypes.CDLL(None, use_errno=True)
    *parts, last = point.strip("/").split("/")
    handle = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            os.close(handle)
            handle = inner
        path = os.fsencode(f"/proc/self/fd/{handle}/{last}")
        if libc.umount2(path, _MNT_DETACH | _UMOUNT_NOFOLLOW):
            return os.strerror(ctypes.get_errno())
    except OSError as exc:
        return exc.strerror
    finally:
        os.close(handle)
    return None
