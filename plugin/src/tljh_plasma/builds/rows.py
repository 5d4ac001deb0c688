"""The rows of tljh-repo2docker's database that builds write: one for each environment, with its state and log."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession
from tljh_repo2docker.database.manager import ImagesDatabaseManager
from tljh_repo2docker.database.schemas import (
    BuildStatusType,
    DockerImageCreateSchema,
    DockerImageOutSchema,
    DockerImageUpdateSchema,
    ImageMetadataType,
)

from .request import BuildRequest

# What tljh-repo2docker calls the provider of a repository; for a ready image, which takes the repository's place.
READY = "image"

SessionFactory = Callable[[], AbstractAsyncContextManager[AsyncSession]]


class BuildRows:
    """Short transactions on the rows.

    Args:
        db_context: makes sessions of the database.
        manager: reads and writes rows.
    """

    def __init__(self, db_context: SessionFactory, manager: ImagesDatabaseManager):
        self._db_context = db_context
        self._manager = manager

    async def record(self, request: BuildRequest, created: str) -> UUID:
        """Write that an environment is being built, without credentials; a known one keeps its row.

        Args:
            request: the build.
            created: when it was asked for.

        Returns:
            The id of the row.
        """
        meta = ImageMetadataType(
            display_name=request.name,
            repo=request.reference or request.repo,
            ref=request.ref,
            creation_date=created,
            owner=request.owner,
            cpu_limit=request.cpu_label,
            mem_limit=request.memory_label,
            node_selector={},
            buildargs="\n".join(request.buildargs) or None,
            provider=READY if request.reference else None,
        )
        values: dict[str, Any] = {
            "name": request.image,
            "status": BuildStatusType.BUILDING,
            "log": "",
            "image_meta": meta,
        }
        if row := await self.find(request.image):
            await self.update(row.uid, **values)
            return row.uid
        async with self._db_context() as db:
            made = await self._manager.create(db, DockerImageCreateSchema(uid=uuid4(), **values))
            return made.uid

    async def all(self) -> dict[UUID, DockerImageOutSchema]:
        """Return all rows by id."""
        async with self._db_context() as db:
            return {row.uid: row for row in await self._manager.read_all(db)}

    async def find(self, image: str) -> DockerImageOutSchema | None:
        """Return the row of an image."""
        async with self._db_context() as db:
            return await self._manager.read_by_image_name(db, image)

    async def update(self, uid: UUID, **values: Any) -> None:
        """Write columns of a row, such as ``log`` and ``status``. A row that is gone stays away."""
        async with self._db_context() as db:
            await self._manager.update(db, DockerImageUpdateSchema(uid=uid, **values))

    async def delete(self, uid: UUID) -> None:
        """Remove a row, if it is there."""
        async with self._db_context() as db:
            await self._manager.delete(db, uid)


def is_building(row: DockerImageOutSchema) -> bool:
    """Tell whether a row says that its environment is being built."""
    return row.status == BuildStatusType.BUILDING.value
