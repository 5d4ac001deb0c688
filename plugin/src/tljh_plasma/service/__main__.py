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
from ..hub_keys import KEYS
from ..settings import Settings, SettingsError
from .waiting import Waiting

if TYPE_CHECKING:
    from .app import PlasmaService

PR_SET_PDEATHSIG = 1
ADDRESS = "127.0.0.1"


def run(attribute: str, serve: Callable[[Settings, Waiting], None]) -> int:
    """Run a service, and return its exit code.

    Args:
        attribute: the setting that is its port.
        serve: loads the rest of it, which takes seconds, and serves; called when something answers already.
    """
    # Databases and secrets are nobody else's, from the moment they are made.
    os.umask(0o077)
    # A hub that was killed could not end us, and its successor's service needs the port.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        values = settings.load()
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    port = getattr(values, attribute)
    try:
        waiting = Waiting(ADDRESS, port, os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "/"))
    except OSError as error:
        key = KEYS[attribute].config
        print(f"error: port {port} of {ADDRESS} is taken: set {key} ({error})", file=sys.stderr)
        return 1
    serve(values, waiting)
    return 0


def load() -> type[PlasmaService]:
    """Load the service."""
    from .app import PlasmaService

    return PlasmaService


def main(load: Callable[[], type[PlasmaService]] = load) -> int:
    """Run the service "plasma".

    Args:
        load: returns its class.
    """
    # tljh-repo2docker runs alembic by its name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    return run("service_port", lambda values, waiting: load().launch_instance([], waiting=waiting))


if __name__ == "__main__":
    sys.exit(main())
