"""The processes of the hub for development: started, shown and stopped together."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

# What JupyterHub takes at most to stop its services.
PATIENCE = 20


class Child:
    """A process whose output goes to a log, and to the terminal if wanted.

    It ends when we do, whatever ends us, and Ctrl-C reaches it through us only: it is to stop in its turn.

    Args:
        name: what the log is called.
        command: program and arguments.
        environment: its variables.
        cwd: its working directory.
        log: file that its output is added to.
        shown: whether the output is shown as well.
    """

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str], cwd: Path, log: Path, shown: bool = False
    ) -> None:
        self.name = name
        self.log = log
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
        )
        self._copier = threading.Thread(target=self._copy, args=(shown,), daemon=True)
        self._copier.start()

    def _copy(self, shown: bool) -> None:
        with self._process.stdout as source, self.log.open("ab") as log:
            for line in source:
                log.write(line)
                log.flush()
                if shown:
                    sys.stdout.write(line.decode(errors="replace"))
                    sys.stdout.flush()

    def ended(self) -> int | None:
        """Return its exit code, or None while it runs."""
        return self._process.poll()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def stop(self) -> None:
        """Ask it to end, and make it end when it does not, with its process group."""
        if self.ended() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def finish(self) -> None:
        """Wait for the end of its output, once everything that writes there has ended."""
        self._copier.join(PATIENCE)


def adopt_orphans() -> None:
    """Become the parent of what children leave behind when they die, so that ``kill_orphans`` finds it.

    Services of a hub that was killed go on otherwise. Where the kernel cannot do it, they do.
    """
    pr_set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def kill_orphans(*keep: int) -> None:
    """End all children that are left, and theirs.

    Args:
        keep: numbers of those that are to go on.
    """
    end = time.monotonic() + PATIENCE
    while (left := set(_children()) - set(keep)) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _children() -> list[int]:
    found = []
    for children in Path("/proc/self/task").glob("*/children"):
        found += map(int, children.read_text().split())
    return found
