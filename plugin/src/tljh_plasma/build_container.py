"""The container that builds an image: repo2docker, with the engine's socket and as little else as it works with.

Whoever holds the engine's socket is root on the machine, so the image of the builder has to be one that the
administrators trust; what is taken away here protects against mistakes. The build itself runs in containers that the
engine makes, and reaches what ``build_network`` says.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer

from . import environments as envs
from .build_request import BuildRequest

LABEL_BUILD = "repo2docker.build"
LABEL_UID = "org.plasma.build.uid"
LABEL_OWNER = "tljh_repo2docker.owner"
# When the build was asked for: unlike an image's own date it tells two builds of the same contents apart.
LABEL_CREATED = "tljh_repo2docker.creation_date"

DEFAULT_SOCKET = "/var/run/docker.sock"
MEMORY = 2 * 1024**3
PIDS = 512
# Images under construction. No environment has a slash in its name, so none can be taken for one of these.
BUILD_REPOSITORY = "plasma-build"
# Not in memory, as /tmp may be.
LARGE_FILES = "/var/tmp"
# Where the builder finds the credentials for Git. Git itself changes the first file; the second is for us.
SECRETS = "/plasma"
CREDENTIALS = "credentials"
COPY = "copy"
# A repository that was fetched before, as one file.
BUNDLE = f"{SECRETS}/source.bundle"

# The status that aiodocker gives to an engine that is not there.
NO_CONNECTION = 900

log = logging.getLogger(__name__)


class BuildFailed(Exception):
    """A build cannot succeed any more; the text is one sentence for its log."""


def build_tag(image: str) -> str:
    """Return the name that an image has until it is finished."""
    return f"{BUILD_REPOSITORY}/{image}"


def engine_socket() -> str:
    """Return the path of the engine's socket on the machine of the engine."""
    host = os.environ.get("DOCKER_HOST", "")
    return host.removeprefix("unix://") if host.startswith("unix://") else DEFAULT_SOCKET


def labels(request: BuildRequest, created: str) -> dict[str, str]:
    """Return the labels of an environment's image.

    Empty ones too: a Dockerfile, or the image that this one is made of, must not set limits.
    """
    return {
        envs.LABEL_IMAGE: request.image,
        envs.LABEL_NAME: request.name,
        envs.LABEL_REPO: request.repo,
        envs.LABEL_REF: request.ref,
        envs.LABEL_MEMORY: request.memory_label,
        envs.LABEL_CPU: request.cpu_label,
        envs.LABEL_COMMIT: request.commit,
        envs.LABEL_REFERENCE: request.reference,
        envs.LABEL_BASE: "",
        envs.LABEL_FILES: "",
        LABEL_CREATED: created,
        LABEL_OWNER: request.owner,
    }


def command(request: BuildRequest, created: str, network: str = "") -> list[str]:
    """Return the command line of repo2docker. Values are joined to their options: none can be taken for another one."""
    return [
        "jupyter-repo2docker",
        "--no-run",
        "--user-name=jovyan",
        "--user-id=1100",
        f"--image-name={build_tag(request.image)}",
        f"--ref={request.commit or request.ref}",
        *(f"--label={name}={value}" for name, value in labels(request, created).items()),
        *(f"--build-arg={argument}" for argument in request.buildargs),
        # For the engine's older builder; with BuildKit repo2docker passes over it (see build_network).
        *([f"--Repo2Docker.extra_build_kwargs=network_mode={network}"] if network else []),
        "--",
        request.repo,
    ]


def configuration(
    request: BuildRequest, uid: UUID, created: str, builder_image: str, network: str = ""
) -> dict[str, Any]:
    """Return the builder's container as the engine's API wants it. Nothing secret is in it."""
    variables = {"GIT_TERMINAL_PROMPT": "0"}
    settings = []
    if request.username or request.password:
        # An empty helper first: those that the image configures are not asked.
        settings = [("credential.helper", ""), ("credential.helper", f"store --file={SECRETS}/{CREDENTIALS}")]
    elif request.deploy_key:
        # The file goes by the address of the repository, which stays in the image.
        settings = [(f"url.{BUNDLE}.insteadOf", request.repo)]
    if settings:
        variables["GIT_CONFIG_COUNT"] = str(len(settings))
    for number, (name, value) in enumerate(settings):
        variables[f"GIT_CONFIG_KEY_{number}"] = name
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return {
        "Image": builder_image,
        "Cmd": command(request, created, network),
        "Env": [f"{name}={value}" for name, value in variables.items()],
        "User": "0:0",
        "Tty": False,
        "Labels": {
            envs.LABEL_REPO: request.repo,
            envs.LABEL_REF: request.ref,
            LABEL_BUILD: request.image,
            LABEL_UID: str(uid),
            envs.LABEL_NAME: request.name,
            envs.LABEL_MEMORY: request.memory_label,
            envs.LABEL_CPU: request.cpu_label,
            LABEL_CREATED: created,
            LABEL_OWNER: request.owner,
        },
        "HostConfig": {
            "NetworkMode": network or "default",
            "Mounts": [{"Type": "bind", "Source": engine_socket(), "Target": DEFAULT_SOCKET}],
            "SecurityOpt": ["no-new-privileges"],
            "CapDrop": ["ALL"],
            "PidsLimit": PIDS,
            "Memory": MEMORY,
            "MemorySwap": MEMORY,
            # Not the engine's default, which may be the journal: what a build prints goes away with its container,
            # and can be read again from the start after a restart.
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "20m", "max-file": "5"}},
        },
    }


def secrets_archive(request: BuildRequest) -> bytes:
    """Return a tar archive for "/" with the credentials of a request, which only root can read."""
    parts = urlsplit(request.repo)
    # Services that take a token do not mind the name that comes with it, but there has to be one.
    pair = f"{quote(request.username or 'git', safe='')}:{quote(request.password, safe='')}"
    line = f"{parts.scheme}://{pair}@{parts.netloc}\n".encode()
    buffer = io.BytesIO()
    _archive(buffer, {name: (len(line), io.BytesIO(line)) for name in (CREDENTIALS, COPY)})
    return buffer.getvalue()


def _archive(output: IO[bytes], files: dict[str, tuple[int, IO[bytes]]]) -> None:
    """Write a tar archive for "/" with files (name: size and content) in SECRETS, which only root can read."""
    with tarfile.open(fileobj=output, mode="w") as archive:
        directory = tarfile.TarInfo(SECRETS.strip("/"))
        directory.type, directory.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(directory)
        for name, (size, content) in files.items():
            entry = tarfile.TarInfo(f"{SECRETS.strip('/')}/{name}")
            entry.mode, entry.size = 0o600, size
            archive.addfile(entry, content)


async def _hand_over(container: DockerContainer, bundle: IO[bytes]) -> None:
    """Put a repository into a builder. It may be larger than the memory."""
    size = os.fstat(bundle.fileno()).st_size
    bundle.seek(0)
    with tempfile.TemporaryFile(dir=LARGE_FILES) as archive:
        await asyncio.to_thread(_archive, archive, {Path(BUNDLE).name: (size, bundle)})
        archive.seek(0)
        await container.put_archive("/", archive)


async def read_secrets(container: DockerContainer) -> tuple[str, str]:
    """Return the user name and password that were given to a builder, both empty when there were none."""
    try:
        archive = await container.get_archive(f"{SECRETS}/{COPY}")
    except DockerError as error:
        if error.status == 404:
            return "", ""
        raise
    with archive:
        content = archive.extractfile(COPY)
        parts = urlsplit(content.read().decode().strip() if content else "")
    return unquote(parts.username or ""), unquote(parts.password or "")


async def create(
    docker: Docker,
    request: BuildRequest,
    uid: UUID,
    created: str,
    builder_image: str,
    network: str = "",
    bundle: IO[bytes] | None = None,
) -> DockerContainer:
    """Make the container of a builder, with the credentials or the repository in it, and do not start it.

    Args:
        docker: the engine.
        request: what is built.
        uid: id of the environment's row.
        created: when it was asked for.
        builder_image: image with repo2docker.
        network: name of the builds' network; empty for the engine's own.
        bundle: file with the repository (see ``build_ssh``), where the builder cannot fetch that itself.

    Raises:
        DockerError: the engine refuses.
    """
    for leftover in await containers(docker, uid):
        await leftover.delete(force=True, v=True)
    container = await docker.containers.create(configuration(request, uid, created, builder_image, network))
    try:
        if request.username or request.password:
            await container.put_archive("/", secrets_archive(request))
        if bundle:
            await _hand_over(container, bundle)
    except (DockerError, OSError):
        await container.delete(force=True, v=True)
        raise
    return container


async def containers(docker: Docker, uid: UUID | None = None) -> list[DockerContainer]:
    """Return the builders that there are, running or not, the oldest first; those of one build with ``uid``."""
    label = LABEL_UID if uid is None else f"{LABEL_UID}={uid}"
    found = await docker.containers.list(all=True, filters=json.dumps({"label": [label]}))
    return sorted(found, key=lambda container: container["Created"])


async def remove(container: DockerContainer) -> None:
    """Remove a builder, running or not; the engine then ends the build it had asked for."""
    try:
        await container.delete(force=True, v=True)
    except DockerError as error:
        # 409: it is being removed at this moment.
        if error.status not in (404, 409):
            raise


async def pull(docker: Docker, image: str, say: Callable[[str], None]) -> None:
    """Get the builder's image when the engine does not have it.

    Args:
        docker: the engine.
        image: its name.
        say: takes lines about the progress.

    Raises:
        BuildFailed: it cannot be had.
        DockerError: the engine is away.
    """
    announced = f"The image of the builder, {image}, is not on this server yet. It is downloaded now."
    if reason := await download(docker, image, say, announced):
        raise BuildFailed(
            f"The image of the builder cannot be downloaded ({reason}). Run 'docker pull {image}' on "
            "the server to see why, or set plasma.builder.image to an image that is there."
        )


async def download(
    docker: Docker,
    image: str,
    say: Callable[[str], None],
    announced: str,
    *,
    again: bool = False,
    auth: dict[str, str] | None = None,
) -> str:
    """Get an image from its registry when the engine does not have it.

    Args:
        docker: the engine.
        image: its name.
        say: takes lines about the progress.
        announced: the first of them, when there is something to do.
        again: ask the registry even if the engine has an image of this name.
        auth: user name and password for the registry.

    Returns:
        Why it could not be had, empty when it is there.

    Raises:
        DockerError: the engine is away.
    """
    reason = ""
    # Without a tag the engine would download them all.
    tag = None if ":" in image.rpartition("/")[2] else "latest"
    try:
        if not again and await image_id(docker, image):
            return ""
        say(announced)
        async for step in docker.images.pull(image, auth=auth, tag=tag, stream=True):
            if "error" in step:
                reason = step["error"]
            elif not step.get("progressDetail"):
                say(": ".join(str(step[key]) for key in ("id", "status") if step.get(key)))
        if not reason and not await image_id(docker, image):
            reason = "the download ended too early"
    except DockerError as error:
        if error.status == NO_CONNECTION:
            raise
        reason = error.message
    return " ".join(reason.split())


async def image_id(docker: Docker, image: str) -> str | None:
    """Return the id of an image, or None when there is none of that name."""
    try:
        return (await docker.images.inspect(image))["Id"]
    except DockerError as error:
        if error.status == 404:
            return None
        raise


async def publish(docker: Docker, image: str, created: str) -> None:
    """Give a finished image its final name, and remove the image that had it unless somebody uses that one.

    Args:
        image: the final name.
        created: the label LABEL_CREATED of the finished image.

    Raises:
        BuildFailed: there is no finished image.
    """
    previous = await image_id(docker, image)
    if not await image_id(docker, build_tag(image)):
        labels = (await docker.images.inspect(image))["Config"]["Labels"] if previous else None
        if (labels or {}).get(LABEL_CREATED) == created:
            return  # done before a restart that came in between
        raise BuildFailed("repo2docker ended well, but there is no image: see above.")
    repository, _, tag = image.partition(":")
    await docker.images.tag(build_tag(image), repository, tag=tag)
    try:
        await discard(docker, image)
        if previous and not (await docker.images.inspect(previous)).get("RepoTags"):
            await docker.images.delete(previous)
    except DockerError as error:
        # 409: a server runs from it, or another image is built on it. It stays without a name.
        if error.status not in (404, 409):
            log.warning("The replaced image of %s cannot be removed: %s", image, error.message)


async def discard(docker: Docker, image: str) -> None:
    """Remove the name of an image under construction, and what only that name keeps."""
    try:
        await docker.images.delete(build_tag(image), force=True)
    except DockerError as error:
        if error.status != 404:
            raise
