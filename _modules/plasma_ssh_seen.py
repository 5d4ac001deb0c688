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

__virtualname__ = "plasma_ssh_seen"

CRONTABS, ATJOBS, LINGER = "/var/spool/cron/crontabs", "/var/spool/cron/atjobs", "/var/lib/systemd/linger"
SESSIONS, LASTLOG, LASTLOG2 = "/run/systemd/users", "/var/log/lastlog", "/var/lib/lastlog/lastlog2.db"
_RECORD = struct.Struct("=i32s256s")  # of lastlog: time, terminal, host


def __virtual__():
    return __virtualname__


def uses(names, days=365, root="/"):
    """
    Return how accounts use the host beside the hub, ``{name: [text]}``: keys for SSH, the last login, a crontab, jobs
    of at, lingering, a session that is open. Who does not is left out.

    names
        Login names.
    days
        Logins that are longer ago do not count.
    root
        Another directory than ``/`` holds the server: for tests.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_ssh_seen.uses '[anna]'
    """
    found, root = {}, root.rstrip("/")
    crontabs, lingering, sessions = (_listed(root + path) for path in (CRONTABS, LINGER, SESSIONS))
    jobs = _owners(root + ATJOBS)
    logins = _logins(names, root)
    for name in names:
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        texts = []
        if _has_keys(root + account.pw_dir, account.pw_uid):
            texts.append("keys for SSH")
        last = logins.get(name, 0)
        if last > time.time() - days * 86400:
            texts.append(f"logged in on {time.strftime('%Y-%m-%d', time.gmtime(last))}")
        for text, there in (
            ("crontab", name in crontabs),
            ("jobs of at", account.pw_uid in jobs),
            ("lingering", name in lingering),
            ("session that is open", str(account.pw_uid) in sessions),
        ):
            if there:
                texts.append(text)
        if texts:
            found[name] = texts
    return found


def _has_keys(home, uid):
    """From the home on, each step is taken without following a link: the account decides what is there."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        try:
            place = os.open(home, flags)
            stack.callback(os.close, place)
            below = os.open(".ssh", flags, dir_fd=place)
            stack.callback(os.close, below)
            for name in ("authorized_keys", "authorized_keys2"):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=below, follow_symlinks=False)
                    if status.st_size and not stat.S_ISDIR(status.st_mode):
                        return True
        except OSError:
            return False
    return False


def _logins(names, root):
    """When accounts logged in last, in seconds since 1970: from lastlog, or from its successor."""
    found = {}
    with contextlib.suppress(OSError), open(root + LASTLOG, "rb") as file:
        for name in names:
            with contextlib.suppress(KeyError):
                file.seek(pwd.getpwnam(name).pw_uid * _RECORD.size)
                record = file.read(_RECORD.size)
                if len(record) == _RECORD.size:
                    found[name] = _RECORD.unpack(record)[0]
    if os.path.exists(root + LASTLOG2):
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"file:{root}{LASTLOG2}?mode=ro", uri=True)) as database,
        ):
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
