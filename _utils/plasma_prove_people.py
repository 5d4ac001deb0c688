"""
The two throwaway people of ``plasma.prove``: accounts like any other, with random passwords that nobody is told, and
numbers from the upper end of the range. Everything of theirs goes with them.
"""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import re
import secrets
import shutil
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_hub_accounts
import plasma_run
import plasma_users_processes

NAME = re.compile(r"plasma-prove-[ab]-[0-9a-f]{6}")
COMMENT = "Throwaway of plasma.prove"
HIGHEST = 59990  # below what systemd and others use for their own
_BELONGINGS = ("/var/mail", "/var/spool/cron/crontabs", "/var/spool/cron", "/var/lib/systemd/linger")


def make(tag: str) -> list[dict[str, Any]]:
    """
    Make two accounts; returns ``[{"name", "password", "uid", "gid", "home"}, ...]``.

    tag
        Six hexadecimal digits, the end of their names.

    Raises CommandExecutionError when an account cannot be made.
    """
    return [_make(f"plasma-prove-{letter}-{tag}") for letter in "ab"]


def _make(name):
    number = next(n for n in range(HIGHEST, 0, -1) if _free(pwd.getpwuid, n) and _free(grp.getgrgid, n))
    shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
    _run("groupadd", "--gid", str(number), name)
    options = ("--uid", str(number), "--gid", str(number), "--shell", shell, "--comment", COMMENT)
    _run("useradd", "--create-home", "--no-log-init", *options, name)
    person = {"name": name, "uid": number, "gid": number, "home": pwd.getpwnam(name).pw_dir}
    return {**person, "password": set_password(name)}


def _free(look_up, number):
    """Whether nobody has this number, nor anybody of a directory, which does not tell all that it has."""
    try:
        look_up(number)
    except KeyError:
        return True
    return False


def set_password(name: str) -> str:
    """Give an account another random password and return it."""
    password = secrets.token_urlsafe(18)
    # Through standard input: arguments can be read by everybody.
    _run("chpasswd", stdin=f"{name}:{password}\n")
    return password


def _accounts():
    """The throwaway accounts, by name."""
    return {one.pw_name: one for one in pwd.getpwall() if NAME.fullmatch(one.pw_name) and one.pw_gecos == COMMENT}


def left() -> list[str]:
    """Return the names of throwaway accounts and groups that there are."""
    return sorted({*_accounts(), *(group.gr_name for group in grp.getgrall() if NAME.fullmatch(group.gr_name))})


def remove(names: list[str], prefix: str = "/opt/tljh") -> list[str]:
    """
    Remove throwaway people with all that is theirs: servers, what the hub knows of them, processes, accounts, groups,
    homes. Returns what could not be removed, a list of sentences.

    names
        Theirs; other names are left alone.
    prefix
        Where the hub is installed.
    """
    names, problems = [name for name in names if NAME.fullmatch(name)], []
    accounts = {name: account for name, account in _accounts().items() if name in names}

    def attempt(function, *arguments, **options):
        try:
            return function(*arguments, **options)
        except (CommandExecutionError, OSError) as exc:
            problems.append(str(exc).removesuffix("."))

    if not names:
        return []
    for name in accounts:
        attempt(_run, "usermod", "--expiredate", "1", name)
    attempt(plasma_hub_accounts.forget, names, prefix=prefix)
    stayed = attempt(plasma_users_processes.end, {account.pw_uid: name for name, account in accounts.items()})
    problems.extend((stayed or {}).values())
    for name in accounts:
        attempt(_run, "userdel", name)
    for name in {group.gr_name for group in grp.getgrall()}.intersection(names):
        attempt(_run, "groupdel", name)
    for account in accounts.values():
        attempt(_remove_belongings, account)
    return problems


def _remove_belongings(account):
    """Remove the home of an account that is gone, and what has its name elsewhere. Nobody runs as its owner now."""
    name, home = account.pw_name, account.pw_dir
    if os.path.basename(home) == name and os.path.lexists(home) and os.lstat(home).st_uid == account.pw_uid:
        shutil.rmtree(home)
    for directory in _BELONGINGS:
        path = pathlib.Path(directory, name)
        if path.is_symlink() or path.is_file():
            path.unlink()
    notices = pathlib.Path("/run/plasma/notices", name)
    if notices.is_dir() and not notices.is_symlink():
        shutil.rmtree(notices)


def _run(*command, stdin=""):
    plasma_run.run(command, stdin=stdin, timeout=60).check()
