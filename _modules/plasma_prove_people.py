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

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_prove_people"

NAME = re.compile(r"plasma-prove-[ab]-[0-9a-f]{6}")
COMMENT = "Throwaway of plasma.prove"
HIGHEST = 59990  # below what systemd and others use for their own
_SHELLS = ("/bin/bash", "/bin/sh")
_BELONGINGS = ("/var/mail", "/var/spool/cron/crontabs", "/var/spool/cron", "/var/lib/systemd/linger")


def __virtual__():
    return __virtualname__


def make(tag):
    """
    Make two accounts; returns ``[{"name", "password", "uid", "gid", "home"}, ...]``.

    tag
        Six hexadecimal digits, the end of their names.

    Raises CommandExecutionError when an account cannot be made.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_people.make 0a1b2c  # not from the command line: what it returns holds passwords
    """
    return [_make(f"plasma-prove-{letter}-{tag}") for letter in "ab"]


def _make(name):
    number = next(
        (n for n in range(HIGHEST, HIGHEST - 1000, -1) if _free(pwd.getpwuid, n) and _free(grp.getgrgid, n)), None
    )
    if number is None:
        raise CommandExecutionError(f"No uid below {HIGHEST} is free for a throwaway account.")
    shell = next(shell for shell in _SHELLS if os.path.exists(shell))
    _run("groupadd", "--gid", str(number), name)
    options = ("--uid", str(number), "--gid", str(number), "--shell", shell, "--comment", COMMENT)
    _run("useradd", "--create-home", "--no-log-init", *options, name)
    person = {"name": name, "uid": number, "gid": number, "home": pwd.getpwnam(name).pw_dir}
    return {**person, "password": set_password(name)}


def _free(look, number):
    try:
        look(number)
    except KeyError:
        return True
    return False


def set_password(name):
    """
    Give an account another random password and return it.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_people.set_password x  # not from the command line: what it returns is a password
    """
    password = secrets.token_urlsafe(18)
    # Through standard input: arguments can be read by everybody.
    _run("chpasswd", stdin=f"{name}:{password}\n")
    return password


def left():
    """
    Return the names of throwaway accounts and groups that there are.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_people.left
    """
    people = [one.pw_name for one in pwd.getpwall() if NAME.fullmatch(one.pw_name) and one.pw_gecos == COMMENT]
    groups = [one.gr_name for one in grp.getgrall() if NAME.fullmatch(one.gr_name)]
    return sorted({*people, *groups})


def remove(names, prefix="/opt/tljh"):
    """
    Remove throwaway people with all that is theirs: servers, what the hub knows of them, processes, accounts, groups,
    homes. Returns what could not be removed, a list of sentences.

    names
        Theirs; other names are left alone.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_people.remove '[plasma-prove-a-0a1b2c]'
    """
    entries = {one.pw_name: one for one in pwd.getpwall() if NAME.fullmatch(one.pw_name) and one.pw_gecos == COMMENT}
    names, problems = [name for name in names if NAME.fullmatch(name)], []
    if not names:
        return []
    for name in names:
        if name in entries:
            _tried(problems, _run, "usermod", "--expiredate", "1", name)
    _tried(problems, __salt__["plasma_hub_api.forget"], names, prefix=prefix)
    uids = {entries[name].pw_uid: name for name in names if name in entries}
    said = _tried(problems, __salt__["plasma_users_processes.end"], uids)
    problems.extend((said or {}).values())
    for name in names:
        if name in entries:
            _tried(problems, _run, "userdel", name)
        if not _free(grp.getgrnam, name):
            _tried(problems, _run, "groupdel", name)
        if name in entries:
            _tried(problems, _belongings, entries[name])
    return problems


def _belongings(entry):
    """Remove the home of an account that is gone, and what has its name elsewhere. Nobody runs as its owner now."""
    home = entry.pw_dir
    if os.path.basename(home) == entry.pw_name and os.path.lexists(home) and os.lstat(home).st_uid == entry.pw_uid:
        shutil.rmtree(home)
    for directory in _BELONGINGS:
        path = pathlib.Path(directory, entry.pw_name)
        if path.is_symlink() or path.is_file():
            path.unlink()
    notices = pathlib.Path("/run/plasma/notices", entry.pw_name)
    if notices.is_dir() and not notices.is_symlink():
        shutil.rmtree(notices)


def _tried(problems, function, *arguments, **options):
    try:
        return function(*arguments, **options)
    except (CommandExecutionError, OSError) as exc:
        problems.append(__salt__["plasma_users_edit.said"](exc))
    return None


def _run(*command, stdin=None):
    done = __salt__["cmd.run_all"](
        list(command),
        python_shell=False,
        ignore_retcode=True,
        output_loglevel="quiet",
        timeout=60,
        **({"stdin": stdin} if stdin else {}),
    )
    if done["retcode"]:
        said = (done["stderr"].strip() or "no output").splitlines()[-1]
        raise CommandExecutionError(f"{command[0]} failed: {said}")
    return done["stdout"]
