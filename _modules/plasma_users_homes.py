"""
Make homes, and put those of removed people aside.

Homes are made in a directory of root's beside their place and renamed into it, so that a half-made one is never seen. A
home is put aside by one rename, whatever is in it. Nothing here is called unless ``plasma_users_seen.trouble`` found
none with the directory that holds the home: so nobody but root can change what a path means.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_users_homes"

_NEW = ".plasma-new."


def __virtual__():
    return __virtualname__


def make(homes, root="/"):
    """
    Make homes from ``/etc/skel``; those that exist are left alone. Directories above them are made, root's, mode 0755.

    homes
        List of ``{"name", "uid", "gid", "path", "mode", "archive"}``. What an interrupted removal had put aside in
        ``archive`` comes back.

    Returns the paths of the homes made. Raises CommandExecutionError when one cannot be made; the others are made.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_homes.make '[{name: anna, uid: 1001, gid: 1001, path: /home/anna, mode: 448}]'
    """
    if not homes:
        return []
    at = __salt__["plasma_users_seen.at"]
    failed, made = [], []
    try:
        for parent in sorted({_parent(home["path"]) for home in homes}):
            _directories(parent, root)
        clear([home["path"] for home in homes], root)
        skeleton = _skeleton(at("/etc/skel", root))
    except OSError as exc:
        raise CommandExecutionError(f"No home could be made: {__salt__['plasma_users_edit.said'](exc)}.") from exc
    for home in homes:
        path = at(home["path"], root)
        new = os.path.join(at(_parent(home["path"]), root), _NEW + home["name"])
        try:
            if os.path.lexists(path):
                continue
            if not _back(home, path, root):
                os.mkdir(new, 0o700)
                _fill(new, skeleton, home["uid"], home["gid"])
                os.chmod(new, home["mode"])
                os.chown(new, home["uid"], home["gid"])
                os.rename(new, path)
        except OSError as exc:
            shutil.rmtree(new, ignore_errors=True)
            failed.append(f"The home {home['path']} could not be made: {exc.strerror}.")
            continue
        made.append(home["path"])
    if failed:
        more = f" {len(failed) - 3:,} more could not be made." if len(failed) > 3 else ""
        raise CommandExecutionError(" ".join(failed[:3]) + more)
    return made


def clear(paths, root="/"):
    """
    Remove the half-made homes that a killed run left beside these homes.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_homes.clear '[/home/anna]'
    """
    for parent in {__salt__["plasma_users_seen.at"](_parent(path), root) for path in paths}:
        for leftover in os.listdir(parent) if os.path.isdir(parent) else ():
            if leftover.startswith(_NEW):
                shutil.rmtree(os.path.join(parent, leftover))


def _parent(path):
    return path.rpartition("/")[0] or "/"


def _directories(directory, root):
    at = __salt__["plasma_users_seen.at"]
    path = ""
    for part in directory.strip("/").split("/"):
        path = f"{path}/{part}"
        try:
            os.mkdir(at(path, root), 0o755)
        except FileExistsError:
            continue
        os.chmod(at(path, root), 0o755)  # whatever the umask is


def _back(home, path, root):
    """Bring a home back from an archive that its own removal did not get to finish."""
    if not home.get("archive"):
        return False
    kept = f"{home['archive']}/home"
    found = __salt__["plasma_users_seen.status"](kept, root=root)
    if not found or (found["kind"], found["uid"]) != ("directory", home["uid"]):
        return False
    os.rename(__salt__["plasma_users_seen.at"](kept, root), path)
    return True


def _skeleton(directory):
    """The files of a new home, ``[(relative path, mode, bytes | target of a link | None for a directory)]``."""
    found = []
    for base, directories, files in os.walk(directory):
        for name in sorted([*directories, *files]):
            path = os.path.join(base, name)
            status = os.lstat(path)
            relative = os.path.relpath(path, directory)
            if stat.S_ISLNK(status.st_mode):
                found.append((relative, None, os.readlink(path)))
            elif stat.S_ISDIR(status.st_mode):
                found.append((relative, stat.S_IMODE(status.st_mode), None))
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    # A program that runs as somebody else has no place in a home.
                    found.append((relative, stat.S_IMODE(status.st_mode) & 0o777, file.read()))
    return found


def _fill(directory, skeleton, uid, gid):
    for relative, mode, content in skeleton:
        path = os.path.join(directory, relative)
        if isinstance(content, str):
            os.symlink(content, path)
        elif content is None:
            os.mkdir(path, 0o700)
            os.chmod(path, mode)
        else:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(handle, "wb") as file:
                file.write(content)
                os.fchmod(handle, mode)
        os.lchown(path, uid, gid)


def place(name, uid, home, root="/"):
    """
    Return a path that is free for the archive of somebody: ``.plasma-removed/NAME.uidUID.DATE`` beside the home.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_homes.place anna 1001 /home/anna
    """
    above = _parent(home)
    path = f"{above.rstrip('/')}/.plasma-removed/{name}.uid{uid}.{time.strftime('%Y-%m-%d')}"
    number, free = 1, path
    while os.path.lexists(__salt__["plasma_users_seen.at"](free, root)):
        number += 1
        free = f"{path}.{number}"
    return free


def open_archive(note, root="/"):
    """
    Make the archive of somebody, readable for root alone, with a description of the account in ``account.json``.

    note
        What ``plasma_users_removal`` remembers of a person.

    Returns its path on this machine. Does nothing when it is there.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_homes.open_archive '{name: anna, archive: /home/.plasma-removed/anna}'
    """
    path = __salt__["plasma_users_seen.at"](note["archive"], root)
    above = os.path.dirname(path)
    if not os.path.lexists(above):
        _directories(_parent(_parent(note["archive"])), root)
        os.mkdir(above, 0o700)
    found = os.lstat(above)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise CommandExecutionError(f"{above} must be a directory of root's with mode 0700: move away what is there.")
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return path
    keys = ("name", "uid", "gid", "groups", "fullname", "shell", "home", "date")
    text = json.dumps({key: note.get(key) for key in keys}, indent=1) + "\n"
    with open(os.open(os.path.join(path, "account.json"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def put_aside(note, root="/"):
    """
    Rename a home into the archive of its owner. Returns whether it was there.

    Raises CommandExecutionError when that fails; nothing is copied, so the home is in one of the two places.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_homes.put_aside '{uid: 1001, home: /home/anna, archive: /home/.plasma-removed/a}'
    """
    found = __salt__["plasma_users_seen.status"](note["home"], root=root)
    if found and found["kind"] == "unreadable":
        raise CommandExecutionError(f"The home {note['home']} cannot be looked at: see what is the matter with it.")
    if not found or (found["kind"], found["uid"]) != ("directory", note["uid"]):
        return False
    home = __salt__["plasma_users_seen.at"](note["home"], root)
    target = os.path.join(open_archive(note, root), "home")
    if os.path.lexists(target):
        raise CommandExecutionError(f"{note['home']} is there again, and {target} too: move one of them away.")
    try:
        os.rename(home, target)
    except OSError as exc:
        raise CommandExecutionError(f"The home {note['home']} could not be moved to {target}: {exc.strerror}.") from exc
    return True


def delete(archive, root="/"):
    """
    Delete the archive of somebody with everything in it. Links are removed and not followed; other file systems stay.

    Returns whether it was there. Raises CommandExecutionError when something could not be deleted.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_homes.delete /home/.plasma-removed/anna.uid1001.2026-11-25
    """
    path = __salt__["plasma_users_seen.at"](archive, root)
    if not os.path.lexists(path):
        return False
    if __salt__["plasma_users_mounts.found"]([archive], root=root):
        raise CommandExecutionError(f"Something is mounted in {archive}: unmount it, and apply again.")
    # It works with open directories, so that a link that appears meanwhile leads nowhere (shutil.rmtree, "symlink
    # attacks"); and holds one open, and one Python call, for each level of the tree.
    assert shutil.rmtree.avoids_symlink_attacks
    try:
        shutil.rmtree(path)
    except (OSError, RecursionError) as exc:
        done = __salt__["cmd.run_all"](
            ["rm", "-rf", "--one-file-system", "--", path],
            python_shell=False,
            ignore_retcode=True,
            output_loglevel="quiet",
            timeout=3600,
        )
        if os.path.lexists(path):
            said = (done["stderr"].strip() or str(exc)).splitlines()[-1]
            raise CommandExecutionError(f"{archive} could not be deleted completely: {said}.") from exc
    return True
