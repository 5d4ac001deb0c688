"""How much of their disk quota somebody uses, asked of the kernel, and what they are told about it.

``quotactl_fd(2)`` needs the file system and no device: systemd's ``PrivateDevices=`` hides those from the hub, and from
the programs of the package "quota" if it ran them. Every supported system has it (Linux 5.14).
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from dataclasses import dataclass

from .accounts import find_account

# <sys/quota.h>, <linux/quota.h>; the call has one number on all architectures of Debian and Ubuntu.
SYS_QUOTACTL_FD = 443
Q_GETQUOTA, USRQUOTA = 0x800007, 0
DQBLK = struct.Struct("=8QI4x")
# Limits of space are counted in these.
BLOCK = 1024
# Less than this is no room to save in.
ROOM = 64 * 1024

ADVICE = (
    "Delete files that you no longer need. Files that you delete in JupyterLab count until they leave the trash, "
    "~/.local/share/Trash."
)


@dataclass(frozen=True)
class Amount:
    """How much is used of one kind of limit.

    Attributes:
        used: bytes, or files and directories.
        soft: limit that may be exceeded for some time; 0 for none.
        hard: limit that is never exceeded; 0 for none.
        until: when that time ends, in seconds since 1970; 0 when it does not run.
    """

    used: int
    soft: int = 0
    hard: int = 0
    until: int = 0


@dataclass(frozen=True)
class Usage:
    """What somebody uses of a file system: space in bytes, and the number of files."""

    space: Amount
    files: Amount


@dataclass(frozen=True)
class Notice:
    """What somebody is told.

    Attributes:
        level: "warning", or "error" when nothing can be saved any more.
        title: what it is about, as a heading.
        text: some sentences.
    """

    level: str
    title: str
    text: str


def read(uid: int, directory: str) -> Usage | None:
    """Return somebody's usage of the file system of a directory; None where it has no quotas.

    Args:
        uid: their uid.
        directory: their home, whose path nobody but root can redirect.
    """
    buffer = ctypes.create_string_buffer(DQBLK.size)
    try:
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        numbers = map(ctypes.c_long, (SYS_QUOTACTL_FD, descriptor, Q_GETQUOTA << 8 | USRQUOTA, uid))
        failed = ctypes.CDLL(None).syscall(*numbers, buffer)
    finally:
        os.close(descriptor)
    return None if failed else unpack(buffer.raw)


def unpack(raw: bytes) -> Usage:
    """Return what the kernel's ``struct if_dqblk`` says."""
    hard, soft, used, files_hard, files_soft, files, until, files_until, _ = DQBLK.unpack(raw)
    space = Amount(used, soft * BLOCK, hard * BLOCK, until)
    return Usage(space, Amount(files, files_soft, files_hard, files_until))


def notice_for(name: str) -> Notice | None:
    """Return what somebody is to be told now; None when all is well, or nothing is known.

    Args:
        name: login name.

    Raises:
        AccountError: there is no such person.
    """
    account = find_account(name)
    usage = read(account.uid, account.real_home)
    return notice(usage, time.time()) if usage else None


def notice(usage: Usage, now: float) -> Notice | None:
    """Return what is to be told about a usage; None when no limit is exceeded.

    Args:
        usage: the usage.
        now: seconds since 1970.
    """
    kinds = (
        (usage.space, "You use {} of disk space", size, ROOM),
        (usage.files, "You have {} files and directories", "{:,}".format, 1),
    )
    over, sentences = False, []
    for amount, words, show, room in kinds:
        reached = 0 < amount.hard < amount.used + room
        if not reached and not 0 < amount.soft < amount.used:
            continue
        ended = reached or 0 < amount.until <= now
        over = over or ended
        # Somebody may be told about the hard limit with no soft one below it.
        limit = amount.soft or amount.hard
        sentences.append(f"{words.format(show(amount.used))}; your limit is {show(limit)}.")
        up_to = f", up to {show(amount.hard)}" if amount.hard else ""
        if reached:
            sentences.append(f"You have reached {show(amount.hard)}, so nothing more can be saved.")
        elif ended:
            sentences.append("The time for that is over, so nothing more can be saved.")
        elif amount.until:
            sentences.append(f"Until {moment(amount.until)} you can still save{up_to}; after that no more.")
        else:
            sentences.append(f"For some days you can still save{up_to}; after that no more.")
    if not sentences:
        return None
    title = "You cannot save any more" if over else "Your disk is nearly full"
    return Notice("error" if over else "warning", title, " ".join([*sentences, ADVICE]))


def size(number: int) -> str:
    """Return bytes in words, as the pages do: "1.5 GB", of 1024 MB each."""
    if number < 1024**3:
        return f"{number // 1024**2} MB"
    return f"{round(number / 1024**3, 2):g} GB"


def moment(seconds: float) -> str:
    """Return a time in words, by this server's clock: "2 December 2026, 14:00 CET"."""
    return time.strftime("%d %B %Y, %H:%M %Z", time.localtime(seconds)).removeprefix("0")
