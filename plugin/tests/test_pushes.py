"""Rebuild on push: who may tell of one, which pushes count, and what comes of it."""

from __future__ import annotations

import hashlib
import hmac
import json
from urllib.parse import quote

import pytest
import requests
from support_hub import wait_until
from support_service import PREFIX, quoted
from tljh_plasma.access import Store
from tljh_plasma.service.errors import Refused
from tljh_plasma.service.pushes import concerns, is_signed, payload

from tests.support.git_repository import Repository, dockerfile, slow

SECRET = "a-secret"
BODY = b'{"ref": "refs/heads/main"}'
ZEROS = "0" * 40


def signature(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Hub-Signature-256": f"sha256={signature(SECRET, BODY)}"},
        {"X-Gitea-Signature": signature(SECRET, BODY)},
        {"X-Gitlab-Token": SECRET},
        # A wrong one beside a right one, as somebody in between could add.
        {"X-Gitlab-Token": SECRET, "X-Gitea-Signature": "x"},
    ],
)
def test_every_platform_signs_in_its_way(headers):
    assert is_signed(headers, BODY, SECRET)
    assert not is_signed(headers, BODY, "another-secret")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": ""},
        {"X-Hub-Signature-256": "sha256="},
        {"X-Hub-Signature-256": signature(SECRET, BODY)},
        {"X-Hub-Signature-256": f"sha256={signature(SECRET, BODY + b' ')}"},
        {"X-Gitea-Signature": signature("", BODY)},
        {"X-Gitlab-Token": ""},
        {"X-Gitlab-Token": "a-secre\u0301t"},
        # SHA-1, which GitHub still sends along.
        {"X-Hub-Signature": f"sha1={hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest()}"},
    ],
)
def test_what_is_not_signed(headers):
    assert not is_signed(headers, BODY, SECRET)


GITHUB = {"ref": "refs/heads/main", "after": "1" * 40, "repository": {"default_branch": "main"}}
GITLAB = {"ref": "refs/heads/main", "repository": {"name": "course"}, "project": {"default_branch": "main"}}


@pytest.mark.parametrize(
    ("event", "ref", "expected"),
    [
        (GITHUB, "main", True),
        (GITHUB, "HEAD", True),
        (GITHUB, "", True),
        (GITLAB, "HEAD", True),
        (GITHUB, "autumn", False),
        (GITHUB, "mai", False),
        ({**GITHUB, "ref": "refs/heads/autumn"}, "HEAD", False),
        ({**GITHUB, "ref": "refs/heads/feature/x"}, "feature/x", True),
        ({**GITHUB, "ref": "refs/tags/v1"}, "v1", True),
        ({**GITHUB, "ref": "refs/tags/main"}, "HEAD", False),
        # A branch that is removed cannot be built.
        ({**GITHUB, "deleted": True}, "main", False),
        ({**GITLAB, "after": ZEROS}, "main", False),
        ({**GITHUB, "ref": "refs/heads/main"}, "0123456789abcdef0123456789abcdef01234567", False),
        # From somebody who has the secret and writes what they like.
        ({}, "main", False),
        ({}, "HEAD", False),
        ({"ref": ["refs/heads/main"], "repository": "main", "project": 3}, "HEAD", False),
        ({"ref": None, "repository": {"default_branch": None}}, "HEAD", False),
    ],
)
def test_which_pushes_count(event, ref, expected):
    assert concerns(event, ref) is expected


def test_bodies_of_platforms():
    assert payload("application/json; charset=utf-8", BODY) == {"ref": "refs/heads/main"}
    wrapped = f"payload={quote(BODY.decode())}".encode()
    assert payload("application/x-www-form-urlencoded", wrapped) == {"ref": "refs/heads/main"}
    for kind, body in (
        ("application/json", b"["),
        ("application/json", b"[]"),
        ("application/json", b"\xff"),
        ("application/json", b"[" * 100_000),
        ("application/x-www-form-urlencoded", b"pay=1"),
        ("application/x-www-form-urlencoded", b"\xff"),
    ):
        with pytest.raises(Refused):
            payload(kind, body)


class Platform:
    """What has the repository, and tells of pushes."""

    def __init__(self, hub, image: str, secret: str) -> None:
        self.url = f"{hub.url}{PREFIX}push/{quoted(image)}"
        self.secret = secret

    def tell(self, event: dict, kind: str = "push", **headers: str) -> requests.Response:
        body = json.dumps(event).encode()
        signed = {"X-Hub-Signature-256": f"sha256={signature(self.secret, body)}"}
        sent = {"Content-Type": "application/json", "X-GitHub-Event": kind, **signed, **headers}
        return requests.post(self.url, data=body, headers=sent, timeout=30)


@pytest.mark.docker
def test_a_push_builds_the_environment_again(teacher, service_hub, environment, courses, docker_host, unique, clean_up):
    repo = courses.make(unique, dockerfile(environment, "ENV STEP=one"))
    image = teacher.add(repo=repo)
    clean_up.append(image)
    teacher.wait_for(image, "built")
    path = f"api/environments/{quoted(image)}/webhook"
    # Nobody has a secret yet, the empty one included.
    for secret in ("", "none", "None"):
        assert Platform(service_hub, image, secret).tell(GITHUB).status_code == 403
    answer = teacher.call("POST", path)
    assert answer.status_code == 201, answer.text
    secret = answer.json()["secret"]
    assert len(secret) > 40
    listed = teacher.call("GET", "api/environments").text
    assert secret not in listed and secret not in service_hub.log()
    assert teacher.environments()[image]["webhook"] is True

    platform = Platform(service_hub, image, secret)
    first = docker_host.images.get(image).id
    for event, kind in ((GITHUB, "ping"), ({**GITHUB, "ref": "refs/heads/other"}, "push"), (GITHUB, "issues")):
        answer = platform.tell(event, kind)
        assert answer.status_code == 200 and "nothing is built" in answer.json()["message"], answer.text
    assert platform.tell(GITHUB, **{"X-Hub-Signature-256": "sha256=0"}).status_code == 403
    # A page of another site that somehow has the secret.
    assert platform.tell(GITHUB, Origin="https://evil.example.org").status_code == 403
    assert Platform(service_hub, "no-such:1", secret).tell(GITHUB).status_code == 403
    answer = requests.post(platform.url, data=b" " * (1024 * 1024 + 1), timeout=30)
    assert answer.status_code == 413
    assert docker_host.images.get(image).id == first

    # Pushes that come while it is built count once more, and what they brought is in it.
    repository = Repository(courses.directory / unique)
    repository.commit({"Dockerfile": dockerfile(environment, "ENV STEP=two", slow(4))})
    assert platform.tell(GITHUB).status_code == 202
    wait_until(lambda: "slow step 1" in log(teacher, image), 60, "the build of the first push")
    repository.commit({"Dockerfile": dockerfile(environment, "ENV STEP=three")})
    for _ in range(3):
        assert platform.tell(GITHUB).status_code == 202
    wait_until(lambda: "STEP=three" in str(docker_host.images.get(image).attrs["Config"]["Env"]), 90, "the last push")
    teacher.wait_for(image, "built")
    # In the place of the first one.
    answer = teacher.call("POST", path)
    assert platform.tell(GITHUB).status_code == 403
    again = Platform(service_hub, image, answer.json()["secret"])
    assert again.tell(GITHUB, "ping").status_code == 200
    assert teacher.call("DELETE", path).status_code == 200
    assert again.tell(GITHUB, "ping").status_code == 403
    assert teacher.environments()[image]["webhook"] is False
    # It goes with the environment.
    teacher.call("POST", path)
    store = Store(service_hub.prefix / "state" / "plasma.sqlite")
    assert store.webhook(image)
    assert teacher.call("DELETE", f"api/environments/{quoted(image)}").status_code == 200
    assert store.webhook(image) == ""


def log(teacher, image: str) -> str:
    answer = teacher.call("GET", f"api/environments/{quoted(image)}/log/tail?lines=50")
    return "\n".join(answer.json()["lines"])


@pytest.mark.docker
def test_who_gets_no_webhook(teacher, images):
    ready = images("plasmat-ready:1", "Ready", commands="LABEL org.plasma.reference=example.org/ready:1")
    answer = teacher.call("POST", f"api/environments/{quoted(ready)}/webhook")
    assert answer.status_code == 409 and "comes from a ready image" in answer.json()["message"]
    for method in ("POST", "DELETE"):
        assert teacher.call(method, f"api/environments/{quoted('no-such:1')}/webhook").status_code == 404
