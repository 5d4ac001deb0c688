"""builds: the queue, cancelling, and builds that are stopped."""

from __future__ import annotations

import asyncio
import time

import pytest
from support_builds import until, wait_for_end, wait_for_line
from tljh_plasma.builds import BuildRefused, images

from tests.support.git_repository import slow

pytest_plugins = ["support_builds_fixtures"]
pytestmark = pytest.mark.docker


async def test_a_few_at_a_time_and_the_others_in_order(bench):
    names = ["a", "b", "c", "d"]
    requests_ = [bench.request(bench.repository(slow(2)), image=bench.image(name)) for name in names]
    async with bench.builder(parallel=2) as builder:
        for request in requests_:
            await builder.submit(request)
        images = [request.image for request in requests_]
        assert [builder.states().get(image) for image in images] == ["building", "building", "queued", "queued"]
        with pytest.raises(BuildRefused, match="is being built already") as caught:
            await builder.submit(requests_[0])
        assert caught.value.status == 409
        with pytest.raises(BuildRefused) as caught:
            await builder.submit(requests_[3])
        assert caught.value.status == 409

        waiting = [asyncio.create_task(wait_for_end(builder, image)) for image in images]
        most = 0
        while not all(task.done() for task in waiting):
            running = [one for one in await asyncio.to_thread(bench.containers) if one.status == "running"]
            most = max(most, len(running))
            states = [builder.states().get(image) for image in images]
            assert states.count("building") <= 2
            assert states == sorted(states, key=lambda state: state == "queued"), "nobody overtakes"
            await asyncio.sleep(0.05)
        assert most == 2
        for image in images:
            assert (await bench.row(image)).status == "built"


async def test_the_same_image_is_built_once_however_often_it_is_asked_for_at_once(bench):
    request = bench.request(bench.repository(slow(1)))
    async with bench.builder() as builder:
        results = await asyncio.gather(*(builder.submit(request) for _ in range(5)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, BuildRefused)]
        assert len(refused) == 4 and {error.status for error in refused} == {409}
        await wait_for_end(builder, request.image)
        assert (await bench.row(request.image)).status == "built"


async def test_cancel_a_running_build(bench):
    repository = bench.repository(slow(600))
    running, waiting = bench.request(repository), bench.request(bench.repository(), image=bench.image("next"))

    def steps():
        """Containers of the engine's own, in which an instruction of the Dockerfile runs."""
        found = bench.client.containers.list()
        return [one for one in found if "slow step" in " ".join(one.attrs["Config"]["Cmd"] or [])]

    async with bench.builder(parallel=1) as builder:
        await builder.submit(running)
        await builder.submit(waiting)
        await wait_for_line(builder, running.image, "slow step 2")
        assert len(await asyncio.to_thread(steps)) == 1
        following = asyncio.create_task(wait_for_end(builder, running.image))
        await asyncio.sleep(0)
        started = time.monotonic()
        await builder.cancel(running.image)
        print(f"cancelled in {time.monotonic() - started:.1f} s")
        assert (await following).endswith("The build was cancelled.\n")
        assert builder.states().get(running.image) is None and await bench.row(running.image) is None
        with pytest.raises(BuildRefused, match="no log"):
            await wait_for_end(builder, running.image)
        await until(lambda: not steps(), "the end of the build in the engine", 30)
        # The place is free for the next one.
        await wait_for_end(builder, waiting.image)
        assert (await bench.row(waiting.image)).status == "built"
        for image in (waiting.image, "other:1"):
            await builder.cancel(image)  # there is nothing to cancel
        assert (await bench.row(waiting.image)).status == "built"
    assert not bench.containers()
    for image in (running.image, images.build_tag(running.image)):
        assert bench.image_id(image) is None


async def test_cancel_a_queued_build(bench):
    first = bench.request(bench.repository(slow(2)))
    second, third = (bench.request(bench.repository(), image=bench.image(name)) for name in ("b", "c"))
    async with bench.builder(parallel=1) as builder:
        for request in (first, second, third):
            await builder.submit(request)
        assert builder.states().get(second.image) == "queued"
        await builder.cancel(second.image)
        assert builder.states().get(second.image) is None and await bench.row(second.image) is None
        await wait_for_end(builder, third.image)
        assert (await bench.row(first.image)).status == "built"
        assert (await bench.row(third.image)).status == "built"
        # It can be asked for again.
        await builder.submit(second)
        await builder.cancel(second.image)
    assert not bench.containers()


async def test_a_build_that_takes_too_long_is_stopped(bench):
    request = bench.request(bench.repository(slow(600)))
    async with bench.builder(timeout=6) as builder:
        started = time.monotonic()
        row = await bench.build(builder, request)
        assert 5 < time.monotonic() - started < 30
        assert row.status == "failed" and "slow step 1" in row.log
        assert "stopped because it took longer than 0.1 minutes" in row.log
    assert not bench.containers()


async def test_somebody_removes_the_builder(bench):
    request = bench.request(bench.repository(slow(600)))
    async with bench.builder() as builder:
        await builder.submit(request)
        await wait_for_line(builder, request.image, "slow step 1")
        for container in bench.containers():
            container.remove(force=True)
        log = await asyncio.wait_for(wait_for_end(builder, request.image), 30)
        assert (await bench.row(request.image)).status == "failed"
        assert "The build failed" in log
