"""Builders without the engine, where the server makes its images itself (``plasma.builder.image: local``).

What a repository brings runs in a user namespace of its builder (see buildpack/plasma_rootless.py). This side gives it
the images of the engine that it begins with, and takes the finished image from it (see ``archive``). Layers stay in a
volume for each environment, so that nothing is done twice, and nothing of one environment reaches another one's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer

from . import archive, sources
from .archive import SECRETS
from .images import BuildFailed, build_tag, image_id, inspect, labels
from .local import BASE, BUILDER, PROGRAM, modules
from .request import BuildRequest

LABEL_VOLUME = "org.plasma.build.volume"
LABEL_SEED = "org.plasma.build.seed"
# As in the module that runs inside.
PLACE, IMAGES = "/build", "/images"
NEEDS, GIVEN = "needs.json", "given.json"
PROFILE = "plasma-build"
# Of what a build runs. Its share of the processors counts when others want them: servers of people have 1024.
PIDS, SHARES = 4096, 128
TMPFS = {
    "/tmp": "size=256m,mode=1777",
    "/var/tmp": "size=64m,mode=1777",
    # Which others than root can write to.
    "/run/lock": "size=1m,mode=0755",
    "/var/cache/containers": "size=1m,mode=0755,uid=1900000000,gid=1900000000",
}
# An answer of repo2docker's own.
MOST = 64 * 1024
MOST_IMAGES = 20
# Seconds to give a builder one image.
PUTTING = 300
LOOK = 0.2
_SECCOMP = Path(__file__).with_name("seccomp.json")
_APPARMOR = Path("/sys/kernel/security/apparmor/profiles")
NO_PROFILE = (
    "AppArmor is in force on this server, and the profile of builds is not loaded. The administrators of the server "
    "load it with: state.apply builder."
)


@dataclass(frozen=True)
class Limits:
    """What a build may use.

    Attributes:
        memory: bytes, without swap.
        cpu: CPUs.
        disk: bytes.
    """

    memory: int
    cpu: float
    disk: int


def volume(image: str, base: str) -> str:
    """Return the name of the volume with an environment's layers on a base."""
    return f"plasma-build-{hashlib.sha256(f'{image} {base}'.encode()).hexdigest()[:20]}"


def shared_volume(base: str) -> str:
    """Return the name of the volume with images of the engine, of which the base with this id is one."""
    return f"plasma-build-images-{base.removeprefix('sha256:')[:20]}"


def host_config(network: str, limits: Limits, mounts: dict[str, tuple[str, bool]]) -> dict[str, Any]:
    """Return what a builder may do, as the engine's API wants it.

    Args:
        network: name of the builds' network.
        limits: what it may use.
        mounts: by place, the name of a volume and whether it may only be read.

    Raises:
        BuildFailed: AppArmor does not know the profile.
    """
    options = ["no-new-privileges", f"seccomp={_SECCOMP.read_text(encoding='utf-8')}"]
    if _APPARMOR.exists():
        if not any(line.startswith(f"{PROFILE} ") for line in _APPARMOR.read_text().splitlines()):
            raise BuildFailed(NO_PROFILE)
        options.append(f"apparmor={PROFILE}")
    return {
        "NetworkMode": network,
        "Mounts": [
            {"Type": "volume", "Source": name, "Target": place, "ReadOnly": read_only}
            for place, (name, read_only) in mounts.items()
        ],
        "SecurityOpt": options,
        "CapDrop": ["ALL"],
        # To make the user namespace, and to become its root.
        "CapAdd": ["SETGID", "SETUID"],
        "Tmpfs": TMPFS,
        "PidsLimit": PIDS,
        "Memory": limits.memory,
        "MemorySwap": limits.memory,
        "NanoCpus": int(min(limits.cpu, os.cpu_count() or 1) * 1e9),
        "CpuShares": SHARES,
    }


async def prepare(docker: Docker, image: str) -> dict[str, tuple[str, bool]]:
    """Make the volumes of an environment where they are missing, and return what ``host_config`` mounts.

    Raises:
        DockerError: the engine refuses or is away.
    """
    base = await image_id(docker, BASE) or ""
    mounts = {PLACE: (volume(image, base), False), IMAGES: (shared_volume(base), True)}
    for name, _ in mounts.values():
        await docker.volumes.create({"Name": name, "Labels": {LABEL_VOLUME: image if name == mounts[PLACE][0] else ""}})
    return mounts


class Shelf:
    """The images of the engine that builds begin with, in a volume that all builders read.

    Args:
        network: name of the builds' network.
        limits: what a build may use, and putting an image there.
    """

    def __init__(self, network: str, limits: Limits):
        self._network, self._limits = network, limits
        self._there: set[tuple[str, str, str]] = set()
        self._putting: dict[str, asyncio.Lock] = {}

    async def serve(self, docker: Docker, container: DockerContainer, image: str) -> None:
        """Wait for a builder to say which images it needs, and give it those that the engine has.

        Args:
            docker: the engine.
            container: the builder.
            image: the environment that it builds.

        Raises:
            BuildFailed: an image cannot be given.
            DockerError: the engine refuses or is away.
        """
        while (asked := await _read(container, f"{SECRETS}/{NEEDS}")) is None:
            if (await container.show())["State"]["Status"] in ("exited", "dead"):
                return  # it has said why
            await asyncio.sleep(LOOK)
        volumes = {mount["Destination"]: mount["Name"] for mount in container["Mounts"]}
        layers = []
        for name in dict.fromkeys([BASE, *json.loads(asked)[:MOST_IMAGES]]):
            # Nothing else becomes a part of an address of the engine's API.
            valid = sources.READY.fullmatch(name) or sources.READY.fullmatch(f"{name}:latest")
            if not valid or not (found := await inspect(docker, name)):
                continue
            layers.append(found["RootFS"]["Layers"] or [])
            # Any other image is this environment's alone, and counts as what it uses.
            await self._give(docker, name, found, volumes[IMAGES if name == BASE else PLACE])
        if former := await inspect(docker, image):
            layers.append(former["RootFS"]["Layers"] or [])
        if not await asyncio.to_thread(archive.shares_layers):
            layers = []
        given = {"layers": layers, "disk": self._limits.disk // 1024**2}
        await container.put_archive("/", archive.secrets({GIVEN: json.dumps(given).encode()}))

    async def _give(self, docker: Docker, name: str, found: dict[str, Any], target: str) -> None:
        """Put an image into a volume where it is not. One at a time for a volume; others are not held up."""
        key = (target, name, found["Id"])
        async with self._putting.setdefault(target, asyncio.Lock()):
            if key in self._there:
                return
            if found["Size"] > self._limits.disk:
                raise BuildFailed(f"The image {name} is larger than what a build may use (plasma.builder.disk).")
            try:
                await asyncio.wait_for(self._put(docker, name, target), PUTTING)
            except asyncio.TimeoutError:
                raise BuildFailed(f"The image {name} was not there for the builder after {PUTTING} seconds.") from None
            self._there.add(key)

    async def _put(self, docker: Docker, name: str, target: str) -> None:
        config = {
            "Image": BUILDER,
            "Cmd": ["python3", f"{SECRETS}/{PROGRAM}"],
            "User": "0:0",
            "Labels": {LABEL_SEED: target},
            "HostConfig": host_config(self._network, self._limits, {IMAGES: (target, False)}),
        }
        # One that a service left which was killed meanwhile.
        for left in await docker.containers.list(all=True, filters=json.dumps({"label": [f"{LABEL_SEED}={target}"]})):
            await left.delete(force=True, v=True)
        container = await docker.containers.create(config)
        try:
            await container.put_archive("/", archive.secrets({PROGRAM: modules()[PROGRAM]}))
            await asyncio.to_thread(archive.put_image, container.id, name, "/given")
            await container.start()
            if (await container.wait())["StatusCode"]:
                said = " ".join("".join(await container.log(stdout=True, stderr=True)).split())
                raise BuildFailed(f"The image {name} cannot be given to the builder: {said[-300:]}.")
        finally:
            await container.delete(force=True, v=True)

    async def sweep(self, docker: Docker, images: set[str]) -> None:
        """Remove the volumes that no environment and no base of today needs, and forget what was in them.

        Args:
            docker: the engine.
            images: the environments that there are.
        """
        base = await image_id(docker, BASE) or ""
        wanted = {shared_volume(base), *(volume(image, base) for image in images)}
        for found in (await docker.volumes.list())["Volumes"] or []:
            name = found["Name"]
            if LABEL_VOLUME in (found["Labels"] or {}) and name not in wanted:
                # 409: a builder has it still.
                with contextlib.suppress(DockerError):
                    async with docker._query(f"volumes/{name}", method="DELETE"):
                        self._there = {key for key in self._there if key[0] != name}


async def take(container: DockerContainer, request: BuildRequest, created: str, limits: Limits) -> None:
    """Have the engine take the image that a builder has made, under the name of an unfinished one.

    Raises:
        BuildFailed: what is there is no image.
        DockerError: the engine is away.
    """
    told = labels(request, created)
    await asyncio.to_thread(archive.take, container.id, f"{PLACE}/output", build_tag(request.image), told, limits.disk)


async def _read(container: DockerContainer, path: str) -> bytes | None:
    """A small file of a container's root, None while there is none."""
    try:
        found = await container.get_archive(path)
    except DockerError as error:
        if error.status == 404:
            return None
        raise
    with found:
        member = found.next()
        content = found.extractfile(member) if member and member.isreg() and member.size <= MOST else None
        return content.read() if content else b""
