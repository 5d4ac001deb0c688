"""builds: the password of a private repository, and where it must not be seen."""

from __future__ import annotations

import http.server
import json
import re
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest
from support_builds import start_service, until, wait_for_end, wait_for_line
from tljh_plasma.builds import container as builders

from tests.support.git_repository import bridge_address, serve_private, slow

pytest_plugins = ["support_builds_fixtures"]
pytestmark = pytest.mark.docker

USERNAME = "lecturer@example.org"
PASSWORD = "p@ss w:rd/%é$HOME'\"#s3cret"
# Parts that are the same however the password is written.
TRACES = ("s3cret", "lecturer@", "lecturer%40")


@pytest.fixture
def private(bench):
    """The bench with its repositories behind a password."""
    with serve_private(bench.served, bridge_address(), USERNAME, PASSWORD) as url:
        bench.url = url
        yield bench


def credentials(password: str = PASSWORD) -> dict[str, str]:
    return {"username": USERNAME, "password": password}


def assert_clean(what: str, text: str | bytes) -> None:
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text
    for trace in TRACES:
        assert trace not in shown, f"{trace!r} is in {what}: {shown[max(0, shown.index(trace) - 200) :][:400]}"


def assert_database_clean(bench) -> None:
    for path in bench.database.parent.glob(f"{bench.database.name}*"):
        assert_clean(path.name, path.read_bytes())


@contextmanager
def watching_processes():
    """Collect the arguments and environments of all processes of the machine, containers included, again and again."""
    seen: dict[str, str] = {}
    stop = threading.Event()
    me = Path("/proc/self").resolve().name

    def watch():
        while not stop.is_set():
            for process in Path("/proc").iterdir():
                if not process.name.isdigit() or process.name == me:
                    continue
                for kind in ("cmdline", "environ"):
                    try:
                        text = (process / kind).read_bytes().decode(errors="replace")
                    except OSError:
                        continue
                    seen[f"{kind} {text[:80]}"] = text

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


async def test_a_private_repository_is_built_and_nobody_sees_the_password(private, caplog):
    repository = private.repository(slow(6))
    caplog.set_level("DEBUG")
    async with private.builder() as builder:
        request = private.request(repository, **credentials())
        with watching_processes() as seen:
            await builder.submit(request)
            await wait_for_line(builder, request.image, "slow step 1")
            container = private.containers()[0]
            assert_clean("the container", json.dumps(container.attrs))
            modes = container.exec_run(["stat", "-c", "%a %u", "/plasma", "/plasma/credentials"])
            assert modes.output.decode().split("\n")[:2] == ["700 0", "600 0"]
            assert_clean("docker logs", container.logs())
            log = await wait_for_end(builder, request.image)
        assert any("git\x00clone" in text for text in seen.values()), "the watch was too slow to see anything"
        assert_clean("the processes", "\n".join(seen.values()))
        assert_clean("the log", log)
        row = await private.row(request.image)
        assert row.status == "built", row.log
        assert row.image_meta.repo == request.repo
    assert_database_clean(private)
    assert_clean("the service's log", caplog.text)
    image = private.client.images.get(private.image())
    assert_clean("the image", json.dumps(image.attrs) + json.dumps(image.history()))
    config = private.client.containers.run(private.image(), ["cat", "/home/jovyan/.git/config"], remove=True)
    assert_clean("the repository in the image", config)
    assert not private.containers()


async def test_credentials_in_the_url_work_and_are_not_kept(private):
    repository = private.repository()
    address = private.address(repository)
    pair = f"{quote(USERNAME, safe='')}:{quote(PASSWORD, safe='')}"
    async with private.builder() as builder:
        request = private.request(repository, repo=address.replace("://", f"://{pair}@"))
        row = await private.build(builder, request)
        assert row.status == "built", row.log
        assert row.image_meta.repo == address
    assert_database_clean(private)
    assert private.client.images.get(private.image()).labels["repo2docker.repo"] == address


@pytest.mark.parametrize("given", [{}, credentials("wrong-s3cret"), {"password": PASSWORD}])
async def test_without_the_right_password_the_build_fails_and_says_so(private, given):
    repository = private.repository()
    async with private.builder() as builder:
        row = await private.build(builder, private.request(repository, **given))
        assert row.status == "failed"
        assert "could not read Username" in row.log or "Authentication failed" in row.log
        assert_clean("the log", row.log)
    assert_database_clean(private)


async def test_a_build_that_prints_the_password(private):
    """Not everything that prints it can be prevented; that it is shown and kept can."""
    encoded = quote(PASSWORD, safe="")
    other = re.sub("%..", lambda match: match[0].lower(), encoded)
    repository = private.repository(f"RUN echo 'plain {encoded} url https://{quote(USERNAME)}:{other}@x'")
    async with private.builder() as builder:
        request = private.request(repository, **credentials())
        await builder.submit(request)
        log = await wait_for_end(builder, request.image)
        assert "plain [redacted] url https://[redacted]:[redacted]@x" in log
        assert_clean("the log", log)
        assert (await private.row(request.image)).status == "built"
    assert_database_clean(private)


async def test_a_queued_private_build_survives_a_kill(private):
    encoded = quote(PASSWORD, safe="")
    first = private.request(private.repository(slow(6)), **credentials())
    second = private.request(
        private.repository(f"RUN echo 'the password is {encoded}.'"), image=private.image("b"), **credentials()
    )
    process = start_service(private, [first, second], parallel=1)
    try:

        async def begun():
            row = await private.row(first.image)
            return "slow step 1" in row.log and len(private.containers()) == 2

        await until(begun, "the first build", 60)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    assert_database_clean(private)
    async with private.builder(parallel=1) as builder:
        logs = [await wait_for_end(builder, request.image) for request in (first, second)]
    assert "the password is [redacted]." in logs[1]
    assert_clean("the logs", "".join(logs))
    for request in (first, second):
        assert (await private.row(request.image)).status == "built"
    assert_database_clean(private)


async def test_other_servers_do_not_get_the_password(private):
    """A repository names the addresses of its submodules: they must not be a way to collect passwords."""
    asked = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="courses"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    repository = private.repository()
    with http.server.ThreadingHTTPServer((bridge_address(), 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://{bridge_address()}:{server.server_port}/collect"
        repository.commit({".gitmodules": f'[submodule "collect"]\n\tpath = collect\n\turl = {url}\n'})
        head = repository.git("rev-parse", "HEAD")
        repository.git("update-index", "--add", "--cacheinfo", f"160000,{head},collect")
        repository.git("commit", "--quiet", "-m", "Add a submodule")
        async with private.builder() as builder:
            row = await private.build(builder, private.request(repository, **credentials()))
            assert row.status == "failed" and "collect" in row.log
        server.shutdown()
    assert asked and set(asked) == {None}


async def test_the_credentials_are_written_in_a_way_that_git_reads_back(private):
    """The file is Git's own format; what a token alone, a port or odd characters make of it is read back the same."""
    for username, password in ((USERNAME, PASSWORD), ("token", ""), ("", "token"), ("a:b", "c:d@e")):
        request = private.request(private.repository(), username=username, password=password)
        async with builders.Docker() as docker:
            container = await builders.create(docker, request, uuid4(), "now", private.builder_image)
            try:
                assert await builders.read_secrets(container) == (username or "git", password)
            finally:
                await builders.remove(container)
