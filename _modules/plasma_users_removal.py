"""
Take people off a server without losing what is theirs, and so that a killed run is finished by the next one.

The order: the accounts are locked, so that nobody starts anything anew; the hub stops their servers and forgets them;
what still runs is ended; each home is put aside by one rename; the accounts go from the four files in one change; what
else has their name or uid (mail, crontab, jobs of at) follows the home. What is under way is noted before it begins.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import stat
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_users_removal"

_LOCKED = "1"  # the account expired on 2 January 1970 (shadow(5)): no PAM service lets it in, with a key neither
_GRACE = 3  # seconds between SIGTERM and SIGKILL


def __virtual__():
    return __virtualname__


def protected(root="/"):
    """
    Return ``{uid: why}`` of the accounts that this apply comes from: who lost theirs would be locked out.

    It is who called sudo, who logged in (``loginuid``), and who owns the directories that this module runs from.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_removal.protected
    """
    uids = set()
    for value in (os.environ.get("SUDO_UID", ""), _first_line(f"/proc/{os.getpid()}/loginuid")):
        if value.isdigit():
            uids.add(int(value))
    for directory in pathlib.Path(__file__).resolve().parents:
        uids.add(directory.stat().st_uid)
    return {uid: "is the account this apply comes from" for uid in uids if 0 < uid < 2**32 - 1}


def _first_line(path):
    try:
        return pathlib.Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def remove(leavers, prefix="/opt/tljh", timeout=60, root="/"):
    """
    Remove accounts; for ``plasma_users.apply``, which holds the lock and has asked ``plasma_users_leavers.plan``.

    leavers
        What that returned.

    prefix
        Where the hub is installed.

    timeout
        Seconds for the hub to stop their servers, and for their other processes to end.

    Returns ``{name: path of the archive | None}``. Raises CommandExecutionError when the hub cannot stop a server or a
    process does not end: then the accounts are locked, nothing is moved, and the next run goes on.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_removal.remove '[]'
    """
    if not leavers:
        return {}
    memory = __salt__["plasma_users_edit.recall"](root=root)
    names = [leaver["name"] for leaver in leavers]
    notes = {leaver["name"]: _note(leaver, memory["removing"].get(leaver["name"]), root) for leaver in leavers}
    memory["removing"].update(notes)
    __salt__["plasma_users_edit.remember"](memory, root=root)

    __salt__["plasma_users_edit.change"](lambda tables: {"shadow": _locked(tables["shadow"]["rows"], names)}, root=root)
    __salt__["plasma_hub_api.forget"](names, prefix=prefix, timeout=timeout)
    end_processes({leaver["uid"]: leaver["name"] for leaver in leavers}, timeout=timeout)
    for leaver in leavers:
        if leaver["move"]:
            __salt__["plasma_users_homes.put_aside"](notes[leaver["name"]], root=root)
    _drop_subordinate_ids(names, root)
    drop(names, root=root)
    return finish(names, root=root)


def _note(leaver, begun, root):
    note = {key: leaver[key] for key in leaver if key != "move"}
    if begun:
        return {**note, "archive": begun["archive"], "date": begun["date"]}
    place = __salt__["plasma_users_homes.place"](leaver["name"], leaver["uid"], leaver["home"], root=root)
    return {**note, "archive": place, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def _locked(rows, names):
    return {
        name: [*rows[name][:7], _LOCKED, rows[name][8]] for name in names if name in rows and rows[name][7] != _LOCKED
    }


def drop(names, root="/"):
    """
    Take accounts out of the four files; those whose removal has begun.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_removal.drop '[]'
    """
    memory = __salt__["plasma_users_edit.recall"](root=root)
    names = [name for name in names if name in memory["removing"]]
    plan = __salt__["plasma_users_leavers.edits"]
    order = ("passwd", "shadow", "gshadow", "group")  # an account counts from its line in passwd on
    __salt__["plasma_users_edit.change"](
        lambda tables: plan({**tables, "memory": memory}, names), order=order, root=root
    )


def finish(names, root="/"):
    """
    Do what is left when accounts are gone from the files: keep their mail and crontabs with their homes, or delete all
    of it where that was wanted, and note the uids as spent.

    names
        Of people whose removal has begun. Others are left alone.

    Returns ``{name: path of the archive | None}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_removal.finish '[anna]'
    """
    memory = __salt__["plasma_users_edit.recall"](root=root)
    notes = {name: memory["removing"][name] for name in names if name in memory["removing"]}
    if not notes:
        return {}
    kept = {}
    for name, note in notes.items():
        for path in _belongings(name, root):
            _keep(path, note, root)
    _keep_jobs({note["uid"]: note for note in notes.values()}, root)
    for name, note in notes.items():
        if note["remove_home"]:
            __salt__["plasma_users_homes.delete"](note["archive"], root=root)
        there = __salt__["plasma_users_seen.status"](note["archive"], root=root)
        kept[name] = note["archive"] if there else None
        memory["uids"][str(note["uid"])] = name
        del memory["removing"][name]
        memory["given"].pop(name, None)
    __salt__["plasma_users_edit.remember"](memory, root=root)
    return kept


def _belongings(name, root):
    """What has a person's name outside their home. Those directories are not theirs to write in."""
    at = __salt__["plasma_users_seen.at"]
    return [
        at(f"{directory}/{name}", root)
        for directory in ("/var/mail", "/var/spool/cron/crontabs", "/var/spool/cron", "/var/lib/systemd/linger")
    ]


def _keep(path, note, root):
    """Move one file into the archive of its owner; a link is removed, anything else than a file stays."""
    try:
        found = os.lstat(path)
    except OSError:
        return
    if stat.S_ISLNK(found.st_mode):
        os.unlink(path)
    if not stat.S_ISREG(found.st_mode):
        return
    archive = __salt__["plasma_users_homes.open_archive"](note, root=root)
    target = os.path.join(archive, "-".join(pathlib.Path(path).parts[-2:]))
    try:
        os.rename(path, target)
    except OSError:  # another file system
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with (
            open(source, "rb") as old,
            open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as new,
        ):
            shutil.copyfileobj(old, new)
        os.unlink(path)


def _keep_jobs(notes, root):
    """What `at` was to run later has the uid of its owner, and would run as whoever gets that uid."""
    jobs = "/var/spool/cron/atjobs"
    directory = __salt__["plasma_users_seen.at"](jobs, root)
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        found = __salt__["plasma_users_seen.status"](f"{jobs}/{name}", root=root)
        if found and found["uid"] in notes:
            _keep(os.path.join(directory, name), notes[found["uid"]], root)


def _drop_subordinate_ids(names, root):
    """Ranges of user namespaces, which useradd gives: their next owner would get files of these people."""
    wanted, ranges = set(names), {}
    for kind in ("subuid", "subgid"):
        try:
            lines = pathlib.Path(root, "etc", kind).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            name, _, numbers = line.partition(":")
            first, _, count = numbers.partition(":")
            if name in wanted and first.isdigit() and count.isdigit() and int(count):
                option = f"--del-{kind}s"
                ranges.setdefault(name, []).extend([option, f"{first}-{int(first) + int(count) - 1}"])
    for name, options in ranges.items():
        command = ["usermod", *options, *(["--root", root] if root != "/" else []), name]
        done = __salt__["cmd.run_all"](command, python_shell=False, ignore_retcode=True, timeout=60)
        if done["retcode"]:
            said = (done["stderr"].strip() or "no output").splitlines()[-1]
            raise CommandExecutionError(f"The subordinate ids of {name} could not be taken away: {said}.")


def end_processes(people, timeout=60):
    """
    End all processes of some people: their sessions through systemd, the rest by SIGTERM and then SIGKILL.

    people
        ``{uid: name}``.

    timeout
        Seconds until an error.

    Processes in containers of somebody else, where the same number is another person, are left alone: they are in a
    namespace of processes that only root could make. Raises CommandExecutionError when one does not end.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_removal.end_processes '{1001: anna}'
    """
    started = time.monotonic()
    found = _processes(people)
    if not found:
        return
    names = sorted({people[uid] for uid in found.values()})
    if os.path.isdir("/run/systemd/system"):
        __salt__["cmd.run_all"](
            ["loginctl", "terminate-user", *names], python_shell=False, ignore_retcode=True, timeout=30
        )
    sent = None
    while found := _processes(people):
        waited = time.monotonic() - started
        if waited > timeout:
            pids = ", ".join(str(pid) for pid in sorted(found)[:5])
            whose = ", ".join(sorted({people[uid] for uid in found.values()}))
            raise CommandExecutionError(f"Processes of {whose} do not end (ids {pids}): end them, and apply again.")
        wanted = signal.SIGTERM if waited < _GRACE else signal.SIGKILL
        if wanted != sent or wanted == signal.SIGKILL:
            for pid in found:
                _send(pid, wanted, people)
        sent = wanted
        time.sleep(0.1)


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
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            status = file.read()
    except OSError:
        return None
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if fields.get("State", "Z").startswith(("Z", "X")):
        return None
    # Real, effective, saved: a program that runs with the uid of its file is somebody's through the first one.
    uids = [int(word) for word in fields.get("Uid", "").split()[:3]]
    uid = next((one for one in uids if one in people), None)
    return None if uid is None or _in_container(pid) else uid


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
