"""Kernel, initial RAM disk and root file system of a Debian virtual machine, from Debian's packages."""

from __future__ import annotations

import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support import images, paths
from tests.support.engine import docker
from tests.support.shell import SupportError, ensure_packages, run

FILES = images.FILES / "vm"
KERNEL_PACKAGE = "linux-image-cloud-amd64"
ROOT_LABEL = "rootfs"
ROOT_SIZE = "4G"  # sparse; a VM's disk is at least this large, and the file system grows with it
NAME_SERVER = "10.0.2.3"  # qemu's user network answers there


@dataclass(frozen=True)
class VMImage:
    """Files that qemu boots. ``root`` is shared by every VM: it is never written to."""

    kernel: Path
    initrd: Path
    root: Path


def vm_image(suite: str = "bookworm", packages: tuple[str, ...] = ()) -> VMImage:
    """
    The files for the Debian release ``suite``; the first call takes two minutes, later ones are instant.

    ``packages``: Debian packages besides. In a machine that is emulated, installing them may take minutes.
    """
    if platform.machine() != "x86_64":
        raise SupportError(f"Virtual machines are made for x86_64 only, and this machine is {platform.machine()}")
    base = images.base_image(suite)
    files = {path.name: path.read_bytes() for path in sorted(FILES.iterdir())}
    key = images.cache_key(base, sorted(files.items()), KERNEL_PACKAGE, ROOT_SIZE, *sorted(packages))
    directory = paths.cache_dir() / f"vm-{suite}-{key}"
    image = VMImage(directory / "vmlinuz", directory / "initrd.img", directory / "root.img")
    with paths.lock(f"vm-image-{suite}"):
        if directory.exists():
            return image
        ensure_packages(["e2fsprogs"])
        tag = f"{images.REPOSITORY}-vm:{suite}-{key}"
        with tempfile.TemporaryDirectory(prefix="plasma-build-") as scratch:
            for name, data in files.items():
                Path(scratch, name).write_bytes(data)
            arguments = {"BASE": base, "KERNEL": KERNEL_PACKAGE, "PACKAGES": " ".join(sorted(packages))}
            images.build(Path(scratch), tag, arguments, log_name=f"vm-{suite}")
        with tempfile.TemporaryDirectory(prefix="vm-image-", dir=paths.cache_dir()) as scratch:
            result = Path(scratch, "result")
            result.mkdir()
            _write(tag, Path(scratch), result)
            result.rename(directory)
        docker("image", "rm", tag, check=False)
    return image


def _write(tag: str, scratch: Path, result: Path) -> None:
    """Turn the image ``tag`` into the files of a VMImage in ``result``."""
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
    (root / "etc/resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")
    shutil.copy(_only(root, "vmlinuz-*"), result / "vmlinuz")
    shutil.copy(_only(root, "initrd.img-*"), result / "initrd.img")
    filesystem = result / "root.img"
    run(["mkfs.ext4", "-q", "-F", "-L", ROOT_LABEL, "-d", root, filesystem, ROOT_SIZE], timeout=600)


def _only(root: Path, pattern: str) -> Path:
    found = list((root / "boot").glob(pattern))
    if len(found) != 1:
        raise SupportError(f"/boot of the VM image should have one {pattern}, not {[path.name for path in found]}")
    return found[0]
