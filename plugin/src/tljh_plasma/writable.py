"""What the container of a server may do, and where it can write beside its home: in memory, which is limited, and
nowhere on the engine's disk.

What is written there counts as the server's memory. The root file system of a container is read-only, as are the
volumes of an image that come with files in them; empty ones are for writing, and are in memory too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import docker.errors
from docker.types import Mount

from .image_look import Image, within
from .policy import RUNTIME_DIR, ServerPlan

# Half of the memory each, so that one of them alone does not end the server: room for what installers unpack there.
LARGE = ("/tmp", "/var/tmp")
# For what services leave behind, such as RStudio's: process ids, sockets, logs, state.
SMALL = ("/run", "/var/log", "/var/lib/rstudio-server")
SMALL_SIZE = 64 * 1024**2
# One file for so many bytes: files take memory even when they are empty.
BYTES_PER_FILE = 16 * 1024
# How the names of volumes begin that servers of one image share.
VOLUME = "plasma-image-"


def tmpfs(plan: ServerPlan, volumes: Mapping[str, bool], mounted: Collection[str]) -> dict[str, str]:
    """Return the directories in memory, with their options as Docker takes them.

    Args:
        plan: what is started.
        volumes: the image's, and whether there is anything in them.
        mounted: what is mounted in the container already.
    """
    half = plan.limits.memory // 2
    owner = _owner(plan)
    sizes = {**dict.fromkeys(LARGE, half), **dict.fromkeys(SMALL, min(half, SMALL_SIZE))}
    for path, filled in volumes.items():
        # A read-only one above a home would leave no place to mount the home at.
        above = any(other != path and within(other, path) for other in mounted)
        if path not in mounted and (not filled or above):
            sizes.setdefault(path, half)
    return {
        **{path: f"{_options(size)},{owner},exec" for path, size in sizes.items()},
        "/dev/shm": f"{_options(half)},{owner}",
        "/run/lock": f"{_options(1024**2)},{owner}",
        RUNTIME_DIR: f"size=16m,nr_inodes=1024,mode=0700,{owner}",
    }


def home_in_memory(plan: ServerPlan) -> str:
    """Return the options of a home in memory, for a server that is nobody's. What it takes is the server's memory."""
    size = plan.limits.memory // 4
    return f"size={size},nr_inodes={size // BYTES_PER_FILE},mode=0700,{_owner(plan)},exec"


def host_config(plan: ServerPlan, tmpfs: Mapping[str, str], host: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a server's container may do, as docker-py's ``create_host_config`` takes it.

    Args:
        plan: what is started.
        tmpfs: the directories in memory.
        host: what an administrator adds, which takes nothing of ours away.
    """
    return {
        **host,
        # We remove containers ourselves: those that the engine is to remove end when it restarts, also with
        # live-restore (seen with Docker 20.10).
        "auto_remove": False,
        # The engine's disk is everybody's, and nothing limits what one container writes there.
        "read_only": True,
        "cap_drop": ["ALL"],
        # Whatever set-user-id program a person brings along gains nothing.
        "security_opt": [*host.get("security_opt", []), "no-new-privileges"],
        "pids_limit": plan.limits.pids,
        # Memory and swap together: no swap.
        "memswap_limit": plan.limits.memory,
        # Reaps orphans, and keeps process 1 from ending when a child is killed.
        "init": True,
        "group_add": [str(group.gid) for group in plan.account.groups],
        # On the host's disk: what a server writes to its output would be kept without limit.
        "log_config": {"Type": "local", "Config": {"max-size": "5m", "max-file": "2"}},
        "tmpfs": {**tmpfs, **host.get("tmpfs", {}), RUNTIME_DIR: tmpfs[RUNTIME_DIR]},
    }


def _owner(plan: ServerPlan) -> str:
    # Theirs: runc gives them the mode that the image's directory of that name has.
    return f"uid={plan.account.uid},gid={plan.account.group.gid}"


def _options(size: int) -> str:
    return f"size={size},nr_inodes={max(size // BYTES_PER_FILE, 256)},mode=1777"


def volume_name(image_id: str, path: str) -> str:
    """Return the name of the volume with what an image has at a path: the engine makes no read-only one without."""
    return f"{VOLUME}{hashlib.sha256(f'{image_id} {path}'.encode()).hexdigest()[:32]}"


def volumes(plan: ServerPlan, image: Image, taken: Collection[str]) -> list[Mount]:
    """Return the mounts of the image's volumes that come with files, read-only.

    Args:
        plan: what is started.
        image: what is known of its image.
        taken: paths at which something is mounted already, or that are in memory.
    """
    image_id = plan.environment.image_id
    return [
        Mount(target, volume_name(image_id, target), type="volume", read_only=True)
        for target in image.volumes
        if target not in taken
    ]


def remove_container(client: docker.APIClient, container: str) -> None:
    """Remove a container, running or not, with the volumes of its image that no other one uses."""
    try:
        mounts = client.inspect_container(container)["Mounts"]
        client.remove_container(container, v=True, force=True)
    except docker.errors.APIError as error:
        # Gone, or somebody else is removing it.
        if error.status_code not in (404, 409):
            raise
        return
    for mount in mounts:
        if mount.get("Name", "").startswith(VOLUME):
            try:
                client.remove_volume(mount["Name"])
            except docker.errors.APIError as error:
                if error.status_code not in (404, 409):
                    raise
