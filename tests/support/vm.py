"""A server with a Debian kernel of its own, for what a shared kernel cannot do (disk quotas, reboots)."""

from __future__ import annotations

import dataclasses

from tests.support import paths
from tests.support.container import LABEL, ContainerTarget
from tests.support.shell import SupportError, wait_for
from tests.support.vm_image import kernel_image, root_disk

BOOT_TIMEOUT = 300  # seconds, on a busy machine


@dataclasses.dataclass
class VMTarget(ContainerTarget):
    """
    A Debian server with a kernel of its own: user-mode Linux, which runs as a process, in a container.

    The machine has the container's address and one processor, and its disks lie in the container. ``suite``: the Debian
    release. ``memory``: MiB. ``disks``: sizes of further, empty disks ("400M"; sparse): /dev/ubdb and so on.
    ``packages``: Debian packages that are there from the start. A reboot inside keeps the disks; down() removes them.
    """

    kind: str = "vm"
    memory: int = 2048
    disks: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        # Records have lists.
        self.disks, self.packages = tuple(self.disks), tuple(self.packages)

    def volumes(self) -> dict[str, str]:
        """No volumes: what belongs to the machine is on its disks."""
        return {}

    def image(self) -> str:
        """Tag of the image of its container."""
        return kernel_image()

    def _run_arguments(self, image: str) -> list[str]:
        arguments = ["run", "--detach", "--name", self.container, "--label", f"{LABEL}={paths.state_id()}"]
        arguments += ["--cap-add", "NET_ADMIN"]
        # Each of them would be asked at every system call of the machine, which itself keeps its users apart.
        arguments += ["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
        arguments += ["--tmpfs", f"/memory:rw,exec,size={self.memory + 64}m"]
        arguments += ["--volume", f"{root_disk(self.suite, self.packages)}:/image:ro"]
        return [*arguments, image, "boot", str(self.memory), self.name, *self.disks]

    def wait_for_boot(self) -> str:
        """Return "running" or "degraded" once systemd has started everything."""
        try:
            self.disconnect()
            self.wait_for_ssh(BOOT_TIMEOUT)
        except SupportError as error:
            raise SupportError(f"{error}\nThe end of the console of {self.name}:\n{self._console()}") from error
        return self.ssh(["systemctl", "is-system-running", "--wait"], check=False).stdout.strip()

    def boot_id(self) -> str:
        """What the kernel calls the time since it booted; empty while nobody can ask it."""
        try:
            return self.ssh(["cat", "/proc/sys/kernel/random/boot_id"], check=False, timeout=20).stdout.strip()
        except SupportError:
            return ""

    def reboot(self) -> None:
        """Boot the system again, and return when an SSH login works."""
        before = self.boot_id()
        self.sudo("systemctl reboot --no-block")

        def booted() -> bool:
            self.disconnect()
            return self.boot_id() not in ("", before)

        wait_for(booted, timeout=BOOT_TIMEOUT, what=f"the reboot of {self.name}", interval=1)
