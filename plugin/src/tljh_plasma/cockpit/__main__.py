"""``python -m tljh_plasma.cockpit``, as JupyterHub runs it."""

from __future__ import annotations

import asyncio
import sys

from ..service.__main__ import run
from ..service.waiting import Waiting
from ..settings import Settings


def serve(values: Settings, waiting: Waiting) -> None:
    """Load what takes seconds, and serve."""
    from . import app

    app.set_up_log()
    asyncio.run(app.serve(values, waiting))


def main() -> int:
    """Run the service "cockpit"."""
    return run("cockpit_port", serve)


if __name__ == "__main__":
    sys.exit(main())
