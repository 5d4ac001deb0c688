"""builds: environments from real Git repositories, by the real repo2docker and Docker engine."""

from __future__ import annotations

import io
import time

import pytest
import requests
from docker.errors import ImageNotFound
from support_builds import until, wait_for_end, wait_for_line
from support_containers import process_status
from support_hub import free_port, wait_until
from tljh_plasma import environments as envs
from tljh_plasma.builds import container as builders
from tljh_plasma.builds import former, images
from tljh_plasma.builds.request import BuildRefused, checked

from tests.support.git_repository import broken, slow

pytest_plugins = ["support_builds_fixtures"]
pytestmark = pytest.mark.docker
MEGABYTE = 1024**2


def found(bench, image: str) -> envs.Environment:
    """The environment of an image, as the spawner finds it."""
    return envs.find(envs.from_images(bench.client.api.images()), image)


async def test_a_build_makes_an_environment_and_its_log_is_live(bench):
    repository = bench.repository(slow(4))
    request = bench.request(repository, name="Cours d'été", memory=256 * MEGABYTE, cpu=0.5, image=bench.image())
    async with bench.builder() as builder:
        assert builder.states().get(request.image) is None
        started = time.monotonic()
        await builder.submit(request)
        begun = await wait_for_line(builder, request.image, "slow step 1")
        seen_after = time.monotonic() - started
        assert builder.states().get(request.image) == "building"
        assert (await bench.row(request.image)).status == "building"
        assert bench.image_id(request.image) is None
        whole = await wait_for_end(builder, request.image)
        took = time.monotonic() - started
        print(f"first line of the build after {seen_after:.1f} s, image after {took:.1f} s")
        assert took - seen_after > 2.5, "the line came while the build ran"
        assert "slow step 4" not in begun and whole.startswith(begun)
        assert builder.states().get(request.image) is None
        row = await bench.row(request.image)
        assert row.status == "built" and row.log == whole
        assert whole.endswith(f"The image {request.image} is ready.\n")
        assert await wait_for_end(builder, request.image) == whole, "a finished build can still be read"
        assert (row.image_meta.repo, row.image_meta.ref) == (request.repo, "HEAD")
    made = found(bench, bench.image())
    assert (made.name, made.memory, made.cpu, made.repo) == (
        "Cours d'été",
        256 * MEGABYTE,
        0.5,
        bench.address(repository),
    )
    assert not bench.containers() and bench.image_id(images.build_tag(bench.image())) is None


async def test_the_image_starts_as_a_server(bench):
    async with bench.builder() as builder:
        assert (await bench.build(builder, bench.request(bench.repository()))).status == "built"
    port = free_port()
    command = ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--IdentityProvider.token=t"]
    container = bench.client.containers.run(
        bench.image(), command, detach=True, ports={"8888/tcp": ("127.0.0.1", port)}
    )

    def content():
        try:
            url = f"http://127.0.0.1:{port}/api/contents/course.ipynb"
            answer = requests.get(url, headers={"Authorization": "token t"}, timeout=5)
        except requests.ConnectionError:
            return None
        return answer.json() if answer.ok else None

    try:
        assert wait_until(content, 60, "the server")["content"]["cells"][0]["source"] == "print(6 * 7)"
    finally:
        container.remove(force=True)


async def test_the_builder_has_little_power(bench):
    request = bench.request(bench.repository(slow(600)))
    async with bench.builder() as builder:
        await builder.submit(request)
        await wait_for_line(builder, request.image, "slow step 1")
        container = bench.containers()[0]
        for status in process_status(container):
            assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
            assert status["NoNewPrivs"] == "1"
        host = container.attrs["HostConfig"]
        assert (host["PidsLimit"], host["Memory"]) == (builders.PIDS, builders.MEMORY)
        assert len(container.attrs["Mounts"]) == 1, "nothing of the host but the engine's socket"
        labels = container.labels
        assert labels["repo2docker.build"] == request.image and labels["repo2docker.repo"] == request.repo
        assert labels["org.plasma.build.uid"] == str((await bench.row(request.image)).uid)
        await builder.cancel(request.image)


async def test_a_repository_cannot_set_limits_or_names(bench):
    lies = ('tljh_repo2docker.mem_limit="100G"', "tljh_repo2docker.cpu_limit=64", "tljh_repo2docker.display_name=Other")
    repository = bench.repository(f"LABEL {' '.join(lies)} tljh_repo2docker.image_name=other:1")
    async with bench.builder() as builder:
        assert (await bench.build(builder, bench.request(repository))).status == "built"
    made = found(bench, bench.image())
    assert (made.name, made.memory, made.cpu) == ("Course", None, None)


@pytest.mark.parametrize("kind", ["branch", "tag", "commit", "default"])
async def test_references(bench, kind):
    repository = bench.repository(files={"version.txt": "first\n"})
    repository.tag("v1")
    second = repository.commit({"version.txt": "second\n"})
    repository.commit({"version.txt": "third\n"})
    repository.branch("winter/2026", {"version.txt": "winter\n"})
    ref, expected = {
        "branch": ("winter/2026", "winter"),
        "tag": ("v1", "first"),
        "commit": (second, "second"),
        "default": ("", "third"),
    }[kind]
    async with bench.builder() as builder:
        row = await bench.build(builder, bench.request(repository, ref=ref))
        assert row.status == "built", row.log
        assert found(bench, bench.image()).ref == (ref or "HEAD")
    text = bench.client.containers.run(bench.image(), ["cat", "/home/jovyan/version.txt"], remove=True)
    assert text.decode().strip() == expected


async def test_build_arguments_reach_the_build(bench):
    repository = bench.repository("ARG COURSE=none", "RUN echo the course is $COURSE")
    async with bench.builder() as builder:
        row = await bench.build(builder, bench.request(repository, buildargs=("COURSE=a $HOME 'b' \"c\"",)))
        assert row.status == "built" and "the course is a $HOME 'b' \"c\"\n" in row.log
        assert row.image_meta.buildargs == "COURSE=a $HOME 'b' \"c\""


async def test_a_failed_build_keeps_its_log_and_the_former_image(bench):
    repository = bench.repository()
    request = bench.request(repository)
    async with bench.builder() as builder:
        assert (await bench.build(builder, request)).status == "built"
        before = bench.image_id(request.image)
        repository.commit(bench.recipe(broken()))
        row = await bench.build(builder, request)
        assert row.status == "failed"
        assert "does not exist" in row.log and "repo2docker ended with exit code 1." in row.log.splitlines()[-1]
        assert "The environment stays as it was before this build.\n" in row.log
        assert bench.image_id(request.image) == before
        # Nothing is in the way of the next try.
        repository.commit(bench.recipe())
        row = await bench.build(builder, request)
        assert row.status == "built" and "does not exist" not in row.log

        failing = bench.request(bench.repository(broken()), image=bench.image("new"))
        row = await bench.build(builder, failing)
        assert row.status == "failed" and "stays as it was" not in row.log
        missing = bench.request(bench.repository(), image=bench.image("gone"), ref="no-such-branch")
        row = await bench.build(builder, missing)
        assert row.status == "failed" and "no-such-branch" in row.log
    assert bench.image_id(bench.image("new")) is None and not bench.containers()


async def test_a_rebuild_replaces_the_image(bench):
    repository = bench.repository()
    request = bench.request(repository)
    async with bench.builder() as builder:
        first_row = await bench.build(builder, request)
        first = bench.image_id(request.image)
        await bench.build(builder, request)
        second = bench.image_id(request.image)
        assert second != first
        assert bench.client.images.get(first).tags == [former.tag_of(request.image)]
        row = await bench.build(builder, request)
        assert row.status == "built" and row.uid == first_row.uid
        assert bench.image_id(request.image) not in (first, second)
        with pytest.raises(ImageNotFound):
            bench.client.images.get(first)


async def test_the_log_is_saved_while_the_build_runs(bench):
    request = bench.request(bench.repository(slow(9)))
    async with bench.builder() as builder:
        await builder.submit(request)

        async def saved():
            row = await bench.row(request.image)
            return row.status == "building" and "slow step 1" in row.log

        await until(saved, "the log in the database", 20)
        assert builder.states().get(request.image) == "building"
        await builder.cancel(request.image)


async def test_values_that_are_refused_leave_no_trace(bench):
    repository = bench.repository()
    bad = [
        {"repo": "/root"},
        {"repo": "--config=/etc/passwd"},
        {"repo": "ext::sh -c 'touch /tmp/plasmat-pwned'"},
        {"ref": "--upload-pack=id"},
        {"name": 'a" evil="1'},
        {"name": "$(id)"},
        {"owner": "a\nRUN id"},
        {"image": "course:1 --label=x=y"},
        {"buildargs": ("A=1\nB",)},
    ]
    async with bench.builder() as builder:
        for values in bad:
            with pytest.raises(BuildRefused) as caught:
                await builder.submit(bench.request(repository, **values))
            assert caught.value.status == 400
        async with bench.context() as db:
            assert await bench.manager.read_all(db) == []
    assert not bench.containers()


def test_names_mean_nothing_in_the_dockerfile_that_repo2docker_writes(bench, tmp_path):
    """Most repositories have no Dockerfile: repo2docker writes one, with every label between double quotes."""
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "requirements.txt").write_text("numpy\n")
    names = [
        "Cours d'été (2026) — 100% `id` #1 {{ 7*7 }} <b> a=b ; | & * ~ ! ? [x]",
        "日本語 ☃",
        "--help",
        "# escape=`",
    ]
    for name in names:
        request = bench.request(bench.repository(), name=name)
        line = builders.command(checked(request), "now")
        line = [*line[:-1], "/course"]
        line.insert(1, "--no-build")
        written = bench.client.containers.run(
            bench.builder_image, line, volumes=[f"{tmp_path / 'course'}:/course:ro"], remove=True
        ).decode()
        labels = [text for text in written.splitlines() if text.startswith("LABEL ")]
        assert len(labels) == 13, written
        made, _ = bench.client.images.build(fileobj=_recipe("FROM scratch", *labels), rm=True)
        assert made.labels["tljh_repo2docker.display_name"] == name
        assert made.labels["tljh_repo2docker.mem_limit"] == ""
        bench.client.images.remove(made.id)


def _recipe(*lines: str):
    return io.BytesIO("\n".join([*lines, ""]).encode())
