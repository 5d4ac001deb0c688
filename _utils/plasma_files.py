"""
Files of root's: written as a whole or not at all, and read only where nobody else can have put them.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import pathlib
import stat
from collections.abc import Mapping
from typing import Any

from salt.exceptions import CommandExecutionError

# Who has to own the directories above homes; tests have no root.
_ROOT_UID = 0


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


def directory(path: str | os.PathLike[str], mode: int = 0o755) -> pathlib.Path:
    """
    Make a directory, and with 0755 those above it that are missing. One that is there stays as it is.

    path
        In a place where nobody but root can write.
    mode
        Its mode, whatever the umask.

    Returns the path. Raises OSError.
    """
    path = pathlib.Path(path)
    missing = [part for part in (path, *path.parents) if not part.exists()]
    for part in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another run is faster
            part.mkdir(0o700)
            part.chmod(mode if part == path else 0o755)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return path


def check(path):
    """
    Raise CommandExecutionError, with one sentence, unless this is a file of root's that nobody else can have written or
    put there. Links are not followed.

    path
        The file. It and all directories above have to be root's, and not writable by others.
    """
    problem = trouble(os.path.dirname(path))
    if problem:
        raise CommandExecutionError(f"{path} is not read: {problem}.")
    try:
        status = os.lstat(path)
    except OSError as exc:
        raise CommandExecutionError(f"{path} cannot be read: {exc.strerror}.") from exc
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise CommandExecutionError(
            f"{path} is not read: it has to be a file that belongs to root and that nobody else can write."
        )


def at(path, root="/"):
    """
    Return where a path of the server is, below another root too.
    """
    return path if root == "/" else os.path.join(root, path.lstrip("/"))


def trouble(directory, root="/"):
    """
    Return why somebody beside root could lead a file operation in this directory astray, or None.

    It and all directories above have to be root's, without links, and not writable by others. What does not exist yet
    is no trouble: root makes it.
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


def read_note(path: str | os.PathLike[str], mend: str) -> dict[str, Any] | None:
    """
    Return what a note of root's holds, a JSON object; None where there is no note.

    mend
        What to do about a damaged one, such as ``remove it, and apply again``.

    Raises CommandExecutionError, with that, when it cannot be read.
    """
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise CommandExecutionError(f"{path} is damaged ({exc}): {mend}.") from exc
    if not isinstance(found, dict):
        raise CommandExecutionError(f"{path} is damaged (it holds no JSON object): {mend}.")
    return found


def write_note(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a note of root's, a JSON object, that only root can read; its directory is made. Raises OSError."""
    path = pathlib.Path(path)
    directory(path.parent, 0o700)
    write(path, json.dumps(content, indent=2) + "\n")
