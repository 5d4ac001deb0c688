"""The service "plasma" of `make dev`: browsers get style sheets and scripts as they are at every request."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from tljh_plasma.service import __main__ as entry

if TYPE_CHECKING:
    from tljh_plasma.service.app import PlasmaService


def load() -> type[PlasmaService]:
    """Load the service, which takes longer than the hub waits for an answer where the machine is busy."""
    from tljh_plasma import theme
    from tljh_plasma.service.app import PlasmaService
    from traitlets import default

    class Current:
        """What the files are called in pages, for browsers that keep them: another name after each change."""

        def __str__(self) -> str:
            return theme.version_hash()

    class DevService(PlasmaService):
        """The service with more to say in its log."""

        @default("log_level")
        def _default_log_level(self) -> int:
            return logging.DEBUG

        def init_settings(self) -> dict[str, Any]:
            """Return Tornado's settings."""
            return {**super().init_settings(), "version_hash": Current()}

    return DevService


if __name__ == "__main__":
    sys.exit(entry.main(load))
