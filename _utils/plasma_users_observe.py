"""
What is on the server around the account files: homes and the directories above them, archives, mounts, shells.

Everything here only looks, and never follows a link.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections.abc import Callable, Iterable
from typing import Any

import plasma_files
import plasma_mounts
import plasma_users_tables
import plasma_users_write

ARCHIVES = ".plasma-removed"
# Where files have the name of their owner, who cannot write in these directories.
BELONGINGS = ("/var/mail", "/var/spool/cron/crontabs", "/var/spool/cron", "/var/lib/systemd/linger")
_ARCHIVE = re.compile(r"(?P<name>.+)\.uid(?P<uid>\d+)\.\d{4}-\d{2}-\d{2}(\.\d+)?")
_FUSE = re.compile(r"fuse(blk)?(\..*)?")


def accounts(root: str = "/", tables: dict[str, Any] | None = None, memory: dict[str, Any] | None = None) -> dict:
    """
    Return the tables and ``defs`` of ``plasma_users_tables.read``, ``memory`` of ``plasma_users_write.recall``, and
    ``sources``: functions that say whether other sources of accounts (LDAP and the like) have a name or number,
    ``{"user", "uid", "group", "gid"}``.

    tables, memory
        Those that were read already.
    """
    return {
        **(tables or plasma_users_tables.read(root)),
        "memory": plasma_users_write.recall(root=root) if memory is None else memory,
        "sources": {
            "user": _source(root, "passwd", pwd.getpwnam),
            "uid": _source(root, "passwd", pwd.getpwuid),
            "group": _source(root, "group", grp.getgrnam),
            "gid": _source(root, "group", grp.getgrgid),
        },
    }


def _source(root: str, database: str, look_up: Callable) -> Callable[[Any], bool]:
    """A function that says whether another source has a name or number; where there are none, it asks nobody."""
    exists = root == "/" and bool(plasma_users_tables.other_sources(root, database))

    def has(key: Any) -> bool:
        try:
            return exists and bool(look_up(key))
        except (KeyError, OSError, OverflowError):
            return False

    return has


def observe(
    users: list[dict],
    home_path: str = "/home",
    root: str = "/",
    tables: dict[str, Any] | None = None,
    memory: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Return everything that planning needs: what ``accounts`` returns, and ``seen``.

    users, home_path
        As for ``plasma_users.managed``.
    tables, memory
        Those that were read already.

    ``seen`` is ``{"paths": {name: home, see plasma_users_tables.home_path; of these users that below home_path, where
    somebody moved all homes to}, "homes": {path: see status}, "parents":
    {directory: what is wrong with it or None}, "mounts": see ``mounts``, "shells": {path: bool}, "reserved": {uid:
    whose}, "elsewhere": {names that another source of accounts has}, "belongings": {paths of what there is in
    ``BELONGINGS`` of people to rename, by both names}}``, for these users and what they may need.
    """
    current = accounts(root, tables, memory)
    passwd = current["passwd"]["rows"]
    paths = {name: plasma_users_tables.home_path(row) for name, row in passwd.items()}
    paths.update(_moved(users, paths, passwd, home_path, root))
    homes: dict[str, Any] = {}
    parents: dict[str, str | None] = {}

    def look(home: str, with_parent: bool = False) -> None:
        if home:
            homes.setdefault(home, status(home, root))
            if with_parent or homes[home] is None:
                directory = parent(home)
                parents.setdefault(directory, plasma_files.trouble(directory, root))

    going = [user["name"] if user.get("absent") else user.get("was") for user in users]
    leaving = [paths[name] for name in going if paths.get(name)]
    # Of renames that were begun: the home has one of the two names.
    leaving += [move[key] for move in current["memory"]["renaming"].values() for key in ("home", "moved")]
    present = [user for user in users if not user.get("absent")]
    new = [user["name"] for user in present if user["name"] not in paths]
    renamed = [name for user in present if paths.get(user.get("was")) for name in (user["was"], user["name"])]
    belongings = [f"{directory}/{name}" for name in renamed for directory in BELONGINGS]
    for home in leaving:
        look(home, with_parent=True)
    for user in present:
        has = paths.get(user["name"])
        wanted = user.get("home") or (wanted_home(user, home_path) if has is None else "")
        if paths.get(user.get("was")):
            look(f"{parent(paths[user['was']]).rstrip('/')}/{user['name']}", with_parent=True)
        look(has or "")
        if has and homes[has] is None:
            look(f"{home_path.rstrip('/')}/{user['name']}")  # where it may have been moved to
        look(wanted, with_parent=wanted != has)
    current["seen"] = {
        "paths": paths,
        "homes": homes,
        "parents": parents,
        "mounts": mounts(leaving, root) if leaving else {},
        "shells": {shell: _runnable(shell, root) for shell in {user.get("shell") or "/bin/bash" for user in present}},
        "reserved": reserved({*parents, home_path.rstrip("/")}, passwd, root) if new else {},
        "elsewhere": {name for name in new if current["sources"]["user"](name)},
        "belongings": {path for path in belongings if os.path.lexists(plasma_files.at(path, root))},
    }
    return current


def _moved(
    users: list[dict], paths: dict[str, str], passwd: dict[str, list[str]], home_path: str, root: str
) -> dict[str, str]:
    """
    The homes of those whose home is gone from where the account has it, and is below ``home_path`` now. That of
    somebody who is to be renamed may have either name there.
    """
    found: dict[str, str] = {}
    for user in (user for user in users if not user.get("home")):
        name = user["name"] if paths.get(user["name"]) else user.get("was", "")
        if not paths.get(name) or status(paths[name], root) is not None:
            continue
        for new in dict.fromkeys(f"{home_path.rstrip('/')}/{part}" for part in (name, user["name"])):
            if passwd[name][2].isdigit() and is_home(status(new, root), int(passwd[name][2])):
                found.setdefault(name, new)
    return found


def homes_problem(home_path: str = "/home") -> str | None:
    """
    Return why the hub lets nobody in whose home is in a directory, as a sentence that ends with what mends it, or None.

    home_path
        Where the homes are, or will be; links that root made are followed.
    """
    trouble = plasma_files.trouble(os.path.realpath(home_path))
    if not trouble:
        return None
    path = trouble.split()[0]
    mend = "chmod go-w" if "written by others" in trouble else "chown root:root"
    return (
        f"{trouble}, so that somebody could put another home in the place of one, and the hub lets nobody in "
        f"whose home is in {home_path}: `{mend} {path}`"
    )


def wanted_home(user: dict, home_path: str) -> str:
    """Return where the home of a new account is to be."""
    return user.get("home") or f"{home_path.rstrip('/')}/{user['name']}"


def parent(home: str) -> str:
    """Return the directory that holds a home."""
    return home.rpartition("/")[0] or "/"


def _runnable(shell: str, root: str) -> bool:
    """Whether a login shell can be run: a file that everybody may execute."""
    try:
        status = os.stat(plasma_files.at(shell, root))
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_mode & 0o111 == 0o111


def status(path: str, root: str = "/") -> dict[str, Any] | None:
    """
    Return ``{"kind", "uid", "gid"}`` of a path, or None where there is nothing; kind is ``directory``, ``symbolic
    link``, ``file``, or ``unreadable``: root sees nothing below a mount of somebody (FUSE), or the disk is broken.
    """
    try:
        status = os.lstat(plasma_files.at(path, root))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError:
        return {"kind": "unreadable", "uid": -1, "gid": -1}
    kinds = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link"}
    return {"kind": kinds.get(stat.S_IFMT(status.st_mode), "file"), "uid": status.st_uid, "gid": status.st_gid}


def is_home(found: dict[str, Any] | None, uid: int) -> bool:
    """Return whether what ``status`` returned is a directory of this uid."""
    return bool(found) and (found["kind"], found["uid"]) == ("directory", uid)


def reserved(directories: Iterable[str], passwd: dict[str, list[str]], root: str = "/") -> dict[int, str]:
    """
    Return ``{uid: whose}``: the name of a removed person with an archive, or the path of a home that no account has.

    A new account with such a uid would get the files of somebody else.

    directories
        Where homes are.
    passwd
        The rows of that table.
    """
    known = {row[2] for row in passwd.values()} | {str(plasma_files._ROOT_UID)}
    found: dict[int, str] = {}
    for directory in directories:
        for path in (f"{directory}/{name}" for name in _names(directory, root)):
            home = status(path, root)
            if home and home["kind"] == "directory" and str(home["uid"]) not in known:
                found.setdefault(home["uid"], path)
        found.update({archive["uid"]: archive["name"] for archive in archives(directory, root)})
    return found


def archives(directory: str = "/home", root: str = "/") -> list[dict[str, Any]]:
    """
    Return what is kept of removed people beside their homes, ``[{"name", "uid", "path"}]``, sorted by path.

    directory
        Where their homes were.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users.archives
    """
    matches = filter(None, map(_ARCHIVE.fullmatch, _names(f"{directory}/{ARCHIVES}", root)))
    return [
        {"name": match["name"], "uid": int(match["uid"]), "path": f"{directory}/{ARCHIVES}/{match[0]}"}
        for match in matches
    ]


def _names(directory: str, root: str) -> list[str]:
    try:
        return sorted(os.listdir(plasma_files.at(directory, root)))
    except OSError:
        return []


def mounts(homes: Iterable[str], root: str = "/") -> dict[str, list[dict[str, Any]]]:
    """
    Return ``{home: [{"point", "owner"}]}`` of those homes that are a mount point or have some in them.

    With FUSE, anybody may mount something over their own files, where root sees nothing. ``owner`` is the uid of who
    did, or None where only root could mount it.

    homes
        Paths without a slash at their end.
    """
    wanted, found = set(homes), {}
    for mount in plasma_mounts.mounts(plasma_files.at("/proc/self/mountinfo", root)):
        part = mount["target"].rstrip("/")
        while part:
            if part in wanted:
                found.setdefault(part, []).append({"point": mount["target"], "owner": _owner(mount)})
            part = part.rpartition("/")[0]
    return found


def _owner(mount: dict[str, Any]) -> int | None:
    """Who mounted it by FUSE: the kernel writes the option user_id of fuse(4) itself."""
    uids = [option.partition("=")[2] for option in mount["options"] if option.startswith("user_id=")]
    by_fuse = _FUSE.fullmatch(mount["type"]) and len(uids) == 1 and uids[0].isdigit()
    return int(uids[0]) or None if by_fuse else None
