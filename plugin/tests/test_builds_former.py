"""builds: the image of before the newest build is kept, and can be put in use again."""

from __future__ import annotations

import pytest
from docker.errors import ImageNotFound
from support_builds import Bench, until
from tljh_plasma import environments as envs
from tljh_plasma.builds import BuildRefused, former, images

pytest_plugins = ["support_builds_fixtures"]

MB = 1024**2


def listed(bench: Bench) -> tuple[envs.Environment, former.Former | None, bool]:
    """What the hub sees: the environment, the image that is kept, and whether the older one is in use."""
    found = bench.client.api.images()
    (environment,) = [one for one in envs.from_images(found) if one.image == bench.image()]
    kept = former.from_images(found).get(bench.image())
    created = bench.client.images.get(environment.image_id).labels[images.LABEL_CREATED]
    return environment, kept, bool(kept and kept.in_place_of(created))


def gone(bench: Bench, image_id: str) -> bool:
    """Whether the engine has an image no more."""
    try:
        bench.client.images.get(image_id)
    except ImageNotFound:
        return True
    return False


@pytest.mark.docker
async def test_one_generation_is_kept_and_both_can_be_in_use(bench):
    repository = bench.repository()
    request = bench.request(repository, memory=512 * MB)
    async with bench.builder() as builder:
        await bench.build(builder, request)
        with pytest.raises(BuildRefused, match="There is no former image of .*: only one has been built"):
            await builder.exchange(request.image)
        first, kept, previous = listed(bench)
        assert kept is None and not previous
        repository.commit({"x.txt": "x\n"})
        await bench.build(builder, request)
        second, kept, previous = listed(bench)
        assert kept.environment.image_id == first.image_id != second.image_id and not previous
        for _ in range(2):
            await builder.exchange(request.image)
            now, kept, previous = listed(bench)
            assert (now.image_id, kept.environment.image_id, previous) == (first.image_id, second.image_id, True)
            assert not bench.image_id(images.build_tag(request.image))
            await builder.exchange(request.image)
            now, kept, previous = listed(bench)
            assert (now.image_id, kept.environment.image_id, previous) == (second.image_id, first.image_id, False)
        # What is older goes, also when somebody went back.
        await builder.exchange(request.image)
        repository.commit({"x.txt": "y\n"})
        await bench.build(builder, request)
        third, kept, previous = listed(bench)
        assert (kept.environment.image_id, previous) == (first.image_id, False)
        assert third.image_id not in (first.image_id, second.image_id) and gone(bench, second.image_id)


@pytest.mark.docker
async def test_the_limits_stay_those_of_the_environment_and_files_are_those_of_the_image(bench):
    repository = bench.repository()
    async with bench.builder() as builder:
        await bench.build(builder, bench.request(repository, memory=512 * MB))
        first, *_ = listed(bench)
        repository.commit({"x.txt": "x\n"})
        await bench.build(builder, bench.request(repository, memory=512 * MB))
        second, *_ = listed(bench)
        await builder.change_limits(second, 768 * MB, 0.5)
        # Limits alone make no generation.
        changed, kept, previous = listed(bench)
        assert (kept.environment.image_id, previous) == (first.image_id, False)
        await builder.exchange(bench.image())
        now, kept, previous = listed(bench)
        assert previous and kept.environment.image_id == changed.image_id
        assert (now.memory, now.cpu, now.files_id) == (768 * MB, 0.5, first.image_id)
        assert now.image_id != first.image_id
        await builder.exchange(bench.image())
        now, kept, previous = listed(bench)
        assert (now.image_id, now.files_id, previous) == (changed.image_id, second.image_id, False)


@pytest.mark.docker
async def test_a_former_image_in_use_stays_and_one_that_is_older_goes_with_its_last_server(bench):
    repository = bench.repository()
    request = bench.request(repository)
    async with bench.builder() as builder:
        await bench.build(builder, request)
        first, *_ = listed(bench)
        server = bench.client.containers.run(request.image, ["sleep", "600"], detach=True)
        try:
            for text in ("1", "2"):
                repository.commit({"x.txt": text})
                await bench.build(builder, request)
            # A server runs from it; it has no name, so the timer of leftovers takes it when the server has ended.
            assert bench.client.images.get(first.image_id).tags == []
            _, kept, _ = listed(bench)
            assert bench.client.images.get(kept.environment.image_id).tags == [former.tag_of(request.image)]
            dangling = bench.client.api.images(filters={"dangling": True})
            assert first.image_id in [one["Id"] for one in dangling]
            assert kept.environment.image_id not in [one["Id"] for one in dangling]
        finally:
            server.remove(force=True)
            bench.client.images.remove(first.image_id)


@pytest.mark.docker
async def test_a_failed_build_leaves_both_and_nothing_is_exchanged_while_it_runs(bench):
    repository = bench.repository()
    request = bench.request(repository)
    async with bench.builder() as builder:
        for text in ("1", "2"):
            repository.commit({"x.txt": text})
            await bench.build(builder, request)
        before = listed(bench)
        repository.commit(bench.recipe("RUN sleep 4; exit 3"))
        await builder.submit(request)
        with pytest.raises(BuildRefused, match="is being built: its image can be exchanged when that is done"):
            await builder.exchange(request.image)
        await until(lambda: not builder.states(), "the end of the build")
        assert (await bench.row(request.image)).status == "failed"
        assert listed(bench) == before


@pytest.mark.docker
async def test_a_restart_after_the_new_image_got_its_name_keeps_the_former_one(bench):
    repository = bench.repository()
    request = bench.request(repository)
    async with bench.builder() as builder:
        await bench.build(builder, request)
        first, *_ = listed(bench)
        repository.commit({"x.txt": "x\n"})
        await bench.build(builder, request)
        second, *_ = listed(bench)
        created = bench.client.images.get(second.image_id).labels[images.LABEL_CREATED]
        # What the next process does with a build whose image was published.
        await images.publish(builder._engine, request.image, created, former.tag_of(request.image))
    now, kept, previous = listed(bench)
    assert (now.image_id, kept.environment.image_id, previous) == (second.image_id, first.image_id, False)


@pytest.mark.parametrize(
    ("kept", "used", "newer"),
    [
        ("2026-11-02T10:00:00+00:00", "2026-11-01T10:00:00+00:00", True),
        ("2026-11-01T10:00:00+00:00", "2026-11-02T10:00:00+00:00", False),
        # tljh-repo2docker's own, and images that somebody else made.
        ("24/12/2025", "2026-11-02T10:00:00+00:00", False),
        ("", "2026-11-02T10:00:00+00:00", False),
        ("2026-11-02T10:00:00+00:00", "24/12/2025", True),
        ("24/12/2025", "23/12/2025", False),
    ],
)
def test_which_of_two_images_is_newer(kept, used, newer):
    environment = envs.Environment("a:1", "sha256:x", "A", "a")
    assert former.Former(environment, kept, 0).in_place_of(used) == newer


def test_formers_are_no_environments_of_their_own():
    labels = {envs.LABEL_REF: "1", envs.LABEL_IMAGE: "a:1", envs.LABEL_NAME: "A"}
    kept = {"Id": "sha256:x", "RepoTags": ["plasma-former/a:1"], "Labels": labels, "Size": 5}
    assert envs.from_images([kept]) == []
    assert former.from_images([kept])["a:1"].size == 5
    # Something broke off: one image with both names.
    assert former.from_images([{**kept, "RepoTags": ["a:1", "plasma-former/a:1"]}]) == {}
    assert former.from_images([{**kept, "RepoTags": ["plasma-former/b:1"]}, {"Id": "sha256:y", "RepoTags": None}]) == {}
