"""The image that an environment had before its newest build, kept to go back to: one generation of each environment.

It has a name, so that nothing that tidies up takes it for a leftover. Which of the two is in use is seen by when their
builds were asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiodocker import Docker

from .. import environments as envs
from . import images
from .images import LABEL_CREATED
from .request import BuildRefused

# No environment has a slash in its name, so none can be taken for one of these.
REPOSITORY = "plasma-former"


@dataclass(frozen=True)
class Former:
    """The image of an environment that is kept and not in use.

    Attributes:
        environment: what it is.
        created: when its build was asked for, as its label has it.
        size: in bytes, with what it shares with others.
    """

    environment: envs.Environment
    created: str
    size: int

    def in_place_of(self, created: str) -> bool:
        """Tell whether it is the newer of the two: somebody went back.

        Args:
            created: when the build of the image in use was asked for.
        """
        # Only ours are dates that can be compared; others are older.
        return self.created[:4].isdigit() and (not created[:4].isdigit() or self.created > created)


def tag_of(image: str) -> str:
    """Return the name that the former image of an environment has."""
    return f"{REPOSITORY}/{image}"


def from_images(found: Iterable[dict[str, Any]]) -> dict[str, Former]:
    """Return the former images by the names of their environments.

    Args:
        found: the engine's list of images, as ``environments.from_images`` takes it.
    """
    formers = {}
    for image in found:
        for tag in image.get("RepoTags") or ():
            name = tag.removeprefix(f"{REPOSITORY}/")
            # The other name is there as well where something broke off: then there is only one image.
            if name != tag and name not in image["RepoTags"]:
                for environment in envs.from_images([{**image, "RepoTags": [name]}]):
                    created = image["Labels"].get(LABEL_CREATED, "")
                    formers[name] = Former(environment, created, int(image.get("Size") or 0))
    return formers


async def exchange(docker: Docker, image: str) -> None:
    """Put the former image of an environment in use, with the limits that the environment has; the other one is kept.

    Args:
        docker: the engine.
        image: the environment's image.

    Raises:
        BuildRefused: there is no former image (409).
        BuildFailed: it cannot be given the limits.
        DockerError: the engine refuses or is away.
    """
    former, current = await images.image_id(docker, tag_of(image)), await images.image_id(docker, image)
    if former is None or former == current:
        raise BuildRefused(f"There is no former image of {image} to go back to: only one has been built.", 409)
    labels = [(await docker.images.inspect(one))["Config"]["Labels"] or {} for one in (former, current) if one]
    limits = [{name: one.get(name, "") for name in (envs.LABEL_MEMORY, envs.LABEL_CPU)} for one in labels]
    if limits[0] != limits[-1]:
        files = labels[0].get(envs.LABEL_FILES) or former
        await images.relabel(docker, tag_of(image), image, {**limits[-1], envs.LABEL_FILES: files})
    else:
        await images.name(docker, former, images.build_tag(image))
    await images.name(docker, images.build_tag(image), image)
    if current:
        await images.name(docker, current, tag_of(image))
    await images.discard(docker, image)
    await images.tidy(docker, image, former)
