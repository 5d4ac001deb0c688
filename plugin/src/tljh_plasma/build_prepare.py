"""What comes before a build: the builder's image, a repository that it cannot fetch itself, the builder's container."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any
from uuid import UUID

from aiodocker import Docker
from aiodocker.containers import DockerContainer

from . import build_container as builders
from . import build_ssh
from .build_container import BuildFailed
from .build_log import BuildLog
from .build_network import BuildNetwork
from .build_request import BuildRequest


async def in_time(work: Coroutine[Any, Any, Any], timeout: float, what: str) -> Any:
    """Return what ``work`` returns, unless it takes too long.

    Args:
        work: gets something.
        timeout: seconds that it may take.
        what: what it gets, at the beginning of a sentence.

    Raises:
        BuildFailed: it took longer.
    """
    try:
        return await asyncio.wait_for(work, timeout)
    except asyncio.TimeoutError:
        raise BuildFailed(f"{what} was not there after {timeout / 60:g} minutes.") from None


class Preparation:
    """Makes the containers of builders.

    Args:
        image: the builder's image; it is downloaded when it is missing.
        parallel: number of repositories that are fetched at a time.
        timeout: seconds that each step may take.
        network: of the builds.
    """

    def __init__(self, image: str, parallel: int, timeout: float, network: BuildNetwork):
        self._image = image
        self._network = network
        self._timeout = timeout
        self._pulling = asyncio.Lock()
        self._fetching = asyncio.Semaphore(parallel)

    async def container(
        self, docker: Docker, request: BuildRequest, uid: UUID, created: str, log: BuildLog
    ) -> DockerContainer:
        """Return a new container of a builder, which is not started.

        Args:
            docker: the engine.
            request: what is built.
            uid: id of the environment's row.
            created: when it was asked for.
            log: the build's.

        Raises:
            BuildFailed: image or repository cannot be had.
            DockerError: the engine refuses or is away.
        """
        async with self._pulling:
            pulling = builders.pull(docker, self._image, log.say)
            await in_time(pulling, self._timeout, "The image of the builder")
        with contextlib.ExitStack() as stack:
            bundle = None
            if request.deploy_key:
                bundle = stack.enter_context(tempfile.TemporaryFile(dir=builders.LARGE_FILES))
                async with self._fetching:
                    fetching = build_ssh.fetch(request, bundle, log)
                    commit = await in_time(fetching, self._timeout, "The repository")
                request = replace(request, commit=commit)
            await self._network.make()
            making = asyncio.ensure_future(
                builders.create(docker, request, uid, created, self._image, self._network.name, bundle)
            )
            try:
                return await asyncio.shield(making)
            except asyncio.CancelledError:
                # The engine may have made it already: let nobody go on before that is known.
                await asyncio.wait([making])
                raise
