"""
End what people run, so that nothing of theirs is left, whatever it does to stay.

A process that forks and lets its parent exit is gone before a signal reaches the number that was looked up. So the hard
way does not look anything up: the kernel kills a whole control group (cgroup v2, ``cgroup.kill``), and a child of this
program that has become the person kills everything that the person may send a signal to (kill(2), process id -1). New
processes cannot outrun either.
"""

from __future__ import annotations

import os
import pathlib
import signal
import time

__virtualname__ = "plasma_users_processes"

_GRACE = 3  # seconds between SIGTERM and SIGKILL
_LOOKS = 5  # in a row that have to find nothing: what forks may slip through one
_PAUSE = 0.1
_CGROUPS = "/sys/fs/cgroup/user.slice"
_SYSTEMD = "/run/systemd/system"


def __virtual__():
    return __virtualname__


def end(people, timeout=60):
    """
    End all processes of some people: their sessions through systemd, the rest by SIGTERM and then SIGKILL.

    people
        ``{uid: name}``; nobody else may have one of these uids, and none is a system account's.

    timeout
        Seconds until it is given up, beside a few for each step of it.

    Processes in containers of somebody else, where the same number is another person, are left alone: they are in a
    namespace of processes that only root could make.

    Returns ``{name: sentence}`` of those whose processes do not end.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_processes.end '{1001: anna}'
    """
    people = {uid: name for uid, name in people.items() if 0 < uid < 2**32 - 1}
    if not people:
        return {}
    started = time.monotonic()
    found = _processes(people)
    sessions = [uid for uid in people if os.path.isdir(f"{_CGROUPS}/user-{uid}.slice")]
    names = sorted({people[uid] for uid in {*found.values(), *sessions}})
    if names and os.path.isdir(_SYSTEMD):
        __salt__["cmd.run_all"](
            ["loginctl", "terminate-user", *names], python_shell=False, ignore_retcode=True, timeout=30
        )
    for pid in found:
        _send(pid, signal.SIGTERM, people)
    until = time.monotonic() + min(_GRACE, timeout)
    while found and time.monotonic() < until:
        time.sleep(_PAUSE)
        found = _processes(people)
    for uid in people:
        _kill_group(uid)
    # All of them once: a look may have missed what forks.
    others = _in_containers(people)
    for uid in people.keys() - others:
        _kill_all(uid)
    empty = 0
    while empty < _LOOKS:
        found = _processes(people)
        empty = 0 if found else empty + 1
        if found and time.monotonic() - started > timeout:
            return _left(found, people)
        for uid in set(found.values()):
            _kill_group(uid)
            if uid not in others:
                _kill_all(uid)
        for pid in found:
            _send(pid, signal.SIGKILL, people)
        if empty < _LOOKS:
            time.sleep(_PAUSE if found else _PAUSE / 5)
    return {}


def _left(found, people):
    left = {}
    for pid, uid in sorted(found.items()):
        left.setdefault(people[uid], []).append(str(pid))
    return {
        name: f"processes of {name} do not end (ids {', '.join(pids[:5])}): end them, and apply again"
        for name, pids in left.items()
    }


def _kill_group(uid):
    """Kill all that systemd started for a user: the sessions, the user manager, and what came from these."""
    try:
        # Without the file (kernels before 5.14, cgroup v1) it is left to what follows.
        handle = os.open(f"{_CGROUPS}/user-{uid}.slice/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(handle, b"1")
    except OSError:
        pass
    finally:
        os.close(handle)


def _kill_all(uid, patience=5):
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


def _in_containers(people):
    """The uids that somebody else's container uses: a signal to all would reach those too."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        uid = _number(int(pid), people)
        if uid is not None and uid not in found and _in_container(pid):
            found.add(uid)
    return found


def _processes(people):
    """``{process id: uid}`` of what runs as one of these people, zombies left out."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        uid = _uid(int(pid), people)
        if uid is not None:
            found[int(pid)] = uid
    return found


def _uid(pid, people):
    """The uid of a process if it is one of these people's to end."""
    uid = _number(pid, people)
    return None if uid is None or _in_container(pid) else uid


def _number(pid, people):
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if fields.get("State", "Z").startswith(("Z", "X")):
        return None
    # Real, effective, saved: a program that runs with the uid of its file is somebody's through the first one.
    uids = [int(word) for word in fields.get("Uid", "").split()[:3]]
    return next((one for one in uids if one in people), None)


def _in_container(pid):
    """Without root, a namespace of processes takes one of users with it: in ours, only root makes others."""
    try:
        same = {
            kind: os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")
            for kind in ("pid", "user")
        }
    except OSError:
        return False
    return same["user"] and not same["pid"]


def _send(pid, number, people):
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # Asked again: the number may have become another process meanwhile.
        if _uid(pid, people) is not None:
            signal.pidfd_send_signal(handle, number)
    except OSError:
        pass
    finally:
        os.close(handle)
