"""Environments of pillar: what the operator's token opens at the service, and nobody else's."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests
from support_hub import TOKEN_HEADER, container_name
from support_registry import small_image
from support_service import PREFIX, Visitor, quoted
from tljh_plasma.access import Entry, Store
from tljh_plasma.operators import SERVICE, TOKEN_FILE, is_operator

from tests.support.git_repository import broken, dockerfile, slow

pytestmark = pytest.mark.docker

GB = 1024**3
EVIL = "https://evil.example.org"


class Operator:
    """Root on the machine, at the service's API: a token and nothing else."""

    def __init__(self, hub) -> None:
        self.hub = hub

    @property
    def token(self) -> str:
        return (self.hub.prefix / "state" / TOKEN_FILE).read_text()

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        headers = {TOKEN_HEADER: f"token {self.token}", **headers}
        url = f"{self.hub.url}{PREFIX}api/{path}"
        return requests.request(method, url, json=body, headers=headers, timeout=120, allow_redirects=False)

    def done(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = self.call(method, path, body)
        assert answer.ok, answer.text
        return answer.json()

    def environments(self) -> dict[str, dict[str, Any]]:
        return {item["image"]: item for item in self.done("GET", "environments")["environments"]}

    def add(self, **body: Any) -> str:
        return self.done("POST", "environments", body)["image"]

    def build(self, image: str, **body: Any) -> dict[str, Any]:
        self.done("POST", f"environments/{quoted(image)}/build", body)
        return self.wait(image)

    def change(self, image: str, **body: Any) -> dict[str, Any]:
        self.done("PATCH", f"environments/{quoted(image)}", body)
        return self.environments()[image]

    def tail(self, image: str, lines: int | None = None) -> dict[str, Any]:
        query = "" if lines is None else f"?lines={lines}"
        return self.done("GET", f"environments/{quoted(image)}/log/tail{query}")

    def wait(self, image: str, status: str = "built") -> dict[str, Any]:
        end = time.monotonic() + 120
        while (item := self.environments()[image])["status"] in ("queued", "building"):
            assert time.monotonic() < end, item
            time.sleep(0.3)
        assert item["status"] == status, self.tail(image)
        return item


@pytest.fixture(scope="module")
def operator(service_hub):
    return Operator(service_hub)


@pytest.fixture
def store(service_hub):
    return Store(service_hub.prefix / "state" / "plasma.sqlite")


def git(courses, unique: str, *arguments: str) -> str:
    """Output of git in a course's repository."""
    from tests.support.git_repository import Repository

    return Repository(courses.directory / unique).git(*arguments)


def commit(courses, unique: str, **files: str) -> str:
    """Commit files to a course; returns the hash."""
    from tests.support.git_repository import Repository

    return Repository(courses.directory / unique).commit(files)


def test_an_environment_of_pillar_from_its_commit_to_its_removal(
    operator, teacher, service_hub, service_groups, environment, courses, accounts, docker_host, store, unique, clean_up
):
    repo = courses.make(unique, dockerfile(environment))
    first = git(courses, unique, "rev-parse", "HEAD")
    second = commit(courses, unique, version="second\n")
    image = operator.add(
        repo=repo,
        ref="main",
        commit=first,
        name=unique,
        memory=0.5,
        cpu=0.5,
        description="Plots",
        groups=[service_groups[0]],
        buildargs="COURSE=one",
    )
    clean_up.append(image)
    assert image == f"{unique}:main"
    item = operator.wait(image)
    assert (item["commit"], item["ref"], item["repo"], item["reference"]) == (first, "main", repo, "")
    assert (item["source"], item["owner"], item["groups"]) == ("pillar", "pillar", [service_groups[0]])
    assert item["limits"] == {"memory": GB // 2, "cpu": 0.5} and item["buildargs"] == "COURSE=one"
    assert item["size"] > 10**6 and item["base"] == ""
    assert teacher.environments()[image] == item, "the page shows the same"

    # The branch has moved.
    item = operator.build(image, commit=second)
    assert (item["commit"], item["limits"], item["buildargs"]) == (
        second,
        {"memory": GB // 2, "cpu": 0.5},
        "COURSE=one",
    )

    # Other settings, while somebody uses it.
    member = accounts.add("pillared", "--groups", service_groups[0])
    assert service_hub.spawn(member.name, image).status_code in (201, 202)
    changed = operator.change(image, memory=0.25, cpu=None, description="Maps", groups=[])
    assert (changed["commit"], changed["status"], changed["created"]) == (second, "built", item["created"])
    assert changed["limits"] == {"memory": GB // 4, "cpu": None} and changed["cpu"] == 2.0
    assert store.get(image) == Entry((), "Maps", True)
    assert changed["users"] == [member.name]
    answer = operator.call("DELETE", f"environments/{quoted(image)}")
    assert (answer.status_code, answer.json()["users"]) == (409, [member.name])
    service_hub.stop_server(member.name)
    assert service_hub.spawn(member.name, image).status_code in (201, 202)
    container = docker_host.containers.get(container_name(member.name))
    assert container.attrs["HostConfig"]["Memory"] == GB // 4
    assert (member.home / unique / "version").read_text() == "second\n"
    service_hub.stop_server(member.name)
    operator.done("DELETE", f"environments/{quoted(image)}")
    assert image not in operator.environments() and store.get(image) == Entry()
    assert not docker_host.images.list(image)
    assert operator.call("DELETE", f"environments/{quoted(image)}").status_code == 404


def test_other_limits_do_not_bring_back_files_that_somebody_deleted(
    operator, service_hub, environment, courses, accounts, unique, clean_up
):
    """Files are copied once for each image, and this one has the files of before."""
    image = operator.add(repo=courses.make(unique, dockerfile(environment)), name=unique)
    clean_up.append(image)
    operator.wait(image)
    person = accounts.add("tidy")

    def start() -> None:
        assert service_hub.spawn(person.name, image).status_code in (201, 202)
        service_hub.stop_server(person.name)

    start()
    notebook = person.home / unique / "course.ipynb"
    notebook.unlink()
    operator.change(image, memory=0.5)
    start()
    assert not notebook.exists()
    operator.build(image, commit=commit(courses, unique, more="more\n"))
    start()
    assert notebook.exists(), "a new build has files of its own"


def test_a_failed_build_keeps_the_old_image_and_its_log_ends_with_the_reason(
    operator, environment, courses, unique, clean_up
):
    repo = courses.make(unique, dockerfile(environment))
    good = git(courses, unique, "rev-parse", "HEAD")
    image = operator.add(repo=repo, ref="main", commit=good, name=unique)
    clean_up.append(image)
    operator.wait(image)
    assert operator.tail(image)["lines"][-1] == f"The image {image} is ready."
    bad = commit(courses, unique, Dockerfile=dockerfile(environment, broken()))
    operator.done("POST", f"environments/{quoted(image)}/build", {"commit": bad})
    item = operator.wait(image, "failed")
    assert item["has_image"] and item["commit"] == good
    tail = operator.tail(image, 5)
    assert tail["status"] == "failed" and tail["image"] == image and len(tail["lines"]) == 5
    assert "The environment stays as it was before this build." in tail["lines"]
    assert "exit code" in tail["lines"][-1] and item["message"] == tail["lines"][-1]
    assert operator.tail(image)["lines"] == operator.tail(image, 1000)["lines"][-20:]
    assert "does not exist" in "\n".join(operator.tail(image, 1000)["lines"])
    for lines in ("0", "1001", "-1", "x", "", "²"):
        answer = operator.call("GET", f"environments/{quoted(image)}/log/tail?lines={lines}")
        assert answer.status_code == 400, lines
    assert operator.call("GET", "environments/plasmat-none%3A1/log/tail").status_code == 404
    # While it is being built there is what has come so far.
    waiting = commit(courses, unique, Dockerfile=dockerfile(environment, slow(8)))
    operator.done("POST", f"environments/{quoted(image)}/build", {"commit": waiting})
    end = time.monotonic() + 60
    while "slow step 1 " not in "\n".join((tail := operator.tail(image, 1000))["lines"]):
        assert time.monotonic() < end, tail
        time.sleep(0.2)
    assert tail["status"] == "building"
    answer = operator.call("PATCH", f"environments/{quoted(image)}", {"memory": 0.5})
    assert answer.status_code == 409 and "is being built" in answer.json()["message"]
    assert operator.call("POST", f"environments/{quoted(image)}/build", {}).status_code == 409
    assert operator.wait(image)["commit"] == waiting


def test_an_environment_of_the_browser_is_adopted_without_a_build(
    operator, teacher, environment, courses, docker_host, unique, clean_up
):
    repo = courses.make(unique, dockerfile(environment))
    image = teacher.add(repo=repo, ref="main", description="Of the browser")
    clean_up.append(image)
    item = teacher.wait_for(image, "built")
    assert (item["source"], item["commit"], item["owner"]) == ("browser", "", teacher.name)
    before = docker_host.images.get(image).id
    adopted = operator.change(image)
    assert adopted == {**item, "source": "pillar"}
    assert docker_host.images.get(image).id == before
    assert teacher.environments()[image]["source"] == "pillar"
    # Who changes it in the browser does not take it away from pillar.
    assert teacher.call("PATCH", f"api/environments/{quoted(image)}", {"description": "x"}).status_code == 200
    assert teacher.environments()[image]["source"] == "pillar"
    # Built again in the browser it is of the newest commit, whichever that was.
    newest = commit(courses, unique, version="new\n")
    assert operator.build(image, commit=newest)["commit"] == newest
    assert teacher.call("POST", f"api/environments/{quoted(image)}/build", {}).status_code == 202
    assert teacher.wait_for(image, "built")["commit"] == ""
    # Pillar is not where a new one of this name comes from.
    assert teacher.call("DELETE", f"api/environments/{quoted(image)}").status_code == 200
    teacher.add(repo=repo, ref="main")
    assert teacher.wait_for(image, "built")["source"] == "browser"


def test_a_whole_hash_as_reference_is_its_commit(operator, environment, courses, unique, clean_up):
    repo = courses.make(unique, dockerfile(environment))
    head = git(courses, unique, "rev-parse", "HEAD")
    image = operator.add(repo=repo, ref=head, name=unique)
    clean_up.append(image)
    assert image == f"{unique}:{head[:7]}"
    assert operator.wait(image)["commit"] == head


def test_a_ready_image_takes_the_place_of_a_repository(
    operator, teacher, service_hub, environment, courses, accounts, docker_host, unique, clean_up
):
    reference = f"{unique}-ready:2026"
    docker_host.images.get(environment).tag(*reference.split(":"))
    image = operator.add(reference=reference, name=unique, memory=0.5)
    clean_up.append(image)
    try:
        assert image == f"{unique}:2026"
        item = operator.wait(image)
        base = docker_host.images.get(reference).id
        assert (item["reference"], item["base"], item["repo"], item["ref"]) == (reference, base, "", "2026")
        assert (item["name"], item["commit"], item["limits"]) == (unique, "", {"memory": GB // 2, "cpu": None})
        person = accounts.add("readied")
        assert service_hub.spawn(person.name, image).status_code in (201, 202)
        service_hub.stop_server(person.name)
        # Another one under the same name, as from a newer file.
        newer = small_image(docker_host)
        newer.tag(*reference.split(":"))
        rebuilt = operator.build(image)
        assert (rebuilt["base"], rebuilt["reference"]) == (newer.id, reference)
        assert operator.change(image, cpu=0.5)["base"] == newer.id
        # From a repository, and back, under the same name.
        repo = courses.make(unique, dockerfile(environment))
        git(courses, unique, "branch", "2026")
        answer = operator.call("POST", f"environments/{quoted(image)}/build", {"repo": repo, "ref": "main"})
        assert answer.status_code == 400 and f"another environment, {unique}:main" in answer.json()["message"]
        rebuilt = operator.build(image, repo=repo, ref="2026", buildargs="A=b")
        assert (rebuilt["repo"], rebuilt["reference"], rebuilt["base"]) == (repo, "", "")
        assert teacher.call("POST", f"api/environments/{quoted(image)}/build", {}).status_code == 202
        assert operator.wait(image)["repo"] == repo
        rebuilt = operator.build(image, reference=reference)
        assert (rebuilt["repo"], rebuilt["reference"], rebuilt["buildargs"]) == ("", reference, "")
        operator.done("DELETE", f"environments/{quoted(image)}")
        assert docker_host.images.get(reference).id == newer.id, "it is not ours to remove"
    finally:
        docker_host.images.remove(reference, force=True)


def test_a_ready_image_that_cannot_be_had_fails_and_is_tried_again(
    operator, docker_host, environment, unique, clean_up
):
    reference = f"127.0.0.1:9/plasmat/{unique}:1"
    image = operator.add(reference=reference, name=unique)
    clean_up.append(image)
    item = operator.wait(image, "failed")
    assert not item["has_image"] and (item["reference"], item["repo"], item["ref"]) == (reference, "", "1")
    assert "cannot be downloaded" in item["message"]
    answer = operator.call("PATCH", f"environments/{quoted(image)}", {"memory": 0.5})
    assert answer.status_code == 409 and "no image yet" in answer.json()["message"]
    docker_host.images.get(environment).tag(*reference.rsplit(":", 1))
    try:
        assert operator.add(reference=reference, name=unique) == image
        assert operator.wait(image)["reference"] == reference
    finally:
        docker_host.images.remove(reference, force=True)


@pytest.mark.parametrize(
    "body",
    [
        {"reference": "course", "name": "x"},
        {"reference": "course:1"},
        {"reference": "course:1", "name": "x", "ref": "main"},
        {"reference": "course:1", "name": "x", "commit": "a" * 40},
        {"reference": "course:1", "name": "x", "buildargs": "A=b"},
        {"reference": "course:1", "repo": "https://192.0.2.1/x", "name": "x"},
        {"reference": "course:1\nRUN id", "name": "x"},
        {"repo": "https://192.0.2.1/x", "commit": "main"},
        {"repo": "https://192.0.2.1/x", "pull": True},
        {"repo": "https://192.0.2.1/x", "pull": "yes"},
        {"repo": "git@192.0.2.1:x"},
        {"repo": "ssh://git@192.0.2.1/x", "deploy_key": "secret-key"},
        {"repo": "https://192.0.2.1/x", "deploy_key": "secret-key", "known_hosts": "x ssh-rsa AAAA"},
        {"repo": "https://192.0.2.1/x", "groups": ["root"]},
        {"repo": "https://192.0.2.1/x", "memory": 100000},
        {"name": "x"},
    ],
)
def test_the_operator_too_is_told_what_cannot_be(operator, body, docker_host):
    before = operator.environments()
    answer = operator.call("POST", "environments", body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["message"].endswith(".") and "secret-key" not in answer.text
    assert operator.environments() == before


# Who gets in, and who does not.


def test_nobody_else_becomes_the_operator(operator, service_hub, accounts, learner, images, store):
    image = images("plasmat-kept:1", "Kept")
    token = operator.token
    body = {"description": "taken over"}

    def patch(**headers: str) -> requests.Response:
        url = f"{service_hub.url}{PREFIX}api/environments/{quoted(image)}"
        return requests.patch(url, json=body, headers=headers, timeout=30, allow_redirects=False)

    wrong = [
        {},
        {TOKEN_HEADER: "token "},
        {TOKEN_HEADER: f"token {'0' * 64}"},
        {TOKEN_HEADER: f"token {token[:-1]}"},
        {TOKEN_HEADER: f"token {token}0"},
        {TOKEN_HEADER: f"Basic {token}"},
        {"Cookie": f"service-plasma={token}"},
        {"X-Forwarded-User": SERVICE},
        {TOKEN_HEADER: f"token {service_hub.user_token(learner.name)}"},
    ]
    for headers in wrong:
        answer = patch(**headers)
        assert answer.status_code == 403, (headers, answer.text)
    # In the address it counts for nothing, and is in no log.
    url = f"{service_hub.url}{PREFIX}api/environments"
    assert requests.get(f"{url}?token={token}", timeout=30).status_code == 403
    # The token of another service, which the hub does not let in here.
    other = {TOKEN_HEADER: f"token {service_hub.service_token}"}
    assert patch(**other).status_code == 403
    assert store.get(image) == Entry()
    assert token not in service_hub.log()


def test_another_sites_page_gains_nothing_by_the_token(operator, images, store):
    """No page has it, but one that had is another site still; and a cookie beside it changes nothing."""
    image = images("plasmat-kept:1", "Kept")
    path = f"environments/{quoted(image)}"
    for headers in ({"Origin": EVIL}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Mode": "websocket"}):
        assert operator.call("PATCH", path, {"description": "x"}, **headers).status_code == 403
    assert store.get(image) == Entry()


def test_browsers_still_need_their_xsrf_token(operator, teacher, images, store):
    """That the operator needs none opens no way for a cookie, not even with a wrong token beside it."""
    image = images("plasmat-kept:1", "Kept")
    path = f"api/environments/{quoted(image)}"
    body = {"description": "x"}
    for headers in (
        {"X-XSRFToken": None},
        {"X-XSRFToken": "x"},
        {"X-XSRFToken": None, TOKEN_HEADER: f"token {'0' * 64}"},
        {"X-XSRFToken": None, TOKEN_HEADER: "token "},
    ):
        assert teacher.call("PATCH", path, body, headers).status_code == 403, headers
    assert store.get(image) == Entry()


def test_somebody_called_like_the_operator_is_nobody_special():
    assert is_operator({"kind": "service", "name": SERVICE})
    for visitor in (
        None,
        {},
        {"name": SERVICE},
        {"kind": "user", "name": SERVICE},
        {"kind": "user", "name": SERVICE, "admin": True},
        {"kind": "service", "name": "pillar"},
    ):
        assert not is_operator(visitor)


def test_what_an_administrator_does_is_not_pillars(service_hub, accounts, images, store, manager):
    """Not even with a token, or when their name says so."""
    image = images("plasmat-kept:1", "Kept")
    boss = service_hub.people["boss"].name
    headers = {TOKEN_HEADER: f"token {service_hub.user_token(boss)}"}
    url = f"{service_hub.url}{PREFIX}api/environments/{quoted(image)}"
    assert requests.patch(url, json={"description": "x"}, headers=headers, timeout=30).status_code == 200
    assert store.get(image) == Entry((), "x")
    assert requests.patch(url, json={"pillar": True}, headers=headers, timeout=30).status_code == 400
    assert requests.patch(url, json={"description": ""}, headers=headers, timeout=30).status_code == 200
    assert manager.environments()[image]["source"] == "browser"


def test_the_page_says_which_environments_are_pillars(operator, teacher, images, store):
    assert isinstance(teacher, Visitor)
    image = images("plasmat-declared:1", "Declared")
    operator.change(image)
    script = teacher.session.get(f"{teacher.url}static/environments.js", timeout=30).text
    assert 'source === "pillar"' in script
    assert teacher.environments()[image]["source"] == "pillar"
    store.remove(image)
