"""``python -m tljh_plasma.cockpit``, as JupyterHub runs it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys

from .. import settings
from ..service.__main__ import ADDRESS, PR_SET_PDEATHSIG
from ..service.waiting import Waiting
from ..settings import SettingsError


def main() -> int:
    """Run the service."""
    os.umask(0o077)
    # A hub that was killed could not end us, and its successor's service needs the port.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        values = settings.load()
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        waiting = Waiting(ADDRESS, values.cockpit_port, os.environ.get("JUPYTERHUB_SERVICE_PREFIX", "/"))
    except OSError as error:
        print(
            f"error: port {values.cockpit_port} of {ADDRESS} cannot be had: set plasma.cockpit.port ({error})",
            file=sys.stderr,
        )
        return 1
    # Takes seconds, and somebody listens already.
    from .app import serve, set_up_log

    set_up_log()
    asyncio.run(serve(values, waiting))
    return 0


if __name__ == "__main__":
    sys.exit(main())
