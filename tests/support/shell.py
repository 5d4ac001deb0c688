"""Run programs with a time limit, wait for conditions, install Debian packages."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

TAIL_LINES = 30


class SupportError(RuntimeError):
    """A throwaway target could not be made or used; the text says what to look at."""


class CommandError(SupportError):
    """A program failed or took too long. Carries the command, the exit code and the tail of its output."""

    def __init__(self, command: str, reason: str, output: str, returncode: int | None = None):
        self.command, self.output, self.returncode = command, output, returncode
        shown = tail(output)
        super().__init__(f"{command}\n{reason}" + (f"; its last lines:\n{shown}" if shown else ", without any output"))


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last ``lines`` lines of ``text``."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def run(
    cmd: Sequence[str | os.PathLike[str]],
    *,
    check: bool = True,
    input: str | bytes | IO[bytes] | None = None,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """
    Run ``cmd`` (a list, no shell) and return a CompletedProcess with text output.

    ``input``: text, bytes or an open file to read from. ``timeout`` is in seconds; the whole process group is killed
    when it passes. ``env`` is added to the environment.
    With ``log``, standard output and error go to the end of that file instead, so that a long job can be followed.
    Raises CommandError on a time-out, a missing program, or (``check``) a non-zero exit code.
    """
    argv = [os.fspath(part) for part in cmd]
    shown = shlex.join(argv)
    text = input.encode() if isinstance(input, str) else input
    piped = isinstance(text, bytes)
    sink = log.open("ab") if log else None
    started_at = sink.tell() if sink else 0
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if piped else text or subprocess.DEVNULL,
            stdout=sink or subprocess.PIPE,
            stderr=subprocess.STDOUT if sink else subprocess.PIPE,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandError(shown, f"could not be started: {error}", "") from error
    finally:
        if sink:
            sink.close()

    def output(out: bytes | None, err: bytes | None) -> tuple[str, str]:
        if log:
            with log.open("rb") as handle:
                handle.seek(started_at)
                return handle.read().decode(errors="replace"), ""
        return (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace")

    try:
        out, err = process.communicate(text if piped else None, timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        out, err = output(*process.communicate())
        raise CommandError(shown, f"took longer than {timeout:g} s", out + err) from None
    except BaseException:
        kill_group(process.pid)
        process.wait()
        raise
    stdout, stderr = output(out, err)
    if check and process.returncode:
        raise CommandError(shown, f"failed with exit code {process.returncode}", stdout + stderr, process.returncode)
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


def kill_group(pid: int) -> None:
    """Kill the process group led by ``pid``, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def wait_for(
    condition: Callable[[], object],
    *,
    timeout: float,
    what: str,
    interval: float = 0.3,
    details: Callable[[], str] | None = None,
) -> object:
    """
    Poll ``condition`` until it returns something true, and return that.

    Raises SupportError after ``timeout`` seconds, naming ``what`` was waited for and showing ``details()``.
    """
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() >= deadline:
            more = details() if details else ""
            raise SupportError(f"{what}: not there after {timeout:g} s" + (f"\n{more}" if more else ""))
        time.sleep(interval)


def missing_packages(names: Sequence[str]) -> list[str]:
    """Those of the Debian packages ``names`` that are not installed."""
    missing = []
    for name in names:
        asked = run(["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", name], check=False)
        if not asked.stdout.startswith("ii"):
            missing.append(name)
    return missing


def ensure_packages(names: Sequence[str]) -> list[str]:
    """Install the Debian packages ``names`` that are missing, and return those. Needs root when there are any."""
    missing = missing_packages(names)
    if not missing:
        return []
    if os.geteuid() != 0:
        raise SupportError(f"These Debian packages are missing; install them as root: {' '.join(missing)}")
    update = _apt("update") if not _updated else ""
    _updated.append(True)
    try:
        _apt("install", "-y", "--no-install-recommends", *missing, check=True)
    except CommandError as error:
        if update:
            raise SupportError(f"{error}\napt-get update had failed before:\n{tail(update)}") from error
        raise
    return missing


_updated: list[bool] = []  # apt-get update ran in this process


def _apt(*args: str, check: bool = False) -> str:
    """apt-get with ``args``, waiting for other users of apt; returns the output when it failed."""
    command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=600", *args]
    deadline = time.monotonic() + 600
    while True:
        done = run(command, check=False, timeout=1800, env={"DEBIAN_FRONTEND": "noninteractive"})
        output = done.stdout + done.stderr
        # DPkg::Lock::Timeout does not cover the lock of the package lists.
        if done.returncode and "Could not get lock" in output and time.monotonic() < deadline:
            time.sleep(2)
            continue
        if check and done.returncode:
            raise CommandError(shlex.join(command), f"failed with exit code {done.returncode}", output, done.returncode)
        return output if done.returncode else ""
