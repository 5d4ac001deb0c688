"""builds: a server of a new image has to start before people get it; otherwise the former image stays in use."""

from __future__ import annotations

import dataclasses

import pytest
from support_builds import start_service, until, wait_for_end
from tljh_plasma.builds import Builder, trial
from tljh_plasma.builds.request import BuildRequest

pytest_plugins = ["support_builds_fixtures"]
pytestmark = pytest.mark.docker

MB = 1024**2
BIN = "/srv/conda/envs/notebook/bin"
PACKAGE = "jupyter_server/__init__.py"
SERVER = f"{BIN}/jupyterhub-singleuser"


def as_root(*commands: str) -> tuple[str, ...]:
    """Instructions of a Dockerfile that change what belongs to root."""
    return ("USER root", f"RUN {' && '.join(commands)}", "USER jovyan")


def script(text: str) -> tuple[str, ...]:
    """Instructions that put a script in the place of the server, which is called ``real`` then."""
    return as_root(f"mv {SERVER} {BIN}/real", f"printf '%b' '{text}' >{SERVER}", f"chmod 755 {SERVER}")


def trials(bench, request: BuildRequest | None = None) -> list[str]:
    """Containers in which images are tried at this moment."""
    found = bench.client.api.containers(all=True, filters={"name": trial.NAME})
    return [one["Names"][0] for one in found]


async def test_an_image_is_tried_with_the_limits_of_its_environment_and_leaves_nothing_behind(bench):
    request = bench.request(bench.repository(), memory=512 * MB, cpu=0.5)
    async with bench.builder(trial=True) as builder:
        await builder.submit(request)
        await until(lambda: trials(bench), "a trial", interval=0.02)
        described = bench.client.api.inspect_container(trials(bench)[0])
        # Not yet.
        assert bench.image_id(request.image) is None
        log = await wait_for_end(builder, request.image)
    assert (await bench.row(request.image)).status == "built", log
    assert "A server of the new image is tried." in log and "It answers after" in log
    assert bench.image_id(request.image) == described["Image"]
    host, config = described["HostConfig"], described["Config"]
    assert (host["Memory"], host["NanoCpus"], host["CapDrop"]) == (512 * MB, 500_000_000, ["ALL"])
    assert host["ReadonlyRootfs"] and host["SecurityOpt"] == ["no-new-privileges"] and not host["Privileged"]
    assert config["User"] == f"{trial.UID}:{trial.UID}" and trial.HOME in host["Tmpfs"]
    assert not [mount for mount in described["Mounts"] if mount["RW"]]
    assert trials(bench) == []


BROKEN = [
    (as_root(f"rm {SERVER}"), "there is no jupyterhub-singleuser in it. Let the repository install the package"),
    (script("#!/bin/sh\\nexec {BIN}/nothing\\n".replace("{BIN}", BIN)), "nothing: not found"),
    (
        as_root(f"echo 'raise ImportError(\"libodd is not there\")' >$(echo {BIN}/../lib/*/site-packages)/{PACKAGE}"),
        "ImportError: libodd is not there",
    ),
    (script("#!/bin/sh\\necho one two\\nexit 7\\n"), "it ends at once, with exit code 7, and the lines above say why"),
]  # fmt: skip


@pytest.mark.parametrize(("instructions", "sentence"), BROKEN)
async def test_an_image_from_which_no_server_starts_is_not_used(bench, instructions, sentence):
    repository = bench.repository()
    request = bench.request(repository)
    async with bench.builder() as builder:
        assert (await bench.build(builder, request)).status == "built"
    before = bench.image_id(request.image)
    repository.commit(bench.recipe(*instructions))
    async with bench.builder(trial=True) as builder:
        row = await bench.build(builder, request)
    assert row.status == "failed", row.log
    assert "The image is built, but no server starts from it: " in row.log and sentence in row.log.splitlines()[-1]
    assert "The environment stays as it was before this build." in row.log
    assert bench.image_id(request.image) == before
    assert trials(bench) == []
    async with bench.builder() as builder:
        # What used to happen: people would get it.
        assert (await bench.build(builder, request)).status == "built"
    assert bench.image_id(request.image) != before


async def test_a_ready_image_is_tried_too_and_one_that_is_cut_off_leaves_nothing(bench):
    repository = bench.repository(*script("#!/bin/sh\\nexec sleep 1000\\n"))
    made = bench.request(repository, image=bench.image("ready"))
    request = BuildRequest(bench.image(), "", "", name="Course", owner="ada", reference=made.image)
    async with bench.builder() as builder:
        assert (await bench.build(builder, made)).status == "built"
    process = start_service(bench, [request], trial=True)
    try:
        await until(lambda: trials(bench), "a trial", interval=0.02)
    finally:
        process.kill()
        process.wait()
    assert len(trials(bench)) == 1
    async with bench.builder(trial=True) as builder:
        await builder.resume()
        row = await bench.row(request.image)
        assert row.status == "failed" and trials(bench) == []
        assert bench.image_id(request.image) is None
        # One that somebody ends leaves nothing either.
        await builder.submit(request)
        await until(lambda: trials(bench), "a trial", interval=0.02)
        await builder.cancel(request.image)
    assert trials(bench) == [] and bench.image_id(request.image) is None


async def test_a_trial_that_was_cut_off_is_made_again(bench):
    request = bench.request(bench.repository(*script(f'#!/bin/sh\\nsleep 3\\nexec {BIN}/real "$@"\\n')))
    process = start_service(bench, [request], trial=True)
    try:
        await until(lambda: trials(bench), "a trial", interval=0.02)
    finally:
        process.kill()
        process.wait()
    async with bench.builder(trial=True) as builder:
        log = await wait_for_end(builder, request.image)
    assert (await bench.row(request.image)).status == "built", log
    assert trials(bench) == []


async def test_an_image_is_not_refused_for_what_cannot_be_seen(bench):
    """There is no Python for the stand-in, and the server gives up when no hub answers."""
    words = "[E] Failed to connect to my Hub at http://127.0.0.1:303/hub/api (attempt 5/5). Is it running?"
    request = bench.request(bench.repository(*script(f"#!/bin/sh\\necho {words!r}\\nexit 1\\n".replace("'", '"'))))
    async with bench.builder(trial=True) as builder:
        row = await bench.build(builder, request)
    assert row.status == "built", row.log
    assert "It starts, as far as that can be seen without a hub." in row.log


async def test_nothing_of_the_host_is_in_it(bench):
    """Nobody has decided yet to trust the repository."""
    look = "#!/bin/sh\\nls -A /srv/data /srv/volume; echo $COLOUR; exit 7\\n"
    volume = {"source": "/srv", "target": "/srv/volume"}
    request = bench.request(bench.repository(*script(look)))
    settings = bench.settings(trial=True)
    values = {"shared_data": "/srv", "servers_volumes": (volume,), "servers_environment": {"COLOUR": "greenish"}}
    builder = Builder(bench.context, bench.manager, dataclasses.replace(settings, **values))
    try:
        await builder.submit(request)
        log = await wait_for_end(builder, request.image)
    finally:
        await builder.close()
    shown = log[log.index("A server of the new image is tried.") :].splitlines()
    assert shown[1:5] == ["/srv/data:", "", "/srv/volume:", "greenish"], log


async def test_a_server_that_needs_more_memory_and_one_that_never_answers_are_told_apart(bench, monkeypatch):
    monkeypatch.setattr(trial, "LIMIT", 6)
    async with bench.builder(trial=True) as builder:
        row = await bench.build(builder, bench.request(bench.repository(), memory=32 * MB))
        assert row.status == "failed" and "needs more than its 0.031 GB of memory" in row.log, row.log
        silent = bench.request(bench.repository(*script("#!/bin/sh\\necho here I am\\nexec sleep 100\\n")))
        row = await bench.build(builder, silent)
        assert row.status == "failed" and "has not answered after" in row.log and "here I am" in row.log, row.log
