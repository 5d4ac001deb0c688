"""
Files of root's that are written as a whole or not at all.
"""

from __future__ import annotations

import os
import pathlib

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
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)  # of a run that was killed
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    return str(path)
