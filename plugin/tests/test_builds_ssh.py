"""builds: repositories over ssh, with a deploy key that nobody sees and a server whose key is known."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from docker.errors import NotFound
from support_builds import until, wait_for_end
from support_ssh import forge, make_key
from tljh_plasma.builds import images, ssh
from tljh_plasma.builds.log import BuildLog

from tests.support.git_repository import slow

pytest_plugins = ["support_builds_fixtures"]
pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def server(docker_host, served, tmp_path_factory):
    """A server with ssh that has the repositories of the bench."""
    with forge(docker_host, served[0], tmp_path_factory.mktemp("keys")) as made:
        yield made


def request_of(bench, server, repository, **values):
    """A request to build a repository over ssh."""
    defaults = {
        "repo": f"ssh://git@{server.address}/srv/git/{repository.path.name}",
        "deploy_key": server.key,
        "known_hosts": server.known_hosts,
    }
    return bench.request(repository, **{**defaults, **values})


def traces(key: str) -> list[str]:
    """What a key can be known by."""
    return [line for line in key.splitlines() if not line.startswith("-")]


def given(container) -> bytes:
    """What was put into a builder, as a tar archive; nothing before that."""
    try:
        found, _ = container.get_archive("/plasma")
    except NotFound:
        return b""
    return b"".join(found)


def leftovers() -> list[Path]:
    """Directories of fetches."""
    return [path for place in ("/run", "/var/tmp") for path in Path(place).glob("plasma-fetch-*")]


class Watch:
    """Collects what others could see while something is fetched: processes, and the modes of keys."""

    def __init__(self) -> None:
        self.commands: dict[str, str] = {}
        self.modes: set[tuple[int, int, int]] = set()
        self.accounts: set[tuple[int, int]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                if process.name == str(os.getpid()):
                    continue
                try:
                    text = (process / "cmdline").read_bytes() + b"\0" + (process / "environ").read_bytes()
                    if b"plasma-fetch-" in text:
                        status = process.stat()
                        self.accounts.add((status.st_uid, status.st_gid))
                except OSError:
                    continue
                self.commands[text[:200].decode(errors="replace")] = text.decode(errors="replace")
            for path in Path("/run").glob("plasma-fetch-*/*"):
                try:
                    status, above = path.stat(), path.parent.stat()
                except OSError:
                    continue
                self.modes.add((status.st_mode & 0o7777, status.st_uid, above.st_mode & 0o7777))
            time.sleep(0.002)


@pytest.mark.parametrize("form", ["ssh://git@{host}/srv/git/{name}", "git@{host}:repositories/{name}"])
async def test_a_repository_over_ssh_is_built_and_nobody_sees_the_key(bench, server, form, caplog):
    caplog.set_level("DEBUG")
    repository = bench.repository(files={"version.txt": "first\n"})
    commit = repository.git("rev-parse", "HEAD")
    repo = form.format(host=server.address, name=repository.path.name)
    async with bench.builder() as builder:
        with Watch() as watch:
            row = await bench.build(builder, request_of(bench, server, repository, repo=repo))
    assert row.status == "built", row.log
    assert (row.image_meta.repo, row.image_meta.ref) == (repo, "HEAD")
    image = bench.client.images.get(bench.image())
    assert image.labels["org.plasma.commit"] == commit
    assert image.labels["repo2docker.repo"] == repo and image.labels["repo2docker.ref"] == "HEAD"
    # In the image the repository is known by its own address.
    config = bench.client.containers.run(bench.image(), ["cat", "/home/jovyan/.git/config"], remove=True).decode()
    assert f"url = {repo}\n" in config and "bundle" not in config

    assert any("git-upload-pack" in text or "clone" in text for text in watch.commands.values())
    # First for root alone, then for a group that nothing else has.
    assert (0o640, 0, 0o750) in watch.modes and watch.modes <= {(0o600, 0, 0o750), (0o640, 0, 0o750)}
    assert {uid for uid, _ in watch.accounts} <= {0, 65534} and 65534 in {uid for uid, _ in watch.accounts}
    assert all(gid in ssh.GROUPS for uid, gid in watch.accounts if uid == 65534)
    seen = [*watch.commands.values(), row.log, caplog.text, json.dumps(image.attrs), json.dumps(image.history())]
    seen += [path.read_bytes().decode("latin-1") for path in bench.database.parent.glob("*.sqlite*")]
    for text in seen:
        for trace in traces(server.key):
            assert trace not in text
    assert not leftovers() and not bench.containers()


async def test_the_key_is_in_no_container_and_a_queued_build_survives_without_it(bench, server):
    first = request_of(bench, server, bench.repository(slow(6)))
    second = request_of(bench, server, bench.repository(), image=bench.image("b"))
    async with bench.builder(parallel=1) as builder:
        await builder.submit(first)
        await builder.submit(second)
        while len(bench.containers()) < 2:
            await asyncio.sleep(0.1)
        for container in bench.containers():
            assert traces(server.key)[0] not in json.dumps(container.attrs)
            archive = await until(lambda one=container: given(one), "the repository in the container")
            assert b"source.bundle" in archive and b"PRIVATE KEY" not in archive
    # Another process takes them up.
    async with bench.builder(parallel=1) as builder:
        for request in (first, second):
            await wait_for_end(builder, request.image)
            row = await bench.row(request.image)
            assert row.status == "built", row.log


async def test_commits_tags_and_branches(bench, server):
    repository = bench.repository(files={"version.txt": "first\n"})
    repository.tag("v1")
    first = repository.git("rev-parse", "HEAD")
    last = repository.commit({"version.txt": "second\n"})
    repository.branch("winter/2026", {"version.txt": "winter\n"})

    def text(image):
        return bench.client.containers.run(image, ["cat", "/home/jovyan/version.txt"], remove=True)

    async with bench.builder() as builder:
        cases = [("v1", "", b"first\n"), ("winter/2026", "", b"winter\n"), ("main", first, b"first\n")]
        for number, (ref, commit, expected) in enumerate(cases):
            image = bench.image(f"r{number}")
            request = request_of(bench, server, repository, image=image, ref=ref, commit=commit)
            row = await bench.build(builder, request)
            assert row.status == "built", row.log
            assert text(image) == expected
        labels = bench.client.images.get(bench.image("r2")).labels
        assert (labels["repo2docker.ref"], labels["org.plasma.commit"]) == ("main", first)
        for ref, commit in (
            ("no-such-branch", ""),
            ("main", last.translate(str.maketrans("0123456789", "9" * 10))),
        ):
            row = await bench.build(builder, request_of(bench, server, repository, ref=ref, commit=commit))
            assert row.status == "failed"
            assert f"The repository has no branch, tag or commit {commit or ref}" in row.log


async def test_another_key_another_host_key_and_no_repository(bench, server, tmp_path):
    repository = bench.repository()
    stranger = make_key(tmp_path / "stranger")
    public = (tmp_path / "stranger.pub").read_text().split()
    cases = [
        ({"deploy_key": stranger}, "Permission denied"),
        ({"known_hosts": f"{server.address} {public[0]} {public[1]}"}, "Host key verification failed"),
        ({"known_hosts": f"192.0.2.1 {public[0]} {public[1]}"}, "Host key verification failed"),
        ({"repo": f"ssh://git@{server.address}/srv/git/nothing"}, "does not appear to be a git repository"),
        ({"repo": f"ssh://git@{server.address}:9/srv/git/{repository.path.name}"}, "Connection refused"),
    ]
    async with bench.builder() as builder:
        for values, words in cases:
            row = await bench.build(builder, request_of(bench, server, repository, **values))
            assert row.status == "failed"
            assert words in row.log, row.log
            assert "The repository could not be fetched over ssh: the lines above say why." in row.log
    assert not leftovers() and not bench.containers()


async def test_a_cancelled_fetch_leaves_nothing(bench, server, docker_host):
    """Of a server that takes the connection and says nothing."""
    import socket

    repository = bench.repository()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        repo = f"ssh://git@127.0.0.1:{silent.getsockname()[1]}/course"
        request = request_of(bench, server, repository, repo=repo)
        async with bench.builder() as builder:
            await builder.submit(request)
            while not leftovers():
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            await builder.cancel(request.image)
            await asyncio.to_thread(lambda: time.sleep(0.2))
        # And one that takes too long.
        async with bench.builder(timeout=2) as builder:
            row = await bench.build(builder, request)
            assert row.status == "failed" and "The repository was not there after" in row.log
    assert not leftovers()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            assert b"plasma-fetch-" not in (process / "cmdline").read_bytes()
        except OSError:
            continue


def test_what_a_killed_service_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(ssh, "KEYS", str(tmp_path))
    monkeypatch.setattr(ssh, "LARGE_FILES", str(tmp_path / "large"))
    (tmp_path / "large").mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    for place in (tmp_path, tmp_path / "large"):
        for number in (gone.pid, os.getpid()):
            (place / f"plasma-fetch-{number}-x").mkdir()
            (place / f"plasma-fetch-{number}-x" / "key").write_text("key")
        (place / f"plasma-fetch-{gone.pid}-link").symlink_to(tmp_path / f"plasma-fetch-{os.getpid()}-x")
        (place / f"plasma-fetch-{gone.pid}-other").mkdir()
        os.chown(place / f"plasma-fetch-{gone.pid}-other", 12345, -1)
    ssh.sweep()
    for place in (tmp_path, tmp_path / "large"):
        assert not (place / f"plasma-fetch-{gone.pid}-x").exists()
        assert (place / f"plasma-fetch-{os.getpid()}-x" / "key").exists(), "it is being used"
        assert (place / f"plasma-fetch-{gone.pid}-other").exists(), "it is somebody else's"


async def test_without_git_or_ssh_the_build_says_what_to_install(bench, server, monkeypatch, tmp_path):
    monkeypatch.setattr(ssh, "PROGRAMS", str(tmp_path))
    with (
        pytest.raises(images.BuildFailed, match="install the packages git and openssh-client"),
        (tmp_path / "bundle").open("w+b") as output,
    ):
        await ssh.fetch(request_of(bench, server, bench.repository()), output, BuildLog())
