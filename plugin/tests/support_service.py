"""A hub with the service "plasma" for tests, and people who visit it with a browser or a token."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from support_hub import Hub, wait_until
from tljh_plasma import theme

PREFIX = "/services/plasma/"
# One of the files that everybody may have.
STATIC_FILE = f"static/{min(path.name for path in theme.STATIC.glob('*.css'))}"
# What another plugin, or the server's administrator, may have configured.
OTHERS = """
c.JupyterHub.custom_scopes.update({{"custom:others:read": {{"description": "Somebody else's"}}}})
c.JupyterHub.load_roles.append({{
    "name": "course-managers",
    "scopes": ["custom:tljh_repo2docker:admin", "custom:others:read"],
    "users": ["{manager}"],
}})
c.JupyterHub.services.append({{"name": "others", "api_token": "{token}"}})
"""
# tljh-repo2docker runs a file of this name in the current directory.
TRAP = "from pathlib import Path\nPath(__file__).with_name('trapped').touch()\n"


class Visitor:
    """Somebody at the service.

    Attributes:
        name: their login name.
        session: their browser, logged in at the hub and the service.
        page: the service's first page for them.
    """

    def __init__(self, hub: Hub, name: str, password: str) -> None:
        self.hub = hub
        self.name = name
        self.url = f"{hub.url}{PREFIX}"
        self.session, answer = hub.login(name, password)
        assert answer.status_code == 200, answer.text
        self.page = self.open("servers")

    @property
    def xsrf(self) -> str:
        """The XSRF token of the service's pages, which is the cookie's content."""
        cookies = [cookie for cookie in self.session.cookies if cookie.path.endswith(PREFIX)]
        return next(cookie.value for cookie in cookies if cookie.name == "_xsrf")

    def open(self, page: str, **options: Any) -> requests.Response:
        """Open a page, as a click on a link does."""
        headers = {
            "Sec-Fetch-Dest": "document",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Site": "same-origin",
            "Accept": "text/html",
        }
        return self.session.get(f"{self.url}{page}", headers=headers, timeout=60, **options)

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, Any] | None = None, **options: Any
    ) -> requests.Response:
        """Call the API as a script of the service's pages does.

        Args:
            method: HTTP method.
            path: path below the service.
            body: what is sent as JSON, if anything.
            headers: these replace those of a browser; None leaves one out.
            options: further arguments of requests.
        """
        sent = {
            "Origin": self.hub.origin,
            "Sec-Fetch-Site": "same-origin",
            "Sec-Fetch-Mode": "cors",
            "Sec-Fetch-Dest": "empty",
            "X-XSRFToken": self.xsrf,
            **(headers or {}),
        }
        sent = {name: value for name, value in sent.items() if value is not None}
        if body is not None:
            options["json"] = body
        options = {"timeout": 120, "allow_redirects": False, **options}
        return self.session.request(method, f"{self.url}{path}", headers=sent, **options)

    # What tests ask again and again.

    def environments(self) -> dict[str, dict[str, Any]]:
        """All environments by image."""
        answer = self.call("GET", "api/environments")
        assert answer.status_code == 200, answer.text
        return {item["image"]: item for item in answer.json()["environments"]}

    def permissions(self) -> dict[str, list[str]]:
        """Groups by image."""
        answer = self.call("GET", "api/permissions")
        assert answer.status_code == 200, answer.text
        return {item["image"]: item["groups"] for item in answer.json()["environments"]}

    def add(self, **body: Any) -> str:
        """Add an environment; returns its image."""
        answer = self.call("POST", "api/environments", body)
        assert answer.status_code == 201, answer.text
        return answer.json()["image"]

    def follow(self, image: str) -> Iterator[dict[str, str]]:
        """The events of a build's log, as they come."""
        answer = self.call("GET", f"api/environments/{quoted(image)}/log", stream=True)
        with answer:
            assert answer.status_code == 200, answer.text
            assert answer.headers["Content-Type"] == "text/event-stream"
            for line in answer.iter_lines(chunk_size=1):
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))
                elif line.startswith(b":"):
                    yield {"phase": "heartbeat", "message": line.decode()}

    def wait_for(self, image: str, status: str) -> dict[str, Any]:
        """Follow a build until its end, which must be ``status``; returns the environment."""
        last = list(self.follow(image))[-1]
        item = self.environments()[image]
        assert (last["phase"], item["status"]) == (status, status), item
        return item


def quoted(image: str) -> str:
    """An image as part of a path."""
    return requests.utils.quote(image, safe="")


def service_answers(hub: Hub) -> bool:
    """Whether the service is there, through the proxy."""
    try:
        return requests.get(f"{hub.url}{PREFIX}{STATIC_FILE}", timeout=5).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture(scope="session")
def service_groups(accounts):
    """Two groups of the hub's settings; a third one there does not exist."""
    return [accounts.add_group("biology").gr_name, accounts.add_group("physics").gr_name, "plasmat-no-such-group"]


@pytest.fixture(scope="session")
def service_hub(docker_host, environment, accounts, service_groups, tmp_path_factory):
    """A hub with the service, among settings of others."""
    from tests.support.builder_image import builder_image

    builder_image()
    ours = {
        "named_servers": {"limit": 50},
        "shared_data": "",
        "groups": service_groups,
        "monitoring_url": "/cockpit/",
        "builder": {"parallel": 1, "trial": False},
    }
    from tests.support import git_repository

    boss, manager = accounts.add("boss"), accounts.add("manager")
    running = Hub(tmp_path_factory.mktemp("service"), boss.name, ours, builds=[git_repository.bridge_address()])
    running.people = {"boss": boss, "manager": manager}
    with (running.prefix / "config" / "jupyterhub_config.d" / "tests.py").open("a") as file:
        running.service_token = secrets.token_hex(16)
        file.write(OTHERS.format(manager=manager.name, token=running.service_token))
    (running.prefix / "state" / "tljh_repo2docker_config.py").write_text(TRAP)
    running.start()
    wait_until(lambda: service_answers(running), 60, f"service\n{running.log()[-5000:]}")
    yield running
    running.stop()
    running.remove_containers(docker_host)


@pytest.fixture(scope="session")
def teacher(service_hub):
    """An administrator at the service."""
    person = service_hub.people["boss"]
    return Visitor(service_hub, person.name, person.password)


@pytest.fixture(scope="session")
def manager(service_hub):
    """Somebody who may manage environments and is no administrator of the hub."""
    person = service_hub.people["manager"]
    return Visitor(service_hub, person.name, person.password)


@pytest.fixture(scope="session")
def learner(service_hub, accounts):
    """Somebody else at the service."""
    person = accounts.add("learner")
    return Visitor(service_hub, person.name, person.password)


@pytest.fixture(scope="session")
def courses(docker_host, tmp_path_factory):
    """A directory whose repositories a Git server has; its address is ``courses.address``."""
    from tests.support import git_repository

    class Courses:
        directory = tmp_path_factory.mktemp("courses")
        address = ""

        def make(self, name: str, recipe: str) -> str:
            """Make a repository with this Dockerfile; returns its URL."""
            git_repository.make_repository(self.directory / name, recipe)
            return f"{self.address}/{name}"

    made = Courses()
    with git_repository.serve(made.directory, git_repository.bridge_address()) as address:
        made.address = address
        yield made


@pytest.fixture
def unique():
    """A name that nothing else has."""
    return f"plasmat-{secrets.token_hex(4)}"


@pytest.fixture
def clean_up(docker_host, service_hub):
    """Takes images; at the end their containers, builders and names are gone from the engine."""
    images: list[str] = []
    yield images
    for image in images:
        filters = [{"label": f"repo2docker.build={image}"}, {"label": f"org.plasma.environment={image}"}]
        for condition in filters:
            for container in docker_host.containers.list(all=True, filters=condition):
                container.remove(force=True, v=True)
        if docker_host.images.list(image):
            for container in docker_host.containers.list(all=True, filters={"ancestor": image}):
                # Another name of the same image is another environment, with servers of other tests.
                if container.attrs["Config"]["Image"] == image:
                    container.remove(force=True)
            docker_host.images.remove(image, force=True)
