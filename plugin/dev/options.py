"""What `make dev` is asked to do, from the environment, and whether this machine lets it."""

from __future__ import annotations

import getpass
import os
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tljh_plasma.settings import INNER_PORT

from tests.support import paths

DEFAULT_PORT = 8000
NOT_ROOT = (
    "make dev needs root: only root can check other people's passwords, run their servers under their own user ids "
    "and close this machine to those servers, so use 'sudo make dev'. 'PLASMA_DEV_UNPRIVILEGED=1 make dev' goes on "
    "without, if you have access to Docker: only you can log in, and your servers reach all ports of this machine."
)


class DevError(Exception):
    """The hub cannot be started; the text is one sentence that says what to do."""


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        port: TCP port on 127.0.0.1 that people open.
        admins: accounts that administer the hub; empty when there is nobody but root.
        directory: where everything is kept; the hub's installation prefix.
        name: of the Docker network and of the containers' names; another one for each clone of the repository.
    """

    port: int
    admins: tuple[str, ...]
    directory: Path
    name: str

    @property
    def url(self) -> str:
        """What people open."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def log_directory(self) -> Path:
        """Where the output of the processes goes."""
        return self.directory / "log"


def current_user(environ: Mapping[str, str]) -> str:
    """Return who types, behind sudo; empty for root, which is nobody's account."""
    name = environ.get("SUDO_USER") or getpass.getuser()
    return "" if name == "root" else name


def read(environ: Mapping[str, str]) -> Options:
    """Read the options, and check that this machine can do what they say.

    Args:
        environ: PLASMA_DEV_PORT, PLASMA_DEV_ADMIN (names with commas between), PLASMA_DEV_UNPRIVILEGED, and what
            tests.support.paths reads.

    Raises:
        DevError: an option makes no sense, the port is taken, or root is needed.
    """
    if os.geteuid() != 0 and environ.get("PLASMA_DEV_UNPRIVILEGED") != "1":
        raise DevError(NOT_ROOT)
    text = environ.get("PLASMA_DEV_PORT") or str(DEFAULT_PORT)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise DevError(f"PLASMA_DEV_PORT must be a number from 1 to 65535, not {text!r}.")
    check_port(int(text))
    named = environ.get("PLASMA_DEV_ADMIN", "").replace(",", " ").split()
    admins = named or [name for name in [current_user(environ)] if name]
    directory = paths.state_dir() / "dev"
    return Options(int(text), tuple(admins), directory, f"plasma-dev-{paths.state_id()}")


def check_port(port: int) -> None:
    """Check that nobody listens on a port.

    Raises:
        DevError: it cannot be used.
    """
    with socket.socket() as probe:
        # As the proxy does: connections of an earlier run that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DevError(
                f"Port {port} cannot be used ({error.strerror}): stop the program that has it, "
                f"or take another one, for example 'PLASMA_DEV_PORT={port + 1 if port < 65535 else 8000} make dev'."
            ) from error


def free_ports(count: int) -> list[int]:
    """Return TCP ports that a hub may have and nobody listens on, all different."""
    least, most = INNER_PORT
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            while True:
                try:
                    # Those of root are few, so that the kernel is not asked for one.
                    probe.bind(("127.0.0.1", 0 if most > 1023 else random.randrange(least + 309, most + 1)))
                    break
                except OSError:
                    continue
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
