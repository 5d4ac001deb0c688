"""Images of environments: their labels, the names they have until they are finished, and images made of others."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import Any

from aiodocker import Docker, DockerError
from aiodocker.utils import mktar_from_dockerfile

from .. import environments as envs
from .request import BuildRequest

LABEL_OWNER = "tljh_repo2docker.owner"
# When the build was asked for: unlike an image's own date it tells two builds of the same contents apart.
LABEL_CREATED = "tljh_repo2docker.creation_date"
# Images under construction. No environment has a slash in its name, so none can be taken for one of these.
BUILD_REPOSITORY = "plasma-build"
# The status that aiodocker gives to an engine that is not there.
NO_CONNECTION = 900

Say = Callable[[str], None]
log = logging.getLogger(__name__)


class BuildFailed(Exception):
    """A build cannot succeed any more; the text is one sentence for its log."""


def build_tag(image: str) -> str:
    """Return the name that an image has until it is finished."""
    return f"{BUILD_REPOSITORY}/{image}"


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


async def inspect(docker: Docker, image: str) -> dict[str, Any] | None:
    """Return what the engine says of an image, or None when there is none of that name."""
    try:
        return await docker.images.inspect(image)
    except DockerError as error:
        if error.status == 404:
            return None
        raise


async def image_id(docker: Docker, image: str) -> str | None:
    """Return the id of an image, or None when there is none of that name."""
    found = await inspect(docker, image)
    return found["Id"] if found else None


async def download(
    docker: Docker,
    image: str,
    say: Say,
    announcement: str,
    failure: str,
    *,
    again: bool = False,
    auth: dict[str, str] | None = None,
) -> None:
    """Get an image from its registry when the engine does not have it.

    Args:
        docker: the engine.
        image: its name.
        say: takes lines about the progress.
        announcement: the first of them, when there is something to do.
        failure: what is said when it cannot be had, with "{reason}" in it.
        again: ask the registry even if the engine has an image of this name.
        auth: user name and password for the registry.

    Raises:
        BuildFailed: it cannot be had.
        DockerError: the engine is away.
    """
    reason = ""
    # Without a tag the engine would download them all.
    tag = None if ":" in image.rpartition("/")[2] else "latest"
    try:
        if not again and await image_id(docker, image):
            return
        say(announcement)
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
    if reason:
        raise BuildFailed(failure.format(reason=" ".join(reason.split())))


async def publish(docker: Docker, image: str, created: str, kept_as: str = "") -> None:
    """Give a finished image its final name, and remove what had it, or the other name, unless somebody uses that.

    Args:
        docker: the engine.
        image: the final name.
        created: the label LABEL_CREATED of the finished image.
        kept_as: the name that the image gets which had the final one; empty to keep it no longer.

    Raises:
        BuildFailed: there is no finished image.
    """
    previous = await image_id(docker, image)
    if not await image_id(docker, build_tag(image)):
        found = (await docker.images.inspect(image))["Config"]["Labels"] if previous else None
        if (found or {}).get(LABEL_CREATED) == created:
            return  # done before a restart that came in between
        raise BuildFailed("repo2docker ended well, but there is no image: see above.")
    older = await image_id(docker, kept_as) if kept_as else None
    if previous and kept_as:
        await name(docker, previous, kept_as)
    await name(docker, build_tag(image), image)
    await discard(docker, image)
    await tidy(docker, image, previous, older)


async def name(docker: Docker, found: str, wanted: str) -> None:
    """Give an image another name; the image that had it loses it."""
    repository, _, tag = wanted.rpartition(":")
    await docker.images.tag(found, repository, tag=tag)


async def tidy(docker: Docker, image: str, *replaced: str | None) -> None:
    """Remove replaced images of an environment that have no name, unless somebody uses them.

    Args:
        docker: the engine.
        image: the environment's image, for the log.
        replaced: ids.
    """
    for one in filter(None, dict.fromkeys(replaced)):
        try:
            if not (await docker.images.inspect(one)).get("RepoTags"):
                await docker.images.delete(one)
        except DockerError as error:
            # 409: a server runs from it, or another image is built on it. It stays without a name.
            if error.status not in (404, 409):
                log.warning("A replaced image of %s cannot be removed: %s", image, error.message)


async def discard(docker: Docker, image: str) -> None:
    """Remove the name of an image under construction, and what only that name keeps."""
    try:
        await docker.images.delete(build_tag(image), force=True)
    except DockerError as error:
        if error.status != 404:
            raise


async def make_from_ready(docker: Docker, request: BuildRequest, created: str, say: Say) -> None:
    """Make the unpublished image of an environment from a ready image.

    Args:
        docker: the engine.
        request: what is wanted, with ``reference``.
        created: when it was asked for.
        say: takes lines about the progress.

    Raises:
        BuildFailed: there is no such image.
        DockerError: the engine refuses or is away.
    """
    reference = request.reference
    auth = {"username": request.username, "password": request.password}
    await download(
        docker,
        reference,
        say,
        f"The image {reference} is downloaded now.",
        f"The image {reference} cannot be downloaded ({{reason}}). Where this server reaches no registry, load the "
        "image from a file first.",
        again=request.pull,
        auth=auth if any(auth.values()) else None,
    )
    base = await image_id(docker, reference) or ""
    say(f"The environment is made from {reference}, {base}.")
    await relabel(docker, reference, request.image, {**labels(request, created), envs.LABEL_BASE: base})


async def change_limits(docker: Docker, environment: envs.Environment, memory: str, cpu: str) -> None:
    """Give an environment other limits for the servers that start from now on. Nothing is built.

    Args:
        docker: the engine.
        environment: the environment, which has an image.
        memory: label with the memory limit, empty for the hub's default.
        cpu: label with the CPU limit.

    Raises:
        DockerError: the engine refuses or is away.
    """
    # The files are the same: people's homes need not be looked through again.
    changed = {envs.LABEL_MEMORY: memory, envs.LABEL_CPU: cpu, envs.LABEL_FILES: environment.files_id}
    await relabel(docker, environment.image, environment.image, changed)
    await publish(docker, environment.image, "")


async def relabel(docker: Docker, base: str, image: str, changed: dict[str, str]) -> None:
    """Make the unpublished ``image`` of the image ``base``: it differs in labels alone, and takes no space."""
    with mktar_from_dockerfile(io.BytesIO(f"FROM {base}\n".encode())) as context:
        # Without the cache: it would give the image of a former build with the same labels.
        steps = docker.images.build(
            fileobj=context,
            encoding="gzip",
            tag=build_tag(image),
            labels=changed,
            nocache=True,
            forcerm=True,
            stream=True,
        )
        async for step in steps:
            if "error" in step:
                reason = " ".join(step["error"].split())
                raise BuildFailed(f"The engine could not label the image {base}: {reason}")
