"""``python -m tljh_plasma.service``, as JupyterHub runs it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from ..settings import SettingsError
from .app import PlasmaService

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the service."""
    # Databases and secrets are nobody else's, from the moment they are made.
    os.umask(0o077)
    # A hub that was killed could not end us, and its successor's service needs the port.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # tljh-repo2docker runs alembic by its name.
    programs = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{programs}:{os.environ.get('PATH', os.defpath)}"
    try:
        PlasmaService.launch_instance([])
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
