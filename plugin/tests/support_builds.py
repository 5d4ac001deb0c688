"""Builds for tests: a database, repositories that are served, and a place to start and kill the service's builder."""

from __future__ import annotations

import asyncio
import json
import pickle
import secrets
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool
from support_hub import NETWORK, environments_database
from tljh_plasma.builds import Builder, BuildRequest
from tljh_plasma.builds import container as builders
from tljh_plasma.settings import Settings
from tljh_repo2docker.database.manager import ImagesDatabaseManager
from tljh_repo2docker.database.schemas import DockerImageOutSchema

from tests.support import git_repository

# How long anything here may take at most, in seconds.
PATIENCE = 120


def make_database(path: Path) -> str:
    """Make tljh-repo2docker's database; returns its URL."""
    path.write_bytes(environments_database())
    return f"sqlite+aiosqlite:///{path}"


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

    def settings(self, **options: Any) -> Settings:
        """The settings of the service, with other values for those of the builder: image, parallel, timeout, trial.

        Images are not tried unless a test asks for that: a server takes seconds to start.
        """
        defaults = {"image": self.builder_image, "timeout": PATIENCE, "trial": False}
        builder = {f"builder_{name}": value for name, value in {**defaults, **options}.items()}
        # Where repositories are served: this machine.
        return Settings(network_name=NETWORK, network_builds=(git_repository.bridge_address(),), **builder)

    @asynccontextmanager
    async def builder(self, **options: Any):
        """A builder as the service has it, closed at the end."""
        made = Builder(self.context, self.manager, self.settings(**options))
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
        label = [builders.LABEL_UID]
        found = self.client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        return [one for one in found if one.labels[builders.LABEL_BUILD].startswith(self.prefix)]

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
            ours = [tag for tag in tags if tag.rpartition("/")[2].startswith(self.prefix)]
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


# A service in a process of its own, to be killed: it is told a pickle of a dict, in hexadecimal digits.
SERVICE = """
import asyncio, json, pickle, sys
sys.path[:0] = json.loads(sys.argv[1])
import support_builds
from tljh_plasma.builds import Builder
from tljh_repo2docker.database.manager import ImagesDatabaseManager

async def main():
    told = pickle.loads(bytes.fromhex(sys.stdin.readline()))
    builder = Builder(support_builds.sessions(told["database"]), ImagesDatabaseManager(), told["settings"])
    for request in told["requests"]:
        await builder.submit(request)
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
    told = {"database": bench.database_url, "settings": bench.settings(**options), "requests": requests}
    assert process.stdin and process.stdout
    process.stdin.write(pickle.dumps(told).hex() + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "submitted\n"
    return process
