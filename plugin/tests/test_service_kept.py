"""What is kept of environments through the service: the former image, their past, and the recipe of archived ones."""

from __future__ import annotations

import pytest
from support_hub import container_name
from support_registry import small_image
from support_service import quoted
from tljh_plasma import environments as envs
from tljh_plasma.service.pushes import SHELVED

from tests.support.git_repository import Repository, dockerfile

pytestmark = pytest.mark.docker


def test_one_request_goes_back_and_another_one_forth(
    teacher, service_hub, environment, courses, accounts, docker_host, unique, clean_up
):
    image = teacher.add(repo=courses.make(unique, dockerfile(environment)))
    clean_up.append(image)
    path = f"api/environments/{quoted(image)}"
    teacher.wait_for(image, "built")
    answer = teacher.call("PATCH", path, {"previous": True})
    assert answer.status_code == 409 and "There is no former image" in answer.json()["message"]
    assert teacher.call("PATCH", path, {"previous": False}).status_code == 200
    first = teacher.environments()[image]
    assert (first["former"], first["previous"]) == (None, False)
    Repository(courses.directory / unique).commit({"x.txt": "x\n"})
    assert teacher.call("POST", f"{path}/build", {}).status_code == 202
    second = teacher.wait_for(image, "built")
    assert second["created"] > first["created"] == second["former"]["created"]
    assert set(second["former"]) == {"repo", "ref", "commit", "reference", "base", "created", "size"}
    newest = docker_host.images.get(image).id

    running, starting = accounts.add("running"), accounts.add("starting")
    assert service_hub.spawn(running.name, image).status_code in (201, 202)
    # Twice is as good as once; limits that come along are those of the image that is in use then.
    for _ in range(2):
        assert teacher.call("PATCH", path, {"previous": True, "description": "As it was"}).status_code == 200
        item = teacher.environments()[image]
        assert (item["previous"], item["created"], item["former"]["created"]) == (
            True,
            first["created"],
            second["created"],
        )
    assert item["description"] == "As it was" and item["users"] == [running.name]
    assert service_hub.spawn(starting.name, image).status_code in (201, 202)
    used = [docker_host.containers.get(container_name(one.name)).image.id for one in (running, starting)]
    assert used[0] == newest != used[1]
    assert teacher.environments()[image]["users"] == sorted([running.name, starting.name])
    # Somebody uses each of the two.
    assert teacher.call("DELETE", path).status_code == 409
    assert teacher.call("PATCH", path, {"previous": False}).status_code == 200
    assert docker_host.images.get(image).id == newest
    for one in (running, starting):
        service_hub.stop_server(one.name)
    assert teacher.call("DELETE", path).status_code == 200
    left = docker_host.images.list(filters={"label": f"tljh_repo2docker.image_name={image}"})
    assert left == []


def test_what_is_no_answer_to_the_question_is_refused(teacher, learner):
    path = f"api/environments/{quoted('plasmat-none:1')}"
    answer = teacher.call("PATCH", path, {"previous": "yes"})
    assert answer.status_code == 400 and answer.json()["message"] == "'previous' must be true or false."
    assert teacher.call("PATCH", path, {"previous": True}).status_code == 404
    assert learner.call("PATCH", path, {"previous": True}).status_code == 403


def test_an_archived_environment_is_offered_to_nobody_and_comes_back_as_it_was(
    teacher, service_hub, service_groups, environment, courses, accounts, docker_host, unique, clean_up
):
    repo = courses.make(unique, dockerfile(environment))
    image = teacher.add(repo=repo, memory="0.5", groups=service_groups[:1], description="Plots", buildargs="A=1")
    clean_up.append(image)
    path = f"api/environments/{quoted(image)}"
    assert teacher.call("POST", f"{path}/archive", {}).status_code == 409, "it is being built"
    built = teacher.wait_for(image, "built")
    assert built["build_seconds"] >= 0 and (built["last_used"], built["used_by"]) == ("", 0)
    secret = teacher.call("POST", f"{path}/webhook").json()["secret"]
    teacher.call("POST", f"{path}/build", {})
    teacher.wait_for(image, "built")

    person = accounts.add("user", "--groups", service_groups[0])
    assert service_hub.spawn(person.name, image).status_code in (201, 202)
    answer = teacher.call("POST", f"{path}/archive", {})
    assert answer.status_code == 409 and answer.json()["users"] == [person.name]
    assert "cannot be archived while it is in use by" in answer.json()["message"]
    service_hub.stop_server(person.name)
    used = teacher.environments()[image]
    assert used["last_used"] >= built["created"][:19] and used["used_by"] == 1

    for _ in range(2):
        assert teacher.call("POST", f"{path}/archive", {}).status_code == 200
    item = teacher.environments()[image]
    kept = ("repo", "ref", "name", "memory", "buildargs", "groups", "description", "webhook", "owner", "used_by")
    assert {name: item[name] for name in kept} == {name: used[name] for name in kept}
    assert (item["status"], item["has_image"], item["former"], item["message"]) == ("archived", False, None, "")
    assert docker_host.images.list(filters={"label": f"{envs.LABEL_IMAGE}={image}"}) == []
    assert service_hub.spawn(person.name, image).status_code == 400
    answer = teacher.call("POST", "api/environments", {"repo": repo})
    assert answer.status_code == 409 and "exists already" in answer.json()["message"]
    # Pushes do not bring it back.
    headers = {"X-Gitlab-Token": secret, "X-Gitlab-Event": "Push Hook"}
    pushed = teacher.call("POST", f"push/{quoted(image)}", {"ref": "refs/heads/main"}, headers)
    assert pushed.status_code == 200 and pushed.json()["message"] == SHELVED

    assert teacher.call("POST", f"{path}/build", {}).status_code == 202
    back = teacher.wait_for(image, "built")
    assert {name: back[name] for name in kept} == {name: used[name] for name in kept}
    assert service_hub.spawn(person.name, image).status_code in (201, 202)
    service_hub.stop_server(person.name)
    # Whoever is gone is not counted any more.
    assert service_hub.api("DELETE", f"/users/{person.name}").status_code == 204
    assert teacher.environments()[image]["used_by"] == 0
    # An image that somebody else removed is another matter.
    docker_host.images.remove(image, force=True)
    assert teacher.environments()[image]["status"] == "failed"


def test_an_image_that_was_made_elsewhere_is_archived_when_it_can_be_built_again(
    teacher, docker_host, unique, clean_up
):
    image = f"{unique}:1"
    clean_up.append(image)
    labels = {envs.LABEL_REPO: "https://example.org/repo", envs.LABEL_REF: "1", envs.LABEL_MEMORY: "512M"}
    names = {envs.LABEL_IMAGE: image, envs.LABEL_NAME: "Made elsewhere"}
    small_image(docker_host, **labels, **names).tag(unique, "1")
    path = f"api/environments/{quoted(image)}"
    assert teacher.call("POST", f"{path}/archive", {}).status_code == 200
    item = teacher.environments()[image]
    assert (item["status"], item["repo"], item["name"]) == ("archived", "https://example.org/repo", "Made elsewhere")
    assert item["limits"] == {"memory": 512 * 1024**2, "cpu": None}
    assert teacher.call("DELETE", path).status_code == 200 and image not in teacher.environments()


def test_only_administrators_archive(teacher, learner):
    path = f"api/environments/{quoted('plasmat-none:1')}/archive"
    assert learner.call("POST", path, {}).status_code == 403
    assert teacher.call("POST", path, {}).status_code == 404
