"""Limits of running servers (weakness 9): who uses up memory, processors or room harms nobody else."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest
import requests
from support_containers import (
    cgroup_file,
    cpu_quota,
    cpu_seconds,
    out_of_memory,
    run_in,
    written_to_disk,
)
from support_hub import container_name

pytestmark = pytest.mark.docker

GIB = 1024**3

HOG = """
held = []
while True:
    held.append(bytearray(b"x") * (16 << 20))
    print(len(held) * 16, flush=True)
"""


def answers(hub, person) -> bool:
    """Whether the hub and somebody's server answer, both through the proxy."""
    headers = {"Authorization": f"token {hub.user_token(person.name)}"}
    status = requests.get(f"{hub.url}/user/{person.name}/api/status", headers=headers, timeout=20).status_code
    return status == 200 and hub.answers()


def test_9_memory_hog_is_killed_in_its_own_server(container, mallory, alice, hub):
    """Takes all the memory it can get, several times over."""
    before = out_of_memory(container)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            attack = pool.submit(run_in, container, "python3", "-uc", HOG)
            while not attack.done():
                assert answers(hub, alice)
            code, output = attack.result()
            assert code == 137, output
            assert 200 < int(output.split()[-1]) <= 512
    assert out_of_memory(container) >= before + 3
    peak = int(cgroup_file(container, "memory", "memory.max_usage_in_bytes", "memory.peak"))
    assert peak <= GIB // 2
    # Not even that server is gone: the kernel picks who took the most.
    assert answers(hub, mallory)
    assert answers(hub, alice)


def test_9_no_swap(container):
    """Memory beyond the limit would come from the host's swap, and slow down everybody."""
    total = int(cgroup_file(container, "memory", "memory.limit_in_bytes", "memory.max"))
    assert total == GIB // 2
    # Version 1 counts memory and swap together, version 2 swap alone.
    swap = int(cgroup_file(container, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max"))
    assert swap in (total, 0)


BUSY = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        end = time.monotonic() + 5
        while time.monotonic() < end: pass
        os._exit(0)
for _ in range(8): os.wait()
"""


def test_9_processor_time_is_limited(container, alice, hub):
    """Eight processes at once in a server that may use one CPU."""
    assert cpu_quota(container) == 1
    used, start = cpu_seconds(container), time.monotonic()
    code, output = run_in(container, "python3", "-c", BUSY)
    used, elapsed = cpu_seconds(container) - used, time.monotonic() - start
    assert code == 0, output
    assert elapsed >= 5
    assert used <= 1.15 * elapsed
    assert answers(hub, alice)


WRITABLE = """
import os
disk = os.stat("/").st_dev
for directory, inside, files in os.walk("/"):
    inside[:] = [name for name in inside if os.lstat(os.path.join(directory, name)).st_dev == disk]
    for path in [directory, *(os.path.join(directory, name) for name in files)]:
        if not os.path.islink(path) and os.lstat(path).st_dev == disk and os.access(path, os.W_OK):
            print(path)
"""


def test_9_nothing_on_the_engines_disk_can_be_written(container):
    """One person could fill it for all: memory is limited and homes have quotas, it has neither."""
    assert run_in(container, "python3", "-c", WRITABLE) == (0, "")


def running(container) -> bool:
    """Whether a container goes on: its own main process may be what the kernel killed."""
    try:
        container.reload()
    except docker.errors.NotFound:
        return False
    return container.status == "running"


FILL = """
import os, sys
written = 0
try:
    with open(os.path.join(sys.argv[1], "fill"), "wb", buffering=0) as file:
        while written < 3 << 30:
            written += file.write(bytes(1 << 20))
except OSError as error:
    print(error.strerror, end=" ")
print(written >> 20)
"""


@pytest.fixture(scope="module")
def greedy(hub, accounts, environment, docker_host):
    """Somebody with a server to ruin."""
    person = accounts.add("greedy")
    answer = hub.spawn(person.name, environment)
    assert answer.status_code in (201, 202), answer.text
    return docker_host.containers.get(container_name(person.name))


@pytest.mark.parametrize("directory", ["/tmp", "/var/tmp", "/dev/shm"])
def test_9_filling_a_directory_ends_at_its_limit(directory, greedy, hub, alice):
    """Directories for everybody's temporary files, which used to be on the disk of the host."""
    before = written_to_disk(greedy)
    code, output = run_in(greedy, "python3", "-c", FILL, directory)
    try:
        assert output.startswith("No space left on device"), output
        # Half of the memory, so that one of them alone does not end the server.
        assert 100 < int(output.split()[-1]) <= 256
        assert written_to_disk(greedy) - before < 1 << 20
        assert answers(hub, alice)
    finally:
        run_in(greedy, "rm", "-f", f"{directory}/fill")


def test_9_filling_all_directories_harms_nobody_else(greedy, hub, alice):
    """All the memory of the server in files: its own processes are what the kernel kills."""
    codes = []
    try:
        for directory in ("/tmp", "/var/tmp", "/dev/shm"):
            codes.append(run_in(greedy, "python3", "-c", FILL, directory)[0])
    except docker.errors.APIError as error:
        # It has ended already, perhaps with the one before.
        assert error.status_code in (404, 409) or "is not running" in str(error)
    assert 137 in codes or not running(greedy)
    assert answers(hub, alice)


def test_9_log_of_a_server_does_not_fill_the_disk(hub, accounts, environment, docker_host):
    """What a server writes to its output the engine keeps, on the disk of the host."""
    person = accounts.add("chatty")
    assert hub.spawn(person.name, environment).status_code in (201, 202)
    chatty = docker_host.containers.get(container_name(person.name))
    driver = chatty.attrs["HostConfig"]["LogConfig"]
    if driver["Type"] == "journald":
        # It has a limit of its own.
        return
    code, output = run_in(chatty, "sh", "-c", "head -c 150000000 /dev/zero | tr '\\0' x | fold -w 1000 >/proc/1/fd/1")
    assert code == 0, output
    directory = Path(docker_host.info()["DockerRootDir"]) / "containers" / chatty.id
    assert sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) < 50_000_000
    assert answers(hub, person)
