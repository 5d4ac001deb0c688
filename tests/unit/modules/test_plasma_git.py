"""Commits of branches and tags, asked as nobody: of real repositories, with and without credentials."""

from __future__ import annotations

import base64
import http.server
import json
import os
import pathlib
import subprocess
import tempfile
import threading

import pytest
import requests
from salt.exceptions import CommandExecutionError

import plasma_git as git
from tests.support.git_repository import make_repository, serve, serve_private

PASSWORD = """pa"s's $word` \\n%s"""
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nMarker-of-the-key\n-----END OPENSSH PRIVATE KEY-----\n"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
pytestmark = needs_root


@pytest.fixture
def configure_loader_modules():
    return {git: {}}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    directory = tmp_path_factory.mktemp("repositories")
    made = make_repository(directory / "course", "FROM x\n")
    made.git("tag", "light")
    made.git("tag", "-a", "-m", "a tag", "heavy")
    made.commits = {"HEAD": made.git("rev-parse", "HEAD")}
    made.commits["feature/x"] = made.branch("feature/x", {"a": "b"})
    made.git("branch", "heavy", "feature/x")
    return made


@pytest.fixture(scope="module")
def address(repository):
    with serve(repository.path.parent, "127.0.0.1") as served:
        yield f"{served}/course"


@pytest.fixture(scope="module")
def private(repository):
    with serve_private(repository.path.parent, "127.0.0.1", "teacher", PASSWORD) as served:
        yield f"{served}/course/.git"


@pytest.mark.parametrize("ref", ["HEAD", "main", "light", "feature/x"])
def test_branches_and_tags(address, repository, ref):
    assert git.commit(address, ref) == repository.commits.get(ref, repository.commits["HEAD"])


def test_of_a_tag_and_a_branch_of_one_name_it_is_the_commit_of_the_tag(address, repository):
    assert git.commit(address, "heavy") == repository.commits["HEAD"]


def test_a_whole_commit_is_asked_of_nobody(monkeypatch):
    monkeypatch.setattr(git, "available", lambda: False)
    assert git.commit("https://nowhere.invalid/a", "a" * 40) == "a" * 40


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("nope", "has no branch or tag nope."),
        ("x", "has no branch or tag x."),
        ("abcdef12", "if that is the beginning of a commit, write all 40 digits of it."),
    ],
)
def test_what_is_not_there(address, ref, words):
    with pytest.raises(CommandExecutionError) as caught:
        git.commit(address, ref)
    assert str(caught.value).startswith(address)
    assert str(caught.value).endswith(words)


def test_a_password_reaches_the_server_whatever_is_in_it(private, repository):
    credentials = {"username": "teacher", "password": PASSWORD}
    assert git.commit(private, "main", credentials=credentials) == repository.commits["HEAD"]


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        (None, r"it needs credentials, or does not exist\)\.$"),
        ({"username": "teacher", "password": "Marker"}, r"its server does not accept the credentials\)\.$"),
    ],
)
def test_a_private_repository_without_the_password(private, credentials, words):
    with pytest.raises(CommandExecutionError, match=words) as caught:
        git.commit(private, "main", credentials=credentials)
    assert "Marker" not in str(caught.value)


def test_a_password_goes_to_its_own_host_alone(private, monkeypatch):
    """A server may send us to another one: Git would ask again there."""
    seen = []
    real = git._run
    monkeypatch.setattr(
        git, "_run", lambda command, variables, *rest: seen.append(variables) or real(command, variables, *rest)
    )
    git.commit(private, "main", credentials={"username": "teacher", "password": PASSWORD})
    host = private.removesuffix("/course/.git")
    assert seen[0]["GIT_CONFIG_KEY_0"] == f"credential.{host}.helper"
    elsewhere = subprocess.run(
        ["git", "credential", "fill"],
        input="protocol=http\nhost=127.0.0.1:1\n\n",
        env=seen[0],
        capture_output=True,
        text=True,
        check=False,
    )
    assert elsewhere.returncode != 0
    assert PASSWORD not in elsewhere.stdout


class Proxy(http.server.BaseHTTPRequestHandler):
    """Knows where ``repositories.invalid`` is, and tells whoever has the login of its server."""

    def do_GET(self):  # the name that http.server calls
        login = f"Basic {base64.b64encode(self.server.login.encode()).decode()}"
        self.server.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        if self.headers.get("Proxy-Authorization") != login:
            status, kind, text = 407, "text/plain", b"who are you?"
        else:
            session = requests.Session()
            session.trust_env, session.auth = False, ("teacher", PASSWORD)
            answer = session.get(self.path.replace("http://repositories.invalid", self.server.behind), timeout=30)
            status, kind, text = answer.status_code, answer.headers["Content-Type"], answer.content
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        if status == 407:
            self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


@pytest.fixture
def proxy(private):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.login, server.behind, server.asked = "teacher:Marker@1", private.removesuffix("/course/.git"), []
    server.address = f"teacher:Marker%401@127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_server_behind_a_proxy_is_asked_through_it(proxy, repository):
    known = {"http_proxy": f"http://{proxy.address}", "https_proxy": None}
    assert git.commit("http://repositories.invalid/course/.git", "main", proxy=known) == repository.commits["HEAD"]
    assert proxy.asked[-1][0].startswith("http://repositories.invalid/course/.git/")


def test_what_is_reached_without_the_proxy(proxy, private, repository):
    known = {"http_proxy": f"http://{proxy.address}"}
    credentials = {"username": "teacher", "password": PASSWORD}
    assert git.commit(private, "main", credentials, proxy=known) == repository.commits["HEAD"]
    assert proxy.asked
    proxy.asked.clear()
    known["no_proxy"] = "localhost,127.0.0.1"
    assert git.commit(private, "main", credentials, proxy=known) == repository.commits["HEAD"]
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (
            "http://teacher:Marker@127.0.0.1:{}",
            "the proxy of plasma.hub.sources does not accept its login, or wants one",
        ),
        ("http://127.0.0.1:{}", "the proxy of plasma.hub.sources does not accept its login, or wants one"),
        ("http://teacher:Marker@127.0.0.1:1", "127.0.0.1"),
        ("nothing://teacher:Marker@127.0.0.1:{}", "[Pp]roxy"),
        ("http://teacher:Marker@[127.0.0.1", "cannot be read"),
    ],
)
def test_the_login_of_a_proxy_is_in_no_error(proxy, known, words):
    known = {"http_proxy": known.format(proxy.server_address[1])}
    with pytest.raises(CommandExecutionError, match=words) as caught:
        git.commit("http://repositories.invalid/course", "main", proxy=known)
    assert "Marker" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("repository", ["file:///etc", "/etc", "ext::sh -c id"])
def test_protocols_that_read_or_run_what_is_here_are_refused(repository):
    with pytest.raises(CommandExecutionError, match="cannot be read"):
        git.commit(repository)


def test_what_cannot_be_reached_is_one_sentence():
    with pytest.raises(CommandExecutionError) as caught:
        git.commit("https://127.0.0.1:1/a")
    assert str(caught.value).startswith("https://127.0.0.1:1/a cannot be read (")
    assert "\n" not in str(caught.value)


SHOW = """#!/usr/bin/python3
import json, os, pathlib, sys, time
out = pathlib.Path({out!r})
out.write_text(json.dumps(dict(
    ids=(os.getuid(), os.getgid(), os.getgroups()),
    arguments=sys.argv,
    parent=pathlib.Path(f"/proc/{{os.getppid()}}/cmdline").read_text(),
    environment=dict(os.environ),
    files={{str(path): (path.read_text(), oct(path.stat().st_mode), path.stat().st_uid, path.stat().st_gid)
            for word in sys.argv for path in [pathlib.Path(word.partition("=")[2] or word)]
            if str(path).startswith("/run/plasma-git-")}},
)))
{then}
"""


@pytest.fixture
def ssh(monkeypatch):
    """A program in the place of ssh, that writes down what it sees. Its directory is one that nobody can read."""
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        out, program = directory / "out", directory / "ssh"
        out.touch()
        out.chmod(0o666)
        monkeypatch.setattr(git, "_path", lambda: f"{directory}:/usr/bin:/bin")

        def install(then="sys.exit(255)"):
            program.write_text(SHOW.format(out=str(out), then=then))
            program.chmod(0o755)
            return lambda: json.loads(out.read_text())

        yield install


def test_a_key_is_in_a_file_for_this_one_call(ssh):
    seen = ssh("print('Host key verification failed.', file=sys.stderr); sys.exit(255)")
    with pytest.raises(CommandExecutionError, match=r"the key of its host is not one of known_hosts"):
        git.commit("git@127.0.0.1:a/b.git", deploy_key=KEY, known_hosts="HOST ssh-ed25519 AAAA\n")
    found = seen()
    uid, gid, groups = found["ids"]
    assert (uid, groups) == (65534, [])
    assert gid in git.GROUPS
    contents = {pathlib.Path(path).name: rest for path, rest in found["files"].items()}
    assert contents["key"] == [KEY, "0o100440", 0, gid]
    assert contents["known_hosts"][0] == "HOST ssh-ed25519 AAAA\n"
    # The key is in no argument and in no variable, and gone afterwards.
    assert "Marker" not in str([found["arguments"], found["parent"], found["environment"]])
    assert "StrictHostKeyChecking=yes" in found["arguments"]
    assert not [path for path in found["files"] if pathlib.Path(path).exists()]


@pytest.mark.parametrize(
    ("repository", "meant"),
    [
        ("git@127.0.0.1:2026/a/b.git", "ssh://git@127.0.0.1:2026/a/b.git"),
        ("git@[::1]:2222/b.git", "ssh://git@[::1]:2222/b.git"),
        ("git@127.0.0.1:99999/b.git", None),
        ("git@127.0.0.1:2026-autumn/b.git", None),
        ("git@127.0.0.1:a/2026/b.git", None),
        ("ssh://git@127.0.0.1:2026/b.git", None),
    ],
)
@pytest.mark.parametrize("then", ["sys.exit(255)", "time.sleep(60)"], ids=["refused", "silent"])
def test_a_port_that_git_takes_for_a_folder_is_told(ssh, repository, meant, then):
    ssh(then)
    with pytest.raises(CommandExecutionError) as caught:
        git.commit(repository, deploy_key=KEY, known_hosts="HOST", timeout=1)
    hint = f" is a folder in {repository}: with that port it is {meant}."
    assert str(caught.value).endswith(hint) if meant else "is a folder" not in str(caught.value)


def test_git_sees_nothing_of_this_process(ssh, monkeypatch):
    monkeypatch.setenv("SECRET_OF_ROOT", "x")
    monkeypatch.setenv("GIT_SSH_COMMAND", "false")
    seen = ssh()
    with pytest.raises(CommandExecutionError):
        git.commit("ssh://git@127.0.0.1/a/b.git", deploy_key=KEY, known_hosts="HOST")
    environment = seen()["environment"]
    assert "SECRET_OF_ROOT" not in environment
    assert environment["GIT_CONFIG_GLOBAL"] == "/dev/null"


def test_a_host_that_does_not_answer_is_not_waited_for_without_end(ssh):
    ssh("time.sleep(60)")
    with pytest.raises(CommandExecutionError, match=r"does not answer within 1 seconds\.$"):
        git.commit("git@127.0.0.1:a/b.git", deploy_key=KEY, known_hosts="HOST", timeout=1)


def test_other_processes_of_nobody_see_neither_password_nor_key():
    """Their group differs, so that the kernel shows them neither the environment nor the memory."""
    look = "import sys; print(open(f'/proc/{sys.argv[1]}/environ').read())"
    asleep = subprocess.Popen(
        ["sleep", "30"], env={"PLASMA_GIT_PASSWORD": "Marker"}, user=65534, group=git._own_group(), extra_groups=[]
    )
    try:
        for group, visible in ((65534, False), (git._own_group(), True)):
            done = subprocess.run(
                ["/usr/bin/python3", "-c", look, str(asleep.pid)],
                user=65534,
                group=group,
                extra_groups=[],
                capture_output=True,
                text=True,
                check=False,
            )
            assert ("Marker" in done.stdout) is visible, done.stderr
    finally:
        asleep.kill()
        asleep.wait()


def test_without_git(monkeypatch):
    monkeypatch.setattr(git, "_path", lambda: "/nonexistent")
    assert git.available() is False
    with pytest.raises(CommandExecutionError, match="Git is not installed: apply the state environments"):
        git.commit("https://example.org/a")
