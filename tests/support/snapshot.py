"""A server as it is, kept as an image that others start from: each with an identity of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.container import SNAPSHOT, ContainerTarget
from tests.support.engine import docker
from tests.support.images import REPOSITORY as IMAGES
from tests.support.images import base_image, cache_key
from tests.support.paths import REPOSITORY

# What salt-ssh brings to a server, and what decides what it does there.
SHIPPED = (
    "salt",
    "_modules",
    "_states",
    "_utils",
    "_pillar",
    "_renderers",
    "pillar/top.sls",
    "plugin",
    "conf",
    "requirements.txt",
)
# What a server's Docker keeps; both are volumes, which an image has not.
DATA = ("var/lib/docker", "var/lib/containerd")
ENGINE = "docker.socket docker containerd"


def image_of(*parts: object, suite: str = "bookworm") -> str:
    """Tag of the image of a server that was deployed from this tree as it is, with ``parts`` as its pillar or so."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SHIPPED],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.decode()
    files = [Path(name) for name in sorted(set(listed.split("\0"))) if not name.startswith("plugin/tests/")]
    contents = [(str(name), (REPOSITORY / name).read_bytes()) for name in files if (REPOSITORY / name).is_file()]
    return f"{IMAGES}-snapshot:{cache_key(base_image(suite), parts, contents)}"


def take(target: ContainerTarget, tag: str, services: str = "jupyterhub traefik") -> None:
    """
    Keep ``target`` as the image ``tag``; it goes on afterwards. Older snapshots that nobody uses are removed.

    ``services`` are stopped meanwhile, as is Docker: what they write is on the disk then. What is in Docker's own
    directories comes as an archive, which a server that starts unpacks (``container.INIT``).
    """
    older = docker("image", "ls", "--quiet", f"{IMAGES}-snapshot").stdout.split()
    # Salt keeps for five minutes what the server was called.
    target.sudo("sh -c 'rm -f /var/lib/.*_salt/running_data/var/cache/salt/minion/grains.cache.p'")
    target.sudo(f"systemctl stop {services} {ENGINE}")
    target.sudo(
        ["tar", "-C", "/", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-cf", SNAPSHOT, *DATA], timeout=600
    )
    try:
        docker("commit", target.container, tag, timeout=600)
    finally:
        target.sudo(["rm", SNAPSHOT])
        target.sudo(f"systemctl start {ENGINE} {services}")
    for image in set(older):
        docker("image", "rm", image, check=False)
