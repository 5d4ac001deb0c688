"""
Files of root's: written as a whole or not at all, and read only where nobody else can have put them.
"""

from __future__ import annotations

import glob
import os
import pathlib
import stat

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_files"


def __virtual__():
    return __virtualname__


def write(path, content, mode=0o600):
    """
    Replace a file: whoever reads it, or finds it after a crash, has the old content or the new. Nobody ever gets more
    of it than the mode allows.

    path
        The file, in a directory that exists and that nobody but root can write to.
    content
        Text, or bytes.
    mode
        Its mode, whatever the umask.

    Returns the path. Raises OSError.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_files.write /etc/issue.local 'Welcome' mode=420
    """
    path = pathlib.Path(path)
    # Each process has its own: an apply that a lost connection left behind may write the same file now.
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.new"):
        if left == beside or not os.path.exists(f"/proc/{left.suffixes[-2][1:]}"):
            left.unlink(missing_ok=True)  # of a run that was killed
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    return str(path)


def check(path):
    """
    Raise CommandExecutionError, with one sentence, unless this is a file of root's that nobody else can have written or
    put there. Links are not followed.

    path
        The file. It and all directories above have to be root's, and not writable by others.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_files.check /srv/images/course.tar
    """
    trouble = __salt__["plasma_users_seen.trouble"](os.path.dirname(path))
    if trouble:
        raise CommandExecutionError(f"{path} is not read: {trouble}.")
    try:
        status = os.lstat(path)
    except OSError as exc:
        raise CommandExecutionError(f"{path} cannot be read: {exc.strerror}.") from exc
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise CommandExecutionError(
            f"{path} is not read: it has to be a file that belongs to root and that nobody else can write."
        )
