"""What administrators do with environments: add, build again, change, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from tljh_repo2docker.database.model import DockerImageSQL

from .. import build_request
from ..access import Entry
from ..build_request import BuildRefused, BuildRequest
from ..settings import Settings
from . import groups as unix_groups
from . import requests
from .catalog import Catalog, Item
from .engine import Conflict
from .errors import Refused
from .groups import Group
from .requests import Invalid, shown

MOST_NAMES = 10


def in_use(users: list[str]) -> Refused:
    """Return the refusal to remove an environment that people use.

    Args:
        users: their names, in order.
    """
    if not users:
        return Refused(
            409,
            "This environment cannot be removed: a container that is not a user's server was made from its image. "
            "Remove that container with Docker first.",
            users=[],
        )
    names = ", ".join(users[:MOST_NAMES])
    more = f" and {len(users) - MOST_NAMES} more" if len(users) > MOST_NAMES else ""
    return Refused(
        409,
        f"This environment cannot be removed while it is in use by {names}{more}: their servers have to be stopped "
        "first.",
        users=users,
    )


class Operations:
    """Changes environments, one change at a time.

    Args:
        catalog: lists them.
        settings: the hub's settings.
    """

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        self.catalog = catalog
        self.engine = catalog.engine
        self.store = catalog.store
        self.builder = catalog.builder
        self.settings = settings
        # Between "is there one already?" and "add it" nobody else may add it.
        self._lock = asyncio.Lock()

    async def groups(self) -> dict[str, Group]:
        """Return all groups that play a part: those of the settings, and those that environments were given to."""
        entries = await self.catalog.entries()
        granted = {name for entry in entries.values() for name in entry.groups}
        return await asyncio.to_thread(unix_groups.look_up, self.settings.groups, granted)

    async def _check_groups(self, chosen: Iterable[str], before: Iterable[str]) -> tuple[str, ...]:
        return unix_groups.check(chosen, before, await self.groups())

    async def add(self, body: requests.NewEnvironment, owner: str) -> str:
        """Add an environment: its build starts, or waits for others.

        Args:
            body: what the administrator filled in.
            owner: their name.

        Returns:
            The image's name.

        Raises:
            Refused: something of it cannot be, or there is such an environment.
        """
        most_memory, most_cpus = await self.engine.capacity()
        try:
            repo = body.repo.strip()
            name = requests.environment_name(body.name, repo)
            request = build_request.checked(
                BuildRequest(
                    image=build_request.image_name(repo, body.ref.strip(), name),
                    repo=repo,
                    ref=body.ref,
                    name=name,
                    memory=requests.memory(body.memory, most_memory),
                    cpu=requests.cpus(body.cpu, most_cpus),
                    owner=owner,
                    buildargs=requests.build_arguments(body.buildargs),
                    username=body.username.strip(),
                    password=body.password.strip(),
                )
            )
            description = requests.description(body.description)
        except Invalid as error:
            raise Refused(400, str(error)) from error
        except BuildRefused as error:
            raise Refused(error.status, error.message) from error
        groups = await self._check_groups(body.groups, ())
        async with self._lock:
            await self._check_absent(request.image)
            # Somebody may have removed an environment of this name by hand: nobody inherits what it was open to. The
            # groups are set before there is anything to start.
            await self._forget(request.image)
            await asyncio.to_thread(self.store.set_groups, {request.image: groups})
            await asyncio.to_thread(self.store.set_description, request.image, description)
            try:
                await self._submit(request)
            except Refused:
                await self._forget(request.image)
                raise
        return request.image

    async def _check_absent(self, image: str) -> None:
        """Refuse to add what is there. A build that failed without leaving an image can be replaced."""
        for item in await self.catalog.items():
            if item.image != image:
                continue
            if item.status in ("queued", "building"):
                raise Refused(409, f"The environment '{image}' is being built already: wait for it, or remove it.")
            if item.has_image:
                raise Refused(
                    409,
                    f"The environment '{image}' exists already: build it again, remove it first, or choose another "
                    "name or reference.",
                )
        if await self.engine.has(image):
            raise Refused(409, f"Docker has another image called '{image}': choose another name or reference.")

    async def _submit(self, request: BuildRequest) -> None:
        try:
            await self.builder.submit(request)
        except BuildRefused as error:
            raise Refused(error.status, error.message) from error

    async def _forget(self, image: str) -> None:
        """Remove what is known of an environment beside its image."""
        async with self.catalog.session() as session:
            await session.execute(sa.delete(DockerImageSQL).where(DockerImageSQL.name == image))
            await session.commit()
        await asyncio.to_thread(self.store.remove, image)

    async def rebuild(self, image: str, body: requests.Rebuild, owner: str) -> None:
        """Build an environment again, from the same repository and reference. What was not given stays.

        Args:
            image: the image's name.
            body: what the administrator filled in.
            owner: their name, for environments of which nobody knows who added them.

        Raises:
            Refused: something of it cannot be, or it is being built.
        """
        most_memory, most_cpus = await self.engine.capacity()
        async with self._lock:
            item = await self.catalog.find(image)
            if item.status in ("queued", "building"):
                raise Refused(409, f"The environment '{image}' is being built already: wait for it, or remove it.")
            await self._submit(self._rebuild_request(item, body, owner, most_memory, most_cpus))

    @staticmethod
    def _rebuild_request(
        item: Item, body: requests.Rebuild, owner: str, most_memory: int, most_cpus: float
    ) -> BuildRequest:
        before = item.environment
        given = body.model_fields_set
        try:
            return build_request.checked(
                BuildRequest(
                    image=before.image,
                    repo=before.repo,
                    ref=before.ref,
                    name=before.name,
                    memory=requests.memory(body.memory, most_memory) if "memory" in given else before.memory,
                    cpu=requests.cpus(body.cpu, most_cpus) if "cpu" in given else before.cpu,
                    owner=item.owner or owner,
                    buildargs=requests.build_arguments(body.buildargs if "buildargs" in given else item.buildargs),
                    username=body.username.strip(),
                    password=body.password.strip(),
                )
            )
        except Invalid as error:
            raise Refused(400, str(error)) from error
        except BuildRefused as error:
            raise Refused(error.status, error.message) from error

    async def change(self, image: str, body: requests.Change) -> None:
        """Change an environment's description or groups, whichever is given.

        Raises:
            Refused: there is no such environment, or something of it cannot be.
        """
        try:
            description = requests.description(body.description)
        except Invalid as error:
            raise Refused(400, str(error)) from error
        async with self._lock:
            await self.catalog.find(image)
            if "groups" in body.model_fields_set:
                await self._set_groups({image: body.groups})
            if "description" in body.model_fields_set:
                await asyncio.to_thread(self.store.set_description, image, description)

    async def permit(self, chosen: dict[str, list[str]]) -> None:
        """Replace the groups of the named environments, of all or of none.

        Args:
            chosen: groups by image.

        Raises:
            Refused: an environment or a group does not exist.
        """
        async with self._lock:
            known = {item.image for item in await self.catalog.items()}
            for image in chosen:
                if image not in known:
                    raise Refused(400, f"There is no environment '{shown(image)}' (any more): reload the page.")
            await self._set_groups(chosen)

    async def _set_groups(self, chosen: dict[str, list[str]]) -> None:
        entries, groups = await asyncio.gather(self.catalog.entries(), self.groups())
        checked: dict[str, Any] = {
            image: unix_groups.check(names, entries.get(image, Entry()).groups, groups)
            for image, names in chosen.items()
        }
        await asyncio.to_thread(self.store.set_groups, checked)

    async def remove(self, image: str) -> None:
        """Remove an environment with its permissions, its description and its build's log.

        A build under way is ended. Nothing is removed while somebody has a server of it.

        Raises:
            Refused: there is no such environment, or it is in use.
        """
        async with self._lock:
            await self.catalog.find(image)
            users = await self.engine.users_of(image)
            if users:
                raise in_use(users)
            try:
                await self.builder.cancel(image)
            except BuildRefused as error:
                raise Refused(error.status, error.message) from error
            try:
                await self.engine.remove(image)
            except Conflict as error:
                # A server that started a moment ago, or a container that does not run.
                raise in_use(await self.engine.users_of(image, stopped=True)) from error
            await self._forget(image)
