"""Which accounts may become root on this server: their servers, homes and tokens are for nobody but themselves.

Whoever opens a server of such an account, or acts as it, can leave a key in its home and is root a login later.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .accounts import alleged_groups

# Groups whose members are root, or a command away from it: by sudo or PolicyKit, by an engine of containers or virtual
# machines, by reading or writing disks, memory, passwords and keys, or what is in root's path. And those who read logs.
GROUPS = frozenset(
    (
        *("root", "sudo", "wheel", "admin", "salt", "jupyterhub-admins"),
        *("docker", "podman", "lxd", "lxc", "incus", "incus-admin", "libvirt", "libvirt-qemu", "microk8s"),
        *("disk", "shadow", "kmem", "ssl-cert", "staff", "adm", "systemd-journal"),
    )
)
# Whoever may write to one of these is root; its group may have any name.
SOCKETS = (
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/libvirt/libvirt-sock",
    "/var/lib/lxd/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
    "/var/lib/incus/unix.socket",
)
# What decides, as far as it is on this machine: a change of these is seen at once.
FILES = ("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/sudoers", "/etc/sudoers.d")
PASSWD = Path("/etc/passwd")
# Seconds for which an answer holds, as directories change without a file here.
MAX_AGE = 60
# Seconds that sudo may take, which may ask a directory.
PATIENCE = 10
# What sudo says of somebody whom no rule names, with the messages of the C locale.
NOT_ALLOWED = "is not allowed to run sudo on"


def _sudo(name: str) -> str:
    """Ask sudo itself, which knows aliases, includes, netgroups and directories; empty when it allows nothing."""
    program = shutil.which("sudo", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, "-n", "-l", "-U", name],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"sudo cannot be asked about it ({type(error).__name__})"
    # With a rule there is a list of commands; without one a sentence. Anything else is no answer.
    if f"User {name} {NOT_ALLOWED}" in done.stdout + done.stderr:
        return ""
    return "it may use sudo" if done.returncode == 0 else f"sudo does not say what it may do (code {done.returncode})"


def _socket_groups() -> set[int]:
    """Group ids that may write to the socket of something that is root."""
    found = set()
    for path in SOCKETS:
        try:
            status = os.stat(path)
        except OSError:
            continue
        if stat.S_ISSOCK(status.st_mode) and status.st_mode & stat.S_IWGRP:
            found.add(status.st_gid)
    return found


def _names_of(uid: int) -> list[str]:
    """All names of a user id on this machine, and the one that the account database gives it."""
    names = [pwd.getpwuid(uid).pw_name]
    for line in PASSWD.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[2] == str(uid):
            names.append(fields[0])
    return list(dict.fromkeys(names))


def reason(name: str) -> str:
    """Return why an account may become root, or an empty text when it may not.

    A name without an account is nobody's: it may not. Where something cannot be read, the account counts as one that
    may. It blocks: sudo and the account database may ask a directory.

    Args:
        name: login name.
    """
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError, UnicodeError):
        return ""
    if entry.pw_uid == 0:
        return "its user id is root's"
    try:
        for one in dict.fromkeys([name, *_names_of(entry.pw_uid)]):
            groups = alleged_groups(one) & GROUPS
            if groups:
                return f"{one} is in the group {min(groups)}"
            if _socket_groups() & set(os.getgrouplist(one, pwd.getpwnam(one).pw_gid)):
                return f"{one} may use an engine that is root"
            said = _sudo(one)
            if said:
                return said if one == name else f"{one}, who has the same user id: {said}"
    except (OSError, KeyError, ValueError) as error:
        return f"the account cannot be looked at ({error})"
    return ""


def _stamp() -> tuple[Any, ...]:
    """What the files that decide look like at the moment."""
    found = []
    for path in (*FILES, *sorted(Path("/etc/sudoers.d").glob("*"))):
        try:
            status = os.stat(path)
            found.append((str(path), status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            found.append((str(path),))
    return tuple(found)


class Remembered:
    """Answers about accounts, asked for in threads and kept for a short while.

    Args:
        ask: blocks, and answers about one name.
        unknown: what holds for a name of which there is no fresh answer.
    """

    def __init__(self, ask: Callable[[str], Any], unknown: Any) -> None:
        self._ask = ask
        self._unknown = unknown
        self._known: dict[str, tuple[float, Any, Any]] = {}
        # Grows with every answer: who keeps conclusions knows when they are old.
        self.generation = 0

    def _fresh(self, name: str, stamp: Any) -> bool:
        kept = self._known.get(name)
        return kept is not None and time.monotonic() - kept[0] < MAX_AGE and kept[1] == stamp

    async def look(self, names: Iterable[str]) -> None:
        """Make sure that there are fresh answers about ``names``."""
        wanted = list(dict.fromkeys(names))
        stamp = _stamp() if wanted else None
        missing = [name for name in wanted if not self._fresh(name, stamp)]
        if not missing:
            return
        answers = await asyncio.to_thread(lambda: [self._ask(name) for name in missing])
        if len(self._known) > 10_000:
            self._known.clear()
        for name, answer in zip(missing, answers, strict=True):
            self._known[name] = (time.monotonic(), stamp, answer)
        self.generation += 1

    def answer(self, name: str) -> Any:
        """Return the answer about a name that was looked at a moment ago."""
        kept = self._known.get(name)
        # With some seconds of grace: it was fresh when the request came.
        if kept is None or time.monotonic() - kept[0] > MAX_AGE + PATIENCE:
            return self._unknown
        return kept[2]


# One for all: who may become root is the same for every request.
accounts = Remembered(reason, "nobody has looked at it yet")
