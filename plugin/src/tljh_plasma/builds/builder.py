"""Builds environments: a few at a time, the others in a queue, each in a container that outlives the service.

Everything that a restart of the service must not lose is with the engine and in tljh-repo2docker's database: a build is
a container with labels, made when the build is asked for and started when its turn comes, and a row of the database.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer
from sqlalchemy.exc import SQLAlchemyError
from tljh_repo2docker.database.manager import ImagesDatabaseManager
from tljh_repo2docker.database.schemas import BuildStatusType, DockerImageOutSchema

from .. import environments as envs
from ..hub_rules import LOCAL
from ..settings import Settings
from . import container as builders
from . import former, images, local, rootless, ssh, trial
from .container import ENGINE_ERRORS
from .images import BuildFailed
from .log import BuildLog, Redactor
from .network import BuildNetwork
from .outside import outside
from .request import BuildRefused, BuildRequest, checked
from .rows import BuildRows, SessionFactory, is_building

NO_ANSWER = "The Docker engine does not answer, so nothing can be built now. Please try again later."
INTERRUPTED = "The service was restarted, and the build is lost. Please build the environment again."
# Seconds between two times that a log goes to the database.
SAVE_INTERVAL = 3

LOG = logging.getLogger(__name__)


@dataclass(eq=False)
class Build:
    """A build that waits or runs.

    Attributes:
        request: what is built.
        created: when it was asked for, ISO 8601.
        log: its log.
        uid: id of its row.
        container: the builder, once it is made; a ready image needs none.
        turn: set when its turn has come.
        task: what works on it.
        saved: when its log was last written to the database, by the monotonic clock.
    """

    request: BuildRequest
    created: str
    log: BuildLog
    uid: UUID
    container: DockerContainer | None = None
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    saved: float = 0


class Builder:
    """Builds the images of environments with repo2docker.

    All methods belong to one event loop. The first call of any asks the engine what was going on before.

    Args:
        db_context: makes sessions of tljh-repo2docker's database.
        manager: reads and writes its rows.
        settings: the builder's image, which is downloaded when it is missing unless it is made here, how many builds
            run at a time and for how long, and what they reach.
        log: where problems that are not a build's own go.
        built: is told of each build that succeeds, by its image and the seconds that it took; called in a thread.
    """

    def __init__(
        self,
        db_context: SessionFactory,
        manager: ImagesDatabaseManager,
        settings: Settings,
        log: logging.Logger = LOG,
        built: Callable[[str, float], None] = lambda image, seconds: None,
    ):
        self._rows = BuildRows(db_context, manager)
        self._local = settings.builder_image == LOCAL
        self._image = local.BUILDER if self._local else settings.builder_image
        self._limits = rootless.Limits(
            envs.parse_memory(settings.builder_memory) or 0,
            settings.builder_cpu,
            envs.parse_memory(settings.builder_disk) or 0,
        )
        self._parallel = settings.builder_parallel
        self._timeout = settings.builder_timeout
        self._settings = settings
        self._prefix = settings.prefix
        self._network = BuildNetwork(settings.network_name, settings.build_reach, lambda: bool(self._builds))
        self._shelf = rootless.Shelf(self._network.name, self._limits)
        self._log = log
        self._built = built
        self._docker: Docker | None = None
        # By image, in the order of the queue: the first few run.
        self._builds: dict[str, Build] = {}
        self._changing = asyncio.Lock()
        self._pulling = asyncio.Lock()
        self._fetching = asyncio.Semaphore(self._parallel)
        self._resumed = False

    # What the service calls.

    def states(self) -> dict[str, str]:
        """Return "queued" or "building" by image, for those that are being built."""
        return {image: "building" if build.turn.is_set() else "queued" for image, build in self._builds.items()}

    async def submit(self, request: BuildRequest) -> UUID:
        """Put a build in the queue. An environment that is there already is built again, and replaced if that succeeds.

        Returns:
            The id of the environment's row in the database.

        Raises:
            BuildRefused: the request is not valid (400), the image is being built already (409) or the engine is
                away (503).
        """
        request = checked(request)
        async with self._changing:
            await self._resume()
            if request.image in self._builds:
                raise BuildRefused(
                    f"{request.image} is being built already: wait until it is done, or remove it first.", 409
                )
            log = BuildLog(Redactor(request.username, request.password, self._logins()))
            created = datetime.now(timezone.utc).isoformat()
            build = Build(request, created, log, await self._rows.record(request, created))
            self._begin(build)
        return build.uid

    async def cancel(self, image: str) -> None:
        """End a build if there is one, and remove its container, its row of the database and what it has made so far.

        Raises:
            BuildRefused: the engine is away (503).
        """
        async with self._changing:
            await self._resume()
            build = self._builds.get(image)
            if build is None:
                return
            build.task.cancel()
            await asyncio.wait([build.task])
            try:
                for container in await builders.containers(self._engine, build.uid):
                    await builders.remove(container)
                await images.discard(self._engine, image)
                await self._rows.delete(build.uid)
            except ENGINE_ERRORS as error:
                raise BuildRefused(NO_ANSWER, 503) from error
            finally:
                build.log.say("The build was cancelled.")
                self._leave(build)

    async def change_limits(self, environment: envs.Environment, memory: int | None, cpu: float | None) -> None:
        """Give an environment other limits, for the servers that start from now on.

        Args:
            environment: the environment, which has an image.
            memory: memory limit in bytes, None for the hub's default.
            cpu: number of CPUs, None for the hub's default.

        Raises:
            BuildRefused: it is being built (409) or the engine refuses or is away (503).
        """
        image = environment.image
        wanted = BuildRequest(image, environment.repo, environment.ref, memory=memory, cpu=cpu)
        limits = {"mem_limit": wanted.memory_label, "cpu_limit": wanted.cpu_label}
        async with self._resting(image, "its limits can be changed"):
            await images.change_limits(self._engine, environment, *limits.values())
            if row := await self._rows.find(image):
                await self._rows.update(row.uid, image_meta=row.image_meta.model_copy(update=limits))

    async def exchange(self, image: str) -> None:
        """Put the former image of an environment in use, for the servers that start from now on, or the newest again.

        Raises:
            BuildRefused: it is being built or has no former image (409), or the engine refuses or is away (503).
        """
        async with self._resting(image, "its image can be exchanged"):
            await former.exchange(self._engine, image)

    async def remember(self, request: BuildRequest) -> None:
        """Keep how an environment is built whose image goes; where that is kept already, it stays.

        Raises:
            BuildRefused: it is being built (409), or the engine is away (503).
        """
        async with self._resting(request.image, "it can be archived"):
            if not await self._rows.find(request.image):
                uid = await self._rows.record(request, datetime.now(timezone.utc).isoformat())
                await self._rows.update(uid, status=BuildStatusType.BUILT)

    @asynccontextmanager
    async def _resting(self, image: str, what: str) -> AsyncIterator[None]:
        """A block that changes an image of which no build is under way."""
        async with self._changing:
            await self._resume()
            if image in self._builds:
                raise BuildRefused(f"{image} is being built: {what} when that is done.", 409)
            try:
                yield
            except (BuildFailed, *ENGINE_ERRORS) as error:
                self._log.error("%s cannot be changed: %s", image, error)
                raise BuildRefused(NO_ANSWER, 503) from error

    async def text(self, image: str) -> str:
        """Return the log of the latest build as far as it is there; empty when there is none.

        Raises:
            BuildRefused: the engine is away (503).
        """
        await self.resume()
        if build := self._builds.get(image):
            return build.log.text()
        row = await self._rows.find(image)
        return (row.log or "") if row else ""

    async def follow(self, image: str) -> AsyncIterator[str]:
        """Yield the log of a build from its first line, then each line as it comes; of a finished build what was kept.

        The row of the database says how the build ended when this is over.

        Raises:
            BuildRefused: the environment is not known (404) or the engine is away (503).
        """
        await self.resume()
        if build := self._builds.get(image):
            async for piece in build.log.follow():
                yield piece
        elif row := await self._rows.find(image):
            if row.log:
                yield row.log
        else:
            raise BuildRefused(f"There is no log of {image}.", 404)

    async def resume(self) -> None:
        """Take up the builds that were there before this process. Calls after the first that succeeded do nothing.

        Raises:
            BuildRefused: the engine is away (503).
        """
        if not self._resumed:
            async with self._changing:
                await self._resume()

    async def close(self) -> None:
        """Let go of all builds without ending them: another process can take them up."""
        tasks = [build.task for build in self._builds.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.to_thread(self._network.upkeep.stop)
        if self._docker:
            await self._docker.close()

    # Beginning and ending.

    @property
    def _engine(self) -> Docker:
        self._docker = self._docker or Docker()
        return self._docker

    def _begin(self, build: Build) -> None:
        self._builds[build.request.image] = build
        build.task = asyncio.create_task(self._run(build))
        self._advance()

    def _advance(self) -> None:
        for build in list(self._builds.values())[: self._parallel]:
            build.turn.set()

    def _leave(self, build: Build) -> None:
        """Give up the place of a build, for the next one."""
        build.log.end()
        self._builds.pop(build.request.image, None)
        self._advance()

    async def _resume(self) -> None:
        if self._resumed:
            return
        try:
            containers = await builders.containers(self._engine)
            rows = await self._rows.all()
            # Those that run come first: they have their place already.
            for container in sorted(containers, key=_is_waiting):
                await self._take_up(container, rows)
            for row in rows.values():
                if row.name in self._builds:
                    continue
                if is_building(row):
                    log = f"{row.log or ''}{INTERRUPTED}\n"
                    await self._rows.update(row.uid, log=log, status=BuildStatusType.FAILED)
                    await trial.forget(row.uid)
                await images.discard(self._engine, row.name)
        except (*ENGINE_ERRORS, ValueError) as error:  # ValueError: there is no socket of an engine at all
            self._log.error("Builds cannot be taken up: %s", error)
            raise BuildRefused(NO_ANSWER, 503) from error
        ssh.sweep()
        self._network.upkeep.start()
        self._resumed = True

    async def _take_up(self, container: DockerContainer, rows: dict[UUID, DockerImageOutSchema]) -> None:
        """Go on with the build of a container; one whose build has been written down as ended is removed."""
        labels = container["Labels"]
        row = next((row for uid, row in rows.items() if str(uid) == labels[builders.LABEL_UID]), None)
        if row is None or row.name in self._builds:
            return  # of another hub on this engine, or taken up by a call before that the engine broke off
        if not is_building(row):
            await builders.remove(container)
            return
        username, password = await builders.read_secrets(container)
        request = BuildRequest(
            row.name,
            row.image_meta.repo,
            row.image_meta.ref,
            name=labels[envs.LABEL_NAME],
            memory=envs.parse_memory(labels[envs.LABEL_MEMORY]),
            cpu=envs.parse_cpu(labels[envs.LABEL_CPU]),
            owner=labels[images.LABEL_OWNER],
            commit=labels[envs.LABEL_COMMIT],
            username=username,
            password=password,
        )
        log = BuildLog(Redactor(username, password, self._logins()))
        build = Build(request, labels[images.LABEL_CREATED], log, row.uid, container)
        if not _is_waiting(container):
            build.turn.set()
        self._begin(build)

    # Running.

    async def _run(self, build: Build) -> None:
        """Everything from the queue to the end. Cancelled, it leaves the container and the row as they are."""
        image = build.request.image
        try:
            status = await self._build(build)
        except Exception:
            # Whatever it is, the next build gets its turn.
            self._log.exception("The build of %s ended unexpectedly", image)
            build.log.say("Something unexpected ended the build: the log of the service says what.")
            status = BuildStatusType.FAILED
        try:
            build.log.flush()
            await self._rows.update(build.uid, log=build.log.text(), status=status)
            if build.container:
                await builders.remove(build.container)
                await self._sweep()
        except (SQLAlchemyError, *ENGINE_ERRORS) as error:
            self._log.warning("The end of the build of %s cannot be written down: %s", image, error)
        self._leave(build)

    async def _sweep(self) -> None:
        """Remove what was kept for the next build of environments that are gone or archived."""
        there = {tag for image in await self._engine.images.list() for tag in image["RepoTags"] or ()}
        rows = (await self._rows.all()).values()
        wanted = {row.name for row in rows if row.name in there or row.status != BuildStatusType.BUILT}
        await self._shelf.sweep(self._engine, wanted)

    async def _save(self, build: Build) -> None:
        """Write the log to the database, every few seconds."""
        if time.monotonic() - build.saved > SAVE_INTERVAL:
            build.saved = time.monotonic()
            try:
                await self._rows.update(build.uid, log=build.log.text())
            except SQLAlchemyError as error:
                self._log.warning("The log of %s cannot be saved: %s", build.request.image, error)

    async def _build(self, build: Build) -> BuildStatusType:
        request, image, say = build.request, build.request.image, build.log.say
        begun = 0.0
        try:
            if request.reference:
                await build.turn.wait()
                begun = time.time()
                making = images.make_from_ready(self._engine, request, build.created, say)
                await self._in_time(making, f"The image {request.reference}")
            else:
                if build.container is None:
                    # From now on a restart does not lose the build.
                    build.container = await self._make_container(build)
                await build.turn.wait()
                await self._network.protect()
                await self._attend(build)
            if self._settings.builder_trial and await images.image_id(self._engine, images.build_tag(image)):
                await self._network.protect()
                await trial.start(self._engine, image, build.uid, self._settings, self._network.name, build.log)
            begun = begun or builders.started(build.container["State"]).timestamp()
            await images.publish(self._engine, image, build.created, former.tag_of(image))
            say(f"The image {image} is ready.")
            await asyncio.to_thread(self._built, image, time.time() - begun)
            return BuildStatusType.BUILT
        except BuildFailed as error:
            reason = str(error)
        except ENGINE_ERRORS as error:
            answer = error.message if isinstance(error, DockerError) else str(error)
            reason = f"The Docker engine refused or went away: {' '.join(answer.split())}"
        try:
            await images.discard(self._engine, image)
            if await images.image_id(self._engine, image):
                say("The environment stays as it was before this build.")
        except ENGINE_ERRORS as error:
            self._log.warning("What the failed build of %s left cannot be removed: %s", image, error)
        say(reason)  # last: lists of environments show it
        return BuildStatusType.FAILED

    async def _attend(self, build: Build) -> None:
        """Have the builder do its work, and the engine take what comes of it."""
        image, container = build.request.image, build.container
        working = builders.attend(self._engine, container, image, build.log, self._timeout, lambda: self._save(build))
        # Also one that was made before an upgrade.
        if await builders.holds_socket(container):
            await working
            return
        serving = self._shelf.serve(self._engine, container, image)
        tasks = [asyncio.ensure_future(work) for work in (working, serving)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        taking = asyncio.ensure_future(rootless.take(container, build.request, build.created, self._limits))
        try:
            await self._in_time(asyncio.shield(taking), "The finished image")
        except BaseException:
            # The engine may take it all the same: whoever goes on removes it then.
            await asyncio.wait([taking], timeout=self._timeout)
            raise

    async def _make_container(self, build: Build) -> DockerContainer:
        """Get the builder's image and a repository that it cannot fetch itself, and make the builder."""
        request = build.request
        if self._local:
            await local.require(self._engine)
        else:
            await self._download(build)
        with tempfile.TemporaryFile(dir=builders.LARGE_FILES) as bundle:
            if request.deploy_key:
                async with self._fetching:
                    commit = await self._in_time(ssh.fetch(request, bundle, build.log), "The repository")
                request = replace(request, commit=commit)
            await self._network.protect()
            source = bundle if request.deploy_key else None
            host = None
            if self._local:
                mounts = await rootless.prepare(self._engine, request.image)
                host = rootless.host_config(self._network.name, self._limits, mounts)
            making = builders.create(
                self._engine,
                request,
                build.uid,
                build.created,
                self._image,
                self._network.name,
                source,
                outside(self._prefix, local.modules() if self._local else None),
                host,
            )
            return await builders.to_its_end(making)

    async def _download(self, build: Build) -> None:
        """Get the builder's image from its registry."""
        async with self._pulling:
            pulling = images.download(
                self._engine,
                self._image,
                build.log.say,
                f"The image of the builder, {self._image}, is not on this server yet. It is downloaded now.",
                f"The image of the builder cannot be downloaded ({{reason}}). Run 'docker pull {self._image}' on "
                "the server to see why, or set plasma.builder.image to an image that is there.",
            )
            await self._in_time(pulling, "The image of the builder")

    def _logins(self) -> list[tuple[str, str]]:
        """User names and passwords of the proxies that builds go through."""
        try:
            return outside(self._prefix).logins
        except BuildFailed:
            return []  # said by the build that wants them

    async def _in_time(self, work: Coroutine[Any, Any, Any], what: str) -> Any:
        """Return what a coroutine returns, or raise BuildFailed when it takes too long."""
        try:
            return await asyncio.wait_for(work, self._timeout)
        except asyncio.TimeoutError:
            raise BuildFailed(f"{what} was not there after {self._timeout / 60:g} minutes.") from None


def _is_waiting(container: DockerContainer) -> bool:
    """Whether a builder, as the engine lists it, was made and not started."""
    return container["State"] == "created"
