"""
Locks that keep two runs from changing the same thing at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Generator
from typing import TextIO

from salt.exceptions import CommandExecutionError

TURN = "/run/plasma-apply.lock"
_PAUSE = 0.1  # seconds between two attempts
_LOOK = 2  # seconds for whoever only looks at the lock of a turn
# What this process holds until it ends.
_kept: dict[str, contextlib.ExitStack] = {}


@contextlib.contextmanager
def hold(path: str | os.PathLike[str], busy: str, timeout: float = 300) -> Generator[TextIO]:
    """
    Hold a lock; a context manager that yields the open file.

    path
        The lock's file, in a directory of root's. Only root can open it: whoever can could hold the lock as well.
    busy
        What the error says is going on when somebody else holds the lock, such as ``Another apply is changing
        accounts``.
    timeout
        Seconds to wait for whoever holds it.

    Raises CommandExecutionError when they have passed.
    """
    path = pathlib.Path(path)
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+") as file:
        os.fchmod(file.fileno(), 0o600)
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise CommandExecutionError(
                        f"{busy} (`fuser -v {path}` shows which process): let it finish, then apply again."
                    ) from None
            time.sleep(_PAUSE)
        yield file


def take_turn(keep: bool = True, path: str = TURN) -> None:
    """
    Make other applies of this server fail until this process ends, however it ends: the kernel frees the lock.

    keep
        Whether it ends with this apply. Otherwise it is only looked whether there is another one.
    path
        The lock's file: for tests.

    Raises CommandExecutionError while another process has its turn. Where no lock can be made, nobody is kept from
    applying.
    """
    if path in _kept:
        return
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        stack.enter_context(hold(path, "Another apply runs on this server", _LOOK))
        if keep:
            _kept[path] = stack.pop_all()


def turn_taken(path: str = TURN) -> bool:
    """
    Return whether an apply runs on this server.

    path
        The lock's file: for tests.
    """
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
