"""What answers at the service's address while its modules are still being loaded.

JupyterHub waits for its services when it starts, and gives up altogether when one of them does not answer in time. The
modules take seconds, more on a busy machine, so something small listens from the first moment on.
"""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

PAGE = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="1"><title>Plasma</title></head>
<body><p>This page is being prepared. It appears in a moment.</p></body></html>
"""


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # ty: ignore[incompatible-mutable-override]
    timeout = 5

    def do_GET(self) -> None:
        # The root is where JupyterHub looks whether somebody is there.
        root = self.path.split("?")[0] == self.server.root
        self.send_response(200 if root else 503)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(PAGE)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Retry-After", "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(PAGE)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def log_message(self, *args: Any) -> None:
        """Nothing worth a line in the log."""


class _Server(HTTPServer):
    root: str

    def __init__(self, listener: socket.socket, root: str) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.root = root


class Waiting:
    """Answers "in a moment" until somebody takes the socket over.

    Args:
        address: IP address to listen on.
        port: TCP port.
        root: path of the service, "/services/plasma/".

    Raises:
        OSError: somebody else listens there.
    """

    def __init__(self, address: str, port: int, root: str) -> None:
        self._listener = socket.create_server((address, port), backlog=128)
        self._server = _Server(self._listener, root)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def take_over(self) -> socket.socket:
        """Stop answering, and return the socket, on which connections go on queueing meanwhile."""
        self._server.shutdown()
        self._thread.join()
        self._listener.setblocking(False)
        return self._listener
