"""Builds for tests: a database, repositories that are served, and a place to start and kill the service's builder."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool
from support_hub import NETWORK
from tljh_plasma import build_container
from tljh_plasma.builds import Builder, BuildRequest
from tljh_plasma.reach import Reach, entry
from tljh_repo2docker.database.manager import ImagesDatabaseManager
from tljh_repo2docker.database.schemas import DockerImageOutSchema
from tljh_repo2docker.dbutil import upgrade_if_needed

from tests.support import git_repository

# How long anything here may take at most, in seconds.
PATIENCE = 120


def make_database(path: Path) -> str:
    """Make tljh-repo2docker's database; returns its URL."""
    url = f"sqlite+aiosqlite:///{path}"
    before = os.environ["PATH"]
    # tljh-repo2docker runs alembic by its name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{before}"
    try:
        upgrade_if_needed(url)
    finally:
        os.environ["PATH"] = before
    return url


def sessions(url: str):
    """Sessions whose connections end with them: each test has an event loop of its own."""
    maker = async_sessionmaker(create_async_engine(url, poolclass=NullPool), expire_on_commit=False)

    @asynccontextmanager
    async def context():
        async with maker() as session:
            yield session

    return context


class Bench:
    """One hub's builds."""

    def __init__(self, directory: Path, served: Path, url: str, client: Any, builder_image: str, environment: str):
        self.database = directory / "environments.sqlite"
        self.database_url = make_database(self.database)
        self.served = served
        self.url = url
        self.client = client
        self.builder_image = builder_image
        self.environment = environment
        # Where repositories are served: this machine.
        self.allow = [git_repository.bridge_address()]
        self.prefix = f"plasmat-b{secrets.token_hex(3)}"
        self.context = sessions(self.database_url)
        self.manager = ImagesDatabaseManager()

    def repository(self, *instructions: str, files: dict[str, str] | None = None) -> git_repository.Repository:
        """A new repository whose Dockerfile has ``instructions``."""
        recipe = git_repository.dockerfile(self.environment, *instructions)
        return git_repository.make_repository(self.served / secrets.token_hex(4), recipe, files)

    def recipe(self, *instructions: str) -> dict[str, str]:
        """A change of the Dockerfile, to be committed."""
        return {"Dockerfile": git_repository.dockerfile(self.environment, *instructions)}

    def address(self, repository: git_repository.Repository) -> str:
        """Where the builder clones a repository from."""
        return f"{self.url}/{repository.path.name}"

    def request(self, repository: git_repository.Repository, **values: Any) -> BuildRequest:
        """A request for an image of a repository, with the attributes ``values``."""
        defaults = {"image": self.image(), "repo": self.address(repository), "ref": "", "name": "Course"}
        return BuildRequest(**{**defaults, "owner": "ada", **values})

    def image(self, name: str = "course") -> str:
        """Name of an image of this bench."""
        return f"{self.prefix}-{name}:1"

    @asynccontextmanager
    async def builder(self, **options: Any):
        """A builder as the service has it, closed at the end."""
        defaults = {
            "image": self.builder_image,
            "parallel": 2,
            "timeout": PATIENCE,
            "network": NETWORK,
            "reach": Reach(tuple(map(entry, self.allow))),
        }
        made = Builder(self.context, self.manager, **{**defaults, **options})
        try:
            yield made
        finally:
            await made.close()

    async def row(self, image: str) -> DockerImageOutSchema | None:
        """What the database says of an image."""
        async with self.context() as db:
            return await self.manager.read_by_image_name(db, image)

    async def build(self, builder: Builder, request: BuildRequest) -> DockerImageOutSchema:
        """Build and wait for the end; returns the row."""
        await builder.submit(request)
        await wait_for_end(builder, request.image)
        row = await self.row(request.image)
        assert row is not None
        return row

    # What the engine has, past the code under test.

    def containers(self) -> list[Any]:
        """Builders of this bench."""
        label = [build_container.LABEL_UID]
        found = self.client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        return [one for one in found if one.labels[build_container.LABEL_BUILD].startswith(self.prefix)]

    def image_id(self, image: str) -> str | None:
        """Id of an image, or None."""
        found = self.client.api.images(name=image)
        return found[0]["Id"] if found else None

    def clean(self) -> None:
        """Remove all that was made here."""
        for container in self.containers():
            container.remove(force=True)
        # Not client.images.list(), which asks for each image again: others may be removing theirs.
        for image in self.client.api.images():
            tags = image["RepoTags"] or []
            ours = [tag for tag in tags if tag.removeprefix("plasma-build/").startswith(self.prefix)]
            if ours:
                for container in self.client.containers.list(all=True, filters={"ancestor": image["Id"]}):
                    container.remove(force=True)
            for tag in ours:
                self.client.images.remove(tag, force=True)


async def until(check, what: str, timeout: float = PATIENCE, interval: float = 0.05) -> Any:
    """Wait until ``check()`` is true (it may be a coroutine function), without holding up the event loop."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {timeout} s"
        await asyncio.sleep(interval)


async def wait_for_end(builder: Builder, image: str) -> str:
    """Follow a build to its end; returns its log."""
    return "".join([piece async for piece in builder.follow(image)])


async def wait_for_line(builder: Builder, image: str, text: str) -> str:
    """Follow a build until there is ``text``; returns what was read so far."""
    read = ""

    async def reading() -> str:
        nonlocal read
        async for piece in builder.follow(image):
            read += piece
            if text in read:
                return read
        raise AssertionError(f"the build ended without {text!r}:\n{read}")

    return await asyncio.wait_for(reading(), PATIENCE)


# A service in a process of its own, to be killed: its arguments are JSON.
SERVICE = """
import asyncio, json, sys
sys.path[:0] = json.loads(sys.argv[1])
import support_builds
from tljh_plasma.builds import Builder, BuildRequest
from tljh_plasma.reach import Reach, entry
from tljh_repo2docker.database.manager import ImagesDatabaseManager

async def main():
    told = json.loads(sys.stdin.readline())
    reach = Reach(tuple(map(entry, told["allow"])))
    builder = Builder(
        support_builds.sessions(told["database"]), ImagesDatabaseManager(), reach=reach, **told["options"]
    )
    for values in told["requests"]:
        await builder.submit(BuildRequest(**values))
    print("submitted", flush=True)
    while True:
        await asyncio.sleep(3600)

asyncio.run(main())
"""


def start_service(bench: Bench, requests: list[BuildRequest], **options: Any) -> subprocess.Popen[str]:
    """Start a process that submits builds and goes on with them until it is killed."""
    here = Path(__file__).resolve()
    paths = [str(here.parent), str(here.parents[2])]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE, json.dumps(paths)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    told = {
        "database": bench.database_url,
        "allow": bench.allow,
        "options": {"image": bench.builder_image, "timeout": PATIENCE, "network": NETWORK, **options},
        "requests": [asdict(request) for request in requests],
    }
    assert process.stdin and process.stdout
    process.stdin.write(json.dumps(told) + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "submitted\n"
    return process
