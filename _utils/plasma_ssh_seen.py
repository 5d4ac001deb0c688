"""
Who has used the host's doors: what an apply tells of those who lose one. Nothing is changed, and no link is followed.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import sqlite3
import stat
import struct
import time
from collections.abc import Iterable

CRONTABS, ATJOBS, LINGER = "/var/spool/cron/crontabs", "/var/spool/cron/atjobs", "/var/lib/systemd/linger"
SESSIONS, LASTLOG, LASTLOG2 = "/run/systemd/users", "/var/log/lastlog", "/var/lib/lastlog/lastlog2.db"
_RECORD = struct.Struct("=i32s256s")  # of lastlog: time, terminal, host


def uses(names: Iterable[str], days: int = 365, root: str = "/") -> dict[str, list[str]]:
    """
    Return how accounts use the host beside the hub, ``{name: [text]}``: keys for SSH, the last login, a crontab, jobs
    of at, lingering, a session that is open. Who does not is left out.

    names
        Login names.
    days
        Logins that are longer ago do not count.
    root
        Another directory than ``/`` holds the server: for tests.
    """
    found, root = {}, root.rstrip("/")
    crontabs, lingering, sessions = (_listed(root + path) for path in (CRONTABS, LINGER, SESSIONS))
    accounts = {}
    for name in names:
        with contextlib.suppress(KeyError):
            accounts[name] = pwd.getpwnam(name)
    jobs, logins = _owners(root + ATJOBS), _logins(accounts, root)
    for name, account in accounts.items():
        last = logins.get(name, 0)
        used = {
            "keys for SSH": _has_keys(root + account.pw_dir),
            f"logged in on {time.strftime('%Y-%m-%d', time.gmtime(last))}": last > time.time() - days * 86400,
            "crontab": name in crontabs,
            "jobs of at": account.pw_uid in jobs,
            "lingering": name in lingering,
            "session that is open": str(account.pw_uid) in sessions,
        }
        if any(used.values()):
            found[name] = [text for text, there in used.items() if there]
    return found


def _has_keys(home):
    """From the home on, each step is taken without following a link: the account decides what is there."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        directory = os.open(home, flags)
        stack.callback(os.close, directory)
        directory = os.open(".ssh", flags, dir_fd=directory)
        stack.callback(os.close, directory)
        for name in ("authorized_keys", "authorized_keys2"):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if status.st_size and not stat.S_ISDIR(status.st_mode):
                    return True
    return False


def _logins(accounts, root):
    """When accounts logged in last, in seconds since 1970: from lastlog, or from its successor."""
    found = {}
    with contextlib.suppress(OSError), open(root + LASTLOG, "rb") as file:
        for name, account in accounts.items():
            file.seek(account.pw_uid * _RECORD.size)
            record = file.read(_RECORD.size)
            if len(record) == _RECORD.size:
                found[name] = _RECORD.unpack(record)[0]
    if os.path.exists(root + LASTLOG2):
        uri = f"file:{root}{LASTLOG2}?mode=ro"
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            found.update(database.execute("SELECT Name, Time FROM Lastlog2"))
    return found


def _listed(path):
    try:
        return set(os.listdir(path))
    except OSError:
        return set()


def _owners(path):
    """Owners of the jobs in a spool."""
    found = set()
    for name in _listed(path) - {".SEQ"}:
        with contextlib.suppress(OSError):
            found.add(os.lstat(pathlib.Path(path, name)).st_uid)
    return found
