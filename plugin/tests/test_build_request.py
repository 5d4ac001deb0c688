"""builds.request: what may be built, and under which name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tljh_plasma.builds.container import command, configuration
from tljh_plasma.builds.request import BuildRefused, BuildRequest, checked, image_name

GOOD = BuildRequest("course:abc1234", "https://example.org/teacher/course", "abc1234", "Course", owner="ada")
UID = "6f1c8a52-6a83-4d0c-9d0e-3f3b8f6a0a11"


@pytest.mark.parametrize(
    ("repo", "ref", "name", "expected"),
    [
        ("https://example.org/plasmabio/template-python", "HEAD", "", "plasmabio-template-python:HEAD"),
        ("https://example.org/plasmabio/template-python", "", "", "plasmabio-template-python:HEAD"),
        ("https://example.org/a/b/", "a4edf334c6b4b16be3a184d0d6e8196137ee1b06", "Template", "template:a4edf33"),
        ("https://example.org/a/b.git", "v1.2", "", "a-b.git:v1.2"),
        ("https://example.org/a/b", "feature/x", "Cours d'été (L3)", "cours-d-ete-l3:feature-x"),
        ("https://example.org/~ada/x%20y", "main", "", "ada-x-20y:main"),
        ("https://example.org/a/b", "main", "../../etc", "etc:main"),
        ("https://example.org/a/b", "main", "--help", "help:main"),
        ("https://example.org/a/b", "main", "a._-b", "a-b:main"),
        ("https://example.org/a/b", "main", "a__b", "a__b:main"),
    ],
)
def test_names_of_images(repo, ref, name, expected):
    assert image_name(repo, ref, name) == expected
    assert checked(BuildRequest(expected, repo, ref, name)).image == expected


@pytest.mark.parametrize(
    ("repo", "ref", "name"),
    [
        ("https://example.org", "main", ""),
        ("https://[x/a", "m", ""),
    ],
)
def test_no_name_can_be_made(repo, ref, name):
    with pytest.raises(BuildRefused) as caught:
        image_name(repo, ref, name)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "repo",
    [
        "",
        "course",
        "/root",
        ".",
        "file:///root",
        "ext::sh -c id",
        "--config=/tmp/x",
        "-c",
        "--help-all",
        "ssh://git@example.org/course",
        "git@example.org:teacher/course.git",
        "https://",
        "https://example.org",
        "https:///course",
        "https://-oProxyCommand=x/course",
        "https://example.org/a b",
        "https://example.org/a\n--help",
        "https://example.org/$(id)",
        "https://example.org/${HOME}",
        'https://example.org/"',
        "https://example.org/`id`",
        "https://example.org/a?x=1",
        "https://example.org:port/a",
        "https://example.org/a\\b",
        "git://user:password@example.org/a",
        "https://example.org/" + "a" * 1000,
    ],
)
def test_repositories_that_are_refused(repo):
    with pytest.raises(BuildRefused) as caught:
        checked(replace(GOOD, repo=repo))
    assert caught.value.status == 400
    assert "URL" in caught.value.message and caught.value.message.endswith(".")


@pytest.mark.parametrize(
    "repo",
    [
        "https://example.org/teacher/course",
        "http://192.0.2.1:8080/course.git",
        "git://192.0.2.1:9418/course",
        "https://example.org/group/-/sub.group/course+more/~x/",
        "https://[2001:db8::1]:8443/course",
    ],
)
def test_repositories_that_are_taken(repo):
    assert checked(replace(GOOD, repo=repo)).repo == repo


@pytest.mark.parametrize(
    "ref",
    ["-x", "--upload-pack=id", "a b", "a\nb", "a..b", "HEAD@{1}", "a:b", "a~1", "$(id)", '"', "é", "x" * 201, "/a"],
)
def test_references_that_are_refused(ref):
    with pytest.raises(BuildRefused, match="reference"):
        checked(replace(GOOD, ref=ref))


@pytest.mark.parametrize("ref", ["main", "v1.2.3", "feature/x-y_z", "release+1", "fix#12", "a4edf334c6b4b16be3a184d0"])
def test_references_that_are_taken(ref):
    assert checked(replace(GOOD, ref=ref)).ref == ref


@pytest.mark.parametrize(
    "image",
    [
        "",
        "course",
        "course:",
        "Course:1",
        "a/b:1",
        "plasma-build/a:1",
        "-a:1",
        "a:-1",
        "a:1:2",
        "a b:1",
        "a:" + "1" * 129,
    ]
    + ["registry.example.org:5000/a:1", "a@sha256:" + "0" * 64, "a:1\n", "../a:1", "a" * 250 + ":12345"],
)
def test_images_that_are_refused(image):
    with pytest.raises(BuildRefused, match="image"):
        checked(replace(GOOD, image=image))


@pytest.mark.parametrize("value", ['a"b', "a\\", "$HOME", "a\nb", "a\x00b", "a\u202eb", "a\u2028b", "x" * 201])
def test_names_that_are_refused(value):
    if value in ("a\nb", "a\u2028b"):  # white space in a display name is made one space
        assert checked(replace(GOOD, name=value)).name == "a b"
    else:
        with pytest.raises(BuildRefused, match="name of an environment"):
            checked(replace(GOOD, name=value))
    if len(value) < 200:
        with pytest.raises(BuildRefused, match="administrator"):
            checked(replace(GOOD, owner=value))


@pytest.mark.parametrize("name", ["Cours d'été (2026)", "100% `ls` #1 {{ 7*7 }} <b>", "--help", "日本語", "a=b"])
def test_names_that_are_taken(name):
    assert checked(replace(GOOD, name=name)).name == name


def test_what_is_left_empty_is_filled_in():
    request = checked(replace(GOOD, name=" ", ref=" "))
    assert (request.name, request.ref) == ("course", "HEAD")
    assert (request.memory_label, request.cpu_label) == ("", "")


@pytest.mark.parametrize(
    ("memory", "label"), [(2 * 1024**3, "2G"), (1536 * 1024**2, "1536M"), (64 * 1024**2 + 1, "67108865")]
)
def test_memory_limit(memory, label):
    assert checked(replace(GOOD, memory=memory)).memory_label == label


@pytest.mark.parametrize("memory", [0, -1, 1024, True])
def test_memory_limits_that_are_refused(memory):
    with pytest.raises(BuildRefused, match="memory limit must be at least 32 MB"):
        checked(replace(GOOD, memory=memory))


@pytest.mark.parametrize("cpu", [0.0, -1.0, float("nan"), float("inf"), True])
def test_cpu_limits_that_are_refused(cpu):
    with pytest.raises(BuildRefused, match="CPU limit"):
        checked(replace(GOOD, cpu=cpu))


@pytest.mark.parametrize("argument", ["A", "=x", "1A=x", "A B=x", "-A=x", "A=x\nRUN id", "A=\x00", "A=" + "x" * 4096])
def test_build_arguments_that_are_refused(argument):
    with pytest.raises(BuildRefused, match="NAME=VALUE"):
        checked(replace(GOOD, buildargs=("OK=1", argument)))


def test_build_arguments_of_repo2docker_are_refused():
    with pytest.raises(BuildRefused, match="NB_UID cannot be set"):
        checked(replace(GOOD, buildargs=("NB_UID=0",)))
    with pytest.raises(BuildRefused, match="at most 50"):
        checked(replace(GOOD, buildargs=("A=1",) * 51))


def test_credentials_leave_the_url():
    request = checked(replace(GOOD, repo="https://bob:p%40ss@example.org:8443/course"))
    assert (request.repo, request.username, request.password) == ("https://example.org:8443/course", "bob", "p@ss")
    assert "p@ss" not in repr(request) and "bob" not in repr(request)
    given = checked(replace(GOOD, repo="https://bob:old@example.org/course", username="ada", password="new"))
    assert (given.username, given.password) == ("ada", "new")


@pytest.mark.parametrize("password", ["a\nb", "a\x00b", "x" * 1025])
def test_passwords_that_are_refused_are_not_shown(password):
    with pytest.raises(BuildRefused, match="cannot be used") as caught:
        checked(replace(GOOD, username="bob", password=password))
    assert password not in caught.value.message


def test_git_protocol_takes_no_credentials():
    with pytest.raises(BuildRefused, match="https://"):
        checked(replace(GOOD, repo="git://example.org/course", username="bob", password="x"))


def test_every_value_of_the_command_line_belongs_to_its_option():
    request = checked(replace(GOOD, name="--help", buildargs=("A=--b c",), username="bob", password="s3cret"))
    line = command(request, "now")
    assert line[-2:] == ["--", request.repo]
    assert all(word.startswith("--") and ("=" in word or word == "--no-run") for word in line[1:-2])
    assert "--label=tljh_repo2docker.display_name=--help" in line and "--build-arg=A=--b c" in line


def test_the_container_holds_nothing_secret_and_little_power(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///somewhere/docker.sock")
    made = configuration(replace(GOOD, username="bob", password="s3cret"), UID, "now", "builder:1")
    assert "s3cret" not in repr(made) and "bob" not in repr(made)
    host = made["HostConfig"]
    assert host["CapDrop"] == ["ALL"] and host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] == host["MemorySwap"] > 0 and host["PidsLimit"] > 0
    assert [mount["Source"] for mount in host["Mounts"]] == ["/somewhere/docker.sock"]
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2376")
    assert configuration(GOOD, UID, "now", "b:1")["HostConfig"]["Mounts"][0]["Source"] == "/var/run/docker.sock"
