"""How a start is told while it goes on, and how it is explained when it fails."""

from __future__ import annotations

import json
import subprocess

import docker
import pytest
import requests
from support_hub import Hub, container_name, wait_until
from tljh_plasma import failures

START = "ENV R2D_ENTRYPOINT=/home/jovyan/start\nUSER jovyan"


GREEDY = 'exec python3 -c "print(len(bytes(1) + bytes(range(256)) * 2**21))"'


def start_script(text: str) -> str:
    """Lines of a Dockerfile that run ``text`` before the server, as repo2docker's "start" file does."""
    return (
        "USER root\n"
        f"RUN printf '%s\\n' '#!/bin/sh' '{text}' >/home/jovyan/start && chmod 755 /home/jovyan/start\n" + START
    )


@pytest.fixture(scope="module")
def person(accounts):
    return accounts.add("starter")


@pytest.mark.docker
def test_progress_is_told_step_by_step(hub, accounts, environment):
    """A first start, whose files are copied."""
    person = accounts.add("patient")
    hub.add_user(person.name)
    headers = {"Authorization": f"token {hub.user_token(person.name)}"}
    server = f"{hub.url}/hub/api/users/{person.name}/server"
    answer = requests.post(server, json={"image": environment}, headers=headers, timeout=60)
    assert answer.status_code in (201, 202), answer.text
    events = []
    with requests.get(f"{server}/progress", headers=headers, stream=True, timeout=60) as stream:
        for line in stream.iter_lines():
            if line.startswith(b"data: "):
                events.append(json.loads(line[6:]))
    assert events[-1]["ready"] is True
    if answer.status_code == 202:
        told = [event["message"] for event in events]
        assert "Creating your container" in told
        assert "Starting plasmat-course" in told
        progress = [event["progress"] for event in events]
        assert progress == sorted(progress)
    hub.stop_server(person.name)


@pytest.mark.docker
@pytest.mark.parametrize(
    ("name", "memory", "commands", "status", "sentence", "in_log"),
    [
        (
            "nothing-in-it",
            "",
            "USER root\nRUN rm /srv/conda/envs/notebook/bin/jupyterhub-singleuser\nUSER jovyan",
            500,
            "there is no jupyterhub-singleuser in it",
            "ended with code 127",
        ),
        ("crash", "", start_script("echo my last words; exit 7"), 500, "ended at once, with code 7", "my last words"),
        # All at once: with too little for the server alone, the kernel takes its time on a busy machine.
        ("greedy", "48M", start_script(GREEDY), 507, "needed more than its 0.047 GB of memory", "out of memory"),
    ],
)
def test_failed_start_says_what_to_do(
    hub, images, person, docker_host, name, memory, commands, status, sentence, in_log
):
    image = images(f"plasmat-{name}:1", f"plasmat-{name}", memory=memory, commands=commands)
    answer = hub.spawn(person.name, image)
    assert answer.status_code == status, answer.text
    message = answer.json()["message"]
    assert sentence in message
    assert "lease choose another" in message
    assert in_log in hub.log()
    assert not docker_host.containers.list(all=True, filters={"name": container_name(person.name)})


# As conda's Python and Debian's do, and those of virtual environments do not: packages of the person come first.
USER_SITE = (
    "USER root\n"
    "RUN echo /srv/conda/envs/notebook/lib/python3.11/site-packages >/usr/local/lib/python3.11/dist-packages/all.pth"
    " && sed -i '1s|.*|#!/usr/bin/python3|' /srv/conda/envs/notebook/bin/jupyterhub-singleuser\n"
    "USER jovyan"
)


@pytest.mark.docker
def test_a_damaged_home_starts_in_safe_mode_and_says_so(hub, images, accounts):
    """S1: what `pip install --user` of another version leaves behind."""
    image = images("plasmat-user-site:1", "plasmat-user-site", commands=USER_SITE)
    person = accounts.add("damaged")
    package = person.home / ".local/lib/python3.11/site-packages/jupyter_server"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('damaged by me')\n")
    subprocess.run(["chown", "-R", f"{person.uid}:{person.gid}", person.home / ".local"], check=True)
    assert hub.spawn(person.name, image).status_code in (201, 202)
    (told,) = notices_of(hub, person)
    assert told["title"] == "This server runs in safe mode"
    assert "damaged by me" in hub.log()
    assert f"Server {person.name} starts again in safe mode" in hub.log()
    hub.stop_server(person.name)
    # Mended, the next start is an ordinary one, and nothing is told any more.
    (person.home / ".local").rename(person.home / ".local-old")
    assert hub.spawn(person.name, image).status_code in (201, 202)
    assert notices_of(hub, person) == []
    hub.stop_server(person.name)


def notices_of(hub, person) -> list[dict[str, str]]:
    """What the page of a running server is told about that server."""
    headers = {"Authorization": f"token {hub.user_token(person.name)}"}
    base = f"/user/{person.name}/"
    answer = requests.get(f"{hub.url}{base}api/config/plasma_notice", headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json().get("servers", {}).get(base, [])


@pytest.mark.docker
def test_files_that_an_image_lets_nobody_read_are_told(hub, images, accounts):
    """S7: an empty file browser, otherwise."""
    commands = "USER root\nRUN chmod 0700 /home/jovyan\nUSER jovyan"
    image = images("plasmat-closed-home:1", "plasmat-closed-home", commands=commands)
    person = accounts.add("unreading")
    assert hub.spawn(person.name, image).status_code in (201, 202)
    (told,) = notices_of(hub, person)
    assert told["title"] == "Not everything went well at the start"
    assert told["text"] == "The files of plasmat-closed-home cannot be read in its image: nothing is copied."
    assert told["text"] in hub.log()
    hub.stop_server(person.name)


@pytest.mark.docker
def test_full_disk_is_named_when_the_server_cannot_do_without(hub, images, accounts):
    person = accounts.add("fuller")
    script = 'cat /dev/zero >"$HOME/filling" || exit 1; exec "$@"'
    image = images("plasmat-needs-room:1", "plasmat-needs-room", commands=start_script(script))
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=1m,uid={person.uid},gid={person.gid},mode=700", "tmpfs", person.home],
        check=True,
    )
    try:
        answer = hub.spawn(person.name, image)
        assert answer.status_code == 507, answer.text
        assert "Your disk space is used up" in answer.json()["message"]
    finally:
        subprocess.run(["umount", "--lazy", person.home], check=True)


@pytest.mark.docker
def test_server_that_never_answers_is_given_up_and_removed(
    docker_host, environment, images, accounts, tmp_path_factory
):
    hub = Hub(tmp_path_factory.mktemp("impatient"), accounts.add("admin3").name)
    extra = hub.prefix / "config" / "jupyterhub_config.d" / "timeout.py"
    extra.write_text("c.Spawner.http_timeout = 2\n")
    image = images("plasmat-sleeper:1", "plasmat-sleeper", commands=start_script("echo yawn; sleep 600"))
    person = accounts.add("waiting")
    hub.start()
    try:
        answer = hub.spawn(person.name, image)
        assert answer.status_code == 504, answer.text
        assert "did not answer within 2 seconds" in answer.json()["message"]
        assert "yawn" in hub.log()
        name = container_name(person.name)
        wait_until(lambda: not docker_host.containers.list(all=True, filters={"name": name}), 30, "removal")
    finally:
        hub.stop()


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (docker.errors.ImageNotFound("No such image"), 404, "no longer exists"),
        (docker.errors.APIError("write /var/lib/docker: no space left on device"), 507, "disk of the hub is full"),
        (docker.errors.APIError("conflict"), 500, "problem with its container"),
        (requests.ConnectionError("refused"), 503, "Docker does not answer"),
    ],
)
def test_what_docker_says_becomes_a_sentence(error, status, words):
    failure = failures.of_docker(error)
    assert failure.status == status
    assert words in failure.message
    assert str(error) in str(failure)
    assert str(error) not in failure.message


@pytest.mark.docker
def test_a_container_of_a_hub_that_lost_its_database_is_replaced(hub, accounts, environment, docker_host):
    """It runs, and has the name and the files of the one to come."""
    person = accounts.add("orphan")
    hub.add_user(person.name)
    name = container_name(person.name)
    label = {"org.plasma.user": person.name}
    old = docker_host.containers.run(environment, ["sleep", "600"], name=name, labels=label, detach=True)
    assert hub.spawn(person.name, environment).status_code in (201, 202)
    new = docker_host.containers.get(name)
    assert (new.id != old.id, new.status) == (True, "running")
    hub.stop_server(person.name)
