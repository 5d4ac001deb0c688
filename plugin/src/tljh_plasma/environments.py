"""Environments: the Docker images that people may start, as their labels describe them.

The labels are those that tljh-repo2docker puts on the images it builds. Nothing here talks to Docker.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

LABEL_REPO = "repo2docker.repo"
LABEL_REF = "repo2docker.ref"
LABEL_IMAGE = "tljh_repo2docker.image_name"
LABEL_NAME = "tljh_repo2docker.display_name"
LABEL_MEMORY = "tljh_repo2docker.mem_limit"
LABEL_CPU = "tljh_repo2docker.cpu_limit"
# Ours. The commit that was built; of a ready image its reference and the id that this had; and the id of the image
# whose files these are, where another one was made of it that differs in labels alone.
LABEL_COMMIT = "org.plasma.commit"
LABEL_REFERENCE = "org.plasma.reference"
LABEL_BASE = "org.plasma.base"
LABEL_FILES = "org.plasma.files"

COMMIT = re.compile(r"[0-9a-f]{40}")

UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
# Below this no Jupyter server starts, and Docker itself refuses less than 6 MB.
MIN_MEMORY = 32 * UNITS["M"]
MIN_CPU = 0.01
MAX_DIRECTORY = 64
# Characters of a name and of a reference on pages. Those of images that were made elsewhere may have any length.
MAX_SHOWN = 200
# What stands between repository and reference in the address of a page, by what the name of the host holds.
# "HOST/REPOSITORY/src/REF" is also how the older releases of Gitea and Forgejo link.
FORGES = {
    "gitlab": "/-/tree/",
    "github": "/tree/",
    **dict.fromkeys(("bitbucket", "codeberg", "gitea", "forgejo"), "/src/"),
}


class UnknownEnvironment(Exception):
    """An environment cannot be used; the text is one sentence for the person."""


@dataclass(frozen=True)
class Environment:
    """An environment that can be started.

    Attributes:
        image: name and tag of the Docker image.
        image_id: the image's id.
        name: the name shown to people.
        directory: name of its directory in the home.
        repo: URL of the repository it was built from.
        ref: Git reference it was built from.
        memory: memory limit in bytes, or None for the hub's default.
        cpu: CPU limit in CPUs, or None for the hub's default.
        description: what an administrator wrote about it; not part of the image.
        opens: what its servers open with, as administrators said; not part of the image. Empty for the hub's default.
        gpus: how many GPUs each of its servers has, as administrators said; not part of the image, whose labels its
            repository may choose.
        commit: the commit it was built from; empty when nobody knows.
        reference: the ready image it was made from, in place of a repository.
        base: id of that image.
        files_id: id of the image whose files it has: not its own when limits alone were changed.
    """

    image: str
    image_id: str
    name: str
    directory: str
    repo: str = ""
    ref: str = ""
    memory: int | None = None
    cpu: float | None = None
    description: str = ""
    opens: str = ""
    gpus: int = 0
    commit: str = ""
    reference: str = ""
    base: str = ""
    files_id: str = ""

    @property
    def source_url(self) -> str:
        """Address of a page that shows what it was built from; empty when there is none."""
        return source_url(self.repo, self.ref)


def directory_name(name: str) -> str:
    """Return a safe name for an environment's directory.

    Only letters, digits, ".", "_" and "-" remain, at most 64 of them, never with a dot or a hyphen in front: such a
    name is one path component wherever it is put, and no option to a command.

    Args:
        name: the display name, whatever it is.
    """
    # Accents fall off ("Été" becomes "Ete") instead of turning into hyphens.
    plain = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).lstrip(".-")[:MAX_DIRECTORY].rstrip("-")
    return safe or "environment"


def parse_memory(text: Any) -> int | None:
    """Return a memory size in bytes, or None when there is none or it makes no sense.

    Args:
        text: a number of bytes, or a number with K, M, G or T (powers of 1024), such as "3.5G".
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)B?\s*", str(text).upper())
    if not match or isinstance(text, bool):
        return None
    size = float(match[1]) * UNITS[match[2]]
    return int(size) if math.isfinite(size) and size >= MIN_MEMORY else None


def parse_cpu(text: Any) -> float | None:
    """Return a number of CPUs, or None when there is none or it makes no sense."""
    if isinstance(text, bool):
        return None
    try:
        cpus = float(text)
    except (TypeError, ValueError):
        return None
    return cpus if math.isfinite(cpus) and cpus >= MIN_CPU else None


def from_images(images: Iterable[dict[str, Any]]) -> list[Environment]:
    """Return the environments among the images of an engine, by name.

    An image counts when it was built by repo2docker and carries the tag its label says: an image under construction
    has the labels but another tag.

    Args:
        images: the engine's list of images (``GET /images/json``): dicts with Id, RepoTags, Labels.
    """
    found = []
    for image in images:
        labels = image.get("Labels") or {}
        name = labels.get(LABEL_IMAGE)
        if LABEL_REF not in labels or not name or name not in (image.get("RepoTags") or []):
            continue
        shown = " ".join(labels.get(LABEL_NAME, "").split()) or name
        ref = labels[LABEL_REF]
        environment = Environment(
            image=name,
            image_id=image["Id"],
            name=shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN - 1]}…",
            directory=directory_name(shown),
            repo=labels.get(LABEL_REPO, ""),
            ref=ref,
            memory=parse_memory(labels.get(LABEL_MEMORY)),
            cpu=parse_cpu(labels.get(LABEL_CPU)),
            commit=next((text for text in (labels.get(LABEL_COMMIT, ""), ref) if COMMIT.fullmatch(text)), ""),
            reference=labels.get(LABEL_REFERENCE, ""),
            base=labels.get(LABEL_BASE, ""),
            files_id=labels.get(LABEL_FILES) or image["Id"],
        )
        found.append(environment)
    return sorted(found, key=lambda environment: (environment.name.casefold(), environment.image))


def find(environments: Iterable[Environment], image: Any) -> Environment:
    """Return the environment of an image name.

    Args:
        environments: those to choose from.
        image: what was asked for; anything may come in by API.

    Raises:
        UnknownEnvironment: nothing was asked for, or there is no such environment.
    """
    environments = list(environments)
    if not environments:
        raise UnknownEnvironment(
            "There is no environment to start yet. An administrator of the hub has to add one first."
        )
    if image is None or image == "":
        raise UnknownEnvironment("No environment was chosen. Please choose one from the list.")
    for environment in environments:
        if environment.image == image:
            return environment
    shown = str(image)[:80]
    raise UnknownEnvironment(f"The environment {shown!r} does not exist (any more). Please choose one from the list.")


def source_url(repo: str, ref: str) -> str:
    """Return the address of the page that shows what an environment was built from.

    Args:
        repo: URL of the repository, as the label of an image has it: anything.
        ref: the reference.

    Returns:
        An http(s) URL without credentials, of the reference where the forge is known and of the repository
        otherwise; empty when browsers cannot show it.
    """
    try:
        parts = urlsplit(repo)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host:
        return ""
    path = parts.path.rstrip("/").removesuffix(".git")
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    address = f"{parts.scheme}://{place}{quote(path, safe='/%~+@:,=')}"
    if not ref or ref == "HEAD":
        return address
    between = next((between for word, between in FORGES.items() if word in host), None)
    return f"{address}{between}{quote(ref, safe='/')}" if between else address
