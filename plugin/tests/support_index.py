"""A package index on this machine, with packages of a few bytes, and places where it is out of order."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator


def wheel(name: str, version: str, tag: str = "py3-none-any") -> tuple[str, bytes]:
    """File name and content of a package with one module of its name, which knows its version."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = [f"{path},sha256={_digest(text.encode())},{len(text.encode())}" for path, text in files.items()] + [
        f"{info}/RECORD,,"
    ]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": "\n".join(record) + "\n"}.items():
            archive.writestr(zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0)), text)
    return f"{module}-{version}-{tag}.whl", content.getvalue()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


class Index:
    """Packages by project; ``url`` is that of the index, and those below ``errors`` answer with status 500."""

    def __init__(self, address: str):
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                index.asked.append(self.path)
                status, kind, content = index.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_HEAD = do_GET

            def log_message(self, *_arguments):
                pass

        self.server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.place = f"http://{address}:{self.server.server_port}"
        self.url, self.errors = f"{self.place}/simple", f"{self.place}/errors"

    def add(self, name: str, version: str, tag: str = "py3-none-any") -> str:
        """Add a package; returns its hash as requirements have it."""
        file, content = wheel(name, version, tag)
        self.files.setdefault(name, {})[file] = content
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def answer(self, path: str) -> tuple[int, str, bytes]:
        place, name, *file = path.strip("/").split("/")
        if place == "errors":
            return 500, "text/plain", b"out of order"
        found = self.files.get(name)
        if found is None:
            return 404, "text/plain", b""
        if place == "files":
            return 200, "application/octet-stream", found[file[0]]
        hashes = {one: hashlib.sha256(content).hexdigest() for one, content in found.items()}
        links = (f'<a href="/files/{name}/{one}#sha256={digest}">{one}</a>' for one, digest in hashes.items())
        return 200, "text/html", f"<!DOCTYPE html><html><body>{' '.join(links)}</body></html>".encode()


@contextlib.contextmanager
def serve(address: str) -> Iterator[Index]:
    """An index at an address of this machine."""
    index = Index(address)
    thread = threading.Thread(target=index.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield index
    finally:
        index.server.shutdown()
        index.server.server_close()
        thread.join()
