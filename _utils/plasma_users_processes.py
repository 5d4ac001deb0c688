"""
End what people run, so that nothing of theirs is left, whatever it does to stay.

A process that forks and lets its parent exit is gone before a signal reaches the number that was looked up. So the hard
way does not look anything up: the kernel kills a whole control group (cgroup v2, ``cgroup.kill``), and a child of this
program that has become the person kills everything that the person may send a signal to (kill(2), process id -1). New
processes cannot outrun either.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import time
from collections.abc import Mapping

import plasma_run

_GRACE = 3  # seconds between SIGTERM and SIGKILL
_LOOKS = 5  # in a row that have to find nothing: what forks may slip through one
_PAUSE = 0.1
_CGROUPS = "/sys/fs/cgroup/user.slice"
_SYSTEMD = "/run/systemd/system"


def end(people: Mapping[int, str], timeout: float = 60) -> dict[str, str]:
    """
    End all processes of some people: their sessions through systemd, the rest by SIGTERM and then SIGKILL.

    people
        ``{uid: name}``; nobody else may have one of these uids, and none is a system account's.
    timeout
        Seconds until it is given up, beside a few for each step of it.

    Processes in containers of somebody else, where the same number is another person, are left alone: they are in a
    namespace of processes that only root could make.

    Returns ``{name: sentence}`` of those whose processes do not end.
    """
    people = {uid: name for uid, name in people.items() if 0 < uid < 2**32 - 1}
    if not people:
        return {}
    deadline = time.monotonic() + timeout
    found = _processes(people)
    sessions = [uid for uid in people if os.path.isdir(f"{_CGROUPS}/user-{uid}.slice")]
    # Numbers: it takes a name of digits for one.
    uids = sorted({*found.values(), *sessions})
    if uids and os.path.isdir(_SYSTEMD):
        plasma_run.run(["loginctl", "terminate-user", *map(str, uids)], timeout=30)
    _signal_all(found, signal.SIGTERM, people)
    until = time.monotonic() + min(_GRACE, timeout)
    while found and time.monotonic() < until:
        time.sleep(_PAUSE)
        found = _processes(people)
    in_containers = _in_containers(people)
    _kill(people, in_containers)  # all of them once: a look may have missed what forks
    empty = 0
    while empty < _LOOKS:
        found = _processes(people)
        empty = 0 if found else empty + 1
        if found and time.monotonic() > deadline:
            return _left(found, people)
        _kill(set(found.values()), in_containers)
        _signal_all(found, signal.SIGKILL, people)
        time.sleep(_PAUSE if found else _PAUSE / 5)
    return {}


def _left(found: dict[int, int], people: dict[int, str]) -> dict[str, str]:
    left: dict[str, list[str]] = {}
    for pid, uid in sorted(found.items()):
        left.setdefault(people[uid], []).append(str(pid))
    return {
        name: f"processes of {name} do not end (ids {', '.join(pids[:5])}): end them, and apply again"
        for name, pids in left.items()
    }


def _kill(uids: set[int] | dict[int, str], in_containers: set[int]) -> None:
    for uid in uids:
        _kill_group(uid)
        if uid not in in_containers:
            _kill_all(uid)


def _kill_group(uid: int) -> None:
    """Kill all that systemd started for a user: the sessions, the user manager, and what came from these."""
    # Without the file (kernels before 5.14, cgroup v1) it is left to the other ways.
    with contextlib.suppress(OSError), open(f"{_CGROUPS}/user-{uid}.slice/cgroup.kill", "wb") as file:
        file.write(b"1")


def _kill_all(uid: int, patience: float = 5) -> None:
    """
    Kill everything that runs as a user, as that user; the kernel holds up new processes meanwhile.

    The child must not be root in any way: kill(2) with -1 reaches all that its real or its effective uid may signal.
    """
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(uid, uid, uid)
            if uid and os.getresuid() == (uid, uid, uid):
                os.kill(-1, signal.SIGKILL)  # not sent to whoever calls it
        finally:
            os._exit(0)
    until = time.monotonic() + patience
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > until:  # the user may have stopped it
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
        time.sleep(0.002)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _in_containers(people: dict[int, str]) -> set[int]:
    """The uids that somebody else's container uses: a signal to all would reach those too."""
    uids = ((_owner(pid, people), pid) for pid in _pids())
    return {uid for uid, pid in uids if uid is not None and _in_container(pid)}


def _processes(people: dict[int, str]) -> dict[int, int]:
    """``{process id: uid}`` of what runs as one of these people, zombies left out."""
    return {pid: uid for pid in _pids() if (uid := _uid(pid, people)) is not None}


def _uid(pid: int, people: dict[int, str]) -> int | None:
    """The uid of a process if it is one of these people's to end."""
    uid = _owner(pid, people)
    return None if uid is None or _in_container(pid) else uid


def _owner(pid: int, people: dict[int, str]) -> int | None:
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if fields.get("State", "Z").startswith(("Z", "X")):
        return None
    # Real, effective, saved: a program that runs with the uid of its file is somebody's through the first one.
    return next((uid for uid in map(int, fields.get("Uid", "").split()[:3]) if uid in people), None)


def _in_container(pid: int) -> bool:
    """Without root, a namespace of processes takes one of users with it: in ours, only root makes others."""
    try:
        pid_namespace, user_namespace = (
            os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "user")
        )
    except OSError:
        return False
    return user_namespace and not pid_namespace


def _signal_all(found: dict[int, int], number: int, people: dict[int, str]) -> None:
    for pid in found:
        _send(pid, number, people)


def _send(pid: int, number: int, people: dict[int, str]) -> None:
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            # Asked again: the number may have become another process meanwhile.
            if _uid(pid, people) is not None:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
