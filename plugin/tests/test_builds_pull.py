"""builds: a builder's image that the engine has to download, from a registry on this machine."""

from __future__ import annotations

import asyncio

import pytest
from support_registry import registry, small_image

pytest_plugins = ["support_builds_fixtures"]
pytestmark = pytest.mark.docker


async def test_the_image_of_the_builder_is_downloaded_and_the_log_says_how(bench):
    client = bench.client
    # Small, and without repo2docker: what comes after the download is a failure of its own.
    made = small_image(client)
    requests = [bench.request(bench.repository(), image=bench.image(name)) for name in ("a", "b")]
    with registry(made) as address:
        client.images.remove(made.id)
        image = f"{address}/plasmat/builder"
        try:
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
            assert client.images.get(f"{image}:latest")
        finally:
            client.images.remove(f"{image}:latest", force=True)
    assert not bench.containers()


@pytest.mark.parametrize("image", ["127.0.0.1:9/plasmat/builder:1", "plasmat.invalid/builder:1", "Not A Name"])
async def test_an_image_of_the_builder_that_cannot_be_had(bench, image):
    async with bench.builder(image=image) as builder:
        row = await bench.build(builder, bench.request(bench.repository()))
        assert row.status == "failed"
        last = row.log.splitlines()[-1]
        assert last.startswith("The image of the builder cannot be downloaded (")
        assert last.endswith("or set plasma.builder.image to an image that is there.")
        assert f"docker pull {image}" in last
    assert not bench.containers()
