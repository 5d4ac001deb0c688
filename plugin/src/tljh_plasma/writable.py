"""Where a server can write beside its home: in memory, which is limited, and nowhere on the engine's disk.

What is written there counts as the server's memory. The root file system of a container is read-only, as are the
volumes of an image that come with files in them; empty ones are for writing, and are in memory too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from .container_files import within
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


def tmpfs(plan: ServerPlan, volumes: Iterable[tuple[str, bool]], mounted: Iterable[str]) -> dict[str, str]:
    """Return the directories in memory, with their options as Docker takes them.

    Args:
        plan: what is started.
        volumes: the image's, and whether there is anything in them.
        mounted: what is mounted at places in the container already.
    """
    mounted = list(mounted)
    half = plan.limits.memory // 2
    # Theirs: runc gives them the mode that the image's directory of that name has.
    owner = f"uid={plan.account.uid},gid={plan.account.group.gid}"
    found = {path: f"{_options(half)},{owner},exec" for path in LARGE}
    found["/dev/shm"] = f"{_options(half)},{owner}"
    found.update((path, f"{_options(min(half, SMALL_SIZE))},{owner},exec") for path in SMALL)
    found["/run/lock"] = f"{_options(1024**2)},{owner}"
    for path, filled in volumes:
        # A read-only one above a home would leave no place to mount the home at.
        if path not in mounted and path not in found and (not filled or _is_above(path, mounted)):
            found[path] = f"{_options(half)},{owner},exec"
    found[RUNTIME_DIR] = f"size=16m,nr_inodes=1024,mode=0700,{owner}"
    return found


def read_only(volumes: Iterable[tuple[str, bool]], places: Iterable[str], mounted: Iterable[str]) -> list[str]:
    """Return the image's volumes that stay, to be read only.

    Args:
        volumes: the image's, and whether there is anything in them.
        places: directories in memory.
        mounted: what is mounted already.
    """
    taken = {*places, *mounted}
    return [path for path, _ in volumes if path not in taken]


def volume_name(image_id: str, path: str) -> str:
    """Return the name of the volume with what an image has at a path: the engine makes no read-only one without."""
    return f"{VOLUME}{hashlib.sha256(f'{image_id} {path}'.encode()).hexdigest()[:32]}"


def _options(size: int) -> str:
    return f"size={size},nr_inodes={max(size // BYTES_PER_FILE, 256)},mode=1777"


def _is_above(path: str, others: Iterable[str]) -> bool:
    return any(other != path and within(other, path) for other in others)
