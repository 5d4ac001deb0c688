"""The container that builds an image: repo2docker, with as little as it works with.

An image of a registry needs the engine's socket, and whoever holds that is root on the machine: it has to be one that
the administrators trust, as do the repositories, whose builds the engine runs; what is taken away here protects against
mistakes. Builders that the server makes itself do without (``rootless``). Both reach what ``network`` says.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import IO, Any, TypeVar
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

import aiohttp
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer

from ..policy import LABEL_USER
from .archive import SECRETS, write_secrets
from .cause import NO_MEMORY, sentence
from .images import BuildFailed, build_tag, discard, labels
from .log import BuildLog
from .outside import CONFIG, NOTHING, Outside
from .request import BuildRequest

LABEL_BUILD = "repo2docker.build"
LABEL_UID = "org.plasma.build.uid"

DEFAULT_SOCKET = "/var/run/docker.sock"
MEMORY = 2 * 1024**3
PIDS = 512
# Not in memory, as /tmp may be.
LARGE_FILES = "/var/tmp"
CREDENTIALS = "credentials"
# A repository that was fetched before (see ``ssh``), as one file.
BUNDLE = "source.bundle"

Made = TypeVar("Made")

# What calls to an engine raise that refuses or is not there.
ENGINE_ERRORS = (DockerError, aiohttp.ClientError, OSError)
# Times, a second apart, that an engine is asked again that went away, as when it is upgraded.
PATIENCE = 120
# Seconds to read the output of a builder whose time was up before anybody looked.
READING = 5.0
# Seconds before the output of a container is asked for again that ended though the container runs.
PAUSE = 0.5


def engine_socket() -> str:
    """Return the path of the engine's socket on the machine of the engine."""
    host = os.environ.get("DOCKER_HOST", "")
    return host.removeprefix("unix://") if host.startswith("unix://") else DEFAULT_SOCKET


def command(request: BuildRequest, created: str, network: str = "default", given: Outside = NOTHING) -> list[str]:
    """Return the command line of repo2docker. Values are joined to their options: none can be taken for another one."""
    return [
        "jupyter-repo2docker",
        *([f"--config={SECRETS}/{CONFIG}"] if given.configures else []),
        "--no-run",
        "--user-name=jovyan",
        "--user-id=1100",
        f"--image-name={build_tag(request.image)}",
        f"--ref={request.commit or request.ref}",
        *(f"--label={name}={value}" for name, value in labels(request, created).items()),
        *(f"--build-arg={argument}" for argument in request.buildargs),
        # For the engine's older builder; with BuildKit repo2docker passes over it (see ``network``).
        f"--Repo2Docker.extra_build_kwargs=network_mode={network}",
        "--",
        request.repo,
    ]


def configuration(
    request: BuildRequest,
    uid: UUID,
    created: str,
    builder_image: str,
    network: str = "default",
    given: Outside = NOTHING,
    rootless: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the builder's container as the engine's API wants it. Nothing secret is in it."""
    settings = []
    if request.username or request.password:
        # An empty helper first: those that the image configures are not asked.
        settings = [("credential.helper", ""), ("credential.helper", f"store --file={SECRETS}/{CREDENTIALS}")]
    elif request.deploy_key:
        # The file goes by the address of the repository, which stays in the image.
        settings = [(f"url.{SECRETS}/{BUNDLE}.insteadOf", request.repo)]
    variables = [*given.variables(SECRETS), "GIT_TERMINAL_PROMPT=0", f"GIT_CONFIG_COUNT={len(settings)}"]
    for number, (name, value) in enumerate(settings):
        variables += [f"GIT_CONFIG_KEY_{number}={name}", f"GIT_CONFIG_VALUE_{number}={value}"]
    return {
        "Image": builder_image,
        "Cmd": command(request, created, network, given),
        "Env": variables,
        "User": "0:0",
        "Labels": {**labels(request, created), LABEL_BUILD: request.image, LABEL_UID: str(uid)},
        "HostConfig": {
            **(rootless or _trusted(network)),
            # Not the engine's default, which may be the journal: what a build prints goes away with its container,
            # and can be read again from the start after a restart.
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "20m", "max-file": "5"}},
        },
    }


def _trusted(network: str) -> dict[str, Any]:
    """What a builder may do that holds the engine's socket."""
    return {
        "NetworkMode": network,
        "Mounts": [{"Type": "bind", "Source": engine_socket(), "Target": DEFAULT_SOCKET}],
        "SecurityOpt": ["no-new-privileges"],
        "CapDrop": ["ALL"],
        "PidsLimit": PIDS,
        "Memory": MEMORY,
        "MemorySwap": MEMORY,
    }


def _credentials(request: BuildRequest) -> bytes:
    parts = urlsplit(request.repo)
    # Services that take a token do not mind the name that comes with it, but there has to be one.
    pair = f"{quote(request.username or 'git', safe='')}:{quote(request.password, safe='')}"
    return f"{parts.scheme}://{pair}@{parts.netloc}\n".encode()


async def create(
    docker: Docker,
    request: BuildRequest,
    uid: UUID,
    created: str,
    builder_image: str,
    network: str = "default",
    bundle: IO[bytes] | None = None,
    given: Outside = NOTHING,
    rootless: dict[str, Any] | None = None,
) -> DockerContainer:
    """Make the container of a builder, with what is secret or large in files of it, and do not start it.

    Args:
        docker: the engine.
        request: what is built.
        uid: id of the environment's row.
        created: when it was asked for.
        builder_image: image with repo2docker.
        network: name of the builds' network.
        bundle: file with the repository (see ``ssh``), where the builder cannot fetch that itself.
        given: how it reaches the outside.
        rootless: what it may do where it does not hold the engine's socket (see ``rootless``).

    Raises:
        DockerError: the engine refuses.
    """
    for leftover in await containers(docker, uid):
        await remove(leftover)
    container = await docker.containers.create(
        configuration(request, uid, created, builder_image, network, given, rootless)
    )
    files: dict[str, IO[bytes]] = {BUNDLE: bundle} if bundle else {}
    if request.username or request.password:
        files = {CREDENTIALS: io.BytesIO(_credentials(request))}
    files |= {name: io.BytesIO(content) for name, content in given.files(SECRETS, request.repo).items()}
    try:
        if files:
            # A repository may be larger than the memory, and a password must not reach a disk.
            with tempfile.TemporaryFile(dir=LARGE_FILES) if bundle else io.BytesIO() as archive:
                await asyncio.to_thread(write_secrets, archive, files)
                await container.put_archive("/", archive)
    except (DockerError, OSError):
        await remove(container)
        raise
    return container


async def to_its_end(work: Awaitable[Made]) -> Made:
    """Return what work returns that the engine may have done already: a cancellation waits until that is known."""
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


async def holds_socket(container: DockerContainer) -> bool:
    """Whether a builder works with the engine."""
    return any(mount["Destination"] == DEFAULT_SOCKET for mount in (await container.show())["Mounts"])


async def read_secrets(container: DockerContainer) -> tuple[str, str]:
    """Return the user name and password that were given to a builder, both empty when there are none.

    Git removes those that a server refused; then there is nothing to build, and nothing that could print them.
    """
    try:
        archive = await container.get_archive(f"{SECRETS}/{CREDENTIALS}")
    except DockerError as error:
        if error.status == 404:
            return "", ""
        raise
    with archive:
        parts = urlsplit(archive.extractfile(CREDENTIALS).read().decode().strip())
    return unquote(parts.username or ""), unquote(parts.password or "")


async def containers(docker: Docker, uid: UUID | None = None) -> list[DockerContainer]:
    """Return all builders, running or not, or those of one build; the oldest first."""
    label = LABEL_UID if uid is None else f"{LABEL_UID}={uid}"
    found = await docker.containers.list(all=True, filters=json.dumps({"label": [label]}))
    # A container has the labels of its image, too: servers of people are no builders, whatever their image says.
    ours = [container for container in found if LABEL_USER not in container["Labels"]]
    return sorted(ours, key=lambda container: container["Created"])


async def remove(container: DockerContainer) -> None:
    """Remove a builder, running or not; the engine then ends the build it had asked for."""
    try:
        await container.delete(force=True, v=True)
    except DockerError as error:
        # 409: it is being removed at this moment.
        if error.status not in (404, 409):
            raise


async def attend(
    docker: Docker,
    container: DockerContainer,
    image: str,
    log: BuildLog,
    timeout: float,
    on_output: Callable[[], Awaitable[None]],
) -> None:
    """Start a builder if that has not been done, and copy its output to the log until it ends well.

    Args:
        docker: the engine.
        container: the builder, which may run or have ended already.
        image: final name of the image that it builds.
        log: gets all the output, from the start.
        timeout: seconds that a build may take, counted from the start of the container.
        on_output: called when something was added to the log.

    Raises:
        BuildFailed: it ended badly or took too long.
        DockerError: the engine refuses, or has been away too long.
    """
    if (await container.show())["State"]["Status"] == "created":
        # repo2docker would take whatever has this name for the result of an earlier run, and do nothing.
        await discard(docker, image)
        await container.start()
        await container.show()
    try:
        state = await asyncio.wait_for(
            _copy_output(container, log, on_output), _seconds_left(container["State"], timeout)
        )
    except asyncio.TimeoutError:
        await remove(container)
        raise BuildFailed(
            f"The build was stopped because it took longer than {timeout / 60:g} minutes (plasma.builder.timeout)."
        ) from None
    if state["ExitCode"]:
        if state["OOMKilled"]:
            raise BuildFailed(f"The build failed: its memory was full. {NO_MEMORY}")
        log.flush()
        raise BuildFailed(sentence(state["ExitCode"], log.text()))


def _seconds_left(state: dict[str, Any], timeout: float) -> float | None:
    """Return how long a builder may still run, but long enough to read what it printed; None if it has ended."""
    if not state["Running"]:
        return None
    return max(READING, timeout - (datetime.now(timezone.utc) - started(state)).total_seconds())


def started(state: dict[str, Any]) -> datetime:
    """Return when a builder began, from its ``State``."""
    # Fractions of a second have nine digits here, which Python 3.10 does not read.
    return datetime.fromisoformat(state["StartedAt"].partition(".")[0].rstrip("Z")).replace(tzinfo=timezone.utc)


async def _copy_output(
    container: DockerContainer, log: BuildLog, on_output: Callable[[], Awaitable[None]]
) -> dict[str, Any]:
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
                await on_output()
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
