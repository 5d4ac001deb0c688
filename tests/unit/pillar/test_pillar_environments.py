"""Environments: which keys go together, where secrets end, and what states get."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess

import pytest

from tests.unit.pillar.conftest import MARKER

HOST = "git.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGbNmVb0f3y8PzTb6Gq1n9zqJQKX6mEwS4DqK5JbWc0v"
HTTPS, SSH = "https://git.example.org/r.git", "git@git.example.org:courses/r.git"


def openssh(cipher: bytes = b"none") -> str:
    """The shape of a key in OpenSSH's format, with a marker in the place of the key."""
    content = b"openssh-key-v1\0" + len(cipher).to_bytes(4, "big") + cipher + MARKER.encode()
    body = base64.b64encode(content).decode()
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}\n-----END OPENSSH PRIVATE KEY-----\n"


def course(**keys):
    return {"environments": [{"name": "r", **keys}]}


@pytest.mark.parametrize(
    ("keys", "key", "reason"),
    [
        ({}, "repository", "is required"),
        ({"repository": HTTPS, "image": "a/b:1"}, "image", "is set beside repository"),
        ({"repository": HTTPS, "image_file": "/srv/r.tar"}, "image_file", "needs `image` in place of repository"),
        ({"image_file": "/srv/r.tar"}, "repository", "is required"),
        ({"image": "a/b:1", "build_args": {"A": "1"}}, "build_args", "needs a repository"),
        ({"image": "a/b:1", "deploy_key": openssh()}, "deploy_key", "needs a repository"),
        ({"image": "a/b:1", "image_file": "/a", "credentials": {"password": "x"}}, "credentials", "nobody asks"),
        ({"image": f"a/b@sha256:{'a' * 64}", "image_file": "/a"}, "image", "has a digest"),
        ({"image": "r:2026"}, "image", "is what the environment's own image is called"),
        ({"image": "course"}, "image", "names neither a tag nor a digest"),
        ({"repository": SSH}, "deploy_key", "is required with a repository that is reached by SSH"),
        ({"repository": SSH, "deploy_key": openssh()}, "known_hosts", "is required with deploy_key"),
        ({"repository": HTTPS, "known_hosts": HOST}, "known_hosts", "needs deploy_key beside it"),
        ({"repository": HTTPS, "deploy_key": openssh(), "known_hosts": HOST}, "deploy_key", "needs a repository with"),
        ({"repository": "git://b/c", "credentials": {"password": "x"}}, "credentials", "https:// URL"),
        ({"repository": HTTPS, "credentials": {"username": "x"}}, "credentials.password", "is required"),
        ({"repository": HTTPS, "credentials": {"password": ""}}, "credentials.password", "is empty"),
        ({"repository": HTTPS, "wait": 60}, "wait", "needs `absent: true` beside it"),
        ({"repository": HTTPS, "archived": True, "previous": True}, "archived", "is set beside previous"),
        ({"repository": HTTPS, "groups": ["g", "g"]}, "groups[1]", "is already the value of"),
        ({"repository": HTTPS, "memory": "128M"}, "memory", "is less than 256M"),
        ({"repository": HTTPS, "cpu": 0.05}, "cpu", "is out of range"),
        ({"repository": HTTPS, "opens": "jupyter"}, "opens", "is neither one of these names nor a path"),
        ({"repository": HTTPS, "opens": "//evil.example.org"}, "opens", "could lead out of the server"),
        ({"repository": HTTPS, "opens": "/lab?next=https://a.b"}, "opens", "has an address in its query"),
        ({"repository": HTTPS, "gpus": 17}, "gpus", "is too large"),
        ({"repository": HTTPS, "gpus": "all"}, "gpus", "is not a whole number. Allowed: a whole number from 0 to 16"),
        ({"repository": HTTPS, "gpus": 1}, "gpus", "needs `plasma.gpu.enabled: true`"),
    ],
)
def test_what_does_not_go_together(problems, keys, key, reason):
    line = problems({**course(**keys), "groups": ["g"]})[0]
    assert line.startswith(f"plasma.environments[0].{key}")
    assert reason in line


@pytest.mark.parametrize(
    "keys",
    [
        {"repository": HTTPS},
        {"repository": HTTPS, "credentials": {"password": "x"}, "ref": "feature/x_1", "memory": "256M", "cpu": 0.1},
        {"repository": HTTPS, "opens": "/lab/tree/first.ipynb"},
        {"repository": "http://172.17.0.1:3000/teacher/r", "credentials": {"username": "deploy", "password": "a b"}},
        {"repository": SSH, "deploy_key": openssh(), "known_hosts": HOST},
        {"repository": "ssh://git@example.org:22/r.git", "deploy_key": openssh(), "known_hosts": f"# c\n\n{HOST}\n"},
        {"image": "registry.example.org/r:2026", "credentials": {"password": "x"}},
        {"image": "registry.example.org/r:2026", "image_file": "/srv/r.tar", "groups": []},
        {"image": f"registry.example.org/r@sha256:{'a' * 64}"},
        # An entry that became `absent` keeps its other keys.
        {"absent": True, "wait": 60, "repository": SSH, "groups": ["gone"]},
        {"absent": True},
    ],
)
def test_what_goes_together(complete, keys):
    (found,) = complete(course(**keys))["environments"]
    assert found["name"] == "r"


def test_groups_that_pillar_does_not_make_are_for_the_server_to_know(complete):
    groups = ["biology", "students of maths", "Maths@example.org", "EXAMPLE\\maths", "R&D (2026)", "mathsldap"]
    users = [{"name": "anna", "groups": ["biology"]}]
    found = complete({**course(repository=HTTPS, groups=groups), "users": users})
    assert found["environments"][0]["groups"] == groups
    assert found["external_groups"] == groups[1:]
    # The page offers them, too.
    assert found["hub_config"]["plasma"]["groups"] == groups


@pytest.mark.parametrize(
    "key",
    [
        MARKER,
        openssh().replace("OPENSSH", "EC", 1),
        openssh().replace("PRIVATE", "PUBLIC"),
        openssh(b"aes256-ctr"),
        f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{MARKER}\n-----END RSA PRIVATE KEY-----\n",
        f"{openssh()}{MARKER}",
        openssh() * 200,
    ],
)
def test_keys_that_cannot_be_used(problems, key):
    lines = problems(course(repository=SSH, deploy_key=key, known_hosts=HOST))
    assert lines[0].startswith("plasma.environments[0].deploy_key: ******** ")


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
@pytest.mark.parametrize(("options", "usable"), [([], True), (["-m", "PEM", "-t", "rsa"], True), (["-N", "x"], False)])
def test_keys_as_they_are_really_made(external_pillar, tmp_path, options, usable):
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key"), *options]
    subprocess.run(command, check=True)
    entry = course(repository=SSH, deploy_key=(tmp_path / "key").read_text(), known_hosts=HOST)
    assert ("_errors" not in external_pillar.ext_pillar("server", {"plasma": entry})) is usable


@pytest.mark.parametrize("hosts", ["", "# only a comment", "git.example.org", f"{HOST}\ngarbage", "* * *"])
def test_known_hosts_are_those_of_ssh(problem, hosts):
    line = problem(course(repository=SSH, deploy_key=openssh(), known_hosts=hosts))
    assert "known_hosts" in line


def test_secrets_stand_apart_from_what_states_get_as_arguments(complete):
    plasma = complete(
        {
            "environments": [
                {"name": "r", "repository": HTTPS, "credentials": {"password": MARKER}, "build_args": {"A": MARKER}},
                {"name": "s", "repository": SSH, "deploy_key": openssh(), "known_hosts": HOST},
                {"name": "t", "repository": HTTPS},
                {"name": "u", "absent": True, "wait": 5, "credentials": {"password": MARKER}},
            ]
        }
    )
    text = json.dumps(plasma["environments"])
    assert MARKER not in text
    assert "PRIVATE KEY" not in text
    assert plasma["environments"][3] == {"name": "u", "absent": True, "wait": 5}
    assert plasma["environment_secrets"] == {
        "r": {"build_args": {"A": MARKER}, "credentials": {"username": "git", "password": MARKER}},
        "s": {"deploy_key": openssh(), "known_hosts": f"{HOST}\n"},
    }
    # What goes takes its secrets along: they do not get as far as the server.
    assert json.dumps(plasma).count(MARKER) == 2


def test_what_is_not_said_is_told_apart_from_nothing(complete):
    (found,) = complete(course(repository=HTTPS))["environments"]
    assert (found["groups"], found["description"], found["memory"]) == (None, None, None)
    # Nothing that is there goes without a word.
    assert (found["replace"], found["absent"]) == (False, False)
    (found,) = complete(course(repository=HTTPS, groups=[]))["environments"]
    assert found["groups"] == []
