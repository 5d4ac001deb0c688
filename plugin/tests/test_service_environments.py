"""Environments through the service: added from a real repository, built, started, built again, removed."""

from __future__ import annotations

import os
import signal

import pytest
from support_hub import container_name, wait_until
from support_service import quoted, service_answers
from tljh_plasma.access import Entry, Store
from tljh_plasma.service.operations import in_use

from tests.support.git_repository import bridge_address, broken, dockerfile, serve_private, slow

pytestmark = pytest.mark.docker

GB = 1024**3
KEYS = {
    *("image", "name", "repo", "ref", "source_url", "memory", "cpu", "description", "groups", "status", "has_image"),
    *("created", "owner", "users", "buildargs", "message", "commit", "reference", "base", "limits", "source", "size"),
    *("opens", "webhook", "gpus", "former", "previous", "build_seconds", "last_used", "used_by"),
}
NOWHERE = "git://192.0.2.1/course"


@pytest.fixture
def store(service_hub):
    """The file with permissions and descriptions."""
    return Store(service_hub.prefix / "state" / "plasma.sqlite")


def limits(docker_host, image):
    """The limits in an image's labels."""
    labels = docker_host.images.get(image).labels
    return labels["tljh_repo2docker.mem_limit"], labels["tljh_repo2docker.cpu_limit"]


def test_environment_from_the_first_click_to_the_last(
    teacher, service_hub, service_groups, environment, courses, accounts, docker_host, store, unique, clean_up
):
    repo = courses.make(unique, dockerfile(environment, slow(2)))
    image = f"{unique}:main"
    clean_up.append(image)
    member = accounts.add("member", "--groups", service_groups[0])
    assert (
        teacher.add(repo=repo, ref="main", memory="0.5", cpu=0.5, description=" Plots ", groups=service_groups[:1])
        == image
    )
    # Before there is an image to start.
    item = teacher.environments()[image]
    assert set(item) == KEYS
    assert item["status"] in ("queued", "building") and not item["has_image"]
    assert item["groups"] == service_groups[:1] and item["description"] == "Plots"
    assert (item["owner"], item["repo"], item["ref"], item["name"]) == (teacher.name, repo, "main", unique)
    assert store.get(image) == Entry((service_groups[0],), "Plots")

    events = list(teacher.follow(image))
    assert {event["phase"] for event in events[:-1]} == {"log"} and events[-1]["phase"] == "built"
    text = "".join(event["message"] for event in events)
    assert "slow step 1" in text and "slow step 2" in text
    # Who comes when it is over reads the same.
    again = list(teacher.follow(image))
    assert again[-1]["phase"] == "built" and "slow step 2" in again[0]["message"]
    item = teacher.environments()[image]
    assert (item["status"], item["has_image"], item["users"]) == ("built", True, [])
    assert (item["memory"], item["cpu"]) == (GB // 2, 0.5)
    assert item["created"].startswith("20") and item["source_url"] == ""

    answer = service_hub.spawn(member.name, image)
    assert answer.status_code in (201, 202), answer.text
    assert docker_host.containers.get(container_name(member.name)).attrs["HostConfig"]["Memory"] == GB // 2
    assert teacher.environments()[image]["users"] == [member.name]
    answer = teacher.call("DELETE", f"api/environments/{quoted(image)}")
    assert answer.status_code == 409
    assert answer.json()["users"] == [member.name]
    assert f"in use by {member.name}: their servers have to be stopped first." in answer.json()["message"]
    assert image in teacher.environments()

    service_hub.stop_server(member.name)
    answer = teacher.call("DELETE", f"api/environments/{quoted(image)}")
    assert answer.status_code == 200, answer.text
    assert image not in teacher.environments()
    assert image not in teacher.permissions()
    assert not docker_host.images.list(image)
    assert image not in store.all()
    assert teacher.call("GET", f"api/environments/{quoted(image)}/log").status_code == 404
    assert teacher.call("DELETE", f"api/environments/{quoted(image)}").status_code == 404
    assert service_hub.spawn(member.name, image).status_code == 400


def test_12_build_without_limits_gets_those_of_the_hub(
    teacher, service_hub, environment, courses, accounts, docker_host, unique, clean_up
):
    """A build by API without limits ran unlimited."""
    image = teacher.add(repo=courses.make(unique, dockerfile(environment)), memory="", cpu="")
    clean_up.append(image)
    item = teacher.wait_for(image, "built")
    assert (item["memory"], item["cpu"]) == (2 * GB, 2.0)
    assert limits(docker_host, image) == ("", "")
    person = accounts.add("limited")
    assert service_hub.spawn(person.name, image).status_code in (201, 202)
    host = docker_host.containers.get(container_name(person.name)).attrs["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 2 * GB
    assert host["CpuQuota"] / host["CpuPeriod"] == 2
    service_hub.stop_server(person.name)

    # Built again: limits that are given replace those there were, others stay.
    path = f"api/environments/{quoted(image)}/build"
    assert teacher.call("POST", path, {"memory": "1.5", "buildargs": "COURSE=one\n\nYEAR=2026"}).status_code == 202
    assert teacher.call("POST", path, {}).status_code == 409, "it is being built"
    item = teacher.wait_for(image, "built")
    assert (item["memory"], item["cpu"], item["buildargs"]) == (int(1.5 * GB), 2.0, "COURSE=one\nYEAR=2026")
    assert teacher.call("POST", path, {"cpu": 0.5}).status_code == 202
    item = teacher.wait_for(image, "built")
    assert (item["memory"], item["cpu"], item["buildargs"]) == (int(1.5 * GB), 0.5, "COURSE=one\nYEAR=2026")
    assert teacher.call("POST", path, {"memory": "", "cpu": None, "buildargs": ""}).status_code == 202
    item = teacher.wait_for(image, "built")
    assert (item["memory"], item["cpu"], item["buildargs"], item["owner"]) == (2 * GB, 2.0, "", teacher.name)
    assert limits(docker_host, image) == ("", "")


def test_15_name_of_a_removed_environment_brings_nothing_back(
    teacher, environment, courses, docker_host, store, service_groups, unique, clean_up
):
    """A new environment inherited the permissions of a removed one with the same name."""
    repo = courses.make(unique, dockerfile(environment))
    image = teacher.add(repo=repo, groups=service_groups[:2], description="The old one")
    clean_up.append(image)
    teacher.wait_for(image, "built")
    assert teacher.call("DELETE", f"api/environments/{quoted(image)}").status_code == 200
    assert store.get(image) == Entry()

    assert teacher.add(repo=repo) == image
    assert store.get(image) == Entry()
    teacher.wait_for(image, "built")
    # Removed by hand, with Docker: its permissions and its row are still there.
    store.set_groups({image: service_groups[:2]})
    docker_host.images.remove(image)
    item = teacher.environments()[image]
    assert (item["status"], item["has_image"]) == ("failed", False)
    assert "The image is gone from Docker" in item["message"]
    assert teacher.add(repo=repo, groups=[service_groups[1]]) == image
    assert store.get(image) == Entry((service_groups[1],))
    assert [row for row in teacher.environments() if row == image] == [image]
    teacher.wait_for(image, "built")


def test_failed_build_says_why_and_can_be_replaced(teacher, environment, courses, docker_host, unique, clean_up):
    image = teacher.add(repo=courses.make(unique, dockerfile(environment, broken())), name=unique)
    clean_up.append(image)
    item = teacher.wait_for(image, "failed")
    assert not item["has_image"] and "exit code" in item["message"]
    events = list(teacher.follow(image))
    assert "does not exist" in events[0]["message"] and events[-1]["phase"] == "failed"
    # A name that is taken by a failure is not taken.
    assert teacher.add(repo=courses.make(f"{unique}-mended", dockerfile(environment)), name=unique) == image
    assert teacher.wait_for(image, "built")["repo"].endswith("-mended")
    assert teacher.call("DELETE", f"api/environments/{quoted(image)}").status_code == 200


def test_what_is_there_is_not_added_again(teacher, environment, courses, docker_host, unique, clean_up):
    repo = courses.make(unique, dockerfile(environment, slow(3)))
    image = teacher.add(repo=repo, ref="main")
    clean_up.append(image)
    answer = teacher.call("POST", "api/environments", {"repo": repo, "ref": "main"})
    assert answer.status_code == 409 and "is being built already" in answer.json()["message"]
    teacher.wait_for(image, "built")
    for body in ({"repo": repo, "ref": "main"}, {"repo": NOWHERE, "name": unique.upper(), "ref": "main"}):
        answer = teacher.call("POST", "api/environments", body)
        assert answer.status_code == 409 and "exists already" in answer.json()["message"]
    # An image of somebody else's: the build would take its name.
    foreign = f"{unique}-foreign:1"
    docker_host.images.get(environment).tag(*foreign.split(":"))
    clean_up.append(foreign)
    assert foreign not in teacher.environments()
    answer = teacher.call("POST", "api/environments", {"repo": repo, "ref": "1", "name": f"{unique}-foreign"})
    assert answer.status_code == 409 and "Docker has another image" in answer.json()["message"]
    assert docker_host.images.get(foreign).id == docker_host.images.get(environment).id


def test_two_who_add_the_same_at_once_add_one(teacher, manager, environment, courses, unique, clean_up):
    from concurrent.futures import ThreadPoolExecutor

    repo = courses.make(unique, dockerfile(environment))
    clean_up.append(f"{unique}:HEAD")
    body = {"repo": repo}
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(who.call, "POST", "api/environments", body) for who in [teacher, manager] * 3]
        assert sorted(answer.result().status_code for answer in asked) == [201] + [409] * 5
    teacher.wait_for(f"{unique}:HEAD", "built")


def test_removal_ends_a_build_and_followers_may_leave(
    teacher, service_hub, environment, courses, docker_host, unique, clean_up
):
    silent = "RUN echo now it is silent; sleep 120"
    image = teacher.add(repo=courses.make(unique, dockerfile(environment, silent)))
    clean_up.append(image)
    waiting = teacher.add(repo=courses.make(f"{unique}-next", dockerfile(environment)))
    clean_up.append(waiting)
    assert teacher.environments()[waiting]["status"] == "queued", "one at a time is configured"
    # A sign of life comes when nothing else does; then the reader goes.
    phases = []
    for event in teacher.follow(image):
        phases.append(event["phase"])
        if event["phase"] == "heartbeat":
            break
    assert "log" in phases
    follower = teacher.follow(image)
    assert next(follower)["phase"] == "log"
    answer = teacher.call("DELETE", f"api/environments/{quoted(image)}")
    assert answer.status_code == 200, answer.text
    last = list(follower)[-1]
    assert last["phase"] == "failed"
    assert not docker_host.containers.list(all=True, filters={"label": f"repo2docker.build={image}"})
    assert image not in teacher.environments()
    teacher.wait_for(waiting, "built")
    assert "Traceback" not in service_hub.log()


def test_credentials_are_taken_out_of_the_url_and_seen_nowhere(
    teacher, service_hub, environment, courses, docker_host, unique, clean_up
):
    secret = "s3cr3t/with@odd:characters"
    courses.make(unique, dockerfile(environment))
    with serve_private(courses.directory, bridge_address(), "teacher", secret) as address:
        scheme, _, host = address.partition("://")
        inside = f"{scheme}://teacher:s3cr3t%2Fwith%40odd%3Acharacters@{host}/{unique}"
        image = teacher.add(repo=inside, name=unique)
        clean_up.append(image)
        item = teacher.wait_for(image, "built")
        assert item["repo"] == f"{address}/{unique}"
        # With the fields of the form, which win.
        body = {"username": "teacher", "password": "wrong"}
        assert teacher.call("POST", f"api/environments/{quoted(image)}/build", body).status_code == 202
        item = teacher.wait_for(image, "failed")
        assert item["has_image"]
    seen = [str(teacher.environments()[image]), service_hub.log(), str(docker_host.images.get(image).attrs)]
    seen += [event["message"] for event in teacher.follow(image)]
    for text in seen:
        assert "s3cr3t" not in text


HOSTILE = {
    "no repository": {"repo": ""},
    "a file": {"repo": "file:///etc"},
    "a path": {"repo": "/etc"},
    "an option": {"repo": "--upload-pack=touch /tmp/x"},
    "a program": {"repo": "ext::sh -c id"},
    "a program without spaces": {"repo": "ext::id"},
    "a host like an option": {"repo": "https://-oProxyCommand=x/y"},
    "a space": {"repo": "https://example.org/a b"},
    "a line": {"repo": "https://example.org/a\nRUN id"},
    "a quote": {"repo": 'https://example.org/a"'},
    "a variable": {"repo": "https://example.org/$HOME"},
    "a script": {"repo": "javascript:alert(1)"},
    "no host": {"repo": "https:///a"},
    "a broken address": {"repo": "https://[::1/a"},
    "a long address": {"repo": "https://example.org/" + "a" * 5000},
    "a number": {"repo": 7},
    "an option as reference": {"repo": NOWHERE, "ref": "--help"},
    "a parent as reference": {"repo": NOWHERE, "ref": "a/../b"},
    "a line in the reference": {"repo": NOWHERE, "ref": "a\nb"},
    "a command in the reference": {"repo": NOWHERE, "ref": "$(id)"},
    "a long reference": {"repo": NOWHERE, "ref": "a" * 500},
    "a parent as name": {"repo": NOWHERE, "name": ".."},
    "a path as name": {"repo": NOWHERE, "name": "a/b"},
    "a tag as name": {"repo": NOWHERE, "name": "a:b"},
    "markup as name": {"repo": NOWHERE, "name": "<script>alert(1)</script>"},
    "a long name": {"repo": NOWHERE, "name": "a" * 64},
    "a comma in memory": {"repo": NOWHERE, "memory": "3,5"},
    "too much memory": {"repo": NOWHERE, "memory": 100000},
    "too little memory": {"repo": NOWHERE, "memory": "0.1"},
    "no memory": {"repo": NOWHERE, "memory": 0},
    "negative memory": {"repo": NOWHERE, "memory": -1},
    "words for memory": {"repo": NOWHERE, "memory": "lots"},
    "true memory": {"repo": NOWHERE, "memory": True},
    "too many CPUs": {"repo": NOWHERE, "cpu": 1000},
    "no CPU": {"repo": NOWHERE, "cpu": 0},
    "a list of CPUs": {"repo": NOWHERE, "cpu": [1]},
    "two lines of description": {"repo": NOWHERE, "description": "a\nb"},
    "a long description": {"repo": NOWHERE, "description": "a" * 201},
    "a group that there is not": {"repo": NOWHERE, "groups": ["plasmat-no-such-group"]},
    "a group that is not configured": {"repo": NOWHERE, "groups": ["root"]},
    "a group that is no text": {"repo": NOWHERE, "groups": [None]},
    "arguments without value": {"repo": NOWHERE, "buildargs": "A"},
    "arguments like options": {"repo": NOWHERE, "buildargs": "--privileged=1"},
    "many arguments": {"repo": NOWHERE, "buildargs": "\n".join(f"A{n}=1" for n in range(100))},
    "a name with a line for the password": {"repo": "https://192.0.2.1/x", "username": "a\nb", "password": "x"},
    "credentials for git://": {"repo": "git://a:b@192.0.2.1/x"},
    "an unknown key": {"repo": NOWHERE, "image": "plasmat-course:1"},
    "nothing": {},
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_forms_are_refused_with_a_sentence(body, teacher, docker_host, store):
    before = (teacher.environments().keys(), store.all())
    answer = teacher.call("POST", "api/environments", body)
    assert answer.status_code == 400, answer.text
    message = answer.json()["message"]
    assert answer.json().keys() == {"status", "message"}
    assert message.endswith(".") and len(message) < 400 and "\n" not in message
    assert (teacher.environments().keys(), store.all()) == before
    assert not docker_host.containers.list(all=True, filters={"label": f"repo2docker.repo={NOWHERE}"})


@pytest.mark.parametrize(
    "image",
    ["no-such-environment:1", "..", ".", "<b>", "a/b:1", "%", "*", "sha256:0", "x" * 5000, "plasmat-course"],
)
def test_10_unknown_environments_are_explained(image, teacher):
    """An unknown image was a bare 500."""
    path = f"api/environments/{quoted(image)}"
    for method, address, body in [
        ("PATCH", path, {"description": "x"}),
        ("DELETE", path, None),
        ("POST", f"{path}/build", {}),
        ("GET", f"{path}/log", None),
    ]:
        answer = teacher.call(method, address, body)
        if image in ("..", "."):
            # Clients and proxies take these out of the path.
            assert answer.status_code in (400, 404, 405)
            continue
        assert answer.status_code == 404, (method, answer.status_code, answer.text)
        assert answer.json()["message"].startswith("There is no environment")


def test_descriptions_and_groups_are_changed_one_by_one(teacher, service_groups, environment, images, store):
    image = images("plasmat-changing:1", "Changing")
    path = f"api/environments/{quoted(image)}"
    assert teacher.call("PATCH", path, {"description": "One <b>line</b>"}).status_code == 200
    assert teacher.call("PATCH", path, {"groups": service_groups[:2] + service_groups[:1]}).status_code == 200
    assert store.get(image) == Entry(tuple(sorted(service_groups[:2])), "One <b>line</b>")
    item = teacher.environments()[image]
    assert (item["name"], item["description"]) == ("Changing", "One <b>line</b>")
    for body in (
        {"groups": ["root"]},
        {"groups": "all"},
        {"description": 7},
        {"description": "a\nb"},
        {"memory": "1,5"},
        {"name": "x"},
    ):
        assert teacher.call("PATCH", path, body).status_code == 400, body
    assert store.get(image) == Entry(tuple(sorted(service_groups[:2])), "One <b>line</b>")
    assert teacher.call("PATCH", path, {"description": "", "groups": []}).status_code == 200
    assert store.get(image) == Entry()


def test_containers_that_are_nobodys_or_have_no_labels_hold_an_environment(teacher, images, docker_host, accounts):
    image = images("plasmat-held:1", "Held")
    path = f"api/environments/{quoted(image)}"
    # As servers were before their containers had labels.
    old = docker_host.containers.run(image, ["sleep", "300"], name="jupyter-plasmat-2dold--lab", detach=True)
    try:
        assert teacher.environments()[image]["users"] == ["plasmat-old"]
        answer = teacher.call("DELETE", path)
        assert (answer.status_code, answer.json()["users"]) == (409, ["plasmat-old"])
    finally:
        old.remove(force=True)
    stopped = docker_host.containers.create(image, name="plasmat-somebodys")
    try:
        answer = teacher.call("DELETE", path)
        assert (answer.status_code, answer.json()["users"]) == (409, [])
        assert "a container that is not a user's server" in answer.json()["message"]
        assert docker_host.images.list(image)
    finally:
        stopped.remove()
    # Of an earlier build of the same environment.
    other = images("plasmat-held-other:1", "Other")
    labels = {"org.plasma.user": "plasmat-ada", "org.plasma.environment": image}
    earlier = docker_host.containers.run(other, ["sleep", "300"], labels=labels, detach=True)
    try:
        answer = teacher.call("DELETE", path)
        assert (answer.status_code, answer.json()["users"]) == (409, ["plasmat-ada"])
    finally:
        earlier.remove(force=True)


def test_at_most_ten_users_are_named():
    few = in_use([f"user{number}" for number in range(10)])
    assert few.sentence.endswith("user8, user9: their servers have to be stopped first.")
    many = in_use([f"user{number:02}" for number in range(25)])
    assert "user09 and 15 more: " in many.sentence and "user10" not in many.sentence
    assert len(many.details["users"]) == 25


def test_service_that_was_killed_comes_back_and_nobody_notices(
    teacher, service_hub, environment, courses, unique, clean_up
):
    image = teacher.add(repo=courses.make(unique, dockerfile(environment, slow(45))), description="Kept")
    clean_up.append(image)
    assert next(teacher.follow(image))["phase"] == "log"

    def process() -> int:
        return service_hub.api("GET", "/services/plasma").json()["pid"]

    before = process()
    os.kill(before, signal.SIGKILL)
    # JupyterHub looks after its services every half minute.
    wait_until(lambda: process() != before and service_answers(service_hub), 90, "service")
    # The same browser, with the cookies it had.
    assert teacher.environments()[image]["status"] == "building"
    text = "".join(event["message"] for event in teacher.follow(image))
    assert "slow step 1 " in text and "slow step 45 " in text
    item = teacher.environments()[image]
    assert (item["status"], item["description"]) == ("built", "Kept")
