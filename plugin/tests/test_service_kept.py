"""What is kept of environments through the service: the former image, in the browser and by API."""

from __future__ import annotations

import pytest
from support_hub import container_name
from support_service import quoted

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
