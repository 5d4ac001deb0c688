"""Directories whose owner and mode are the operator's business once they are there."""

from __future__ import annotations

import contextlib
import grp
import os
import shutil
import stat

import plasma_files


def present(name, group="root", mode="0755", coming=(), joining=False):
    """
    There is such a directory. It is made, as are those above it, whatever the umask of sudo is. One that is there is
    left as it is; where only its owner may look into it, a warning says so.

    name
        Its path. Those above it have to be root's, so that nobody can lead this elsewhere.
    group
        Whom a new one belongs to, beside root.
    mode
        Octal mode of a new one, such as ``"2770"``.
    coming
        Groups that this run makes before: a dry run does not miss them.
    joining
        Whether this run may join the server to a directory of people before, whose groups a dry run cannot know.

    .. code-block:: yaml

        hub-shared-data:
          plasma_data_directory.present:
            - name: /srv/data
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "The directory is there."}
    try:
        if os.path.isdir(name):
            now = stat.S_IMODE(os.stat(name).st_mode)
            if not now & 0o077:
                mend = f"chgrp {group} {name} && " if group != "root" else ""
                ret["warnings"] = [f"Nobody but its owner can read {name} (mode {now:04o}): {mend}chmod {mode} {name}"]
            return ret
        if trouble := plasma_files.trouble(os.path.dirname(name)):
            return {**ret, "result": False, "comment": f"{name} is not made: {trouble}."}
        if not _there(group) and not (__opts__["test"] and (joining or group in coming)):
            return {**ret, "result": False, "comment": f"{name} is not made: there is no group {group} on this server."}
        ret["changes"] = {name: {"old": None, "new": "directory"}}
        ret["comment"] = "The directory was made."
        if __opts__["test"]:
            ret.update(result=None, comment="The directory would be made.")
        else:
            _make(name, group, int(mode, 8))
    except OSError as exc:
        ret.update(result=False, changes={}, comment=f"{exc.filename or name} cannot be made: {exc.strerror}.")
    except LookupError:
        ret.update(result=False, changes={}, comment=f"{name} cannot be made: there is no group {group} any more.")
    return ret


def _there(group):
    try:
        return grp.getgrnam(group)
    except KeyError:
        return None


def _make(path, group, mode):
    """What is half made goes again: the next apply would take it for the operator's."""
    plasma_files.directory(path, 0o700)
    try:
        shutil.chown(path, "root", group)
        os.chmod(path, mode)
    except (OSError, LookupError):
        with contextlib.suppress(OSError):  # somebody has put something in
            os.rmdir(path)
        raise
