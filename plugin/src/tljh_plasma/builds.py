"""Builds environments: a few at a time, the others in a queue, each in a container that outlives the service.

Everything that a restart of the service must not lose is with the engine and in tljh-repo2docker's database: a build is
a container with labels, made when the build is asked for and started when its turn comes, and a row of the database.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from uuid import UUID

from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer
from tljh_repo2docker.database.manager import ImagesDatabaseManager
from tljh_repo2docker.database.schemas import BuildStatusType, DockerImageOutSchema

from . import build_container as builders
from . import build_kept, build_ready, build_ssh
from . import environments as envs
from .build_container import BuildFailed
from .build_kept import Build
from .build_log import BuildLog, Redactor
from .build_network import BuildNetwork
from .build_prepare import Preparation, in_time
from .build_process import ENGINE_ERRORS, attend
from .build_request import BuildRefused, BuildRequest, checked, image_name
from .build_rows import BuildRows, SessionFactory, is_building
from .reach import INTERNET, Reach
from .settings import DEFAULT_NETWORK_NAME

__all__ = ["Build", "BuildRefused", "BuildRequest", "Builder", "image_name"]

NO_ANSWER = "The Docker engine does not answer, so nothing can be built now. Please try again later."
INTERRUPTED = "The service was restarted, and the build is lost. Please build the environment again."


class Builder:
    """Builds the images of environments with repo2docker.

    All methods belong to one event loop. The first call of any asks the engine what was going on before.
    """

    def __init__(
        self,
        db_context: SessionFactory,
        manager: ImagesDatabaseManager,
        *,
        image: str,
        parallel: int = 2,
        timeout: float = 7200,
        network: str = DEFAULT_NETWORK_NAME,
        reach: Reach = INTERNET,
        log: logging.Logger | None = None,
    ):
        """Nothing is contacted yet.

        Args:
            db_context: makes sessions of tljh-repo2docker's database.
            manager: reads and writes its rows.
            image: image with repo2docker; it is downloaded when it is missing.
            parallel: number of builds at a time.
            timeout: seconds that a build may take.
            network: name of the users' network, from which that of the builds follows.
            reach: what builds reach beside the internet.
            log: where problems that are not a build's own go.
        """
        self._rows = BuildRows(db_context, manager)
        self._network = BuildNetwork(network, reach, busy=lambda: bool(self._running))
        self._preparation = Preparation(image, parallel, timeout, self._network)
        self._parallel = parallel
        self._timeout = timeout
        self._log = log or logging.getLogger(__name__)
        self._docker: Docker | None = None
        self._builds: dict[str, Build] = {}
        self._queue: deque[Build] = deque()
        self._running: set[Build] = set()
        self._changing = asyncio.Lock()
        self._resumed = False
        self._closed = False

    # What the service calls.

    def state(self, image: str) -> str | None:
        """Return "queued" or "building", or None when the image is not being built."""
        return self.states().get(image)

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
                    409, f"{request.image} is being built already: wait until it is done, or remove it first."
                )
            log = BuildLog(Redactor(request.username, request.password))
            created = datetime.now(timezone.utc).isoformat()
            build = Build(request, created, log, await self._rows.record(request, created))
            self._begin(build)
        return build.uid

    async def cancel(self, image: str) -> bool:
        """End a build, and remove its container, its row of the database and what it has made so far.

        Returns:
            Whether it was ended; otherwise there is no such build, or it succeeded at this very moment.

        Raises:
            BuildRefused: the engine is away (503).
        """
        async with self._changing:
            await self._resume()
            build = self._builds.get(image)
            if build is None or build.task is None:
                return False
            if not build.ending:
                build.cancelled = True
                build.task.cancel()
            await asyncio.wait([build.task])
            if not build.cancelled:
                return False
            try:
                for container in await builders.containers(self._engine, build.uid):
                    await builders.remove(container)
                await builders.discard(self._engine, image)
                await self._rows.delete(build.uid)
            except ENGINE_ERRORS as error:
                raise BuildRefused(503, NO_ANSWER) from error
            finally:
                build.log.say("The build was cancelled.")
                build.log.end()
                self._leave(build)
        return True

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
        async with self._changing:
            await self._resume()
            if image in self._builds:
                raise BuildRefused(409, f"{image} is being built: its limits can be changed when that is done.")
            try:
                await build_ready.change_limits(self._engine, environment, wanted.memory_label, wanted.cpu_label)
            except (BuildFailed, *ENGINE_ERRORS) as error:
                self._log.error("The limits of %s cannot be changed: %s", image, error)
                raise BuildRefused(503, NO_ANSWER) from error
            await self._rows.set_limits(image, wanted.memory_label, wanted.cpu_label)

    async def text(self, image: str) -> str:
        """Return the log of the latest build as far as it is there; empty when there is none.

        Raises:
            BuildRefused: the engine is away (503).
        """
        await self.resume()
        build = self._builds.get(image)
        if build:
            return build.log.text()
        row = await self._rows.find(image)
        return (row.log or "") if row else ""

    async def follow(self, image: str) -> AsyncIterator[str]:
        """Give the log of a build from its first line, then each line as it comes; of a finished build what was kept.

        The row of the database says how the build ended when this is over.

        Raises:
            BuildRefused: the environment is not known (404) or the engine is away (503).
        """
        await self.resume()
        build = self._builds.get(image)
        if build:
            async for piece in build.log.follow():
                yield piece
            return
        row = await self._rows.find(image)
        if row is None:
            raise BuildRefused(404, f"There is no log of {image}.")
        if row.log:
            yield row.log

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
        self._closed = True
        builds = [build for build in self._builds.values() if build.task]
        for build in builds:
            if not build.ending:
                build.task.cancel()
        if builds:
            await asyncio.wait([build.task for build in builds])
        await self._network.leave()
        if self._docker:
            await self._docker.close()

    # Beginning.

    @property
    def _engine(self) -> Docker:
        if self._docker is None:
            self._docker = Docker()
        return self._docker

    def _begin(self, build: Build, *, started: bool = False) -> None:
        """Take a build into the queue, or among the running ones when its container was started before."""
        self._builds[build.request.image] = build
        if started:
            self._running.add(build)
            build.turn.set()
        else:
            self._queue.append(build)
        build.task = asyncio.create_task(self._run(build), name=f"build of {build.request.image}")
        build.task.add_done_callback(self._report)
        self._advance()

    def _report(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception():
            self._log.error("The %s ended unexpectedly", task.get_name(), exc_info=task.exception())

    def _advance(self) -> None:
        while self._queue and len(self._running) < self._parallel:
            build = self._queue.popleft()
            self._running.add(build)
            build.turn.set()

    def _leave(self, build: Build) -> None:
        """Give up the place of a build, for the next one."""
        self._builds.pop(build.request.image, None)
        self._running.discard(build)
        if build in self._queue:
            self._queue.remove(build)
        if not self._closed:
            self._advance()

    async def _resume(self) -> None:
        if self._resumed:
            return
        try:
            found = await builders.containers(self._engine)
            rows = await self._rows.all()
            # Those that run come first: they have their place already.
            for container in sorted(found, key=_is_waiting):
                await self._take_up(container, rows)
            for row in rows.values():
                if row.name in self._builds:
                    continue
                if is_building(row):
                    log = f"{row.log or ''}{INTERRUPTED}\n"
                    await self._rows.update(row.uid, log=log, status=BuildStatusType.FAILED)
                await builders.discard(self._engine, row.name)
        except (*ENGINE_ERRORS, ValueError) as error:  # ValueError: there is no socket of an engine at all
            self._log.error("Builds cannot be taken up: %s", error)
            raise BuildRefused(503, NO_ANSWER) from error
        build_ssh.sweep()
        self._network.watch()
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
        meta = row.image_meta
        request = BuildRequest(
            row.name, meta.repo, meta.ref, meta.display_name, owner=meta.owner, username=username, password=password
        )
        log = BuildLog(Redactor(username, password))
        build = Build(request, labels[builders.LABEL_CREATED], log, row.uid, container)
        self._begin(build, started=not _is_waiting(container))

    # Running.

    async def _run(self, build: Build) -> None:
        """Everything from the queue to the end. Cancelled, it leaves the container and the row as they are."""
        saving = asyncio.create_task(build_kept.save_log(self._rows, build, self._log))
        status = None
        try:
            status = await self._build(build)
        finally:
            let_go = status is None and (build.cancelled or self._closed)
            if status is None and not let_go:
                build.log.say("Something unexpected ended the build: the log of the service says what.")
                status = BuildStatusType.FAILED
            build.ended.set()
            await asyncio.wait([saving])
            try:
                if not let_go:
                    await build_kept.finish(self._rows, build, status, self._log)
            finally:
                # The container of one that was cancelled still runs: cancel() takes its place away.
                if not (let_go and build.cancelled):
                    self._leave(build)

    async def _build(self, build: Build) -> BuildStatusType:
        image = build.request.image
        try:
            if build.request.reference:
                await build.turn.wait()
                making = build_ready.make(self._engine, build.request, build.created, build.log.say)
                await in_time(making, self._timeout, f"The image {build.request.reference}")
            else:
                if build.container is None:
                    # From now on a restart does not lose the build.
                    build.container = await self._preparation.container(
                        self._engine, build.request, build.uid, build.created, build.log
                    )
                await build.turn.wait()
                await self._network.close()
                await attend(self._engine, build.container, image, build.log, self._timeout)
            build.ending = True
            await builders.publish(self._engine, image, build.created)
            build.log.say(f"The image {image} is ready.")
            return BuildStatusType.BUILT
        except BuildFailed as error:
            build.log.say(str(error))
        except ENGINE_ERRORS as error:
            reason = error.message if isinstance(error, DockerError) else str(error)
            build.log.say(f"The Docker engine refused or went away: {' '.join(reason.split())}")
        build.ending = True
        try:
            await builders.discard(self._engine, image)
            if await builders.image_id(self._engine, image):
                build.log.say("The environment stays as it was before this build.")
        except ENGINE_ERRORS as error:
            self._log.warning("What the failed build of %s left cannot be removed: %s", image, error)
        return BuildStatusType.FAILED


def _is_waiting(container: DockerContainer) -> bool:
    """Whether a builder, as the engine lists it, was made and not started."""
    return container["State"] == "created"
