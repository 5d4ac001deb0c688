"""Fixtures: a Docker engine, an environment's image, real accounts of the system and a running hub."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
for path in (ROOT, HERE):
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))

from support_accounts import Accounts  # noqa: E402
from support_config import HANDWRITTEN  # noqa: E402
from support_hub import Hub, container_name  # noqa: E402
from support_network import inside, make_network, net, protected  # noqa: E402, F401 (fixtures)
from support_service import (  # noqa: E402, F401 (fixtures)
    clean_up,
    courses,
    learner,
    manager,
    service_groups,
    service_hub,
    teacher,
    unique,
)


def pytest_configure(config):
    config.addinivalue_line("markers", "docker: needs a Docker engine and root")


@pytest.fixture
def path(tmp_path):
    """Where a config.yaml would be."""
    return tmp_path / "config.yaml"


@pytest.fixture
def handwritten(path):
    """A config.yaml with comments and an order of its own."""
    path.write_text(HANDWRITTEN)
    return path


@pytest.fixture(scope="session")
def docker_host():
    """Set DOCKER_HOST to an engine, started by tests.support when none runs, and return a docker-py client.

    Without one the tests fail; they are left out only where PLASMA_NO_DOCKER=1 says so.
    """
    if os.environ.get("PLASMA_NO_DOCKER") == "1":
        pytest.skip("PLASMA_NO_DOCKER=1")
    import docker

    from tests.support import engine

    host = engine.ensure_engine()
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = host
    client = docker.DockerClient(base_url=host, version="auto")
    yield client
    client.close()
    if before is None:
        del os.environ["DOCKER_HOST"]
    else:
        os.environ["DOCKER_HOST"] = before


@pytest.fixture(scope="session")
def environment(docker_host):
    """An environment's image that can be started; returns its name."""
    from tests.support.environment_image import environment_image

    return environment_image("plasmat-course:1", mem_limit="512M", cpu_limit="1")


@pytest.fixture(scope="session")
def accounts():
    """Factory of system accounts, all removed at the end."""
    made = Accounts()
    yield made
    made.remove_all()


@pytest.fixture(scope="session")
def shared_data():
    """The directory of shared data: root's, as are all above it, which pytest's own directories are not."""
    path = Path(tempfile.mkdtemp(prefix="plasmat-data-", dir="/srv"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def hub(docker_host, environment, accounts, shared_data, tmp_path_factory):
    """A hub without TLJH, as a server runs it: traefik and jupyterhub as processes of their own."""
    admin = accounts.add("admin")
    running = Hub(
        tmp_path_factory.mktemp("hub"),
        admin.name,
        plasma={"named_servers": {"limit": 50}, "shared_data": str(shared_data)},
    )
    running.start()
    yield running
    running.stop()
    running.remove_containers(docker_host)


@pytest.fixture(scope="session")
def helpers(accounts):
    """The group of those who may enter servers at ``quick_hub``."""
    return accounts.add_group("helpers")


@pytest.fixture(scope="session")
def quick_hub(docker_host, environment, accounts, helpers, tmp_path_factory):
    """A hub that looks at people again a second after it last did, as its servers do, where only helpers enter them."""
    running = Hub(
        tmp_path_factory.mktemp("quick"),
        accounts.add("admin3").name,
        plasma={"enter_servers": [f"%{helpers.gr_name}"]},
    )
    with (running.prefix / "config" / "config.yaml").open("a") as file:
        file.write("auth: {PlasmaPAMAuthenticator: {auth_refresh_age: 1}}\n")
    with (running.prefix / "config" / "jupyterhub_config.d" / "tests.py").open("a") as file:
        file.write("c.PlasmaSpawner.args = ['--HubAuth.cache_max_age=1']\n")
    running.start()
    yield running
    running.stop()
    running.remove_containers(docker_host)


@pytest.fixture(scope="session")
def images(docker_host, environment):
    """Images derived from the environment, with labels of their own; removed at the end."""
    made = set()

    def make(tag: str, display: str, memory: str = "", cpu: str = "", commands: str = "") -> str:
        name, _, ref = tag.partition(":")
        labels = {
            "repo2docker.ref": ref,
            "repo2docker.repo": "https://example.org/repo",
            "tljh_repo2docker.image_name": tag,
            "tljh_repo2docker.display_name": display,
            "tljh_repo2docker.mem_limit": memory,
            "tljh_repo2docker.cpu_limit": cpu,
        }
        recipe = f"FROM {environment}\n{commands}\n"
        docker_host.images.build(fileobj=io.BytesIO(recipe.encode()), tag=tag, labels=labels, rm=True)
        made.add(tag)
        return tag

    yield make
    for tag in made:
        for container in docker_host.containers.list(all=True, filters={"ancestor": tag}):
            container.remove(force=True)
        docker_host.images.remove(tag, force=True)


@pytest.fixture(scope="session")
def mallory(accounts, hub, environment, docker_host):
    """Somebody who prepared their home for everything that used to work, with a running server."""
    person = accounts.add("mallory")

    def plant(name: str, text: str, mode: int = 0o755) -> Path:
        path = person.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        for made in (path, *path.parents):
            if made == person.home:
                break
            os.chown(made, person.uid, person.gid)
        return path

    record = "id -u >>$HOME/ran-as\n"
    for name in (".bash_profile", ".bashrc", ".profile", ".bash_login"):
        plant(name, record)
    for directory in (".local/bin", "bin", "plasmat-course/.local/bin"):
        for program in ("su", "cp", "mkdir", "chown", "useradd", "groupadd", "sh", "bash", "env", "flock", "find"):
            plant(f"{directory}/{program}", f'#!/bin/sh\n{record}exec "/usr/bin/{program}" "$@"\n')
    # What used to be left behind by a root process that ran the profile.
    setuid = plant("rootshell", "")
    setuid.write_bytes(Path("/bin/dash").read_bytes())
    os.chown(setuid, 0, 0)
    setuid.chmod(0o4755)
    # Settings were written through links, as root.
    links = person.home / "plasmat-course" / ".jupyter"
    links.symlink_to("/etc")
    os.lchown(links, person.uid, person.gid)

    answer = hub.spawn(person.name, environment)
    assert answer.status_code in (201, 202), answer.text
    yield person
    setuid.unlink()


@pytest.fixture(scope="session")
def container(mallory, docker_host):
    return docker_host.containers.get(container_name(mallory.name))


@pytest.fixture(scope="session")
def course(accounts):
    """A course's group."""
    return accounts.add_group("course")


@pytest.fixture(scope="session")
def alice(accounts, hub, environment, course):
    """Somebody whose group id is not their user id, with a running server."""
    # A number that no new account gets by itself.
    team = accounts.add_group("team", "--gid", str(30000 + secrets.randbelow(20000)))
    person = accounts.add("alice", "--gid", team.gr_name, "--groups", f"{course.gr_name},audio")
    assert person.gid != person.uid
    answer = hub.spawn(person.name, environment)
    assert answer.status_code in (201, 202), answer.text
    return person
