"""A registry for tests, with one image, and images that are small."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import http.server
import io
import json
import secrets
import tarfile
import threading
from contextlib import contextmanager
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def saved_files(image) -> dict[str, bytes]:
    """The files in ``docker save`` of an image."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(image.save()))) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}


def small_image(client: Any, **labels: str) -> Any:
    """Make an image that has nothing in it and that no other one is like."""
    recipe = f"FROM scratch\nCOPY Dockerfile /{secrets.token_hex(4)}\n".encode()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(recipe)
        archive.addfile(entry, io.BytesIO(recipe))
    context.seek(0)
    return client.images.build(fileobj=context, custom_context=True, rm=True, labels=labels)[0]


@contextmanager
def registry(image, username: str = "", password: str = ""):
    """Serve one image, as any name and tag, to everybody or with a password; gives the address of the registry."""
    expected = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
    files = saved_files(image)
    described = json.loads(files["manifest.json"])[0]
    blobs: dict[str, bytes] = {}

    def describe(kind: str, data: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        blobs[digest] = data
        return {"mediaType": kind, "size": len(data), "digest": digest}

    config = describe(CONFIG, files[described["Config"]])
    layers = [describe(LAYER, gzip.compress(files[name])) for name in described["Layers"]]
    manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).encode()
    manifest_digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            if password and not hmac.compare_digest(self.headers.get("Authorization", ""), expected):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="registry"')
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif self.path == "/v2/":
                self.answer(b"{}", "application/json")
            elif "/manifests/" in self.path:
                self.answer(manifest, MANIFEST, manifest_digest)
            elif "/blobs/" in self.path and name in blobs:
                self.answer(blobs[name], "application/octet-stream", name)
            else:
                self.send_error(404)

        do_HEAD = do_GET

        def answer(self, data: bytes, kind: str, digest: str = "") -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            if digest:
                self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
