"""Kernel and root file system of a Debian machine with a kernel of its own, from Debian's packages."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path

from tests.support import images, paths
from tests.support.engine import docker
from tests.support.shell import SupportError, ensure_packages, run

KERNEL_SUITE = "bookworm"  # whatever the release of the root
ROOT_LABEL = "rootfs"
ROOT_SIZE = "8G"  # sparse


def kernel_image() -> str:
    """Tag of the image whose containers run user-mode Linux: a kernel as a process, at the machine's own speed."""
    if platform.machine() != "x86_64":
        raise SupportError(f"Debian has user-mode Linux for x86_64 only, and this machine is {platform.machine()}")
    return _built("kernel", KERNEL_SUITE, {})


def root_disk(suite: str = "bookworm", packages: tuple[str, ...] = ()) -> Path:
    """
    Directory with ``root.img``, the root file system of the Debian release ``suite``; nobody ever writes to it.

    ``packages``: Debian packages besides. The first call takes a minute or two, later ones are instant.
    """
    arguments = {"KERNEL": kernel_image(), "PACKAGES": " ".join(sorted(packages))}
    tag = _built("vm", suite, arguments)
    directory = paths.cache_dir() / f"vm-{tag.rpartition(':')[2]}-{ROOT_SIZE}"
    with paths.lock(f"vm-image-{suite}"):
        if not directory.exists():
            ensure_packages(["e2fsprogs"])
            with tempfile.TemporaryDirectory(prefix="vm-image-", dir=paths.cache_dir()) as scratch:
                result = Path(scratch, "result")
                result.mkdir()
                _write(tag, Path(scratch), result)
                result.rename(directory)
    return directory


def _built(kind: str, suite: str, arguments: dict[str, str]) -> str:
    """Tag of the image of tests/support/files/``kind`` on the base image of ``suite``."""
    base = images.base_image(suite)
    files = {path.name: path.read_bytes() for path in sorted((images.FILES / kind).iterdir())}
    tag = f"{images.REPOSITORY}-{kind}:{suite}-{images.cache_key(base, sorted(files.items()), arguments)}"
    with paths.lock(f"{kind}-{suite}"):
        if not images.image_id(tag):
            with tempfile.TemporaryDirectory(prefix="plasma-build-") as scratch:
                for name, data in files.items():
                    Path(scratch, name).write_bytes(data)
                images.build(Path(scratch), tag, {"BASE": base, **arguments}, log_name=f"{kind}-{suite}")
    return tag


def _write(tag: str, scratch: Path, result: Path) -> None:
    """Write the files of the image ``tag`` to ``result``/root.img."""
    archive, root = scratch / "root.tar", scratch / "root"
    container = docker("create", tag).stdout.strip()
    try:
        docker("export", "--output", archive, container, timeout=600)
    finally:
        docker("rm", container)
    root.mkdir()
    root.chmod(0o755)
    run(["tar", "-C", root, "--numeric-owner", "-xpf", archive], timeout=600)
    # Docker fills these in when a container starts; a machine has its own.
    (root / ".dockerenv").unlink(missing_ok=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
    (root / "etc/hostname").write_text("localhost\n")
    run(["mkfs.ext4", "-q", "-F", "-L", ROOT_LABEL, "-d", root, result / "root.img", ROOT_SIZE], timeout=600)
