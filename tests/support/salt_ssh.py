"""
``salt-ssh`` from a process that has imported Salt already.

Each call is a process of its own, forked from one that did nothing but import: the same program, without the second
that the imports take. Several hundred calls are made in the whole suite.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading

from tests.support.paths import REPOSITORY

# What nearly every call imports, sooner or later.
IMPORTED = (
    "git",
    "packaging.requirements",
    "pydantic.type_adapter",
    "pydantic.types",
    "salt.cli.ssh",
    "salt.client.ssh.wrapper.state",
    "salt.loader",
    "salt.output",
    "salt.renderers.jinja",
    "salt.renderers.yaml",
    "salt.scripts",
    "salt.utils.gitfs",
)
# Two operators are two threads in tests.
_lock = threading.Lock()


@functools.cache
def _forking() -> socket.socket:
    """Start the process that imports Salt, which ends with this one; returns where it hears of calls."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.support.salt_ssh", str(theirs.fileno())]
        subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    return ours


def run(command: list[str], timeout: float) -> subprocess.CompletedProcess:
    """
    A command line of ``salt-ssh``, in the repository: exit code and what it printed.

    Raises subprocess.TimeoutExpired after ``timeout`` seconds, when the call was killed.
    """
    call = json.dumps([command, dict(os.environ)]).encode()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, ours:
        with theirs:
            files = [theirs.fileno(), out.fileno(), err.fileno()]
            with _lock:
                socket.send_fds(_forking(), [call], files)
        group = ours.recv(100)
        ours.settimeout(timeout)
        try:
            answer = ours.recv(100)
        except TimeoutError:
            os.killpg(int(group), signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, timeout) from None
        if not answer:
            raise OSError("the process that forks salt-ssh has ended")
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return subprocess.CompletedProcess(command, int(answer), *texts)


def _serve(calls: socket.socket) -> None:
    """Import, then fork for each call."""
    for module in IMPORTED:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, files, _, _ = socket.recv_fds(calls, 1 << 17, 3)
        if not message:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _one_call(*json.loads(message), *files)
        for file in files:
            os.close(file)


def _one_call(command: list[str], environment: dict[str, str], answers: int, out: int, err: int) -> None:
    """Run salt-ssh in a child, and report the process group and then how it ended."""
    import salt.scripts

    os.setsid()
    child = os.fork()
    if child == 0:
        os.close(answers)
        os.environ.clear()
        os.environ.update(environment)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.argv = command
        salt.scripts.salt_ssh()
        sys.exit()
    with socket.socket(fileno=answers) as caller, contextlib.suppress(BrokenPipeError):
        caller.send(str(os.getpid()).encode())
        _, status = os.waitpid(child, 0)
        caller.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
