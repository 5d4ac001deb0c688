"""builds: a builder's image that the engine has to download, from a registry on this machine."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import http.server
import io
import json
import secrets
import tarfile
import threading
from contextlib import contextmanager

import pytest

pytest_plugins = ["support_builds_fixtures"]
pytestmark = pytest.mark.docker

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def saved_files(image) -> dict[str, bytes]:
    """The files in ``docker save`` of an image."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(image.save()))) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}


@contextmanager
def registry(image):
    """Serve one image, as any name and tag; gives the address of the registry."""
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
            if self.path == "/v2/":
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


def test_the_image_of_the_builder_is_downloaded_and_the_log_says_how(bench):
    client = bench.client
    # Small, and without repo2docker: what comes after the download is a failure of its own.
    recipe = f"FROM scratch\nCOPY Dockerfile /{secrets.token_hex(4)}\n".encode()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(recipe)
        archive.addfile(entry, io.BytesIO(recipe))
    made, _ = client.images.build(fileobj=io.BytesIO(context.getvalue()), custom_context=True, rm=True)
    requests = [bench.request(bench.repository(), image=bench.image(name)) for name in ("a", "b")]
    with registry(made) as address:
        client.images.remove(made.id)
        image = f"{address}/plasmat/builder"

        async def scenario():
            async with bench.builder(image=image) as builder:
                rows = await asyncio.gather(*(bench.build(builder, request) for request in requests))
                for row in rows:
                    assert row.status == "failed"
                    assert "The Docker engine refused" in row.log and "jupyter-repo2docker" in row.log
                # The second finds it.
                logs = sorted((row.log for row in rows), key=len)
                assert "downloaded" not in logs[0]
                assert f"The image of the builder, {image}, is not on this server yet." in logs[1]
                assert "Pull complete" in logs[1] and "Downloading" not in logs[1]

        try:
            asyncio.run(scenario())
            assert client.images.get(f"{image}:latest")
        finally:
            client.images.remove(f"{image}:latest", force=True)
    assert not bench.containers()


@pytest.mark.parametrize("image", ["127.0.0.1:9/plasmat/builder:1", "plasmat.invalid/builder:1", "Not A Name"])
def test_an_image_of_the_builder_that_cannot_be_had(bench, image):
    async def scenario():
        async with bench.builder(image=image) as builder:
            row = await bench.build(builder, bench.request(bench.repository()))
            assert row.status == "failed"
            last = row.log.splitlines()[-1]
            assert last.startswith("The image of the builder cannot be downloaded (")
            assert last.endswith("or set plasma.builder.image to an image that is there.")
            assert f"docker pull {image}" in last

    asyncio.run(scenario())
    assert not bench.containers()
