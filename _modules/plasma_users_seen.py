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

__virtualname__ = "plasma_users_seen"

ARCHIVES = ".plasma-removed"
_ARCHIVE = re.compile(r"(?P<name>.+)\.uid(?P<uid>\d+)\.\d{4}-\d{2}-\d{2}(\.\d+)?")
# Who has to own the directories above homes; tests have no root.
_ROOT_UID = 0


def __virtual__():
    return __virtualname__


def observe(users, home_path="/home", root="/", tables=None, memory=None):
    """
    Return everything that planning needs: the tables and ``defs`` of ``plasma_users_files.read``, ``memory`` of
    ``plasma_users_edit.recall``, and ``seen``.

    users, home_path
        As for ``plasma_users.managed``.

    tables, memory
        Both, where they were read already.

    ``seen`` is ``{"paths": {name: home of the account, see plasma_users_files.path}, "homes": {path: None | {"kind",
    "uid", "gid"}}, "parents": {directory: what is wrong with it or None}, "mounts": see ``plasma_users_mounts.found``,
    "shells": {path: bool}, "reserved": {uid: whose}, "elsewhere": {names that another source of accounts has}}``, for
    the users given and for what would be done about them. ``sources`` is what ``sources`` returns.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_seen.observe '[]'
    """
    current = dict(tables or __salt__["plasma_users_files.read"](root=root))
    current["memory"] = __salt__["plasma_users_edit.recall"](root=root) if memory is None else memory
    current["sources"] = sources(root)
    passwd, path = current["passwd"]["rows"], __salt__["plasma_users_files.path"]
    paths = {name: path(row[5]) for name, row in passwd.items() if len(row) == 7}
    home_path = home_path.rstrip("/")
    homes, parents, shells, leaving, new = {}, {}, set(), [], []

    def look(home, with_parent=False):
        if not home:
            return
        if home not in homes:
            homes[home] = status(home, root)
        directory = home.rpartition("/")[0] or "/"
        if (with_parent or homes[home] is None) and directory not in parents:
            parents[directory] = trouble(directory, root)

    for entry in users:
        has = paths.get(entry["name"])
        if entry.get("absent"):
            if has:
                look(has, with_parent=True)
                leaving.append(has)
            continue
        shells.add(entry.get("shell") or "/bin/bash")
        if has is None:
            look(entry.get("home") or f"{home_path}/{entry['name']}", with_parent=True)
            new.append(entry["name"])
            continue
        look(has)
        if entry.get("home"):
            look(entry["home"], with_parent=entry["home"] != has)
    current["seen"] = {
        "paths": paths,
        "homes": homes,
        "parents": parents,
        "mounts": __salt__["plasma_users_mounts.found"](leaving, root=root) if leaving else {},
        "shells": {shell: __salt__["plasma_users_files.runnable"](shell, root=root) for shell in shells},
        "reserved": reserved({*parents, home_path}, passwd, root) if new else {},
        "elsewhere": {name for name in new if current["sources"]["user"](name)},
    }
    return current


def at(path, root="/"):
    """
    Return where a path of the server is, below another root too.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_seen.at /home root=/srv/copy
    """
    return path if root == "/" else os.path.join(root, path.lstrip("/"))


def status(path, root="/"):
    """
    Return ``{"kind", "uid", "gid"}`` of a path, or None where there is nothing; kind is ``directory``, ``symbolic
    link``, ``file``, or ``unreadable``: root sees nothing below a mount of somebody (FUSE), or the disk is broken.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_seen.status /home/anna
    """
    try:
        found = os.lstat(at(path, root))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError:
        return {"kind": "unreadable", "uid": -1, "gid": -1}
    kind = "file"
    if stat.S_ISDIR(found.st_mode):
        kind = "directory"
    elif stat.S_ISLNK(found.st_mode):
        kind = "symbolic link"
    return {"kind": kind, "uid": found.st_uid, "gid": found.st_gid}


def trouble(directory, root="/"):
    """
    Return why somebody beside root could lead a file operation in this directory astray, or None.

    It and all directories above have to be root's, without links, and not writable by others. What does not exist yet
    is no trouble: root makes it.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_seen.trouble /home
    """
    path = ""
    for part in ["", *directory.strip("/").split("/")]:
        path = f"{path}/{part}".replace("//", "/")
        try:
            found = os.lstat(at(path, root))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            return f"{path} cannot be looked at ({exc.strerror})"
        if stat.S_ISLNK(found.st_mode):
            return f"{path} is a symbolic link, name the directory it leads to"
        if not stat.S_ISDIR(found.st_mode):
            return f"{path} is no directory"
        if found.st_uid != _ROOT_UID:
            return f"{path} belongs to uid {found.st_uid} and not to root"
        # With an access control list, the bits of the group say what anybody but the owner may do at most.
        if found.st_mode & 0o022:
            return f"{path} can be written by others than root (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def reserved(directories, passwd, root="/"):
    """
    Return ``{uid: whose}``: the name of a removed person with an archive, or the path of a home that no account has.

    A new account with such a uid would get the files of somebody else.

    directories
        Where homes are.

    passwd
        The rows of that table.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_seen.reserved '[/home]' '{}'
    """
    known = {row[2] for row in passwd.values() if len(row) == 7}
    found = {}
    for directory in directories:
        try:
            names = os.listdir(at(directory, root))
        except OSError:
            names = []
        for name in names:
            home = status(f"{directory}/{name}", root)
            if home and home["kind"] == "directory" and home["uid"] != _ROOT_UID and str(home["uid"]) not in known:
                found.setdefault(home["uid"], f"{directory}/{name}")
        for archive in archives(directory, root):
            found[archive["uid"]] = archive["name"]
    return found


def archives(directory="/home", root="/"):
    """
    Return the archives of removed people beside their homes, ``[{"name", "uid", "path"}]``, sorted by path.

    directory
        Where homes are.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_seen.archives
    """
    try:
        names = sorted(os.listdir(at(f"{directory}/{ARCHIVES}", root)))
    except OSError:
        return []
    matches = [match for match in map(_ARCHIVE.fullmatch, names) if match]
    return [
        {"name": match["name"], "uid": int(match["uid"]), "path": f"{directory}/{ARCHIVES}/{match[0]}"}
        for match in matches
    ]


def sources(root="/"):
    """
    Return how to ask other sources of accounts (LDAP and the like) than the files, ``{"user", "uid", "group", "gid"}``:
    functions that say whether a name or number is taken. Where there are no such sources, nothing is asked.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_seen.sources
    """
    found = {}
    for database, asked in (
        ("passwd", {"user": pwd.getpwnam, "uid": pwd.getpwuid}),
        ("group", {"group": grp.getgrnam, "gid": grp.getgrgid}),
    ):
        others = root == "/" and __salt__["plasma_users_files.other_sources"](root=root, database=database)
        found.update({key: _taken(function) if others else _never for key, function in asked.items()})
    return found


def _never(key):
    return False


def _taken(function):
    def taken(key):
        try:
            function(key)
        except (KeyError, OSError, OverflowError):
            return False
        return True

    return taken
