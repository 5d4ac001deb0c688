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
import stat
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_users_removal"

_LOCKED = "1"  # the account expired on 2 January 1970 (shadow(5)): no PAM service lets it in, with a key neither


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

    Returns ``{"archives": {name: path | None}, "failed": {name: sentence}}``: the accounts that are gone, and what
    remains to be done. Raises CommandExecutionError when the hub cannot stop a server. Accounts that are not gone then
    are locked, and the next run goes on.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_removal.remove '[]'
    """
    if not leavers:
        return {"archives": {}, "failed": {}}
    memory = __salt__["plasma_users_edit.recall"](root=root)
    names = [leaver["name"] for leaver in leavers]
    notes = {leaver["name"]: _note(leaver, memory["removing"].get(leaver["name"]), root) for leaver in leavers}
    memory["removing"].update(notes)
    __salt__["plasma_users_edit.remember"](memory, root=root)

    __salt__["plasma_users_edit.change"](lambda tables: {"shadow": _locked(tables["shadow"]["rows"], names)}, root=root)
    __salt__["plasma_hub_api.forget"](names, prefix=prefix, timeout=timeout)
    failed = dict(
        __salt__["plasma_users_processes.end"]({leaver["uid"]: leaver["name"] for leaver in leavers}, timeout=timeout)
    )
    # From here on each on their own: what is the matter with one keeps nobody else.
    for leaver in leavers:
        name = leaver["name"]
        if leaver["move"] and name not in failed:
            _tried(name, failed, _put_aside, notes[name], root)
    ranges = _subordinate_ids(names, root)
    for name in ranges.keys() - failed.keys():
        _tried(name, failed, _drop_subordinate_ids, name, ranges[name], root)
    gone = [name for name in names if name not in failed]
    drop(gone, root=root)
    done = finish(gone, root=root)
    return {"archives": done["archives"], "failed": {**failed, **done["failed"]}}


def _tried(name, failed, function, *arguments):
    try:
        return function(*arguments)
    except (CommandExecutionError, OSError) as exc:
        failed[name] = __salt__["plasma_users_edit.said"](exc)
    return None


def _put_aside(note, root):
    __salt__["plasma_users_mounts.release"](note["home"], note["uid"], root=root)
    __salt__["plasma_users_homes.put_aside"](note, root=root)


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

    Returns ``{"archives": {name: path | None}, "failed": {name: sentence}}``; those who failed are in both, and the
    next run goes on with them.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_removal.finish '[anna]'
    """
    memory = __salt__["plasma_users_edit.recall"](root=root)
    notes = {name: memory["removing"][name] for name in names if name in memory["removing"]}
    if not notes:
        return {"archives": {}, "failed": {}}
    kept, failed, jobs = {}, {}, _jobs({note["uid"]: name for name, note in notes.items()}, root)
    for name, note in notes.items():
        _tried(name, failed, _keep_all, note, [*_belongings(name, root), *jobs.get(name, ())], root)
        there = __salt__["plasma_users_seen.status"](note["archive"], root=root)
        kept[name] = note["archive"] if there else None
        if name in failed:
            continue
        memory["uids"][str(note["uid"])] = name
        memory["gids"][str(note["gid"])] = name
        memory["forgotten"][name] = True
        del memory["removing"][name]
        memory["given"].pop(name, None)
    __salt__["plasma_users_edit.remember"](memory, root=root)
    return {"archives": kept, "failed": failed}


def _keep_all(note, paths, root):
    for path in paths:
        _keep(path, note, root)
    if note["remove_home"]:
        __salt__["plasma_users_homes.delete"](note["archive"], root=root)


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


def _jobs(people, root):
    """What `at` was to run later has the uid of its owner, and would run as whoever gets that uid: paths by name."""
    jobs = "/var/spool/cron/atjobs"
    directory = __salt__["plasma_users_seen.at"](jobs, root)
    found = {}
    for file in os.listdir(directory) if os.path.isdir(directory) else ():
        status = __salt__["plasma_users_seen.status"](f"{jobs}/{file}", root=root)
        if status and status["uid"] in people:
            found.setdefault(people[status["uid"]], []).append(os.path.join(directory, file))
    return found


def _subordinate_ids(names, root):
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
            if name in wanted and numbers.isascii() and first.isdigit() and count.isdigit() and int(count):
                option = f"--del-{kind}s"
                ranges.setdefault(name, []).extend([option, f"{first}-{int(first) + int(count) - 1}"])
    return ranges


def _drop_subordinate_ids(name, options, root):
    command = ["usermod", *options, *(["--root", root] if root != "/" else []), name]
    done = __salt__["cmd.run_all"](command, python_shell=False, ignore_retcode=True, timeout=60)
    if done["retcode"]:
        said = (done["stderr"].strip() or "no output").splitlines()[-1]
        raise CommandExecutionError(f"its subordinate ids could not be taken away: {said}")
