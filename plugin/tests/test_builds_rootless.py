"""Builders without the engine: what a repository that attacks reaches, uses and can make the engine believe."""

from __future__ import annotations

import json
import re

import pytest
from support_builds import start_service, until, wait_for_end
from tljh_plasma import environments as envs
from tljh_plasma.builds import rootless
from tljh_plasma.builds.images import LABEL_OWNER

from tests.support.builder_image import local_images
from tests.support.git_repository import slow

pytest_plugins = ["support_builds_fixtures"]
pytestmark = pytest.mark.docker
# What an engine's builds are: root is the server's.
ROOT = 'RUN awk \'$1 == 0 && $2 == 0 {print "ATT" "ACK root of the server"}\' /proc/self/uid_map /proc/self/gid_map'

# What the root of a build can do: each line that it prints is one that must not be there.
ATTACK = r"""
import ctypes, os, socket, subprocess

def reach(what, work):
    try:
        print("ATTACK", what, work())
    except Exception as error:
        print("refused", what, type(error).__name__)

def opened(path):
    return open(path).read(80)

def escape():
    os.makedirs("/escape", exist_ok=True)
    here = os.open("/", os.O_RDONLY)
    os.chroot("/escape")
    os.fchdir(here)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")

for place in ("", "/proc/1/root"):
    for path in ("/plasma/credentials", "/plasma/given.json", "/work", "/etc/shadow-of-host"):
        reach("secret " + place + path, lambda: opened(place + path) if path != "/work" else os.listdir(place + path))
reach("environment of repo2docker", lambda: opened("/proc/1/environ"))
reach("memory of repo2docker", lambda: open("/proc/1/mem", "rb"))
escape()
reach("secrets after chroot", lambda: os.listdir("/plasma"))
reach("checkout after chroot", lambda: os.listdir("/work"))
reach("images of all after chroot", lambda: open("/images/storage/forged", "w"))
reach("program of the builder after chroot", lambda: open("/usr/bin/buildah", "r+b"))
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"):
    reach("socket " + path, lambda: socket.socket(socket.AF_UNIX).connect(path))
for path in ("/dev/sda", "/dev/vda", "/dev/mem", "/dev/kmsg", "/dev/fuse"):
    reach("device " + path, lambda: open(path, "rb").read(1))
reach("new device", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0)) or open("/tmp/disk", "rb").read(1))
reach("kernel setting", lambda: open("/proc/sys/kernel/core_pattern", "w").write("|/x"))
reach("cgroup", lambda: open("/sys/fs/cgroup/release_agent", "w"))
libc = ctypes.CDLL(None, use_errno=True)

def called(number, *words):
    if libc.syscall(number, *words) < 0:
        raise OSError(ctypes.get_errno(), "refused")

# keyctl, bpf, perf_event_open, open_by_handle_at, init_module, ptrace (of 1), kexec_load, io_uring_setup: of x86_64.
for number in (250, 321, 298, 304, 175, 246, 425):
    reach("call %d" % number, lambda: called(number, 0, 0, 0, 0, 0))
reach("trace", lambda: called(101, 16, 1, 0, 0))
"""


@pytest.fixture(scope="module", autouse=True)
def images(docker_host):
    local_images()


def python(script: str) -> str:
    """A step that runs a script of several lines."""
    return f"RUN python3 -c {json.dumps('exec(' + repr(script) + ')').replace('$', chr(92) + '$')}"


async def built(bench, *steps: str, files=None, **settings):
    request = bench.request(bench.repository(*steps, files=files))
    async with bench.builder(image="local", **settings) as builder:
        return request, await bench.build(builder, request)


async def test_what_the_root_of_a_build_reaches(bench):
    steps = ["USER root", ROOT, "COPY attack.py /attack.py", "RUN python3 /attack.py"]
    _, row = await built(bench, *steps, files={"attack.py": ATTACK})
    assert row.status == "built", row.log
    assert "refused secrets after chroot" in row.log and "refused trace" in row.log
    assert re.findall("ATTACK.*", row.log) == []
    async with bench.builder() as builder:
        row = await bench.build(builder, bench.request(bench.repository("USER root", ROOT)))
    assert "ATTACK root of the server" in row.log


async def test_the_image_that_the_engine_gets(bench):
    """Begun with an image of the engine, with the labels of the request, whatever its own recipe says."""
    limit = "LABEL tljh_repo2docker.mem_limit=900G tljh_repo2docker.owner=mallory own=kept"
    request, row = await built(bench, limit, "RUN echo hello > /tmp/hello", "CMD cat /tmp/hello")
    assert row.status == "built", row.log
    image = bench.client.images.get(request.image)
    assert image.labels["tljh_repo2docker.mem_limit"] == "" and image.labels["tljh_repo2docker.owner"] == "ada"
    assert image.labels["own"] == "kept"
    theirs = bench.client.images.get(bench.environment).attrs["RootFS"]["Layers"]
    assert image.attrs["RootFS"]["Layers"][: len(theirs)] == theirs
    assert bench.client.containers.run(request.image, remove=True, entrypoint="") == b"hello\n"
    assert not [container for container in bench.containers()]


@pytest.mark.parametrize(
    ("step", "settings", "why"),
    [
        ("RUN fallocate -l 900M /large && sleep 30", {"disk": "512M"}, "plasma.builder.disk"),
        ("RUN python3 -c \"b'x' * 900_000_000\"", {"memory": "512M"}, "plasma.builder.memory"),
    ],
)
async def test_what_a_build_may_use(bench, step, settings, why):
    _, row = await built(bench, "USER root", step, **settings)
    assert row.status == "failed"
    assert why in row.log.splitlines()[-1], row.log


async def test_a_fork_bomb_ends_with_its_build(bench, monkeypatch):
    monkeypatch.setattr(rootless, "PIDS", 150)
    bomb = python(
        "import os, time\nfor n in range(400):\n    if not os.fork():\n        time.sleep(60)\n        os._exit(0)"
    )
    _, row = await built(bench, "USER root", bomb)
    assert row.status == "failed"
    assert "Resource temporarily unavailable" in row.log
    assert bench.containers() == []


async def test_links_in_the_context_lead_nowhere(bench):
    steps = ["USER root", "COPY . /all/", "RUN cat /all/secret /all/shadow && echo ATTACK || echo refused"]
    repository = bench.repository(*steps)
    for name, target in (("secret", "/plasma/given.json"), ("shadow", "/etc/shadow")):
        (repository.path / name).symlink_to(target)
    repository.commit({})
    async with bench.builder(image="local") as builder:
        row = await bench.build(builder, bench.request(repository))
    assert row.status == "built", row.log
    assert "\nrefused\n" in row.log


async def test_what_one_build_leaves_no_other_finds(bench):
    """Steps are kept for the next build of the same environment, and for nobody else."""
    step = "RUN date +%N > /tmp/made && cat /tmp/made | sed s/^/made-at-/"
    repository = bench.repository(step)
    request, other = bench.request(repository), bench.request(repository, image=bench.image("other"))
    async with bench.builder(image="local") as builder:
        logs = [(await bench.build(builder, wanted)).log for wanted in (request, other, request)]
    made = [re.findall(r"made-at-\d+", log)[-1:] for log in logs]
    assert made[0] and made[1] and made[0] != made[1]
    assert made[2] == [] and "Using cache" in logs[2]


async def test_a_killed_service_loses_no_build(bench):
    request = bench.request(bench.repository(slow(8)), memory=512 * 1024**2, cpu=0.5)
    process = start_service(bench, [request], image="local")

    async def begun():
        return "slow step 1" in (await bench.row(request.image)).log

    try:
        await until(begun, "the build", 60)
    finally:
        process.kill()
        process.wait()
    async with bench.builder(image="local") as builder:
        await builder.resume()
        log = await wait_for_end(builder, request.image)
    assert log.count("slow step 5 of") == 1 and log.endswith("is ready.\n")
    assert (await bench.row(request.image)).status == "built"
    # What it was asked for is in the image, whoever took it from the builder.
    labels = bench.client.images.get(request.image).labels
    limits = [labels[name] for name in (envs.LABEL_NAME, envs.LABEL_MEMORY, envs.LABEL_CPU)]
    assert [*limits, labels[LABEL_OWNER]] == ["Course", "512M", "0.5", "ada"]


async def test_volumes_go_with_their_environment(bench):
    request, row = await built(bench)
    assert row.status == "built", row.log

    def volumes():
        found = bench.client.volumes.list(filters={"label": rootless.LABEL_VOLUME})
        return {volume.attrs["Labels"][rootless.LABEL_VOLUME] for volume in found}

    assert request.image in volumes()
    async with bench.builder(image="local") as builder:
        async with bench.context() as db:
            await bench.manager.delete(db, row.uid)
        other = bench.request(bench.repository(), image=bench.image("other"))
        await bench.build(builder, other)
    assert request.image not in volumes() and other.image in volumes()


async def test_an_environment_that_comes_back_is_given_its_images_again(bench):
    """In the same service, which remembers what it has given."""
    request, other = bench.request(bench.repository()), bench.request(bench.repository(), image=bench.image("other"))
    async with bench.builder(image="local") as builder:
        row = await bench.build(builder, request)
        async with bench.context() as db:
            await bench.manager.delete(db, row.uid)
        bench.client.images.remove(request.image, force=True)
        await bench.build(builder, other)
        row = await bench.build(builder, request)
    assert row.status == "built", row.log


async def test_names_that_are_no_images_are_not_asked_for(bench):
    """They would be parts of addresses of the engine's API."""
    steps = ["COPY --from=../containers/x /a /a", "COPY --from=..//version /a /a"]
    _, row = await built(bench, *steps)
    assert row.status == "failed"
    assert "unexpected" not in row.log, row.log
