"""``python -m tljh_plasma.service``, as JupyterHub runs it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import settings
from ..settings import SettingsError
from .waiting import Waiting

if TYPE_CHECKING:
    from .app import PlasmaService

PR_SET_PDEATHSIG = 1
ADDRESS = "127.0.0.1"


def load() -> type[PlasmaService]:
    """Load the service, which takes seconds."""
    from .app import PlasmaService

    return PlasmaService


def main(load: Callable[[], type[PlasmaService]] = load) -> int:
    """Run the service.

    Args:
        load: returns its class; called when something answers already.
    """
    # Databases and secrets are nobody else's, from the moment they are made.
    os.umask(0o077)
    # A hub that was killed could not end us, and its successor's service needs the port.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # tljh-repo2docker runs alembic by its name.
    programs = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{programs}:{os.environ.get('PATH', os.defpath)}"
    try:
        port = settings.load().service_port
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        waiting = Waiting(ADDRESS, port, os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "/"))
    except OSError as error:
        print(f"error: port {port} of {ADDRESS} is taken: set plasma.service_port ({error})", file=sys.stderr)
        return 1
    load().launch_instance([], waiting=waiting)
    return 0


if __name__ == "__main__":
    sys.exit(main())
