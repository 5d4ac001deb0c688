"""Servers through the service: everybody's own, and all of them for administrators."""

from __future__ import annotations

import pytest
import requests
from support_hub import container_name, wait_until
from support_service import Visitor, quoted

pytestmark = pytest.mark.docker

KEYS = {
    "user",
    "server",
    "environment",
    "image",
    "started",
    "last_activity",
    "state",
    "memory",
    "cpu",
    "url",
    "may_stop",
}


def servers(visitor: Visitor) -> dict[tuple[str, str], dict]:
    """What somebody sees, by user and server."""
    answer = visitor.call("GET", "api/servers")
    assert answer.status_code == 200, answer.text
    return {(server["user"], server["server"]): server for server in answer.json()["servers"]}


@pytest.fixture(scope="module")
def two(service_hub, accounts, environment):
    """Two students with a running server each, and their browsers."""
    found = []
    for suffix in ("ada", "grace"):
        person = accounts.add(suffix)
        visitor = Visitor(service_hub, person.name, person.password)
        answer = service_hub.spawn(person.name, environment)
        assert answer.status_code in (201, 202), answer.text
        found.append(visitor)
    yield found
    for visitor in found:
        service_hub.stop_server(visitor.name)


def test_everybody_sees_their_own_and_administrators_all(two, teacher, manager, learner, service_hub, environment):
    ada, grace = two
    mine = servers(ada)
    assert set(mine) == {(ada.name, "")}
    server = mine[ada.name, ""]
    assert set(server) == KEYS
    assert (server["state"], server["may_stop"], server["image"]) == ("running", True, environment)
    assert (server["environment"], server["memory"], server["cpu"]) == ("plasmat-course", 512 * 1024**2, 1.0)
    assert server["url"] == f"/user/{ada.name}/"
    assert server["started"].startswith("20") and server["last_activity"].startswith("20")
    assert servers(learner) == {}
    everything = servers(teacher)
    assert {(ada.name, ""), (grace.name, "")} <= set(everything)
    assert everything[ada.name, ""]["may_stop"]
    # Who manages environments sees who uses them; stopping is for the hub to allow.
    managed = servers(manager)
    assert (ada.name, "") in managed and not managed[ada.name, ""]["may_stop"]


@pytest.mark.parametrize("server", ["", "lab", "..", "a/b"])
def test_nobody_stops_what_is_somebody_elses(server, two, manager, service_hub, docker_host):
    """The visitor's own token is used: the hub decides."""
    ada, grace = two
    path = f"api/servers/{quoted(ada.name)}" + (f"/{quoted(server)}" if server else "")
    for visitor in (grace, manager):
        answer = visitor.call("DELETE", path)
        assert answer.status_code in (403, 404, 405), answer.text
    assert docker_host.containers.get(container_name(ada.name)).status == "running"
    token = service_hub.user_token(grace.name)
    answer = requests.delete(f"{grace.url}{path}", headers={"Authorization": f"token {token}"}, timeout=30)
    assert answer.status_code in (403, 404, 405), answer.text
    assert servers(ada)[ada.name, ""]["state"] == "running"


@pytest.mark.parametrize("name", ["no-such-user", "../../shutdown", "%2e%2e", "<b>", "?", "#x", "a b"])
def test_names_lead_to_no_other_part_of_the_hub(name, teacher, service_hub):
    for path in (f"api/servers/{quoted(name)}", f"api/servers/{quoted(teacher.name)}/{quoted(name)}"):
        answer = teacher.call("DELETE", path)
        assert answer.status_code == 404, answer.text
        message = answer.json()["message"]
        assert message.startswith("There is no server") and message.endswith("or you may not stop it.")
    assert service_hub.api("GET", "/info").status_code == 200


def test_servers_are_stopped_by_their_owner_and_by_administrators(
    service_hub, accounts, environment, teacher, docker_host
):
    person = accounts.add("stopping")
    visitor = Visitor(service_hub, person.name, person.password)
    for server in ("", "lab one"):
        answer = service_hub.spawn(person.name, environment, server=quoted(server))
        assert answer.status_code in (201, 202), answer.text
    assert set(servers(visitor)) == {(person.name, ""), (person.name, "lab one")}
    assert visitor.call("DELETE", f"api/servers/{quoted(person.name)}/lab%20one").status_code == 202
    wait_until(lambda: servers(visitor)[person.name, "lab one"]["state"] == "stopped", 60, "stopped server")
    stopped = servers(visitor)[person.name, "lab one"]
    assert stopped["started"] is None and not stopped["may_stop"]
    # Others' servers that do not run are nothing to look after.
    assert (person.name, "lab one") not in servers(teacher)
    assert servers(teacher)[person.name, ""]["state"] == "running"
    assert teacher.call("DELETE", f"api/servers/{quoted(person.name)}").status_code == 202
    wait_until(lambda: (person.name, "") not in servers(teacher), 60, "stopped server")
    assert not docker_host.containers.list(all=True, filters={"name": container_name(person.name)})
    # Once more does no harm.
    assert teacher.call("DELETE", f"api/servers/{quoted(person.name)}").status_code == 202


def test_server_of_a_removed_environment_is_still_listed(service_hub, accounts, images, teacher, docker_host):
    person = accounts.add("orphan")
    image = images("plasmat-orphaned:1", "Orphaned", memory="256M")
    assert service_hub.spawn(person.name, image).status_code in (201, 202)
    try:
        assert servers(teacher)[person.name, ""]["memory"] == 256 * 1024**2
        docker_host.images.remove(image, force=True)
        server = servers(teacher)[person.name, ""]
        assert (server["environment"], server["memory"], server["state"]) == (image, None, "running")
    finally:
        service_hub.stop_server(person.name)
        # Its fixture removes it at the end.
        images("plasmat-orphaned:1", "Orphaned", memory="256M")


def test_servers_on_their_way_are_told_apart():
    from tljh_plasma.service.servers import state_of

    assert state_of({"pending": "spawn", "ready": False}) == "starting"
    assert state_of({"pending": "stop", "ready": True}) == "stopping"
    assert state_of({"pending": None, "ready": True}) == "running"
    assert state_of({"pending": None, "ready": False}) == "stopped"
