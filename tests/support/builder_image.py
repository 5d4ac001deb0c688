"""The image that builds environments, with the real jupyter-repo2docker, made without a registry."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support import debian, images, paths
from tests.support.engine import docker
from tests.support.environment_image import KEY_LABEL, STAGE_LABEL

# What the hub runs by default: a local image of this name is never pulled.
TAG = "quay.io/jupyterhub/repo2docker:2025.12.0"
PACKAGES = ("python3", "python3-venv", "ca-certificates", "git")
FILES = images.FILES / "builder"


def builder_image() -> str:
    """
    Make sure that the engine has the image TAG, and return TAG.

    One that was pulled, and so is not from here, is left as it is. The first call takes about a minute, later ones are
    instant. The release of repo2docker inside needs no buildx, which Debian's Docker lacks.
    """
    root = images.root_image("bookworm", PACKAGES, slim=True)
    files = {path.name: path.read_bytes() for path in sorted(FILES.iterdir()) if path.is_file()}
    key = images.cache_key(root, sorted(files.items()))
    with paths.lock("builder"):
        if images.image_id(TAG) and _key_of(TAG) in ("", key):
            return TAG
        with tempfile.TemporaryDirectory(prefix="plasma-build-") as scratch:
            context = Path(scratch)
            for name, data in files.items():
                (context / name).write_bytes(data)
            with (context / "Dockerfile").open("a") as recipe:
                recipe.write(f"LABEL {KEY_LABEL}={key}\n")
            images.add_authorities(context, debian.extra_authorities())
            images.build(context, TAG, {"ROOT": root}, log_name="builder")
        # The stage that downloaded, and what had the tag before.
        for label in (STAGE_LABEL, KEY_LABEL):
            docker("image", "prune", "--force", "--filter", f"label={label}", timeout=300)
    return TAG


def _key_of(tag: str) -> str:
    """The key that an image made here carries; "" for any other image."""
    return docker("image", "inspect", "--format", f'{{{{index .Config.Labels "{KEY_LABEL}"}}}}', tag).stdout.strip()
