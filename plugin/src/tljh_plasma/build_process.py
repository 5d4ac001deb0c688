"""Seeing the container of a builder to its end."""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import Any

import aiohttp
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer

from . import build_container as builders
from .build_container import BuildFailed
from .build_log import BuildLog

# What calls to an engine raise that refuses or is not there.
ENGINE_ERRORS = (DockerError, aiohttp.ClientError, OSError)
# Times, a second apart, that an engine is asked again that went away, as when it is upgraded.
PATIENCE = 120
# Seconds to read what a builder printed that has run too long while nobody looked.
READING = 5.0
# Seconds before the output of a container is asked for again that ended though the container runs.
PAUSE = 0.5


async def attend(docker: Docker, container: DockerContainer, image: str, log: BuildLog, timeout: float) -> None:
    """Start a builder if that has not been done, and copy its output to the log until it ends well.

    Args:
        docker: the engine.
        container: the builder, which may run or have ended already.
        image: final name of the image that it builds.
        log: gets all the output, from the start.
        timeout: seconds that a build may take, counted from the start of the container.

    Raises:
        BuildFailed: it ended badly or took too long.
        DockerError: the engine refuses, or has been away too long.
    """
    if (await container.show())["State"]["Status"] == "created":
        # repo2docker would take whatever has this name for the result of an earlier run, and do nothing.
        await builders.discard(docker, image)
        await container.start()
        await container.show()
    try:
        state = await asyncio.wait_for(_copy_output(container, log), _seconds_left(container, timeout))
    except asyncio.TimeoutError:
        await builders.remove(container)
        raise BuildFailed(
            f"The build was stopped because it took longer than {timeout / 60:g} minutes (plasma.builder.timeout)."
        ) from None
    if state["OOMKilled"]:
        raise BuildFailed("The build failed: repo2docker needed more memory than the builder has.")
    if state["ExitCode"]:
        raise BuildFailed(
            f"The build failed: repo2docker ended with exit code {state['ExitCode']}. The lines above say why."
        )


def _seconds_left(container: DockerContainer, timeout: float) -> float | None:
    """Seconds that a builder may still run, enough to read what it printed when its time is up; None if it ended."""
    state = container["State"]
    if not state["Running"]:
        return None
    # Fractions of a second have nine digits here, which Python 3.10 does not read.
    begun = datetime.fromisoformat(state["StartedAt"].partition(".")[0].rstrip("Z"))
    age = datetime.now(timezone.utc) - begun.replace(tzinfo=timezone.utc)
    return max(READING, timeout - age.total_seconds())


async def _copy_output(container: DockerContainer, log: BuildLog) -> dict[str, Any]:
    """Copy output to the log until the container has ended, and return the state it ended in."""
    seen = 0
    patience = PATIENCE
    while True:
        try:
            await container.show()  # log() leaves a coroutine behind when the engine is away
            position = 0
            async for piece in container.log(stdout=True, stderr=True, follow=True):
                # After an interruption everything comes again, from the start.
                log.feed(piece[max(0, seen - position) :])
                position += len(piece)
                seen = max(seen, position)
            state = (await container.show())["State"]
            if not state["Running"]:
                return state
            patience = PATIENCE
            await asyncio.sleep(PAUSE)
        except ENGINE_ERRORS as error:
            if isinstance(error, DockerError) and error.status == 404:
                raise BuildFailed("The build failed: somebody removed the container of the builder.") from error
            patience -= 1
            if patience < 0:
                raise
            await asyncio.sleep(1)
