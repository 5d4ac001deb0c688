"""`make dev`: python -m plugin.dev, from the root of the repository. Options are variables (see CONTRIBUTING.md)."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tljh_plasma

from tests.support import engine
from tests.support.shell import SupportError

from . import options, processes
from .hub import START_TIMEOUT, Hub
from .options import DevError, Options
from .watch import Watch

LOOK_EVERY = 1.0
stopping = threading.Event()


def say(text: str) -> None:
    """Write to the terminal, apart from the log that goes there too."""
    print(f"\n[make dev] {text}", flush=True)


def main() -> int:
    """Run the hub until somebody ends it. Returns the exit code."""
    try:
        run(options.read(os.environ))
    except (DevError, SupportError) as error:
        say(f"Error: {error}")
        return 1
    return 0


def run(wanted: Options) -> None:
    """Start, watch, and stop whatever happens.

    Raises:
        DevError, SupportError: it cannot be started.
    """
    notes = passwords(wanted.admins)
    wanted.directory.mkdir(mode=0o700, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    with only_one(wanted.directory), docker_engine() as host:
        processes.adopt_orphans()
        hub = Hub(wanted, host)
        try:
            hub.prepare()
            hub.start_proxy()
            hub.start()
            if wait_until_ready(hub):
                say(welcome(hub, notes))
                watch(hub)
        finally:
            say("Stopping: hub, proxy and users' servers (data and images stay)")
            hub.stop()
            hub.clean_up()


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Keep a second run off the same data."""
    with (directory / "lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DevError(f"make dev runs already with the data in {directory}: end that one first.") from error
        yield


@contextmanager
def docker_engine() -> Iterator[str]:
    """Find an engine or start one; one that was started here is stopped again, unless it has come into use."""
    found = engine.running_host()
    if found is None:
        say("No Docker engine answers: installing and starting one, where that can be done")
    # In a process of its own: an engine that is started is to be nobody's child.
    asked = subprocess.run(
        [sys.executable, "-m", "tests.support", "engine"], stdout=subprocess.PIPE, text=True, check=False
    )
    if asked.returncode:
        raise DevError("there is no Docker engine to work with (the reason is above).")
    host = asked.stdout.split()[-1]
    try:
        yield host
    finally:
        if found is None and host == engine.own_host():
            busy = engine.docker("ps", "--quiet", check=False).stdout.split()
            if not busy:
                engine.stop_engine()


def passwords(admins: tuple[str, ...]) -> list[str]:
    """Check that administrators can use the hub, and return what there is to say about their passwords.

    Raises:
        DevError: there is none, or one who cannot.
    """
    from tljh_plasma.accounts import AccountError, find_account

    if not admins:
        raise DevError("there is nobody but root, who may not use the hub: name an account with PLASMA_DEV_ADMIN=.")
    notes = []
    for name in admins:
        try:
            find_account(name)
        except AccountError as error:
            raise DevError(
                f"{name} cannot be the administrator ({error.reason}): name one with PLASMA_DEV_ADMIN="
            ) from error
        # Root can tell; what everybody else is told is no answer.
        status = subprocess.run(
            ["passwd", "--status", name], capture_output=True, text=True, check=False
        ).stdout.split()
        if status[1:2] and status[1] not in ("P", "PS"):
            notes.append(f"{name} has no password to log in with: set one with 'sudo passwd {name}'.")
    return notes


def wait_until_ready(hub: Hub) -> bool:
    """Wait until people could log in. Returns whether they can: False when we are asked to stop before.

    Raises:
        DevError: a process ended, or the hub does not answer.
    """
    end = time.monotonic() + START_TIMEOUT
    while not stopping.wait(0.2):
        if hub.ended():
            raise DevError(f"{hub.ended()}.")
        if hub.answers():
            return True
        if time.monotonic() > end:
            raise DevError(f"The hub does not answer within {START_TIMEOUT} seconds: see {hub.options.log_directory}.")
    return False


def welcome(hub: Hub, notes: list[str]) -> str:
    """Return what somebody needs to know to begin."""
    shown = os.path.relpath(hub.options.directory)
    lines = [
        f"Plasma runs at {hub.options.url}",
        f"administrator  {', '.join(hub.options.admins)}, with the password of the account on this machine",
        *(f"               {note}" for note in notes),
        f"settings       {shown}/config/config.yaml",
        f"data           {shown}/state",
        f"logs           {shown}/log/hub.log, {shown}/log/proxy.log",
        f"Docker engine  {hub.docker_host}",
        "Templates and style sheets are read at every request; the hub starts again when other files change.",
        "Ctrl-C ends it.",
    ]
    return "\n           ".join(lines)


def watch(hub: Hub) -> None:
    """Start the hub again when code changes, until we are asked to stop."""
    watched = Watch(Path(tljh_plasma.__file__).parent, Path(__file__).parent, hub.config_file.parent)
    told = ""
    while not stopping.wait(LOOK_EVERY):
        changed = watched.changed()
        if changed:
            say(f"{', '.join(path.name for path in changed)} changed: the hub starts again")
            hub.restart()
        ended = hub.ended()
        if ended and ended != told:
            say(f"{ended}. It starts again when a file changes.")
        told = ended


if __name__ == "__main__":
    sys.exit(main())
