"""The parts of ``plasma.prove``: its people, its environment, its browser, and what runs in its container."""

from __future__ import annotations

import http.server
import io
import os
import pathlib
import pwd
import select
import signal
import socket
import subprocess
import sys
import tarfile
import threading

import pytest
from salt.exceptions import CommandExecutionError

import plasma_engine
import plasma_prove_agent as agent
import plasma_prove_browser as browser
import plasma_prove_environment as environment
import plasma_prove_people as people
import plasma_prove_server as on_the_server
import plasma_run
from tests.unit import needs_root

RUN = plasma_run.run


@pytest.fixture
def ran():
    return []


@pytest.fixture
def configure_loader_modules(ran):
    def run_all(command, **options):
        ran.append((*command, options.get("stdin")))
        return {"retcode": int(command[0] == "userdel"), "stdout": "", "stderr": "userdel: user x is in use"}

    functions = {
        "cmd.run_all": run_all,
        "plasma_hub_accounts.forget": lambda names, prefix: ran.append(("forget", *names)),
        "plasma_users_processes.end": lambda uids: {},
    }
    return {people: {"__salt__": functions}, browser: {}, environment: {"__salt__": {}}, agent: {}}


# People.


def test_passwords_are_in_no_argument(ran):
    password = people.set_password("x")
    (command,) = ran
    assert command == ("chpasswd", f"x:{password}\n")
    assert len(password) >= 24


def _account(tmp_path, name, comment=people.COMMENT):
    home = tmp_path / name
    home.mkdir()
    return pwd.struct_passwd((name, "x", os.getuid(), os.getgid(), comment, str(home), "/bin/sh"))


@needs_root
def test_only_throwaway_people_are_removed(ran, tmp_path, monkeypatch):
    ours = _account(tmp_path, "plasma-prove-a-0a1b2c")
    others = [_account(tmp_path, "plasma-prove-a-000000", "Ada"), _account(tmp_path, "ada")]
    monkeypatch.setattr(people.pwd, "getpwall", lambda: [ours, *others])
    monkeypatch.setattr(people.grp, "getgrall", list)
    assert people.left() == [ours.pw_name]
    problems = people.remove([ours.pw_name, "ada"])
    assert problems == [f"`userdel {ours.pw_name}` failed: userdel: user x is in use"]
    assert ("forget", ours.pw_name) in ran
    assert not [command for command in ran if "ada" in command]
    assert not os.path.exists(ours.pw_dir)
    assert all(os.path.exists(other.pw_dir) for other in others)


# The environment.


def test_the_image_is_enough_to_run_the_agent(tmp_path, monkeypatch):
    monkeypatch.setattr(plasma_run, "run", RUN)
    with tempfile_of(lambda file: environment.write(file, 4242, "secret")) as tar:
        names = {member.name: member for member in tar.getmembers()}
        assert names[environment.OPEN].mode == 0o1777
        assert names[environment.OWNED].uid == 4242
        script = tar.extractfile("usr/local/bin/jupyterhub-singleuser").read().decode()
        tar.extractall(tmp_path, filter="tar") if os.geteuid() == 0 else None
    assert script.startswith(f"#!{environment.PYTHON}")
    assert any(name.endswith("/http/server.py") for name in names)
    if os.geteuid() == 0:
        done = subprocess.run(
            ["chroot", str(tmp_path), environment.PYTHON, "-I", "-c", "import http.server, subprocess, json; print(1)"],
            capture_output=True,
            text=True,
        )
        assert done.stdout == "1\n", done.stderr


def tempfile_of(write):
    file = io.BytesIO()
    write(file)
    file.seek(0)
    return tarfile.open(fileobj=file)


def test_what_docker_says_of_a_broken_archive(monkeypatch):
    content = b'{"status":"x"}\r\n{"error":"unexpected EOF"}'
    monkeypatch.setattr(plasma_engine, "ask", lambda *_, **__: (200, content))
    with pytest.raises(CommandExecutionError, match="unexpected EOF"):
        environment.load("", io.BytesIO(), 0)


# The browser.


@pytest.fixture
def site():
    class Handler(http.server.BaseHTTPRequestHandler):
        seen = []

        def do_GET(self):
            self.seen.append((self.path, self.client_address[0], dict(self.headers)))
            self.send_response(302 if self.path == "/hub/" else 200)
            if self.path == "/hub/":
                self.send_header("Location", "/hub/home?x=1")
                self.send_header("Set-Cookie", "_xsrf=one; Path=/hub/")
                self.send_header("Set-Cookie", "gone=; Path=/; Max-Age=0")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_browser(site):
    where = {"address": "127.0.0.1", "port": site.server_port, "secure": False, "host": "hub.test", "base": "/"}
    visitor = browser.Visitor(where, "127.0.0.9")
    assert visitor.open("hub/").status == 200
    seen = site.RequestHandlerClass.seen
    path, address, headers = seen[-1]
    assert (path, address, headers["Host"]) == ("/hub/home?x=1", "127.0.0.9", f"hub.test:{site.server_port}")
    assert (headers["Cookie"], headers["Sec-Fetch-Dest"]) == ("_xsrf=one", "document")
    assert visitor.xsrf == "one"
    visitor.script("GET", "user/ada/x", page="user/ada/evil")
    _, _, headers = seen[-1]
    assert "Cookie" not in headers
    assert (headers["Sec-Fetch-Dest"], headers["Referer"]) == ("empty", f"{visitor.origin}/user/ada/evil")


def test_nobody_answers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"address": "127.0.0.1", "port": free.getsockname()[1], "secure": False, "host": "x", "base": "/"}
        answer = browser.Visitor(where).request("GET", "/")
    assert (answer.status, str(answer)) == (0, "the connection was closed")


def test_an_answer_in_a_few_words():
    answer = browser.Answer(403, [], b'{"status": 403, "message": "No."}', 0)
    assert str(answer) == "status 403, No."


# What runs in the container.


def test_connections(site):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        found = agent.connect([["127.0.0.1", site.server_port], ["127.0.0.1", port]])
    assert found == {f"127.0.0.1 {site.server_port}": "open", f"127.0.0.1 {port}": "ECONNREFUSED"}
    assert agent.hold("127.0.0.1", site.server_port, 5, 60) == 5
    assert agent.release()
    assert not agent._held


def test_a_key_is_written_as_people_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = agent.write_key("ssh-ed25519 AAAA")
    assert pathlib.Path(path).read_text(encoding="ascii") == "ssh-ed25519 AAAA\n"
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_writing_ends_and_leaves_nothing(tmp_path):
    path = tmp_path / "x"
    assert agent.write(str(path), 3 * agent.BLOCK) == (3 * agent.BLOCK, "")
    assert not path.exists()
    assert agent.write(str(tmp_path / "no" / "x"), 1) == (0, "ENOENT")


def test_processes_are_counted_and_ended():
    assert agent.fork(3) == 3


def test_forks_that_outlive_their_counter_hold_nobody_up():
    command = [sys.executable, "-I", agent.__file__, "count_forks"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True
    ) as counter:
        counter.stdin.write('{"most": 3}')
        counter.stdin.close()
        assert counter.stdout.readline() == "3\n"
        try:
            counter.kill()
            assert select.select([counter.stdout], [], [], 10)[0]
            assert counter.stdout.read() == ""
        finally:
            os.killpg(counter.pid, signal.SIGKILL)


@needs_root
def test_somebody_on_the_server_tries_the_same(site, monkeypatch):
    monkeypatch.setattr(plasma_run, "run", RUN)
    person, server = {"uid": 59990, "gid": 59990}, ["127.0.0.1", site.server_port]
    name = " ".join(map(str, server))
    assert on_the_server._do_as(person, "connect", [server]) == {name: "open"}
    assert on_the_server._do_as(person, "bind", [server]) == {name: "EADDRINUSE"}
    assert RUN(["id", "-G"]).stdout != on_the_server._as(person, "id", "-G").stdout == "59990"
