"""A9: nobody fills the engine's disk, whatever the image leaves writable, and programs that write go on working."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support_containers import run_in, written_to_disk
from support_hub import container_name
from tljh_plasma import writable

pytestmark = pytest.mark.docker

# A directory for everybody, files of the person's own number, a volume with files and one without.
RECIPE = """
USER root
RUN mkdir -m 1777 /srv/scratch && mkdir -p /opt/app && echo 1 >/opt/app/file && chown -R {uid}:{gid} /opt/app
RUN mkdir -m 777 /srv/filled && echo kept >/srv/filled/file && chmod 666 /srv/filled/file
VOLUME /srv/filled /srv/empty
"""
FILL = """
import os, sys
for path in sys.argv[1:]:
    try:
        with open(path, "wb") as file:
            for _ in range(300):
                file.write(bytes(1 << 20))
        print("filled")
    except OSError as error:
        print(error.strerror)
"""
INODES = """
import sys
made = 0
try:
    while made < 200_000:
        open(f"{sys.argv[1]}/file-{made}", "w").close()
        made += 1
except OSError as error:
    print(error.strerror, end=" ")
print(made)
"""
WRITABLE = """
import os
memory = {line.split()[1] for line in open("/proc/mounts") if line.split()[2] in ("tmpfs", "devpts", "proc", "mqueue")}
home = os.environ["HOME"]
for directory, inside, files in os.walk("/"):
    inside[:] = [one for one in inside if os.path.join(directory, one) not in {*memory, home}]
    for path in [directory, *(os.path.join(directory, name) for name in files)]:
        if os.path.isfile(path) and not os.path.islink(path) or path == directory:
            if os.access(path, os.W_OK):
                print(path)
"""
# What RStudio's server, code-server and JupyterLab with its kernels write, as far as it is not in the home.
PROGRAMS = """
set -e
for directory in /run/rstudio-server /var/run/rstudio-server/x /var/log/rstudio /var/lib/rstudio-server /var/tmp/r; do
    mkdir -p $directory
    echo 1 >$directory/file
done
for directory in .local/share/code-server/extensions .config/code-server .local/share/rstudio .cache/pip .conda; do
    mkdir -p ~/$directory
    echo 1 >~/$directory/file
done
for directory in /tmp /run ~; do
    printf '#!/bin/sh\nexit 0\n' >$directory/program
    chmod 755 $directory/program
    $directory/program
done
python3 -c 'import multiprocessing as m; m.Lock(); import socket; socket.socket(socket.AF_UNIX).bind("/tmp/socket")'
cat /srv/filled/file
echo written >/srv/empty/file
"""


@pytest.fixture(scope="module")
def leaky(hub, accounts, images, docker_host):
    """Somebody with a server of an image that leaves much to be written to; (person, image, container)."""
    person = accounts.add("leaky")
    image = images("plasmat-leaky:1", "leaky", "512M", commands=RECIPE.format(uid=person.uid, gid=person.gid))
    answer = hub.spawn(person.name, image)
    assert answer.status_code in (201, 202), answer.text
    return person, image, docker_host.containers.get(container_name(person.name))


def test_a9_the_engines_disk_cannot_be_filled(leaky, docker_host):
    person, image, container = leaky
    targets = ["/srv/scratch/fill", "/opt/app/file", "/srv/filled/fill"]
    # As servers were before.
    before = docker_host.containers.run(
        image, ["-c", FILL, *targets], entrypoint=["python3"], user=f"{person.uid}:{person.gid}", detach=True
    )
    try:
        assert before.wait()["StatusCode"] == 0
        assert before.logs().split() == [b"filled"] * 3
        assert written_to_disk(before) >= 600 << 20
    finally:
        before.remove(force=True, v=True)
    # The account files of the image's look are gone with it, and so is what it took.
    size = written_to_disk(container)
    code, output = run_in(container, "python3", "-c", FILL, *targets)
    assert (code, output.splitlines()) == (0, ["Read-only file system"] * 3)
    assert written_to_disk(container) == size < 1 << 20
    # What the image wants on a disk is in memory, and ends at half of the server's.
    assert run_in(container, "python3", "-c", FILL, "/srv/empty/fill")[1] == "No space left on device\n"
    assert run_in(container, "rm", "/srv/empty/fill")[0] == 0
    assert run_in(container, "python3", "-c", WRITABLE) == (0, "")
    assert "Operation not permitted" in run_in(container, "mknod", "/tmp/disk", "b", "8", "0")[1]
    kinds = {mount["Destination"]: (mount["Type"], mount["RW"]) for mount in container.attrs["Mounts"]}
    assert kinds.pop(person.home.as_posix()) == ("bind", True)
    assert not [target for target, (_, writable) in kinds.items() if writable]


@pytest.mark.parametrize("directory", ["/tmp", "/dev/shm", "/run", "/srv/empty"])
def test_a9_empty_files_end_at_a_limit(directory, leaky):
    """They take the kernel's memory, if none of the disk."""
    code, output = run_in(leaky[2], "python3", "-c", INODES, directory)
    try:
        assert output.startswith("No space left on device"), output
        assert 1000 < int(output.split()[-1]) < 40_000
    finally:
        run_in(leaky[2], "sh", "-c", f"find {directory} -name 'file-*' -delete")


def test_programs_that_write_go_on_working(leaky):
    code, output = run_in(leaky[2], "sh", "-c", PROGRAMS)
    assert (code, output) == (0, "kept\n")


def test_account_files_are_mounted_and_go_with_the_container(leaky, hub, environment):
    person, _, container = leaky
    code, output = run_in(container, "sh", "-c", "id -un; ls -n /etc/passwd /opt/plasma/entrypoint | cut -d' ' -f3,4")
    assert (code, output.split()) == (0, [person.name, "0", "0", "0", "0"])
    for path in ("/etc/passwd", "/etc/group", "/opt/plasma/entrypoint"):
        assert run_in(container, "sh", "-c", f"echo x >>{path}")[0] != 0
    assert hub.spawn(person.name, environment, server="second").status_code in (201, 202)
    directories = [hub.prefix / "files" / container_name(person.name, server) for server in ("", "second")]
    assert [path.is_dir() for path in directories] == [True, True]
    hub.stop_server(person.name, "second")
    assert [path.is_dir() for path in directories] == [True, False]


def test_a_volume_above_a_home_is_in_memory():
    """Read-only there would be no place for the home."""
    account = SimpleNamespace(uid=1000, group=SimpleNamespace(gid=1000))
    plan = SimpleNamespace(account=account, limits=SimpleNamespace(memory=1 << 30))
    in_memory = writable.tmpfs(plan, {"/home": True, "/data": True, "/empty": False}, ["/home/ada"])
    assert ("/home" in in_memory, "/data" in in_memory, "/empty" in in_memory) == (True, False, True)
