"""What administrators do with environments: add, build again, change, remove."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from tljh_repo2docker.database.model import DockerImageSQL

from .. import gpus
from ..access import Entry
from ..builds import BuildRequest, image_name, sources
from ..builds.request import checked
from ..environments import Environment
from ..settings import Settings
from . import groups as unix_groups
from . import requests
from .catalog import ARCHIVED, Catalog, Item
from .engine import Conflict
from .errors import Invalid, Refused, refusals
from .groups import Group
from .requests import shown

MOST_NAMES = 10


def in_use(users: list[str], done: str = "removed") -> Refused:
    """Return the refusal to give up the image of an environment that people use.

    Args:
        users: their names, in order.
        done: what cannot be done with it.
    """
    if not users:
        return Refused(
            409,
            f"This environment cannot be {done}: a container that is not a user's server was made from its image. "
            "Remove that container with Docker first.",
            users=[],
        )
    names = ", ".join(users[:MOST_NAMES])
    more = f" and {len(users) - MOST_NAMES} more" if len(users) > MOST_NAMES else ""
    return Refused(
        409,
        f"This environment cannot be {done} while it is in use by {names}{more}: their servers have to be stopped "
        "first.",
        users=users,
    )


def _means(body: requests.NewEnvironment | requests.Rebuild) -> dict[str, Any]:
    """Return what a build is given for itself alone: its commit, and what opens repository or registry."""
    return {
        "commit": body.commit.strip(),
        "pull": body.pull,
        "username": body.username.strip(),
        "password": body.password.strip(),
        "deploy_key": body.deploy_key,
        "known_hosts": body.known_hosts,
    }


def _source(before: Environment, body: requests.Rebuild) -> tuple[str, str, str]:
    """Return repository, its reference, and the ready image: what an environment has unless others are given."""
    reference = body.reference.strip()
    if reference:
        return "", sources.ready_tag(reference), reference
    repo = body.repo.strip()
    if repo:
        return repo, body.ref.strip() or ("HEAD" if before.reference else before.ref), ""
    if before.reference:
        return "", before.ref, before.reference
    return before.repo, body.ref.strip() or before.ref, ""


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

    async def add(self, body: requests.NewEnvironment, owner: str, pillar: bool = False) -> str:
        """Add an environment: its build starts, or waits for others.

        Args:
            body: what the administrator filled in.
            owner: their name.
            pillar: whether it is among the environments of pillar.

        Returns:
            The image's name.

        Raises:
            Refused: something of it cannot be, or there is such an environment.
        """
        most_memory, most_cpus = await self.engine.capacity()
        with refusals():
            repo, reference = body.repo.strip(), body.reference.strip()
            ref = sources.ready_tag(reference) if reference else body.ref.strip()
            name = requests.environment_name(body.name, repo)
            request = checked(
                BuildRequest(
                    image=image_name(repo, ref, name),
                    repo=repo,
                    ref=ref,
                    name=name,
                    memory=requests.memory(body.memory, most_memory),
                    cpu=requests.cpus(body.cpu, most_cpus),
                    owner=owner,
                    buildargs=requests.build_arguments(body.buildargs),
                    reference=reference,
                    **_means(body),
                )
            )
            description = requests.description(body.description)
            opens = requests.opens(body.opens)
        number = await self._check_gpus(body.gpus)
        groups = await self._check_groups(body.groups, ())
        async with self._lock:
            await self._check_absent(request.image)
            # Somebody may have removed an environment of this name by hand: nobody inherits what it was open to. The
            # groups are set before there is anything to start.
            await self._forget(request.image)
            await asyncio.to_thread(self.store.set_groups, {request.image: groups})
            await asyncio.to_thread(self.store.set_description, request.image, description)
            await asyncio.to_thread(self.store.set_opens, request.image, opens)
            await asyncio.to_thread(self.store.set_gpus, request.image, number)
            await self._note_pillar(request.image, pillar)
            try:
                await self._submit(request)
            except Refused:
                await self._forget(request.image)
                raise
        return request.image

    async def _check_gpus(self, value: str | int | None, before: int = 0) -> int:
        """Return how many GPUs servers are to have; refuse more than before where this machine has not so many."""
        number = requests.gpus(value)
        if number > before:
            there = len(await asyncio.to_thread(gpus.for_servers, self.settings.gpu_reserved))
            why = f"servers can get {there} at most here" if there else "the driver of this server shows none to give"
            if number > there:
                raise Invalid(f"The number of GPUs cannot be {number}: {why}.")
        return number

    async def _check_absent(self, image: str) -> None:
        """Refuse to add what is there. A build that failed without leaving an image can be replaced."""
        for item in await self.catalog.items():
            if item.image != image:
                continue
            if item.status in ("queued", "building"):
                raise Refused(409, f"The environment '{image}' is being built already: wait for it, or remove it.")
            if item.has_image or item.status == ARCHIVED:
                raise Refused(
                    409,
                    f"The environment '{image}' exists already: build it again, remove it first, or choose another "
                    "name or reference.",
                )
        if await self.engine.has(image):
            raise Refused(409, f"Docker has another image called '{image}': choose another name or reference.")

    async def _note_pillar(self, image: str, pillar: bool) -> None:
        if pillar:
            await asyncio.to_thread(self.store.set_pillar, image)

    async def _submit(self, request: BuildRequest) -> None:
        with refusals():
            await self.builder.submit(request)

    async def _forget(self, image: str) -> None:
        """Remove what is known of an environment beside its image."""
        async with self.catalog.session() as session:
            await session.execute(sa.delete(DockerImageSQL).where(DockerImageSQL.name == image))
            await session.commit()
        await asyncio.to_thread(self.store.remove, image)

    async def rebuild(self, image: str, body: requests.Rebuild, owner: str, pillar: bool = False) -> None:
        """Build an environment again. What was not given stays, the repository and the reference too.

        Args:
            image: the image's name.
            body: what the administrator filled in.
            owner: their name, for environments of which nobody knows who added them.
            pillar: whether it is among the environments of pillar.

        Raises:
            Refused: something of it cannot be, or it is being built.
        """
        most_memory, most_cpus = await self.engine.capacity()
        async with self._lock:
            item = await self.catalog.find(image)
            if item.status in ("queued", "building"):
                raise Refused(409, f"The environment '{image}' is being built already: wait for it, or remove it.")
            await self._submit(self._rebuild_request(item, body, owner, most_memory, most_cpus))
            await asyncio.to_thread(self.store.set_archived, image, False)
            await self._note_pillar(image, pillar)

    @staticmethod
    def _rebuild_request(
        item: Item, body: requests.Rebuild, owner: str, most_memory: int, most_cpus: float
    ) -> BuildRequest:
        before = item.environment
        given = body.model_fields_set
        with refusals():
            repo, ref, reference = _source(before, body)
            if (repo, ref, reference) != (before.repo, before.ref, before.reference):
                made = image_name(repo, ref, before.name)
                if made != before.image:
                    raise Invalid(f"That is another environment, {made}: add it, and remove this one.")
            return checked(
                BuildRequest(
                    image=before.image,
                    repo=repo,
                    ref=ref,
                    name=before.name,
                    memory=requests.memory(body.memory, most_memory) if "memory" in given else before.memory,
                    cpu=requests.cpus(body.cpu, most_cpus) if "cpu" in given else before.cpu,
                    owner=item.owner or owner,
                    buildargs=requests.build_arguments(
                        body.buildargs if "buildargs" in given or reference else item.buildargs
                    ),
                    reference=reference,
                    **_means(body),
                )
            )

    async def change(self, image: str, body: requests.Change, pillar: bool = False) -> None:
        """Change an environment's description, groups, limits, GPUs, what it opens with or which of its images is in
        use, whichever are given.

        Args:
            image: the image's name.
            body: what the administrator filled in.
            pillar: whether it is among the environments of pillar.

        Raises:
            Refused: there is no such environment, or something of it cannot be.
        """
        most_memory, most_cpus = await self.engine.capacity()
        description, opens = requests.description(body.description), requests.opens(body.opens)
        memory, cpu = requests.memory(body.memory, most_memory), requests.cpus(body.cpu, most_cpus)
        number = await self._check_gpus(body.gpus, (await self.catalog.entries()).get(image, Entry()).gpus)
        async with self._lock:
            item = await self.catalog.find(image)
            if "previous" in body.model_fields_set and body.previous != item.previous:
                with refusals():
                    await self.builder.exchange(image)
                item = await self.catalog.find(image)
            before = item.environment
            limits = (
                memory if "memory" in body.model_fields_set else before.memory,
                cpu if "cpu" in body.model_fields_set else before.cpu,
            )
            if limits != (before.memory, before.cpu):
                if not item.has_image:
                    raise Refused(409, f"The environment '{image}' has no image yet, whose limits could be changed.")
                with refusals():
                    await self.builder.change_limits(before, *limits)
            await self._note_pillar(image, pillar)
            if "groups" in body.model_fields_set:
                await self._set_groups({image: body.groups})
            if "description" in body.model_fields_set:
                await asyncio.to_thread(self.store.set_description, image, description)
            if "opens" in body.model_fields_set:
                await asyncio.to_thread(self.store.set_opens, image, opens)
            if "gpus" in body.model_fields_set:
                await asyncio.to_thread(self.store.set_gpus, image, number)

    async def make_webhook(self, image: str) -> str:
        """Give an environment a webhook, in the place of the one that it has; returns the secret.

        Raises:
            Refused: there is no such environment, or it has no repository.
        """
        async with self._lock:
            item = await self.catalog.find(image)
            if item.environment.reference:
                raise Refused(
                    409,
                    f"The environment '{image}' comes from a ready image: nobody pushes to it, so it has no webhook.",
                )
            secret = secrets.token_urlsafe(32)
            await asyncio.to_thread(self.store.set_webhook, image, secret)
        return secret

    async def remove_webhook(self, image: str) -> None:
        """Take an environment's webhook away.

        Raises:
            Refused: there is no such environment.
        """
        async with self._lock:
            await self.catalog.find(image)
            await asyncio.to_thread(self.store.set_webhook, image, "")

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

    async def archive(self, image: str, pillar: bool = False) -> None:
        """Give up the images of an environment, and keep all else: it comes back when it is built again.

        Args:
            image: the image's name.
            pillar: whether it is among the environments of pillar.

        Raises:
            Refused: there is no such environment, nobody knows how it is built, it is being built or in use.
        """
        async with self._lock:
            item = await self.catalog.find(image)
            environment = item.environment
            if not environment.repo and not environment.reference:
                raise Refused(409, f"Nobody knows what '{image}' was made from, so it could not be built again.")
            recipe = BuildRequest(
                image,
                environment.repo,
                environment.ref,
                name=environment.name,
                memory=environment.memory,
                cpu=environment.cpu,
                owner=item.owner,
                reference=environment.reference,
            )
            with refusals():
                await self.builder.remember(recipe)
            await self._remove_images(image, "archived")
            await asyncio.to_thread(self.store.set_archived, image, True)
            await self._note_pillar(image, pillar)

    async def _remove_images(self, image: str, done: str) -> None:
        if users := await self.engine.users_of(image):
            raise in_use(users, done)
        try:
            await self.engine.remove(image)
        except Conflict as error:
            # A server that started a moment ago, or a container that does not run.
            raise in_use(await self.engine.users_of(image, stopped=True), done) from error

    async def remove(self, image: str) -> None:
        """Remove an environment with its permissions, its description and its build's log.

        A build under way is ended. Nothing is removed while somebody has a server of it.

        Raises:
            Refused: there is no such environment, or it is in use.
        """
        async with self._lock:
            await self.catalog.find(image)
            if users := await self.engine.users_of(image):
                raise in_use(users)
            with refusals():
                await self.builder.cancel(image)
            await self._remove_images(image, "removed")
            await self._forget(image)
