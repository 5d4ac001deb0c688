"""builds.sources: which ready images, ssh repositories, keys and known hosts are taken."""

from __future__ import annotations

import base64
import os
from dataclasses import replace

import pytest
from support_ssh import make_key
from tljh_plasma.builds import sources
from tljh_plasma.builds.container import command, configuration
from tljh_plasma.builds.request import BuildRefused, BuildRequest, checked, image_name

DIGEST = "0123456789abcdef" * 4
HOSTS = "git.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGq\n"
READY = BuildRequest("course:2026", "", "", "course", owner="ada", reference="registry.example.org/ada/course:2026")


def fake_key(cipher: bytes = b"none") -> str:
    content = b"openssh-key-v1\0" + len(cipher).to_bytes(4, "big") + cipher + os.urandom(200)
    text = base64.encodebytes(content).decode()
    return f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}-----END OPENSSH PRIVATE KEY-----\n"


SSH = BuildRequest(
    "course:main", "git@git.example.org:ada/course.git", "main", "Course", deploy_key=fake_key(), known_hosts=HOSTS
)


@pytest.mark.parametrize(
    ("reference", "tag"),
    [
        ("course:2026", "2026"),
        ("registry.example.org:5000/ada/course:v1.0", "v1.0"),
        ("localhost/course:1", "1"),
        (f"course@sha256:{DIGEST}", DIGEST),
        (f"registry.example.org/course:1@sha256:{DIGEST}", "1"),
    ],
)
def test_ready_images_that_are_taken(reference, tag):
    assert sources.ready_tag(reference) == tag
    request = checked(replace(READY, image=image_name("", tag, "course"), reference=reference))
    assert (request.ref, request.repo) == (tag, "")


def test_names_of_environments_of_ready_images():
    assert image_name("", "2026", "course") == "course:2026"
    assert image_name("", DIGEST, "course") == "course:0123456"


@pytest.mark.parametrize(
    "reference",
    [
        *(
            "course",
            "Course:1",
            "course:",
            "course:1 ",
            "-course:1",
            "course:1\nRUN id",
            "course:1 AS x",
            "--x:1",
            "a b:1",
        ),
        *(f"course@sha256:{DIGEST[1:]}", "http://registry/course:1", "registry//course:1", "../course:1", "$X:1"),
        *("course:1@sha256:x", "a" * 500 + ":1", "registry.example.org:port/course:1"),
    ],
)
def test_ready_images_that_are_refused(reference):
    with pytest.raises(BuildRefused, match="a tag or a digest"):
        checked(replace(READY, reference=reference))


@pytest.mark.parametrize(
    "also",
    [
        {"repo": "https://example.org/a/b"},
        {"commit": "a" * 40},
        {"buildargs": ("A=b",)},
        {"deploy_key": fake_key(), "known_hosts": HOSTS},
    ],
)
def test_a_ready_image_is_all_there_is(also):
    with pytest.raises(BuildRefused, match="takes the place of a repository"):
        checked(replace(READY, **also))


def test_credentials_of_a_registry_need_its_name():
    assert checked(replace(READY, username="ada", password="x")).password == "x"
    with pytest.raises(BuildRefused, match="name of its registry"):
        checked(replace(READY, reference="course:2026", password="x"))


@pytest.mark.parametrize(
    ("repo", "path"),
    [
        ("ssh://git@git.example.org/ada/course", "ada/course"),
        ("ssh://git@git.example.org:2222/ada/course.git", "ada/course.git"),
        ("ssh://git@[2001:db8::1]:22/~ada/course", "~ada/course"),
        ("git@git.example.org:ada/course.git", "ada/course.git"),
        ("ada@git:course", "course"),
        ("git@git.example.org:/srv/git/course", "/srv/git/course"),
    ],
)
def test_ssh_repositories_that_are_taken(repo, path):
    assert sources.is_ssh(repo) and sources.path_of(repo) == path
    assert checked(replace(SSH, repo=repo)).repo == repo


@pytest.mark.parametrize(
    "repo",
    [
        *("ssh://git.example.org/course", "ssh://-oProxyCommand=id/course", "ssh://-x@git.example.org/course"),
        *("ssh://git@-oProxyCommand=id/course", "ssh://git:password@git.example.org/course", "git@-oX:course"),
        *("git@git.example.org:-x", "git@git.example.org:a b", "git@git.example.org:$(id)", "git@git.example.org:"),
        *("git@git.example.org:a\nb", 'git@git.example.org:a"', "git@git.example.org:`id`", "ssh://git@x/a;b"),
        *("ext::sh -c id", "file:///srv/course", "/srv/course", "https://git.example.org/ada/course"),
    ],
)
def test_repositories_that_a_deploy_key_does_not_open(repo):
    with pytest.raises(BuildRefused) as caught:
        checked(replace(SSH, repo=repo))
    assert caught.value.status == 400 and "PRIVATE KEY" not in caught.value.message


def test_ssh_needs_a_key_and_known_hosts():
    with pytest.raises(BuildRefused, match="needs a deploy key and the known hosts"):
        checked(replace(SSH, deploy_key="", known_hosts=""))
    with pytest.raises(BuildRefused, match="needs a deploy key"):
        checked(replace(SSH, deploy_key=""))
    with pytest.raises(BuildRefused, match="needs the known hosts"):
        checked(replace(SSH, known_hosts="# nothing\n"))
    with pytest.raises(BuildRefused, match="https:// URL"):
        checked(replace(SSH, username="ada", password="x"))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "x",
            "git.example.org",
            "git.example.org ssh-ed25519",
            "git.example.org ssh-ed25519 not/base64!",
            "é ssh-rsa AA",
        ),
        *("a\0 ssh-rsa AA", "@revoked git.example.org ssh-rsa AAAA", HOSTS * 2000),
    ],
)
def test_known_hosts_that_are_refused(text):
    with pytest.raises(BuildRefused, match="known hosts must be lines"):
        checked(replace(SSH, known_hosts=text))


def test_known_hosts_that_are_taken():
    text = "# of the forge\n\n|1|abc=|def= ssh-rsa AAAA\n[git.example.org]:2222,192.0.2.1 ecdsa-sha2-nistp256 AAAA= x\n"
    assert sources.known_hosts(text).count("\n") == 2
    assert (
        sources.known_hosts("@cert-authority *.example.org ssh-rsa AAAA")
        == "@cert-authority *.example.org ssh-rsa AAAA\n"
    )


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_keys_that_are_taken(tmp_path, newline):
    made = make_key(tmp_path / "key")
    assert sources.private_key(made.replace("\n", newline).strip()) == made
    pem = "-----BEGIN RSA PRIVATE KEY-----\nTUlJRXBBSUJBQUtDQVFFQQ==\n-----END RSA PRIVATE KEY-----\n"
    assert sources.private_key(pem) == pem


def test_keys_that_are_refused(tmp_path):
    locked = make_key(tmp_path / "locked", "a passphrase")
    old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nTUlJ\n-----END RSA PRIVATE KEY-----\n"
    new = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nTUlJ\n-----END ENCRYPTED PRIVATE KEY-----\n"
    public = (tmp_path / "locked.pub").read_text()
    for text in (
        locked,
        old,
        new,
        public,
        "nothing",
        fake_key() * 2,
        fake_key(b"aes256-ctr"),
        fake_key().replace("-----END", ""),
    ):
        with pytest.raises(BuildRefused) as caught:
            sources.private_key(text)
        assert str(caught.value).endswith(".") and text.strip() not in str(caught.value)


def test_secrets_are_not_shown_and_in_no_argument():
    request = checked(SSH)
    line = request.deploy_key.splitlines()[1]
    for shown in (repr(request), command(request, "now"), configuration(request, "uid", "now", "builder:1")):
        assert line not in str(shown) and "AAAAC3" not in str(shown)


@pytest.mark.parametrize("commit", ["a" * 39, "A" * 40, "HEAD", "a" * 41, "--help" + "a" * 34])
def test_commits_that_are_refused(commit):
    with pytest.raises(BuildRefused, match="whole hash"):
        checked(BuildRequest("course:main", "https://example.org/a/b", "main", "Course", commit=commit))


def test_a_commit_is_built_under_the_name_of_its_branch():
    commit = "0123456789" * 4
    request = checked(BuildRequest("course:main", "https://example.org/a/b", "main", "Course", commit=commit))
    line = command(request, "now")
    assert f"--ref={commit}" in line and "--label=repo2docker.ref=main" in line
    assert f"--label=org.plasma.commit={commit}" in line


def test_pull_is_for_ready_images():
    assert checked(replace(READY, pull=True)).pull
    with pytest.raises(BuildRefused, match="Only a ready image"):
        checked(BuildRequest("course:main", "https://example.org/a/b", "main", "Course", pull=True))
