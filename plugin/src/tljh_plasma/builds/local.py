"""The images that builds begin with where the server makes them itself (``plasma.builder.image: local``)."""

from __future__ import annotations

from pathlib import Path

from aiodocker import Docker

from ..buildpack import __file__ as _buildpack
from .images import BuildFailed, image_id

# As the state `builder` makes them (_utils/plasma_builder_images.py).
BUILDER, BASE = "localhost/plasma-builder:local", "localhost/plasma-base:local"
# As outside.py imports them there.
PACKAGE, PROGRAM = "plasma_buildpacks", "plasma_rootless.py"
MISSING = (
    "The images that builds begin with are not on this server (plasma.builder.image is local). The administrators of "
    "the server make them with: state.apply builder."
)


async def require(docker: Docker) -> None:
    """Raise BuildFailed where the images are missing, DockerError where the engine is away."""
    for image in (BUILDER, BASE):
        if not await image_id(docker, image):
            raise BuildFailed(MISSING)


def modules() -> dict[str, bytes]:
    """Return the files that run inside a builder, by name: the build packs are a package, and one is a program, too."""
    files = {path.name: path.read_bytes() for path in Path(_buildpack).parent.iterdir() if path.is_file()}
    return {name if name == PROGRAM else f"{PACKAGE}/{name}": content for name, content in files.items()}
