"""builds: what a restart of the service, a kill or an absent engine does to them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from aiodocker import Docker
from support_builds import start_service, until, wait_for_end, wait_for_line
from tljh_plasma.builds import BuildRefused, images
from tljh_plasma.builds import container as builders
from tljh_plasma.builds.rows import BuildRows

from tests.support.git_repository import broken, slow

pytest_plugins = ["support_builds_fixtures"]
pytestmark = pytest.mark.docker


def kill(process) -> None:
    """As the kernel does when memory is short: nothing of the process runs any more."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        pipe.close()


async def test_a_killed_service_loses_no_build_and_doubles_none(bench):
    running = bench.request(bench.repository(slow(8)), memory=256 * 1024**2)
    queued = [bench.request(bench.repository(), image=bench.image(name)) for name in ("b", "c")]
    process = start_service(bench, [running, *queued], parallel=1)

    async def begun():
        row = await bench.row(running.image)
        return "slow step 1" in row.log and len(bench.containers()) == 3

    try:
        await until(begun, "the first build", 60)
    finally:
        kill(process)
    assert len(bench.containers()) == 3
    async with bench.builder(parallel=1) as builder:
        await builder.resume()
        states = [builder.states().get(request.image) for request in (running, *queued)]
        assert states == ["building", "queued", "queued"]
        assert len(bench.containers()) == 3, "no container was made for a build that had one"
        for request in (running, queued[0]):
            with pytest.raises(BuildRefused, match="is being built already"):
                await builder.submit(request)
        log = await wait_for_end(builder, running.image)
        assert "Cloning into" in log and "slow step 1" in log and "slow step 8" in log
        assert log.count("slow step 5 of") == 1 and log.endswith("is ready.\n")
        for request in queued:
            await wait_for_end(builder, request.image)
    for request in (running, *queued):
        row = await bench.row(request.image)
        assert row.status == "built", row.log
        assert bench.image_id(request.image)
    assert not bench.containers()
    assert bench.client.images.get(running.image).labels["tljh_repo2docker.mem_limit"] == "256M"


async def test_a_build_that_ends_while_no_service_runs(bench):
    good = bench.request(bench.repository(slow(4)))
    bad = bench.request(bench.repository(slow(4), broken()), image=bench.image("bad"))
    async with bench.builder() as builder:
        await builder.submit(good)
        await builder.submit(bad)
        await asyncio.gather(*(wait_for_line(builder, request.image, "slow step 1") for request in (good, bad)))

    def over():
        return [one.status for one in bench.containers()] == ["exited", "exited"]

    await until(over, "the end of both containers")
    assert (await bench.row(good.image)).status == "building"
    # A tenth of a second would have been too short for it, but it has ended.
    async with bench.builder(timeout=0.1) as builder:
        logs = [await wait_for_end(builder, request.image) for request in (good, bad)]
    assert logs[0].endswith(f"The image {good.image} is ready.\n") and "slow step 4" in logs[0]
    assert "does not exist" in logs[1] and "exit code 1" in logs[1]
    assert (await bench.row(good.image)).status == "built"
    assert (await bench.row(bad.image)).status == "failed"
    assert bench.image_id(good.image) and not bench.containers()


async def test_a_build_that_ran_too_long_while_no_service_ran_keeps_its_log(bench, monkeypatch):
    monkeypatch.setattr(builders, "READING", 2)
    request = bench.request(bench.repository(slow(600)))
    async with bench.builder() as builder:
        await builder.submit(request)
        await wait_for_line(builder, request.image, "slow step 2")
    async with bench.builder(timeout=1) as builder:
        log = await wait_for_end(builder, request.image)
    assert "slow step 2" in log and "took longer than" in log
    assert (await bench.row(request.image)).status == "failed"
    assert not bench.containers()


def began(containers):
    """Whether there is one that was started: it is made before its turn, and before its network is closed."""
    return containers and containers[0].status != "created"


async def test_a_kill_between_publishing_and_writing_that_down(bench):
    request = bench.request(bench.repository())
    async with bench.builder() as builder:
        await builder.submit(request)
        await until(lambda: began(bench.containers()), "the start of the container")
    await until(lambda: bench.containers()[0].status == "exited", "the end of the container")
    created = bench.containers()[0].labels[images.LABEL_CREATED]
    async with Docker() as docker:
        await images.publish(docker, request.image, created)
    made = bench.image_id(request.image)
    assert made
    async with bench.builder() as builder:
        await builder.resume()
        await until(lambda: builder.states().get(request.image) is None, "the end")
    assert (await bench.row(request.image)).status == "built"
    assert bench.image_id(request.image) == made
    assert not bench.containers()


async def test_a_build_without_an_image_is_not_called_built(bench):
    request = bench.request(bench.repository())
    async with bench.builder() as builder:
        await bench.build(builder, request)  # an image of that name, of a former build
        await builder.submit(request)
        await until(lambda: began(bench.containers()), "the start of the container")
    await until(lambda: bench.containers()[0].status == "exited", "the end of the container")
    bench.client.images.remove(images.build_tag(request.image))
    async with bench.builder() as builder:
        log = await wait_for_end(builder, request.image)
    assert "there is no image" in log
    assert (await bench.row(request.image)).status == "failed"


async def test_a_row_without_a_container_has_failed(bench):
    rows = BuildRows(bench.context, bench.manager)
    request = bench.request(bench.repository())
    uid = await rows.record(request, "2026-01-01T00:00:00+00:00")
    await rows.update(uid, log="what there was\n")
    async with bench.builder() as builder:
        await builder.resume()
        row = await bench.row(request.image)
        assert row.status == "failed"
        assert row.log.startswith("what there was\nThe service was restarted, and the build is lost.")
        assert (await bench.build(builder, request)).status == "built"


async def test_builds_of_another_hub_are_left_alone(bench):
    config = builders.configuration(bench.request(bench.repository()), uuid4(), "now", bench.builder_image)
    other = bench.client.api.create_container_from_config(config)["Id"]
    async with bench.builder() as builder:
        await builder.resume()
    assert bench.client.containers.get(other).status == "created"


async def test_a_container_of_a_build_that_is_written_down_is_removed(bench):
    request = bench.request(bench.repository())
    async with bench.builder() as builder:
        row = await bench.build(builder, request)
    config = builders.configuration(request, row.uid, "before", bench.builder_image)
    bench.client.api.create_container_from_config(config)
    async with bench.builder() as builder:
        await builder.resume()
    assert (await bench.row(request.image)).status == "built"
    assert isinstance(row.uid, UUID)
    assert not bench.containers() and bench.image_id(request.image)


class Door:
    """A socket in front of the engine's, which can be shut."""

    def __init__(self, path, target: str):
        self.path = path
        self.target = target
        self._server = None
        self._writers = set()
        self._passing = set()

    async def _pass_on(self, reader, writer) -> None:
        self._passing.add(asyncio.current_task())
        engine_reader, engine_writer = await asyncio.open_unix_connection(self.target)
        self._writers |= {writer, engine_writer}

        async def copy(source, sink):
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except ConnectionError:
                pass
            finally:
                sink.close()

        await asyncio.gather(copy(reader, engine_writer), copy(engine_reader, writer))

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._pass_on, self.path)

    async def shut(self) -> None:
        self._server.close()
        self.path.unlink(missing_ok=True)
        for writer in self._writers:
            writer.close()
        self._writers.clear()
        if self._passing:
            await asyncio.wait(self._passing)


@asynccontextmanager
async def door(bench, tmp_path, monkeypatch):
    """A way to the engine that can be shut, for the service alone: the builders have their own."""
    real = builders.engine_socket()
    made = Door(tmp_path / "engine.sock", real)
    await made.open()
    with monkeypatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{made.path}")
        builder_context = bench.builder()
        builder = await builder_context.__aenter__()
        await builder.resume()
    try:
        yield made, builder
    finally:
        await builder_context.__aexit__(None, None, None)
        await made.shut()


async def test_an_engine_that_goes_away_for_a_while(bench, tmp_path, monkeypatch):
    request = bench.request(bench.repository(slow(8)))
    async with door(bench, tmp_path, monkeypatch) as (made, builder):
        await builder.submit(request)
        await wait_for_line(builder, request.image, "slow step 2")
        await made.shut()
        await asyncio.sleep(2.5)
        assert builder.states().get(request.image) == "building"
        await made.open()
        log = await wait_for_end(builder, request.image)
    lines = [line for line in log.splitlines() if line.startswith("slow step")]
    assert [line.split()[2] for line in lines] == [str(number) for number in range(1, 9)]
    assert (await bench.row(request.image)).status == "built"


async def test_without_an_engine_nothing_is_begun_or_forgotten(bench, tmp_path, monkeypatch):
    request = bench.request(bench.repository())
    real = builders.engine_socket()
    rows = BuildRows(bench.context, bench.manager)
    await rows.record(bench.request(bench.repository(), image=bench.image("old")), "now")
    made = Door(tmp_path / "engine.sock", real)
    with monkeypatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{made.path}")
        async with bench.builder() as builder:
            for call in (builder.resume, lambda: builder.submit(request), lambda: builder.cancel(request.image)):
                started = time.monotonic()
                with pytest.raises(BuildRefused, match="engine does not answer") as caught:
                    await call()
                assert caught.value.status == 503 and time.monotonic() - started < 5
            assert await bench.row(request.image) is None
            assert (await bench.row(bench.image("old"))).status == "building", "nobody knows yet"
            await made.open()
            await builder.resume()
            assert (await bench.row(bench.image("old"))).status == "failed"
    await made.shut()
