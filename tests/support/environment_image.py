"""A user environment (a Jupyter server in an image), built without a registry, and its way onto a server."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support import debian, images, paths
from tests.support.engine import docker
from tests.support.target import Target

# Git for nbgitpuller.
PACKAGES = ("python3", "python3-venv", "ca-certificates", "bash", "git")
FILES = images.FILES / "environment"
KEY_LABEL = "plasma.throwaway.key"
STAGE_LABEL = "plasma.throwaway.stage"
# Same layers and same labels: the same image, whichever way an engine counts its ids.
IDENTITY = "{{json .RootFS.Layers}} {{json .Config.Labels}}"
LOAD_TIMEOUT = 900


def labels(tag: str, mem_limit: str, cpu_limit: str) -> dict[str, str]:
    """The labels that repo2docker and tljh-repo2docker put on the image ``tag``."""
    name, _, ref = tag.partition(":")
    return {
        "repo2docker.ref": ref,
        "repo2docker.repo": f"https://example.org/{name}",
        "tljh_repo2docker.image_name": tag,
        "tljh_repo2docker.display_name": name,
        "tljh_repo2docker.mem_limit": mem_limit,
        "tljh_repo2docker.cpu_limit": cpu_limit,
    }


def environment_image(tag: str = "python-course:2026", mem_limit: str = "2G", cpu_limit: str = "2") -> str:
    """
    Build the image ``tag`` (name:ref) that a user can start, and return ``tag``.

    ``mem_limit`` (bytes with a suffix, "2G") and ``cpu_limit`` (number of CPUs) go into the labels. The image itself is
    built once, in about two minutes; another tag or other limits then take a second.
    """
    common = _common_image()
    wanted = labels(tag, mem_limit, cpu_limit)
    wanted[KEY_LABEL] = images.cache_key(common, sorted(wanted.items()))
    with paths.lock("environment"):
        found = docker("image", "inspect", "--format", f'{{{{index .Config.Labels "{KEY_LABEL}"}}}}', tag, check=False)
        if found.stdout.strip() != wanted[KEY_LABEL]:
            arguments = [word for name, value in wanted.items() for word in ("--label", f"{name}={value}")]
            builder = {"DOCKER_BUILDKIT": "0"}
            docker("build", "-t", tag, *arguments, "-", input=f"FROM {common}\n", env=builder, timeout=300)
            docker(
                "image", "prune", "--force", "--filter", f"label={KEY_LABEL}", timeout=300
            )  # what had the tag before
    return tag


def _common_image() -> str:
    """The unlabelled image, cached by the contents of files/environment."""
    root = images.root_image("bookworm", PACKAGES, slim=True)
    files = {str(path.relative_to(FILES)): path.read_bytes() for path in sorted(FILES.rglob("*")) if path.is_file()}
    tag = f"{images.REPOSITORY}-environment:{images.cache_key(root, sorted(files.items()))}"
    with paths.lock("environment-common"):
        if not images.image_id(tag):
            with tempfile.TemporaryDirectory(prefix="plasma-build-") as scratch:
                context = Path(scratch)
                for name, data in files.items():
                    (context / name).parent.mkdir(parents=True, exist_ok=True)
                    (context / name).write_bytes(data)
                images.add_authorities(context, debian.extra_authorities())
                images.build(context, tag, {"ROOT": root}, log_name="environment")
            # The result is cached under its own tag: the stage that downloaded it is of no more use.
            docker("image", "prune", "--force", "--filter", f"label={STAGE_LABEL}", timeout=300)
    return tag


def load_into(target: Target, image: str) -> bool:
    """
    Copy ``image`` from the engine here into the Docker engine of ``target``; returns whether it had to be copied.

    The target needs a running Docker; nothing is sent when it already has the image.
    """
    here = docker("image", "inspect", "--format", IDENTITY, image).stdout.strip()
    ask = ["docker", "image", "inspect", "--format", IDENTITY, image]
    if target.sudo(ask, check=False).stdout.strip() == here:
        return False
    load = ["sudo", "-n", "--", "docker", "load", "--quiet"]
    with _archive(image).open("rb") as archive:
        target.ssh(load, input=archive, timeout=LOAD_TIMEOUT)
    return True


def _archive(image: str) -> Path:
    """
    ``docker save`` of ``image``, kept: saving takes as long as half of the loading.

    The newest archive of each tag is kept and the older ones are removed.
    """
    prefix = f"image-{image.replace('/', '_').replace(':', '_')}-"
    with paths.lock("archive"):
        image_id = docker("image", "inspect", "--format", "{{.Id}}", image).stdout.strip()
        archive = paths.cache_dir() / f"{prefix}{image_id.removeprefix('sha256:')[:12]}.tar"
        if not archive.exists():
            for older in paths.cache_dir().glob(f"{prefix}*"):
                older.unlink()
            new = archive.with_suffix(".new")
            docker("save", "--output", new, image, timeout=LOAD_TIMEOUT)
            new.replace(archive)
    return archive
