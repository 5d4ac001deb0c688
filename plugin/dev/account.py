"""An administrator for machines on which there is nobody but root, who may not use the hub."""

from __future__ import annotations

import pwd
import secrets
import subprocess

from .options import DevError

NAME = "plasma-dev"
# In the account's description: only what was made here is changed here.
MARK = "made by make dev of Plasma"


def has_password(name: str) -> bool:
    """Return whether somebody could log in with a password; root can tell, everybody else is told yes."""
    asked = subprocess.run(["passwd", "--status", name], capture_output=True, text=True, check=False)
    words = asked.stdout.split()
    return len(words) < 2 or words[1] in ("P", "PS")


def make(name: str = NAME) -> str:
    """Make the account, or take the one of an earlier run, and return a new password for it.

    Args:
        name: its login name.

    Raises:
        DevError: there is an account of that name which was not made here.
    """
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        _run("useradd", "--create-home", "--user-group", "--shell", "/bin/bash", "--comment", MARK, name)
    else:
        if entry.pw_gecos != MARK:
            raise DevError(
                f"The account {name} was not made by make dev: name the administrator with "
                f"'PLASMA_DEV_ADMIN={name} make dev'."
            )
    password = secrets.token_urlsafe(9)
    _run("chpasswd", input=f"{name}:{password}\n")
    return password


def lock(name: str = NAME) -> None:
    """Close the account to logins until the next run; its files stay."""
    _run("usermod", "--lock", name)


def remove(name: str = NAME) -> bool:
    """Remove the account with its files, if it was made here. Returns whether there was one."""
    try:
        if pwd.getpwnam(name).pw_gecos != MARK:
            return False
    except KeyError:
        return False
    _run("userdel", "--remove", name)
    return True


def _run(*command: str, **options: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise DevError(
            f"'{command[0]}' failed for the account {command[-1]}, so name an administrator with PLASMA_DEV_ADMIN: "
            f"{' '.join(done.stderr.split())}"
        )
