"""builds: environments that are made of ready images, and other limits for those there are."""

from __future__ import annotations

import asyncio
import json

import pytest
from docker.errors import ImageNotFound
from support_builds import wait_for_end
from support_registry import registry, small_image
from tljh_plasma import environments as envs
from tljh_plasma.builds import former, images
from tljh_plasma.builds.request import BuildRefused, BuildRequest

pytest_plugins = ["support_builds_fixtures"]
pytestmark = pytest.mark.docker

MB = 1024**2


def ready(bench, reference: str, image: str = "", **values) -> BuildRequest:
    """A request for an environment of a ready image."""
    defaults = {"name": "Course", "owner": "ada", "reference": reference}
    return BuildRequest(image or bench.image(), "", "", **{**defaults, **values})


def environment(bench, image: str = "") -> envs.Environment | None:
    """The environment of an image, as the hub sees it."""
    found = envs.from_images(bench.client.api.images())
    return next((one for one in found if one.image == (image or bench.image())), None)


@pytest.fixture
def small(bench):
    """An image that lies about what it is, under a name of its own."""
    lies = {envs.LABEL_MEMORY: "100G", envs.LABEL_COMMIT: "a" * 40, envs.LABEL_NAME: "Other", envs.LABEL_FILES: "x"}
    made = small_image(bench.client, **lies)
    name = f"{bench.prefix}-ready:2026"
    made.tag(*name.split(":"))
    yield made, name
    # What is below environments goes with them.
    bench.client.images.remove(name, force=True)


async def test_an_image_that_the_engine_has_becomes_an_environment(bench, small):
    """As one that was loaded from a file: no registry is asked."""
    made, name = small
    async with bench.builder() as builder:
        row = await bench.build(builder, ready(bench, name, memory=512 * MB, cpu=0.5))
        assert row.status == "built", row.log
        assert "downloaded" not in row.log and f"The environment is made from {name}, {made.id}." in row.log
        assert (row.image_meta.repo, row.image_meta.ref, row.image_meta.provider) == (name, "2026", "image")
    found = environment(bench)
    assert (found.name, found.repo, found.ref, found.reference, found.base) == ("Course", "", "2026", name, made.id)
    assert (found.memory, found.cpu, found.commit) == (512 * MB, 0.5, "")
    assert found.files_id == found.image_id != made.id
    # Nothing but labels.
    layers = [bench.client.images.get(one).attrs["RootFS"]["Layers"] for one in (made.id, bench.image())]
    assert layers[0] == layers[1]
    assert not bench.containers() and not bench.image_id(images.build_tag(bench.image()))


async def test_an_image_is_downloaded_with_the_password_of_its_registry(bench, caplog):
    caplog.set_level("DEBUG")
    made = small_image(bench.client)
    password = "s3cret-of-the-registry"
    with registry(made, "ada", password) as address:
        bench.client.images.remove(made.id)
        reference = f"{address}/plasmat/course:2026"
        try:
            async with bench.builder() as builder:
                row = await bench.build(builder, ready(bench, reference))
                assert row.status == "failed"
                assert f"The image {reference} cannot be downloaded (" in row.log and "load the image" in row.log
                row = await bench.build(builder, ready(bench, reference, username="ada", password=password))
            assert row.status == "built", row.log
            assert f"The image {reference} is downloaded now." in row.log and "Pull complete" in row.log
            assert environment(bench).base == made.id
            attributes = json.dumps(bench.client.images.get(bench.image()).attrs)
            kept = [path.read_bytes().decode("latin-1") for path in bench.database.parent.glob("*.sqlite*")]
            for text in (row.log, attributes, *kept, caplog.text):
                assert password not in text
        finally:
            bench.client.images.remove(reference, force=True)


async def test_images_are_named_by_their_digest_too(bench):
    made = small_image(bench.client)
    with registry(made) as address:
        name = f"{address}/plasmat/course"
        bench.client.images.remove(made.id)
        digest = bench.client.images.pull(name, tag="1").attrs["RepoDigests"][0].partition("@")[2]
        bench.client.images.remove(f"{name}:1", force=True)
        async with bench.builder() as builder:
            for number, reference in enumerate((f"{name}@{digest}", f"{name}:1@{digest}")):
                image = bench.image(f"d{number}")
                row = await bench.build(builder, ready(bench, reference, image))
                assert row.status == "built", row.log
                assert "is downloaded now" in row.log
                found = environment(bench, image)
                assert (found.reference, found.base) == (reference, made.id)
                assert found.ref == ("1" if number else digest.removeprefix("sha256:"))
                bench.client.images.remove(image, force=True)
                for left in bench.client.api.images(name=name):
                    bench.client.images.remove(left["Id"], force=True)


async def test_a_newer_image_is_asked_for_and_the_old_one_stays_when_there_is_none(bench):
    old, new = small_image(bench.client), small_image(bench.client)
    with registry(new) as address:
        reference = f"{address}/plasmat/course:2026"
        old.tag(f"{address}/plasmat/course", "2026")
        bench.client.images.remove(new.id)
        async with bench.builder() as builder:
            assert (await bench.build(builder, ready(bench, reference))).status == "built"
            assert environment(bench).base == old.id
            row = await bench.build(builder, ready(bench, reference, pull=True))
            assert row.status == "built", row.log
            assert environment(bench).base == new.id
    try:
        async with bench.builder() as builder:
            row = await bench.build(builder, ready(bench, reference, pull=True))
        assert row.status == "failed" and "cannot be downloaded (" in row.log
        assert "The environment stays as it was before this build." in row.log
        assert environment(bench).base == new.id
    finally:
        bench.client.images.remove(reference, force=True)


async def test_ready_images_queue_with_builds_and_an_interrupted_one_says_so(bench, small):
    _, name = small
    slow = bench.request(bench.repository("RUN sleep 20"), image=bench.image("slow"))
    request = ready(bench, name)
    async with bench.builder(parallel=1) as builder:
        await builder.submit(slow)
        while not bench.containers():
            await asyncio.sleep(0.1)
        await builder.submit(request)
        await asyncio.sleep(0.2)
        assert builder.states().get(request.image) == "queued"
        with pytest.raises(BuildRefused, match="is being built already"):
            await builder.submit(request)
    # The next process does not know what to do with it, and says so.
    async with bench.builder(parallel=1) as builder:
        await builder.resume()
        row = await bench.row(request.image)
        assert row.status == "failed" and "Please build the environment again." in row.log
        await builder.cancel(slow.image)
        assert (await bench.build(builder, request)).status == "built"
        # One that waits is ended like any other.
        await builder.submit(ready(bench, name, bench.image("c")))
        await builder.cancel(bench.image("c"))
        assert await bench.row(bench.image("c")) is None or environment(bench, bench.image("c"))


async def test_a_repository_and_a_ready_image_take_turns(bench, small):
    made, name = small
    repository = bench.repository()
    async with bench.builder() as builder:
        assert (await bench.build(builder, bench.request(repository, memory=512 * MB))).status == "built"
        assert (await bench.build(builder, ready(bench, name))).status == "built"
        assert (environment(bench).base, environment(bench).memory) == (made.id, None)
        row = await bench.build(builder, bench.request(repository))
        assert row.status == "built" and row.image_meta.repo == bench.address(repository)
        found = environment(bench)
        assert (found.base, found.reference, found.repo) == ("", "", bench.address(repository))


async def test_limits_are_changed_without_a_build(bench):
    repository = bench.repository()
    commit = repository.git("rev-parse", "HEAD")
    request = bench.request(repository, ref="main", commit=commit, memory=512 * MB)
    async with bench.builder() as builder:
        assert (await bench.build(builder, request)).status == "built"
        before = environment(bench)
        assert (before.commit, before.ref, before.files_id) == (commit, "main", before.image_id)
        for memory, cpu in ((1024 * MB, 0.5), (None, 1.25), (768 * MB, None)):
            await builder.change_limits(environment(bench), memory, cpu)
            after = environment(bench)
            assert (after.memory, after.cpu) == (memory, cpu)
        assert after.image_id != before.image_id
        # What people have copied of its files is still of these.
        assert after.files_id == before.image_id
        assert (after.commit, after.name, after.repo) == (commit, before.name, before.repo)
        row = await bench.row(request.image)
        assert (row.status, row.image_meta.mem_limit, row.image_meta.cpu_limit) == ("built", "768M", "")
        assert row.image_meta.owner == "ada"
        assert not bench.image_id(images.build_tag(request.image))
        layers = [bench.client.images.get(one).attrs["RootFS"] for one in (before.image_id, after.image_id)]
        assert layers[0] == layers[1]
        # A new build has its own files again, and takes what was below along.
        again = bench.request(repository, ref="main", memory=512 * MB, commit=repository.commit({"x.txt": "x\n"}))
        assert (await bench.build(builder, again)).status == "built"
        built = environment(bench)
        assert built.files_id == built.image_id
        await builder.submit(bench.request(bench.repository("RUN sleep 30")))
        with pytest.raises(BuildRefused, match="is being built") as caught:
            await builder.change_limits(built, None, None)
        assert caught.value.status == 409
        await builder.cancel(request.image)
        assert bench.client.images.get(after.image_id).tags == [former.tag_of(request.image)]
        assert (await bench.build(builder, again)).status == "built"
        for gone in (before.image_id, after.image_id):
            with pytest.raises(ImageNotFound):
                bench.client.images.get(gone)


async def test_the_text_of_a_build_is_there_while_it_runs_and_afterwards(bench):
    request = bench.request(bench.repository("RUN echo something to read; sleep 1"))
    async with bench.builder() as builder:
        assert await builder.text(request.image) == ""
        await builder.submit(request)
        while "something to read" not in await builder.text(request.image):
            assert builder.states().get(request.image)
            await asyncio.sleep(0.1)
        log = await wait_for_end(builder, request.image)
        assert await builder.text(request.image) == log
