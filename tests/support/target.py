"""A server one can reach over SSH, and the roster that tells Salt about it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import yaml

from tests.support import paths
from tests.support.shell import SupportError, run, tail, wait_for

SET_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclasses.dataclass
class Target:
    """A server: where it listens and who may log in. ``kind`` is "ssh", "container" or "vm"."""

    name: str
    host: str = ""
    port: int = 22
    user: str = "ubuntu"
    key: Path | None = None
    kind: str = "ssh"

    def ssh_options(self) -> list[str]:
        """Options of ssh, each ``Name=value``; Salt and the tests share one connection through the control socket."""
        return [
            "ControlMaster=auto",
            f"ControlPath={paths.control_dir()}/%C",
            "ControlPersist=120",
            "ServerAliveInterval=15",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "IdentitiesOnly=yes",
        ]

    def _flags(self) -> list[str]:
        key = ["-i", str(self.key)] if self.key else []
        options = [*self.ssh_options(), "BatchMode=yes", "ConnectTimeout=10"]
        return key + [word for option in options for word in ("-o", option)]

    def ssh_command(self) -> list[str]:
        """The ssh command line that opens a shell on the server."""
        return ["ssh", *self._flags(), "-p", str(self.port), f"{self.user}@{self.host}"]

    def ssh(
        self,
        cmd: str | Sequence[str],
        *,
        check: bool = True,
        input: str | bytes | IO[bytes] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """
        Run ``cmd`` as the SSH user: a string is a shell command, a list an argument vector.

        ``timeout`` in seconds. Raises CommandError when it passes and (``check``) on a non-zero exit code.
        """
        remote = cmd if isinstance(cmd, str) else shlex.join(cmd)
        return run([*self.ssh_command(), "--", remote], check=check, input=input, timeout=timeout)

    def sudo(self, cmd: str | Sequence[str], **options) -> subprocess.CompletedProcess[str]:
        """Run ``cmd`` as root; like ssh() otherwise."""
        argv = ["sh", "-c", cmd] if isinstance(cmd, str) else list(cmd)
        return self.ssh(["sudo", "-n", "--", *argv], **options)

    def install(self, *packages: str) -> None:
        """Install Debian packages, without what they recommend, as of the newest lists."""
        apt = (
            "export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; apt-get install -y -qq --no-install-recommends"
        )
        self.sudo(f"{apt} {shlex.join(packages)}", timeout=600)

    def copy_to(self, src: str | os.PathLike[str], dest: str, *, timeout: float = 600) -> None:
        """Copy the file or directory ``src`` to ``dest`` on the server, as the SSH user (scp's rules for ``dest``)."""
        where = f"{self.user}@{self.host}:{dest}"
        run(["scp", "-q", "-r", *self._flags(), "-P", str(self.port), os.fspath(src), where], timeout=timeout)

    def disconnect(self) -> None:
        """
        Close the shared SSH connection.

        A new server may get the address of an old one: ssh would wait on the dead connection.
        """
        if self.host:
            run([*self.ssh_command()[:-1], "-O", "exit", f"{self.user}@{self.host}"], check=False, timeout=20)

    def wait_for_ssh(self, timeout: float) -> None:
        """Return once a login and sudo work."""
        answer: list[str] = []

        def login() -> bool:
            if not self.is_up():
                raise SupportError(f"{self.name} is no longer running")
            try:
                tried = self.ssh(["sudo", "-n", "true"], check=False, timeout=20)
            except SupportError as error:
                answer[:] = [str(error)]
                return False
            answer[:] = [tail(tried.stdout + tried.stderr)]
            return tried.returncode == 0

        what = f"SSH login on {self.host}:{self.port}"
        wait_for(login, timeout=timeout, what=what, details=lambda: "\n".join(answer))

    def roster_entry(self) -> dict[str, object]:
        """What a salt-ssh roster says about this server."""
        entry: dict[str, object] = {"host": self.host, "port": self.port, "user": self.user, "sudo": True}
        if self.key:
            entry["priv"] = str(self.key)
        return entry | {"set_path": SET_PATH, "ssh_options": self.ssh_options()}

    # Targets made here; a subclass says how.

    def up(self) -> Target:
        """Bring the server up, or do nothing when it is; returns itself."""
        raise SupportError(f"{self.name} was not made here: it cannot be brought up or down")

    def down(self) -> None:
        """Remove the server with everything on it."""
        raise SupportError(f"{self.name} was not made here: it cannot be brought up or down")

    def exists(self) -> bool:
        """Whether there is something to take down."""
        return bool(self.host)

    def is_up(self) -> bool:
        """Whether it runs now."""
        return self.exists()

    def record_file(self) -> Path:
        """Where this target is remembered for other processes."""
        return paths.targets_dir() / f"{self.name}.json"

    def remember(self) -> None:
        """Write the record; done before anything is made, so that ``down --all`` finds what a crash left."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        text = json.dumps(fields, indent=2, default=str) + "\n"
        new = self.record_file().with_suffix(".new")
        new.write_text(text)
        new.replace(self.record_file())

    def recall(self, *names: str) -> None:
        """Take the fields ``names`` from the record, when there is one: another process may have brought this up."""
        if self.record_file().exists():
            fields = json.loads(self.record_file().read_text())
            for name in names:
                setattr(self, name, fields[name])
            if self.key:
                self.key = Path(self.key)

    def forget(self) -> None:
        """Remove the record."""
        self.record_file().unlink(missing_ok=True)


def check_name(name: str) -> None:
    """Raise SupportError unless ``name`` can be a host name, a container's name and a file name at once."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", name):
        raise SupportError(f"{name!r} is no name for a target: use lower-case letters, digits and hyphens")


def write_roster(path: str | os.PathLike[str], targets: Iterable[Target]) -> Path:
    """Write a salt-ssh roster of ``targets`` to ``path``; the minion id is the target's name."""
    file = Path(path)
    new = file.with_name(file.name + ".new")
    new.write_text(yaml.safe_dump({target.name: target.roster_entry() for target in targets}))
    new.replace(file)
    return file
