"""What the service asks of the Docker engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

import aiohttp
from aiodocker import Docker, DockerError
from escapism import unescape

from ..builds import former
from ..environments import LABEL_REF
from ..policy import LABEL_ENVIRONMENT, LABEL_USER
from .errors import DOCKER_SILENT, Refused

# Containers of people's servers, with and without the labels above.
PREFIX = "jupyter-"
TIMEOUT = 60

Answer = TypeVar("Answer")


class Conflict(Exception):
    """Docker does not do it because something still needs the image."""


def owner(labels: dict[str, str] | None, names: Iterable[str] | None) -> str:
    """Return the name of whose server a container is; empty when it is nobody's.

    Args:
        labels: the container's labels.
        names: its names, as the engine lists them.
    """
    user = (labels or {}).get(LABEL_USER)
    if user:
        return user
    for name in names or ():
        # Made before there were labels: jupyter-USER or jupyter-USER--SERVER, escaped by DockerSpawner.
        name = name.removeprefix("/")
        if name.startswith(PREFIX):
            return unescape(name.removeprefix(PREFIX).partition("--")[0], escape_char="-")
    return ""


class Engine:
    """A client for the engine that DOCKER_HOST names, with one pool of connections."""

    def __init__(self) -> None:
        self._docker: Docker | None = None
        self._capacity: tuple[int, float] | None = None

    @property
    def docker(self) -> Docker:
        """The client, made when the event loop runs."""
        if self._docker is None:
            self._docker = Docker()
        return self._docker

    async def close(self) -> None:
        """Close all connections."""
        if self._docker is not None:
            await self._docker.close()
            self._docker = None

    async def _ask(self, call: Awaitable[Answer]) -> Answer:
        """Wait for an answer.

        Raises:
            DockerError: Docker refuses.
            Refused: it does not answer.
        """
        try:
            return await asyncio.wait_for(call, TIMEOUT)
        except DockerError as error:
            # aiodocker's own number for "no connection".
            if error.status == 900:
                raise Refused(503, DOCKER_SILENT) from error
            raise
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise Refused(503, DOCKER_SILENT) from error

    async def images(self) -> list[dict[str, Any]]:
        """Return the images built by repo2docker, as ``environments.from_images`` takes them."""
        filters = {"dangling": ["false"], "label": [LABEL_REF]}
        images: Any = await self._ask(self.docker.images.list(filters=json.dumps(filters)))
        return images

    async def has(self, image: str) -> bool:
        """Whether there is an image of this name, whatever it is."""
        try:
            await self._ask(self.docker.images.inspect(image))
        except DockerError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def _containers(self, filters: dict[str, list[str]], stopped: bool) -> list[tuple[str, str]]:
        """Return people's containers, as (user, image)."""
        found = await self._ask(self.docker.containers.list(all=stopped, filters=json.dumps(filters)))
        rows = []
        for container in found:
            labels = container["Labels"]
            if name := owner(labels, container["Names"]):
                rows.append((name, (labels or {}).get(LABEL_ENVIRONMENT) or container["Image"]))
        return rows

    async def users(self) -> dict[str, set[str]]:
        """Return who runs a server of which image, by the image's name, in one question to the engine."""
        users: dict[str, set[str]] = {}
        for user, image in await self._containers({"name": [PREFIX]}, stopped=False):
            users.setdefault(image, set()).add(user)
        return users

    async def users_of(self, image: str, stopped: bool = False) -> list[str]:
        """Return who has a server of an image, sorted.

        Servers of an earlier build of the same environment count: their containers say so.

        Args:
            image: the image's name.
            stopped: whether containers count that do not run.
        """
        lists = await asyncio.gather(
            self._containers({"ancestor": [image]}, stopped),
            self._containers({"label": [f"{LABEL_ENVIRONMENT}={image}"]}, stopped),
        )
        return sorted({user for found in lists for user, _ in found})

    async def remove(self, image: str) -> None:
        """Remove an image and the former one; what is gone already is none.

        Raises:
            Conflict: a container needs one of them.
        """
        for name in (former.tag_of(image), image):
            try:
                await self._ask(self.docker.images.delete(name))
            except DockerError as error:
                if error.status == 409:
                    raise Conflict(str(error)) from error
                if error.status != 404:
                    raise

    async def capacity(self) -> tuple[int, float]:
        """Return the memory (bytes) and the number of CPUs of the engine's machine."""
        if self._capacity is None:
            info = await self._ask(self.docker.system.info())
            self._capacity = (int(info["MemTotal"]), float(info["NCPU"]))
        return self._capacity
