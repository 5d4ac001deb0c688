"""Environments that are made of an image that is there already: of a ready one, or of their own with other limits.

Such an image differs from the one it is made of in its labels alone, and takes no space.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable

from aiodocker import Docker

from . import build_container as builders
from . import environments as envs
from .build_container import BuildFailed
from .build_request import BuildRequest


async def make(docker: Docker, request: BuildRequest, created: str, say: Callable[[str], None]) -> None:
    """Make the image of an environment, under the name that it has until it is published, from a ready image.

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
    auth = None
    if request.username or request.password:
        auth = {"username": request.username, "password": request.password}
    reason = await builders.download(
        docker, reference, say, f"The image {reference} is downloaded now.", again=request.pull, auth=auth
    )
    if reason:
        raise BuildFailed(
            f"The image {reference} cannot be downloaded ({reason}). Where this server reaches no registry, load the "
            "image from a file first."
        )
    base = await builders.image_id(docker, reference)
    say(f"The environment is made from {reference}, {base}.")
    await _label(
        docker,
        reference,
        builders.build_tag(request.image),
        {**builders.labels(request, created), envs.LABEL_BASE: base or ""},
    )


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
    image = environment.image
    # The files are the same: people's homes need not be looked through again.
    labels = {envs.LABEL_MEMORY: memory, envs.LABEL_CPU: cpu, envs.LABEL_FILES: environment.files_id}
    await _label(docker, image, builders.build_tag(image), labels)
    await builders.publish(docker, image, "")


async def _label(docker: Docker, base: str, name: str, labels: dict[str, str]) -> None:
    """Make an image ``name`` of the image ``base`` that has these labels besides, or in place of, its own."""
    recipe = f"FROM {base}\n".encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(recipe)
        archive.addfile(entry, io.BytesIO(recipe))
    context = io.BytesIO(gzip.compress(packed.getvalue()))
    # Without the cache: it would give the image of a former build with the same labels.
    steps = docker.images.build(
        fileobj=context, encoding="gzip", tag=name, labels=labels, nocache=True, forcerm=True, stream=True
    )
    async for step in steps:
        if "error" in step:
            raise BuildFailed(f"The engine could not label the image {base}: {' '.join(step['error'].split())}")
