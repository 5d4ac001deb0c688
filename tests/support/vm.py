"""A server in a virtual machine: its own Debian kernel, for what a shared kernel cannot do (disk quotas, reboots)."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
from pathlib import Path

from tests.support import paths
from tests.support.engine import live_pid
from tests.support.shell import SupportError, ensure_packages, run, tail, wait_for
from tests.support.target import Target, check_name
from tests.support.vm_image import ROOT_LABEL, vm_image

QEMU = "qemu-system-x86_64"
# /dev/kvm may be there and still hang a stock kernel before its first line: on a working one that takes a second.
KVM_FIRST_LINE_TIMEOUT = 10
BOOT_TIMEOUT = 300  # emulation takes most of a minute on an idle machine
RECALLED = ("host", "port", "http_port", "key", "accelerator")


@dataclasses.dataclass
class VMTarget(Target):
    """
    A Debian server in a virtual machine, reached through ports of 127.0.0.1.

    ``suite``: the Debian release. ``memory``: MiB. ``disk``: size of the root disk for qemu ("8G"; sparse). ``disks``:
    sizes of further, empty ones: /dev/vdb and so on. ``packages``: Debian packages that are there from the start.
    After up(), ``port`` leads to its port 22 and ``http_port`` to its port 80. A reboot inside keeps the disks; down()
    removes them.
    """

    kind: str = "vm"
    suite: str = "bookworm"
    memory: int = 2048
    disk: str = "8G"
    disks: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    http_port: int = 0
    accelerator: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        # Records have lists.
        self.disks, self.packages = tuple(self.disks), tuple(self.packages)

    @property
    def directory(self) -> Path:
        """Disk, console log and process id of this VM."""
        return paths.state_dir() / "vm" / self.name

    @property
    def console(self) -> Path:
        """What the kernel and systemd print."""
        return self.directory / "console.log"

    def _process_name(self) -> str:
        return f"plasma-{self.name}-{paths.state_id()}"

    def pid(self) -> int | None:
        """Process id of its qemu, or None."""
        return live_pid(self.directory / "qemu.pid", QEMU, self._process_name())

    def exists(self) -> bool:
        """Whether its disk is there."""
        return self.directory.exists()

    def is_up(self) -> bool:
        """Whether its qemu runs."""
        return self.pid() is not None

    def up(self) -> VMTarget:
        """Boot the VM, with hardware virtualisation when that works; returns when an SSH login works."""
        self.recall(*RECALLED)
        if not self.is_up():
            ensure_packages(["qemu-system-x86", "qemu-utils", "openssh-client"])
            self.key, self.host = paths.ssh_key(), "127.0.0.1"
            self.port, self.http_port = _free_ports(2)
            self.remember()
            try:
                for accelerator in self._accelerators():
                    self.accelerator = accelerator
                    if self._boot():
                        break
            except SupportError as error:
                raise SupportError(
                    f"{error}\nThe end of the console of {self.name}:\n{self._console_tail()}"
                ) from error
            self.remember()
        self.wait_for_ssh(BOOT_TIMEOUT)
        return self

    def _accelerators(self) -> list[str]:
        """What to try, in order; KVM that failed is not tried again until this machine boots."""
        if self.accelerator and self.exists():
            return [self.accelerator]  # it has booted before: a failed attempt would cost its disk
        verdict = _kvm_verdict()
        failed = verdict.exists() and verdict.read_text() == _boot_id()
        return ["kvm", "tcg"] if os.access("/dev/kvm", os.R_OK | os.W_OK) and not failed else ["tcg"]

    def _boot(self) -> bool:
        """Start qemu; whether an SSH login works. After a failure with KVM there is nothing left of the attempt."""
        self.disconnect()
        try:
            self._start()
            if self.accelerator == "kvm":
                wait_for(self._kernel_speaks, timeout=KVM_FIRST_LINE_TIMEOUT, what="the kernel's first line")
            self.wait_for_ssh(BOOT_TIMEOUT)
        except SupportError:
            if self.accelerator != "kvm":
                raise
            self._kill()
            _kvm_verdict().write_text(_boot_id())
            for disk in self.directory.glob("disk*.qcow2"):
                disk.unlink()  # half a boot may have written anything
            return False
        return True

    def _kernel_speaks(self) -> bool:
        return self.console.exists() and b"Linux version" in self.console.read_bytes()

    def _start(self) -> None:
        image = vm_image(self.suite, self.packages)
        self.directory.mkdir(parents=True, exist_ok=True)
        disk = self.directory / "disk.qcow2"
        if not disk.exists():
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image.root, "-F", "raw", disk, self.disk])
        cmdline = f"root=LABEL={ROOT_LABEL} rw console=ttyS0 net.ifnames=0 systemd.hostname={self.name}"
        # IPv6 off: the guest would prefer it, and it leads nowhere when the machine has none.
        network = (
            f"user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:{self.port}-:22,hostfwd=tcp:127.0.0.1:{self.http_port}-:80"
        )
        kvm = self.accelerator == "kvm"
        command = [QEMU, "-name", self._process_name(), "-m", str(self.memory)]
        command += ["-accel", "kvm" if kvm else "tcg,thread=multi", "-cpu", "host" if kvm else "max"]
        command += ["-smp", str(min(2, os.cpu_count() or 1)), "-display", "none", "-nodefaults"]
        command += ["-kernel", image.kernel, "-initrd", image.initrd, "-append", cmdline]
        # Nothing on this disk is worth waiting for the real one.
        command += ["-drive", f"file={disk},format=qcow2,if=virtio,cache=unsafe,discard=unmap"]
        for number, size in enumerate(self.disks, 1):
            extra = self.directory / f"disk{number}.qcow2"
            if not extra.exists():
                run(["qemu-img", "create", "-q", "-f", "qcow2", extra, size])
            command += ["-drive", f"file={extra},format=qcow2,if=virtio,cache=unsafe,discard=unmap"]
        command += ["-netdev", network, "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"]
        command += ["-serial", f"file:{self.console}", "-daemonize", "-pidfile", self.directory / "qemu.pid"]
        run(command, timeout=30)

    def _kill(self) -> None:
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: self.pid() != pid, timeout=20, what=f"the end of {self.name}")

    def _console_tail(self) -> str:
        return tail(self.console.read_text(errors="replace")) if self.console.exists() else ""

    def reboot(self) -> None:
        """Boot the system again, and return when an SSH login works."""
        before = self.ssh(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
        self.sudo("systemctl reboot --no-block")

        def booted() -> bool:
            self.disconnect()
            try:
                asked = self.ssh(["cat", "/proc/sys/kernel/random/boot_id"], check=False, timeout=20)
            except SupportError:
                return False
            return asked.returncode == 0 and asked.stdout != before

        wait_for(booted, timeout=BOOT_TIMEOUT, what=f"the reboot of {self.name}", interval=1)

    def down(self) -> None:
        """Stop the VM at once and remove its disk."""
        self.recall(*RECALLED)
        self.disconnect()
        self._kill()
        if self.directory.exists():
            shutil.rmtree(self.directory)
        self.forget()


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    with_sockets = [socket.socket() for _ in range(count)]
    try:
        for one in with_sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in with_sockets]
    finally:
        for one in with_sockets:
            one.close()


def _kvm_verdict() -> Path:
    """Holds the boot id of this machine when KVM failed since then."""
    return paths.cache_dir() / "kvm-hangs"


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
