"""
Make homes, and put those of removed people aside.

Homes are made in a directory of root's beside their place and renamed into it, so that a half-made one is never seen. A
home is put aside by one rename, whatever is in it. Nothing here is called unless ``plasma_files.trouble`` found
none with the directory that holds the home: so nobody but root can change what a path means.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import stat
import time
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_run
import plasma_users_observe
from plasma_files import at
from plasma_users_observe import ARCHIVES, parent
from plasma_users_write import described

_NEW = ".plasma-new."
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8  # umount(2)
_COPIED = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
_ACCOUNT = ("name", "uid", "gid", "groups", "fullname", "shell", "home", "date")


def make(homes: list[dict[str, Any]], root: str = "/") -> list[str]:
    """
    Make homes from ``/etc/skel``; those that exist are left alone. Directories above them are made, root's, mode 0755.

    homes
        List of ``{"name", "uid", "gid", "path", "mode", "archive"}``. What an interrupted removal had put aside in
        ``archive`` comes back.

    Returns the paths of the homes made. Raises CommandExecutionError when one cannot be made; the others are made.
    """
    failed, made = [], []
    with described():
        for directory in {parent(home["path"]) for home in homes}:
            _make_directories(directory, root)
        clear([home["path"] for home in homes], root)
    for home in homes:
        path = at(home["path"], root)
        new = os.path.join(os.path.dirname(path), _NEW + home["name"])
        try:
            if os.path.lexists(path):
                continue
            if not _bring_back(home, path, root):
                os.mkdir(new, 0o700)
                _fill(new, at("/etc/skel", root), home["uid"], home["gid"])
                os.chmod(new, home["mode"])
                os.chown(new, home["uid"], home["gid"])
                os.rename(new, path)
            made.append(home["path"])
        except OSError as exc:
            shutil.rmtree(new, ignore_errors=True)
            why = exc.strerror or exc.args[0][0][2]  # shutil.Error lists (source, target, text)
            failed.append(f"The home {home['path']} could not be made: {why}.")
    if failed:
        more = f" {len(failed) - 3:,} more could not be made." if len(failed) > 3 else ""
        raise CommandExecutionError(" ".join(failed[:3]) + more)
    return made


def clear(paths: list[str], root: str = "/") -> None:
    """Remove the half-made homes that a killed run left beside these homes."""
    for directory in {at(parent(path), root) for path in paths}:
        for leftover in os.listdir(directory) if os.path.isdir(directory) else ():
            if leftover.startswith(_NEW):
                shutil.rmtree(os.path.join(directory, leftover))


def _make_directories(directory: str, root: str) -> None:
    path = ""
    for part in directory.strip("/").split("/"):
        path = f"{path}/{part}"
        if not os.path.lexists(at(path, root)):
            os.mkdir(at(path, root), 0o755)
            os.chmod(at(path, root), 0o755)  # whatever the umask is


def _bring_back(home: dict[str, Any], path: str, root: str) -> bool:
    """Bring a home back from an archive that its own removal did not get to finish."""
    archived = f"{home['archive']}/home"
    found = home["archive"] and plasma_users_observe.status(archived, root=root)
    if not plasma_users_observe.is_home(found, home["uid"]):
        return False
    os.rename(at(archived, root), path)
    return True


def _fill(directory: str, skeleton: str, uid: int, gid: int) -> None:
    """Copy the skeleton into a new home that is root's; what is no file, directory or link has no place in it."""

    def odd(base: str, names: list[str]) -> list[str]:
        return [name for name in names if stat.S_IFMT(os.lstat(os.path.join(base, name)).st_mode) not in _COPIED]

    shutil.copytree(skeleton, directory, symlinks=True, dirs_exist_ok=True, ignore=odd)
    os.chmod(directory, 0o700)  # nobody else comes in while files of theirs are changed by their paths
    for base, names, files in os.walk(directory):
        for path in (os.path.join(base, name) for name in [*names, *files]):
            mode = os.lstat(path).st_mode
            if not stat.S_ISLNK(mode):
                os.chmod(path, mode & 0o777)  # no program that runs as its owner
            os.lchown(path, uid, gid)


def free_archive(name: str, uid: int, home: str, root: str = "/") -> str:
    """Return a path that is free for the archive of somebody: ``.plasma-removed/NAME.uidUID.DATE`` beside the home."""
    path = f"{parent(home).rstrip('/')}/{ARCHIVES}/{name}.uid{uid}.{time.strftime('%Y-%m-%d')}"
    number, free = 1, path
    while os.path.lexists(at(free, root)):
        number += 1
        free = f"{path}.{number}"
    return free


def open_archive(note: dict[str, Any], root: str = "/") -> str:
    """
    Make the archive of somebody, readable for root alone, with a description of the account in ``account.json``.

    note
        What ``plasma_users_leave`` remembers of a person.

    Returns its path on this machine. Does nothing when it is there.
    """
    path = at(note["archive"], root)
    above = os.path.dirname(path)
    if not os.path.lexists(above):
        _make_directories(parent(parent(note["archive"])), root)
        os.mkdir(above, 0o700)
    status = os.lstat(above)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise CommandExecutionError(f"{above} must be a directory of root's with mode 0700: move away what is there.")
    if not os.path.lexists(path):
        os.mkdir(path, 0o700)
        handle = os.open(os.path.join(path, "account.json"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps({key: note.get(key) for key in _ACCOUNT}, indent=1) + "\n")
    return path


def put_aside(note: dict[str, Any], root: str = "/") -> bool:
    """
    Rename a home into the archive of its owner. Returns whether it was there.

    Raises CommandExecutionError when that fails; nothing is copied, so the home is in one of the two places.
    """
    found = plasma_users_observe.status(note["home"], root=root)
    if found and found["kind"] == "unreadable":
        raise CommandExecutionError(f"The home {note['home']} cannot be looked at: see what is the matter with it.")
    if not plasma_users_observe.is_home(found, note["uid"]):
        return False
    target = os.path.join(open_archive(note, root), "home")
    if os.path.lexists(target):
        raise CommandExecutionError(f"{note['home']} is there again, and {target} too: move one of them away.")
    try:
        os.rename(at(note["home"], root), target)
    except OSError as exc:
        raise CommandExecutionError(f"The home {note['home']} could not be moved to {target}: {exc.strerror}.") from exc
    return True


def delete(archive: str, root: str = "/") -> bool:
    """
    Delete the archive of somebody with everything in it. Links are removed and not followed; other file systems stay.

    Returns whether it was there. Raises CommandExecutionError when something could not be deleted.
    """
    path = at(archive, root)
    if not os.path.lexists(path):
        return False
    if plasma_users_observe.mounts([archive], root=root):
        raise CommandExecutionError(f"Something is mounted in {archive}: unmount it, and apply again.")
    # rm(1) works with open directories, so that a link that appears meanwhile leads nowhere, in trees of any depth.
    done = plasma_run.run(["rm", "-rf", "--one-file-system", "--", path], timeout=3600)
    if os.path.lexists(path):
        raise CommandExecutionError(f"{archive} could not be deleted completely: {done.last_line}.")
    return True


def release(home: str, uid: int, timeout: float = 60, root: str = "/") -> list[str]:
    """
    Detach what somebody mounted in their home by FUSE; for people who run nothing any more.

    home, uid
        Of that person.
    timeout
        Seconds: mounts may be stacked.

    Returns the mount points, sorted. Raises CommandExecutionError when something is mounted there then, for whoever
    mounted it.
    """
    until, detached = time.monotonic() + timeout, set()
    while mounts := plasma_users_observe.mounts([home], root).get(home, []):
        # What is mounted on top of others takes those with it.
        own = sorted({mount["point"] for mount in mounts if mount["owner"] == uid}, key=len)
        outer = [point for point in own if not any(point.startswith(f"{other}/") for other in own)]
        failed = next(filter(None, map(_detach, outer)), None)
        others = [mount["point"] for mount in mounts if mount["owner"] != uid]
        if failed or not own or time.monotonic() > until:
            why = f" ({failed})" if failed else ""
            raise CommandExecutionError(
                f"{(others or own)[0]} is mounted in the home{why}: unmount it, and apply again"
            )
        detached.update(outer)
    return sorted(detached)


def _detach(point: str) -> str | None:
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
