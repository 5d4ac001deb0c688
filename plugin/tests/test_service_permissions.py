"""Who may use what, through the service: from the permissions page to the start of a server."""

from __future__ import annotations

import json

import pytest
from support_hub import Hub, wait_until
from support_service import PREFIX, Visitor, quoted, service_answers
from tljh_plasma.access import Store

pytestmark = pytest.mark.docker


@pytest.fixture
def store(service_hub):
    """The file with the permissions."""
    return Store(service_hub.prefix / "state" / "plasma.sqlite")


@pytest.fixture(scope="module")
def three(images):
    """Three environments."""
    return [images(f"plasmat-perm{number}:1", f"Permission {number}") for number in range(3)]


def test_page_is_told_everything_it_shows(teacher, service_groups, three, accounts):
    accounts.add("inside", "--groups", service_groups[0])
    answer = teacher.call("GET", "api/permissions").json()
    assert set(answer) == {"default", "groups", "environments"}
    assert answer["default"] == "open"
    groups = {group["name"]: group for group in answer["groups"]}
    assert groups[service_groups[0]]["exists"] and groups[service_groups[0]]["members"] >= 1
    assert groups["plasmat-no-such-group"] == {
        "name": "plasmat-no-such-group",
        "exists": False,
        "members": 0,
        "configured": True,
    }
    row = next(item for item in answer["environments"] if item["image"] == three[0])
    assert row == {
        "image": three[0],
        "name": "Permission 0",
        "owner": "",
        "source_url": "https://example.org/repo",
        "groups": [],
    }


def test_groups_decide_who_starts_what(teacher, service_hub, service_groups, three, accounts):
    """From the page to the start of a server; members by primary group count (16)."""
    biology = accounts.add("biologist", "--gid", service_groups[0])
    physics = accounts.add("physicist", "--groups", service_groups[1])
    assert teacher.call("PUT", "api/permissions", {"environments": {three[0]: service_groups[:1]}}).status_code == 200
    try:
        assert service_hub.spawn(physics.name, three[0]).status_code == 403
        answer = service_hub.spawn(biology.name, three[0])
        assert answer.status_code in (201, 202), answer.text
        service_hub.stop_server(biology.name)
    finally:
        teacher.call("PUT", "api/permissions", {"environments": {three[0]: []}})
    assert service_hub.spawn(physics.name, three[0]).status_code in (201, 202)
    service_hub.stop_server(physics.name)


def test_13_no_permission_is_lost_by_saving(teacher, service_groups, three, store):
    """Grouping rows that were not sorted dropped permissions, and the next save deleted them."""
    biology, physics = service_groups[:2]
    # Written in an order in which neither images nor groups are together.
    for image, groups in ((three[2], [physics]), (three[0], [physics, biology]), (three[1], [biology])):
        assert teacher.call("PUT", "api/permissions", {"environments": {image: groups}}).status_code == 200
    for image, groups in ((three[2], [physics, biology]), (three[1], [])):
        assert teacher.call("PUT", "api/permissions", {"environments": {image: groups}}).status_code == 200
    expected = {three[0]: sorted([biology, physics]), three[1]: [], three[2]: sorted([biology, physics])}
    shown = teacher.permissions()
    assert {image: shown[image] for image in three} == expected
    # What the page shows, saved as it is, changes nothing; neither does saving nothing.
    before = store.all()
    assert teacher.call("PUT", "api/permissions", {"environments": shown}).status_code == 200
    assert teacher.call("PUT", "api/permissions", {"environments": {}}).status_code == 200
    assert store.all() == before
    assert teacher.call("PUT", "api/permissions", {"environments": dict.fromkeys(three, [])}).status_code == 200
    assert not set(store.all()) & set(three)


REFUSED = {
    "no such group": {"groups": ["plasmat-no-such-group"]},
    "group of the system": {"groups": ["root"]},
    "group that is configured nowhere": {"groups": ["nogroup"]},
    "empty name": {"groups": [""]},
    "many names": {"groups": ["x"] * 10_000},
    "statement": {"groups": ["x'); DROP TABLE permissions; --"]},
    "markup": {"groups": ["<script>alert(1)</script>"]},
    "number": {"groups": [7]},
    "null": {"groups": None},
    "text": {"groups": "plasmat"},
    "unknown image": {"image": "no-such-image:1"},
    "no image": {"image": ""},
    "id of an image": {"image": "sha256:0"},
    "image without tag": {"image": "plasmat-course"},
}


@pytest.mark.parametrize("case", REFUSED)
def test_14_what_does_not_exist_is_not_saved(case, teacher, three, service_groups, store):
    """Permissions were accepted for groups that do not exist."""
    before = store.all()
    wrong = {REFUSED[case].get("image", three[0]): REFUSED[case].get("groups", service_groups[:1])}
    # Beside one that is right: all or none.
    for environments in (wrong, {three[1]: service_groups[:1], **wrong}):
        answer = teacher.call("PUT", "api/permissions", {"environments": environments})
        assert answer.status_code == 400, answer.text
        assert answer.json()["message"].endswith(".") and len(answer.json()["message"]) < 300
    if "groups" in REFUSED[case]:
        answer = teacher.call("PATCH", f"api/environments/{quoted(three[0])}", {"groups": REFUSED[case]["groups"]})
        assert answer.status_code == 400
    assert store.all() == before


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'"x"', b'{"environments": []}', b'{"environments": {"x": {}}}', b"\xff\xfe", b"{}"],
)
def test_14_bad_json_is_explained(body, teacher, store):
    """Bad JSON was a 500."""
    before = store.all()
    answer = teacher.call("PUT", "api/permissions", headers={"Content-Type": "application/json"}, data=body)
    assert answer.status_code == 400
    assert answer.json()["status"] == 400 and answer.json()["message"].endswith(".")
    assert store.all() == before


def test_former_groups_can_be_taken_away_and_not_given(teacher, three, service_groups, accounts, store):
    former = accounts.add_group("former").gr_name
    store.set_groups({three[0]: [former, service_groups[0]]})
    groups = {group["name"]: group for group in teacher.call("GET", "api/permissions").json()["groups"]}
    assert groups[former] == {"name": former, "exists": True, "members": 0, "configured": False}
    # It may stay where it is, beside others that come and go.
    changes = {three[0]: [former, *service_groups[:2]]}
    assert teacher.call("PUT", "api/permissions", {"environments": changes}).status_code == 200
    assert teacher.permissions()[three[0]] == sorted(changes[three[0]])
    answer = teacher.call("PUT", "api/permissions", {"environments": {three[1]: [former]}})
    assert answer.status_code == 400 and "is not among the hub's groups" in answer.json()["message"]
    assert teacher.call("PUT", "api/permissions", {"environments": {three[0]: []}}).status_code == 200
    answer = teacher.call("PUT", "api/permissions", {"environments": {three[0]: [former]}})
    assert answer.status_code == 400
    assert former not in {group["name"] for group in teacher.call("GET", "api/permissions").json()["groups"]}


@pytest.fixture(scope="module")
def closed_hub(docker_host, environment, accounts, service_groups, tmp_path_factory):
    """A hub below a path of its own, whose environments are closed until they are given to somebody."""
    boss = accounts.add("boss")
    ours = {"permissions": {"default": "closed"}, "groups": service_groups, "shared_data": ""}
    running = Hub(tmp_path_factory.mktemp("closed"), boss.name, ours, base_url="/school/")
    running.boss = boss
    running.start()
    wait_until(lambda: service_answers(running), 60, "service")
    yield running
    running.stop()


def test_service_below_another_address_with_closed_environments(closed_hub, accounts, three):
    teacher = Visitor(closed_hub, closed_hub.boss.name, closed_hub.boss.password)
    assert teacher.page.status_code == 200
    for page in ("environments", "permissions", "servers"):
        answer = teacher.open(page)
        assert answer.url == f"{closed_hub.origin}/school{PREFIX}{page}"
        assert '"/services/' not in answer.text and '"/hub/' not in answer.text
    assert teacher.call("GET", "api/permissions").json()["default"] == "closed"
    assert teacher.call("PUT", "api/permissions", {"environments": {}}, {"X-XSRFToken": None}).status_code == 403
    person = accounts.add("outside")
    assert closed_hub.spawn(person.name, three[0]).status_code == 403
    assert json.loads(json.dumps(teacher.permissions()))[three[0]] == []


def test_service_ends_with_its_hub(closed_hub):
    """A hub that is killed takes the service along: the next one's needs the port."""
    import socket

    assert service_answers(closed_hub)
    closed_hub.processes["hub"].kill()

    def free() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", closed_hub.service_port)) != 0

    wait_until(free, 20, "port of the service")
