"""Real accounts of this machine for tests, named plasmat-*."""

from __future__ import annotations

import grp
import pwd
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PREFIX = "plasmat-"


def run(*command: str, **options) -> subprocess.CompletedProcess:
    """Run a command, which must succeed."""
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)


@dataclass(frozen=True)
class Person:
    """An account with its password."""

    name: str
    password: str
    uid: int
    gid: int
    home: Path


class Accounts:
    """Makes accounts and groups, and removes them again with all they own."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self.groups: list[str] = []

    def add(self, suffix: str, *options: str, home: str | None = None, create_home: bool = True) -> Person:
        """Make an account.

        Args:
            suffix: end of its name, made unique.
            options: further options of useradd.
            home: home directory, by default below /home.
            create_home: whether to make the home.
        """
        name = f"{PREFIX}{suffix}{secrets.token_hex(3)}"
        arguments = ["--create-home"] if create_home else ["--no-create-home"]
        if home:
            arguments += ["--home-dir", home]
        run("useradd", "--shell", "/bin/bash", *arguments, *options, name)
        self.users.append(name)
        password = secrets.token_urlsafe(12)
        run("chpasswd", input=f"{name}:{password}\n")
        entry = pwd.getpwnam(name)
        return Person(name, password, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))

    def add_group(self, suffix: str, *options: str) -> grp.struct_group:
        """Make a group."""
        name = f"{PREFIX}{suffix}{secrets.token_hex(3)}"
        run("groupadd", *options, name)
        self.groups.append(name)
        return grp.getgrnam(name)

    def remove(self, name: str) -> None:
        """Remove an account and its home."""
        try:
            home = Path(pwd.getpwnam(name).pw_dir)
        except KeyError:
            return
        subprocess.run(["userdel", "--force", "--remove", name], check=False, capture_output=True)
        # userdel leaves homes that it finds odd.
        if PREFIX in str(home):
            shutil.rmtree(home, ignore_errors=True)

    def remove_all(self) -> None:
        """Remove everything that was made here."""
        for name in self.users:
            self.remove(name)
        for name in self.groups:
            subprocess.run(["groupdel", "--force", name], check=False, capture_output=True)
