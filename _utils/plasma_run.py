"""
Run the system's programs.

They get a fixed PATH, messages in English, nothing on stdin but what is passed, and they end within a timeout.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from salt.exceptions import CommandExecutionError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMED_OUT = 124
# As most systems have it: what packages and tools make has to be readable, however strict sudo's own is.
UMASK = 0o022


@dataclass(frozen=True)
class Result:
    """How a program ended: its exit code, and what it wrote, without white space at the end."""

    returncode: int
    stdout: str = ""
    stderr: str = ""
    command: Sequence[str] = ()

    @property
    def last_line(self) -> str:
        """The last line it wrote, which mostly says what went wrong; without a full stop."""
        text = self.stderr.strip() or self.stdout.strip() or f"exit code {self.returncode}, no output"
        return text.splitlines()[-1].rstrip(".")

    def check(self) -> Result:
        """Return this result. Raises CommandExecutionError with the program's last line when the exit code is not 0."""
        if self.returncode:
            raise CommandExecutionError(f"`{' '.join(self.command)}` failed: {self.last_line}.")
        return self


def run(
    command: Sequence[str],
    *,
    stdin: str = "",
    timeout: float = 300,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
) -> Result:
    """
    Run a program to its end and return its result, whatever its exit code is.

    command
        The program and its arguments. Secrets belong on stdin: other users can read arguments.
    stdin
        Text that it reads.
    timeout
        Seconds after which it is killed.
    env
        Variables to add to the environment.

    One that was killed at the end of its time has the exit code 124, as of timeout(1).
    Raises CommandExecutionError when it cannot be started.
    """
    try:
        done = subprocess.run(
            list(command),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            env={**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8", **(env or {})},
            cwd=cwd,
            umask=UMASK,
            check=False,
        )
    except OSError as exc:
        raise CommandExecutionError(f"{command[0]} cannot be run: {exc.strerror}.") from exc
    except subprocess.TimeoutExpired:
        return Result(TIMED_OUT, "", f"{command[0]} did not finish within {timeout:.0f} seconds", command)
    return Result(done.returncode, done.stdout.rstrip(), done.stderr.rstrip(), command)
