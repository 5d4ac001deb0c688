"""What people find in their servers, through the real hub and proxy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from support_containers import run_in
from support_hub import container_name

pytestmark = pytest.mark.docker


def test_shared_data_is_read_only(hub, accounts, environment, docker_host, shared_data):
    person = accounts.add("reader")
    (shared_data / "table.csv").write_text("a,b\n")
    # Writable on the host for the person, but not in the server.
    os.chown(shared_data / "table.csv", person.uid, person.gid)
    assert hub.spawn(person.name, environment).status_code in (201, 202)
    server = docker_host.containers.get(container_name(person.name))
    assert run_in(server, "cat", "/srv/data/table.csv") == (0, "a,b\n")
    for command in ("echo x >>/srv/data/table.csv", "touch /srv/data/new", "rm /srv/data/table.csv"):
        code, output = run_in(server, "sh", "-c", command)
        assert code != 0
        assert "Read-only file system" in output
    hub.stop_server(person.name)


def test_homes_of_others_do_not_exist(hub, alice, mallory, docker_host):
    server = docker_host.containers.get(container_name(alice.name))
    code, output = run_in(server, "sh", "-c", f"ls /home; ls -a {mallory.home}")
    assert mallory.name not in output.splitlines()
    assert "No such file" in output


def test_server_is_told_its_environment(hub, alice, docker_host):
    server = docker_host.containers.get(container_name(alice.name))
    env = dict(
        entry.split("=", 1)
        for entry in Path(f"/proc/{server.attrs['State']['Pid']}/environ").read_bytes().decode().split("\0")
        if "=" in entry
    )
    assert env["HOME"] == str(alice.home)
    assert env["PLASMA_ENVIRONMENT"] == env["PLASMA_DIR"] == "plasmat-course"
    assert env["PLASMA_IMAGE_ID"] == server.image.id
    _, output = run_in(
        server, "sh", "-c", "ls -d /run/plasma/jupyter && ls -ld /run/plasma && grep /run/plasma /proc/mounts"
    )
    assert "drwx------" in output
    assert "noexec" in output
    assert not (alice.home / ".local" / "share" / "jupyter" / "runtime").exists()


@pytest.mark.parametrize("name", ["100% sure.txt", "a#b.txt", "why?.txt", "a;b.txt", "50%25.txt", "été 日本.txt"])
def test_files_with_odd_names_pass_the_proxy(hub, alice, name):
    """Traefik refuses some percent-encoded characters unless told otherwise."""
    headers = {"Authorization": f"token {hub.user_token(alice.name)}"}
    address = f"{hub.url}/user/{alice.name}/api/contents/{quote(name, safe='')}"
    body = {"type": "file", "format": "text", "content": "x"}
    answer = requests.put(address, json=body, headers=headers, timeout=30)
    assert answer.status_code == 201, answer.text
    assert (alice.home / "plasmat-course" / name).read_text() == "x"
    assert requests.get(address, headers=headers, timeout=30).json()["content"] == "x"


def test_server_starts_with_a_full_disk(hub, accounts, environment, docker_host):
    """As with a used-up quota: people must get in to delete something."""
    person = accounts.add("full")
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=256k,uid={person.uid},gid={person.gid},mode=700", "tmpfs", person.home],
        check=True,
    )
    try:
        fill = person.home / "fill"
        with pytest.raises(OSError, match="No space left"), fill.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 1024)
        os.chown(fill, person.uid, person.gid)
        answer = hub.spawn(person.name, environment)
        assert answer.status_code in (201, 202), answer.text
        server = docker_host.containers.get(container_name(person.name))
        assert "The disk is full or the disk quota is used up" in server.logs().decode()
        headers = {"Authorization": f"token {hub.user_token(person.name)}"}
        base = f"{hub.url}/user/{person.name}/api"
        assert requests.get(f"{base}/status", headers=headers, timeout=30).status_code == 200
        # They delete the file and stop and start, as they were told.
        run_in(server, "rm", str(fill))
        hub.stop_server(person.name)
        assert hub.spawn(person.name, environment).status_code in (201, 202)
        assert (person.home / "plasmat-course" / "welcome.ipynb").exists()
        hub.stop_server(person.name)
    finally:
        subprocess.run(["umount", "--lazy", person.home], check=True)


def test_repo2docker_activation_and_start_script_are_honoured(hub, accounts, images, docker_host):
    """An image as repo2docker makes them: a conda environment to activate (in bash) and a "start" script."""
    image = images(
        "plasmat-r2d:1",
        "r2d",
        commands=(
            "USER root\n"
            "RUN echo 'if [[ -n x ]]; then export ACTIVATED=yes; fi' >/etc/profile.d/activate-conda.sh"
            " && printf '#!/bin/bash\\nexport STARTED=$PWD\\nexec \"$@\"\\n' >/home/jovyan/start"
            " && chmod 755 /home/jovyan/start\n"
            "ENV R2D_ENTRYPOINT=/home/jovyan/start\n"
            "USER jovyan"
        ),
    )
    person = accounts.add("conda")
    assert hub.spawn(person.name, image).status_code in (201, 202)
    server = docker_host.containers.get(container_name(person.name))
    rows = server.top(ps_args="-eo pid,args")["Processes"]
    pid = next(row[0] for row in rows if "jupyterhub-singleuser" in row[1] and "docker-init" not in row[1])
    env = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    assert "ACTIVATED=yes" in env
    assert f"STARTED={person.home}/r2d" in env
    hub.stop_server(person.name)


def test_memory_and_cpu_are_shown_with_their_limits(hub, alice):
    """What the indicators in JupyterLab's top bar are drawn from."""
    headers = {"Authorization": f"token {hub.user_token(alice.name)}"}
    usage = requests.get(f"{hub.url}/user/{alice.name}/api/metrics/v1", headers=headers, timeout=30).json()
    assert usage["limits"]["memory"]["rss"] == 512 * 1024**2
    assert usage["limits"]["cpu"]["cpu"] == 1
    assert usage["cpu_percent"] >= 0
    assert usage["rss"] > 0


def test_applications_behind_a_proxy_are_reached_by_their_owner_alone(hub, alice, mallory):
    """RStudio and its like: programs that JupyterLab starts and passes on."""
    address = f"{hub.url}/user/{alice.name}/webapp/"
    answer = requests.get(address, headers={"Authorization": f"token {hub.user_token(alice.name)}"}, timeout=60)
    assert answer.status_code == 200
    assert answer.text == "an application of its own\n"
    for headers in ({}, {"Authorization": f"token {hub.user_token(mallory.name)}"}):
        refused = requests.get(address, headers=headers, timeout=30, allow_redirects=False)
        assert refused.status_code in (302, 403)
        assert "application of its own" not in refused.text


def test_name_of_the_environment_is_set_for_the_top_bar(hub, alice):
    headers = {"Authorization": f"token {hub.user_token(alice.name)}"}
    address = f"{hub.url}/user/{alice.name}/lab/api/settings/jupyterlab-topbar-text:plugin"
    settings = requests.get(address, headers=headers, timeout=30).json()
    assert settings["settings"]["text"] == "plasmat-course"
    assert settings["settings"]["editable"] is False
