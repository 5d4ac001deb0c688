"""The images that environments are built with, made of the product's recipe and without a registry."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support import debian, images, paths
from tests.support.engine import docker
from tests.support.environment_image import KEY_LABEL

# What the hub runs by default: a local image of this name is never pulled.
TAG = "quay.io/jupyterhub/repo2docker:2025.12.0"
FILES = paths.REPOSITORY / "salt" / "builder" / "files"
# As plasma_builder_images.py has them.
LOCAL = "localhost/plasma-builder:local"
BASE = "localhost/plasma-base:local"
STAGE_LABEL = "org.plasma.builder.stage"
# Not KEY_LABEL: steps of builds inherit it, and must not be taken for something to prune.
BASE_LABEL = "plasma.throwaway.base"


def builder_image() -> str:
    """
    Make sure that the engine has the image TAG, and return TAG.

    One that was pulled, and so is not from here, is left as it is. The first call takes about a minute, later ones are
    instant. The release of repo2docker inside needs no buildx, which Debian's Docker lacks.
    """
    # debootstrap knows no packages that others provide, as containers-common asks for one: netavark.
    root = images.root_image("bookworm", (*_packages("builder.txt"), "netavark"), slim=True)
    return _made("builder", TAG, KEY_LABEL, {"ROOT": root})


def local_images() -> None:
    """
    Make sure that the engine has what a server with ``plasma.builder.image: local`` makes, by the same names.

    The first call takes about two minutes, later ones are instant.
    """
    docker("tag", builder_image(), LOCAL)
    root = images.root_image("bookworm", _packages("packages.txt"), slim=True)
    _made("base", BASE, BASE_LABEL, {"ROOT": root, "BUILDER": TAG})


def _packages(name: str) -> tuple[str, ...]:
    return tuple((FILES / name).read_text().split())


def _made(folder: str, tag: str, label: str, arguments: dict[str, str]) -> str:
    files = {path.name: path.read_bytes() for path in sorted((FILES / folder).iterdir())}
    key = images.cache_key(sorted(arguments.items()), sorted(files.items()))
    with paths.lock("builder"):
        if images.image_id(tag) and _key_of(tag, label) in ("", key):
            return tag
        with tempfile.TemporaryDirectory(prefix="plasma-build-") as scratch:
            context = Path(scratch)
            for name, data in files.items():
                (context / name).write_bytes(data)
            (context / "index.sh").touch()
            with (context / "Dockerfile").open("a") as recipe:
                recipe.write(f"LABEL {label}={key}\n")
            images.add_authorities(context, debian.extra_authorities())
            images.build(context, tag, arguments, log_name=folder)
        # The stage that downloaded, and what had the tag before.
        for old in (STAGE_LABEL, label):
            docker("image", "prune", "--force", "--filter", f"label={old}", timeout=300)
    return tag


def _key_of(tag: str, label: str) -> str:
    """The key that an image made here carries; "" for any other image."""
    return docker("image", "inspect", "--format", f'{{{{index .Config.Labels "{label}"}}}}', tag).stdout.strip()
