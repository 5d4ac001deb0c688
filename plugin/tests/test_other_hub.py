"""A second hub, configured differently: under a path, with the usual limit of named servers and a quick culler."""

from __future__ import annotations

import re

import pytest
import requests
from support_hub import Hub, container_name, wait_until

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def other(docker_host, environment, accounts, tmp_path_factory):
    running = Hub(
        tmp_path_factory.mktemp("other"),
        accounts.add("admin2").name,
        base_url="/plasma/",
        cull="{timeout: 15, every: 2, remove_named_servers: true}",
    )
    running.start()
    yield running
    running.stop()


def test_servers_under_a_path_are_culled_and_limited(other, accounts, environment, docker_host):
    person = accounts.add("idle")
    session, page = other.login(person.name, person.password)
    assert page.url == f"{other.url}/hub/spawn"
    for server in ("one", "two"):
        assert other.spawn(person.name, environment, server=server).status_code in (201, 202)
    refused = session.get(f"{other.url}/hub/spawn/{person.name}/three")
    assert refused.status_code == 400
    assert "has 2 named servers already" in refused.text
    token = other.user_token(person.name)
    headers = {"Authorization": f"token {token}"}
    status = requests.get(f"{other.url}/user/{person.name}/two/api/status", headers=headers, timeout=30)
    assert status.status_code in (200, 404, 503), "it may be gone already"

    def culled():
        return other.api("GET", f"/users/{person.name}").json()["servers"] == {}

    wait_until(culled, 90, "culling", interval=0.5)
    name = container_name(person.name)
    wait_until(lambda: not docker_host.containers.list(all=True, filters={"name": name}), 30, "removal of containers")
    assert re.search(r"200 GET /plasma/hub/api/users", other.log())
