"""Real servers of one hub: what keeps them, what memory does, and what they have beside the image."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from pathlib import Path

import pytest
import requests
from support_containers import out_of_memory, run_in
from support_hub import TOKEN_HEADER, Hub, container_name, wait_until
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

pytestmark = pytest.mark.docker
# Seconds.
IDLE = 24
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def directory():
    """A directory of root's for a group."""
    path = Path(tempfile.mkdtemp(prefix="plasmat-group-", dir="/srv"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def group(accounts, directory):
    """The group, whose members may write there."""
    made = accounts.add_group("plasmabio")
    os.chown(directory, 0, made.gr_gid)
    directory.chmod(0o2770)
    return made


@pytest.fixture(scope="module")
def busy_hub(docker_host, accounts, environment, directory, group, tmp_path_factory):
    """A hub that stops servers soon, and with settings of servers."""
    servers = {
        "timezone": "Europe/Berlin",
        "environment": {"COURSE": "all"},
        "overrides": [
            {
                "groups": [group.gr_name],
                "umask": "0002",
                "environment": {"COURSE": "biology"},
                "proxy": {"http": "http://10.9.9.9:3128", "no_proxy": ".example.org"},
                "volumes": [{"source": str(directory), "target": "/srv/biology", "writable": True}],
            }
        ],
    }
    running = Hub(
        tmp_path_factory.mktemp("busy"),
        accounts.add("admin7").name,
        plasma={"servers": servers},
        cull=f"{{timeout: {IDLE}, every: 2}}",
    )
    running.start()
    yield running
    running.stop()
    running.remove_containers(docker_host)


class Server:
    """A running server of somebody, as its owner's programs see it."""

    def __init__(self, hub, person, environment):
        self.hub, self.name = hub, person.name
        assert hub.spawn(self.name, environment).status_code in (201, 202)
        self.headers = {TOKEN_HEADER: f"token {hub.user_token(self.name)}"}
        self.base = f"{hub.url}/user/{self.name}"

    def ask(self, path, method="GET", **options):
        return requests.request(method, f"{self.base}/{path}", headers=self.headers, timeout=30, **options)

    def is_there(self) -> bool:
        return "" in self.hub.api("GET", f"/users/{self.name}").json()["servers"]

    def run(self, code: str, wait: float = 0, ballast: int = 0) -> str:
        """Have a new kernel run something; return the status of its reply, or nothing where none is waited for.

        Args:
            code: Python.
            wait: seconds to wait for its end; 0 to leave when it runs.
            ballast: bytes that make the message larger.
        """
        kernel = self.ask("api/kernels", "POST").json()["id"]
        return asyncio.run(self._run(kernel, code, wait, ballast))

    async def _run(self, kernel: str, code: str, wait: float, ballast: int) -> str:
        address = f"{self.base}/api/kernels/{kernel}/channels".replace("http", "ws", 1)
        socket = await websocket_connect(HTTPRequest(address, headers=self.headers))
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3", "username": ""}
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        message = {
            "header": {**header, "session": "tests"},
            "parent_header": {},
            "metadata": {"ballast": "x" * ballast},
            "content": content,
            "channel": "shell",
        }
        await socket.write_message(json.dumps({**message, "buffers": []}))
        end = time.monotonic() + (wait or 30)
        while time.monotonic() < end:
            text = await asyncio.wait_for(socket.read_message(), end - time.monotonic())
            if text is None:
                return "closed"
            answer = json.loads(text)
            if answer["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            if not wait and answer["msg_type"] == "execute_input":
                # It runs. Nobody looks from now on.
                socket.close()
                return ""
            if answer["msg_type"] == "execute_reply":
                socket.close()
                return answer["content"]["status"]
        raise AssertionError("the kernel did not answer")


def test_what_computes_is_kept_and_a_forgotten_tab_is_not(busy_hub, accounts, environment, docker_host):
    """S2. A cell without output and without a browser; a program in a terminal; JupyterLab's own requests."""
    cell = Server(busy_hub, accounts.add("celler"), environment)
    began = time.monotonic()
    cell.run("import time; time.sleep(1000)")
    terminal = Server(busy_hub, accounts.add("caller"), environment)
    container = docker_host.containers.get(container_name(terminal.name))
    container.exec_run(["sh", "-c", "while :; do :; done"], detach=True)
    tab = Server(busy_hub, accounts.add("tabber"), environment)
    tab.run("1", wait=60)
    stopped = threading.Event()

    def forgotten() -> None:
        while not stopped.wait(2):
            for path in ("api/kernels", "api/sessions", "api/terminals", "api/contents", "api/config/plasma_notice"):
                tab.ask(path)

    poller = threading.Thread(target=forgotten)
    poller.start()
    try:
        wait_until(lambda: not tab.is_there(), 3 * IDLE, "stop of the forgotten one")
    finally:
        stopped.set()
        poller.join()
    wait_until(lambda: time.monotonic() - began > 2 * IDLE, 2 * IDLE, "time")
    assert cell.is_there()
    assert terminal.is_there()
    # What has ended keeps nothing.
    (kernel,) = cell.ask("api/kernels").json()
    assert kernel["execution_state"] == "busy"
    assert cell.ask(f"api/kernels/{kernel['id']}/interrupt", "POST").status_code == 204
    wait_until(lambda: not cell.is_there(), 3 * IDLE, "stop of the other one")
    busy_hub.stop_server(terminal.name)


def test_somebody_who_is_there_is_active(busy_hub, accounts, environment):
    server = Server(busy_hub, accounts.add("present"), environment)

    def last() -> str:
        return server.ask("api/status").json()["last_activity"]

    before = last()
    time.sleep(1.1)
    assert server.ask("api/kernels").status_code == 200
    assert last() == before
    assert server.ask("api/config/plasma_notice?plasma_present=1").status_code == 200
    assert last() > before
    busy_hub.stop_server(server.name)


def test_a_message_of_a_hundred_megabytes_arrives(busy_hub, accounts, images):
    """S6. As an upload widget sends it; Tornado drops the connection at 10 MB."""
    image = images("plasmat-large:1", "plasmat-large", memory="2G")
    server = Server(busy_hub, accounts.add("uploader"), image)
    assert server.run("1", wait=180, ballast=100 * MEGABYTE) == "ok"
    busy_hub.stop_server(server.name)


def test_memory_that_ran_out_is_told(busy_hub, accounts, environment, docker_host):
    """S3. The environment has 512 MB."""
    server = Server(busy_hub, accounts.add("hungry"), environment)
    container = docker_host.containers.get(container_name(server.name))
    # It says that it runs before it ends.
    server.run("import time; time.sleep(3); x = b'x' * 2**30")
    wait_until(lambda: out_of_memory(container), 60, "end of the kernel")

    def told() -> list[dict[str, str]]:
        return server.ask("api/config/plasma_notice").json().get("servers", {}).get(f"/user/{server.name}/", [])

    wait_until(told, 30, "notice")
    assert told()[0]["title"].startswith("Your server ran out of memory")
    assert "all of its 0.5 GB of memory" in told()[0]["text"]
    assert f"Server {server.name}: Your server ran out of memory" in busy_hub.log()
    busy_hub.stop_server(server.name)


def test_servers_have_what_the_settings_say(busy_hub, accounts, environment, docker_host, group, directory):
    """S4 and S5."""
    members = [accounts.add(name, "--groups", group.gr_name) for name in ("writer", "editor")]
    stranger = accounts.add("stranger")
    writer, editor, other = (Server(busy_hub, person, environment) for person in (*members, stranger))

    def shown(server) -> str:
        """What a program of the server finds."""
        container = docker_host.containers.get(container_name(server.name))
        return run_in(container, "sh", "-c", 'echo "$TZ|$COURSE|$http_proxy|$NO_PROXY|"; ls -d /srv/*')[1]

    assert shown(writer).startswith("Europe/Berlin|biology|http://10.9.9.9:3128|localhost,127.0.0.1,")
    assert ",.example.org|\n" in shown(writer)
    assert "/srv/biology\n" in shown(writer)
    assert shown(other).startswith("Europe/Berlin|all|||\n")
    assert "/srv/biology" not in shown(other)

    # In a kernel, where the umask counts: members edit each other's files.
    assert writer.run("open('/srv/biology/shared.txt', 'w').write('one')", wait=60) == "ok"
    assert editor.run("open('/srv/biology/shared.txt', 'w').write('two')", wait=60) == "ok"
    shared = directory / "shared.txt"
    assert shared.read_text() == "two"
    assert (shared.stat().st_mode & 0o777, shared.stat().st_gid) == (0o664, group.gr_gid)
    for server in (writer, editor, other):
        busy_hub.stop_server(server.name)
