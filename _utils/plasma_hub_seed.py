"""
A first start of the hub where pillar wants it, for the official installer, which knows port 80 alone.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import pathlib
import threading
from collections.abc import Generator, Mapping
from typing import Any

import plasma_files
import plasma_hub_installed
import tljh_service


@contextlib.contextmanager
def seeded(prefix: str | pathlib.Path, http: Mapping[str, Any] | None) -> Generator[None]:
    """
    For the time that the installer runs: its hub finds address and port in config.yaml from its first start on, and the
    installer, which asks http://127.0.0.1 until something answers and fails otherwise, gets an answer there.

    prefix
        Where the hub is, or will be, installed.
    http
        ``{"address", "port"}`` of pillar; what is None is as the installer has it.
    """
    settings: dict[str, Any] = {"http": {key: value for key, value in (http or {}).items() if value is not None}}
    config = pathlib.Path(prefix) / "config" / "config.yaml"
    if config.exists():
        settings = plasma_hub_installed.config(prefix)  # what is there is somebody's, and is what this hub starts with
    elif settings["http"]:
        plasma_files.directory(config.parent, 0o700)
        # JSON is YAML.
        plasma_files.write(config, json.dumps(settings, indent=2) + "\n")
    with contextlib.ExitStack() as stack:
        if tljh_service.place(settings, False) != ("127.0.0.1", 80):
            # Where port 80 is somebody else's, they answer.
            with contextlib.suppress(OSError):
                stack.enter_context(_answering())
        yield


@contextlib.contextmanager
def _answering() -> Generator[None]:
    """Answer at http://127.0.0.1, to this machine alone."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 80), _Nothing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Nothing(http.server.BaseHTTPRequestHandler):
    """Says that all is well, without a word."""

    def do_GET(self) -> None:  # the name is that of the standard library
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to the terminal."""
