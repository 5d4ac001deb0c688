"""
What is on the server around the account files: homes and the directories above them, archives, mounts, shells.

Everything here only looks, and never follows a link.
"""

from __future__ import annotations

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

    ``seen`` is ``{"homes": {path: None | {"kind", "uid", "gid"}}, "parents": {directory: what is wrong with it or
    None}, "mounts": {home: mount point}, "shells": {path: bool}, "reserved": {uid: whose}, "elsewhere": {names that
    another source of accounts has}}``, for the users given and for what would be done about them.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_seen.observe '[]'
    """
    current = dict(tables or __salt__["plasma_users_files.read"](root=root))
    current["memory"] = __salt__["plasma_users_edit.recall"](root=root) if memory is None else memory
    passwd = current["passwd"]["rows"]
    home_path = home_path.rstrip("/")
    homes, parents, shells, leaving, new = {}, {}, set(), [], []

    def look(path, with_parent=False):
        if path not in homes:
            homes[path] = status(path, root)
        directory = path.rpartition("/")[0] or "/"
        if (with_parent or homes[path] is None) and directory not in parents:
            parents[directory] = trouble(directory, root)

    for entry in users:
        row = passwd.get(entry["name"])
        row = row if row and len(row) == 7 else None
        if entry.get("absent"):
            if row:
                look(row[5], with_parent=True)
                leaving.append(row[5])
            continue
        shells.add(entry.get("shell") or "/bin/bash")
        if not row:
            look(entry.get("home") or f"{home_path}/{entry['name']}", with_parent=True)
            new.append(entry["name"])
            continue
        look(row[5])
        if entry.get("home"):
            look(entry["home"], with_parent=entry["home"] != row[5])
    current["seen"] = {
        "homes": homes,
        "parents": parents,
        "mounts": mounted(leaving, root) if leaving else {},
        "shells": {shell: __salt__["plasma_users_files.runnable"](shell, root=root) for shell in shells},
        "reserved": reserved({*parents, home_path}, passwd, root) if new else {},
        "elsewhere": _elsewhere(new, root) if new else set(),
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
    Return ``{"kind", "uid", "gid"}`` of a path, or None; kind is ``directory``, ``symbolic link`` or ``file``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_seen.status /home/anna
    """
    try:
        found = os.lstat(at(path, root))
    except (OSError, ValueError):
        return None
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


def mounted(homes, root="/"):
    """
    Return ``{home: mount point}`` of those homes that are a mount point or have one in them (proc(5), mountinfo).

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_seen.mounted '[/home/anna]'
    """
    try:
        with open(at("/proc/self/mountinfo", root), encoding="utf-8", errors="surrogateescape") as lines:
            points = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split()[4]) for line in lines]
    except FileNotFoundError:
        return {}
    wanted = {home.rstrip("/"): home for home in homes}
    found = {}
    for point in points:
        part = point.rstrip("/")
        while part:
            if part in wanted:
                found.setdefault(wanted[part], point)
            part = part.rpartition("/")[0]
    return found


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


def _elsewhere(names, root):
    if root != "/" or not __salt__["plasma_users_files.other_sources"](root=root):
        return set()
    found = set()
    for name in names:
        try:
            pwd.getpwnam(name)
        except (KeyError, OSError):
            continue
        found.add(name)
    return found
