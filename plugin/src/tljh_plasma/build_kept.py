"""A build that waits or runs, and what is written down of it while it does and when it has ended."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from uuid import UUID

from aiodocker.containers import DockerContainer
from sqlalchemy.exc import SQLAlchemyError
from tljh_repo2docker.database.schemas import BuildStatusType

from . import build_container as builders
from .build_log import BuildLog
from .build_process import ENGINE_ERRORS
from .build_request import BuildRequest
from .build_rows import BuildRows

# Seconds between two times that the log goes to the database.
SAVE_INTERVAL = 3


@dataclass(eq=False)
class Build:
    """A build that waits or runs."""

    request: BuildRequest
    created: str
    log: BuildLog
    uid: UUID
    container: DockerContainer | None = None
    task: asyncio.Task[None] | None = None
    # Its turn has come.
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    # Nothing is left to do but to write down how it ended.
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    # Too late to cancel it.
    ending: bool = False
    cancelled: bool = False


async def save_log(rows: BuildRows, build: Build, log: logging.Logger) -> None:
    """Write the log to the database every few seconds until the build has ended.

    Args:
        rows: the database.
        build: the build.
        log: where problems go that are not the build's own.
    """
    saved = 0
    while not build.ended.is_set():
        try:
            await asyncio.wait_for(build.ended.wait(), SAVE_INTERVAL)
        except asyncio.TimeoutError:
            if build.log.count != saved:
                saved = build.log.count
                try:
                    await rows.update(build.uid, log=build.log.text())
                except SQLAlchemyError as error:
                    log.warning("The log of %s cannot be saved: %s", build.request.image, error)


async def finish(rows: BuildRows, build: Build, status: BuildStatusType, log: logging.Logger) -> None:
    """Write down how a build ended; then its container is of no more use.

    Args:
        rows: the database.
        build: the build.
        status: how it ended.
        log: where problems go that are not the build's own.
    """
    try:
        build.log.flush()
        await rows.update(build.uid, log=build.log.text(), status=status)
        if build.container:
            await builders.remove(build.container)
    except ENGINE_ERRORS as error:
        log.warning("The builder of %s cannot be removed: %s", build.request.image, error)
    finally:
        build.log.end()
