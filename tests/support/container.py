"""A server in a container: systemd, sshd, its own Docker; ready in seconds, on the machine's kernel."""

from __future__ import annotations

import dataclasses

from tests.support import paths
from tests.support.engine import docker
from tests.support.images import base_image
from tests.support.shell import SupportError, wait_for
from tests.support.target import Target, check_name

PIP_CACHE_VOLUME = "plasma-throwaway-pip-cache"
LABEL = "plasma.throwaway"
BOOT_TIMEOUT = 300  # seconds, on a busy machine

# Runs before systemd. Docker mounts /proc/sys read-only, but Docker 26 and later, when nested, sets the sysctls of its
# bridge: only /proc/sys/net, which is the container's own, becomes writable; the rest is the machine's.
INIT = """set -e
mount -t proc proc /mnt
mount --bind /mnt/sys/net /proc/sys/net
umount /mnt
{cgroups}
# The first start of what was made of a snapshot: another machine, with the same files.
if [ -e {snapshot} ]; then
    rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
    : > /etc/machine-id
    tar -C / --xattrs '--xattrs-include=*' --numeric-owner -xpf {snapshot}
    rm {snapshot}
fi
exec /lib/systemd/systemd"""
# Where a snapshot (tests.support.snapshot) has what Docker keeps in volumes.
SNAPSHOT = "/snapshot.tar"
# On the unified hierarchy Docker mounts the container's own part read-only; systemd needs to write there.
WRITABLE_CGROUPS = "mount -o remount,rw /sys/fs/cgroup"
# systemd 256 and later refuse a machine with the old cgroup hierarchy unless asked twice.
OLD_CGROUPS = "systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"


@dataclasses.dataclass
class ContainerTarget(Target):
    """
    A Debian server in a container.

    ``suite``: the Debian release. ``pip_cache``: share root's pip cache between targets, so that repeated installations
    download once. ``snapshot``: image of another server to start from, in place of a bare one. up(), down() and
    exists() are idempotent; the host name is the target's name.
    """

    kind: str = "container"
    suite: str = "bookworm"
    pip_cache: bool = True
    snapshot: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def container(self) -> str:
        """Name of the container in the engine."""
        return f"plasma-{self.name}-{paths.state_id()}"

    def volumes(self) -> dict[str, str]:
        """Volumes of this target alone, with where they are mounted: nested Docker needs overlay2 on a real disk."""
        return {
            f"{self.container}-docker": "/var/lib/docker",
            f"{self.container}-containerd": "/var/lib/containerd",
        }

    def image(self) -> str:
        """Tag of the image it is made from."""
        return self.snapshot or base_image(self.suite)

    def exists(self) -> bool:
        """Whether the container is there, running or not."""
        return docker("container", "inspect", self.container, check=False).returncode == 0

    def is_up(self) -> bool:
        """Whether the container runs."""
        return self._inspect("{{.State.Running}}") == "true"

    def _inspect(self, template: str) -> str:
        asked = docker("container", "inspect", "--format", template, self.container, check=False)
        return asked.stdout.strip()

    def up(self) -> ContainerTarget:
        """Make or start the container; returns when systemd has booted and an SSH login works."""
        self.key = paths.ssh_key()
        self.remember()
        if not self.exists():
            docker(*self._run_arguments(self.image()))
        elif not self.is_up():
            docker("start", self.container)
        self.host = self._inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")
        if not self.host:
            raise SupportError(f"{self.container} ended at once:\n{self._console()}")
        self.remember()
        self.wait_for_boot()
        self.disconnect()
        self.wait_for_ssh(BOOT_TIMEOUT)
        return self

    def _run_arguments(self, image: str) -> list[str]:
        arguments = ["run", "--detach", "--name", self.container, "--hostname", self.name]
        arguments += ["--label", f"{LABEL}={paths.state_id()}", "--env", "container=docker"]
        # --privileged would do, but fails where the machine itself lacks CAP_SYS_RESOURCE, and gives away the devices.
        # Without SYS_MODULE systemd does not try to load kernel modules, which are the machine's business.
        arguments += ["--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--cap-drop", "SYS_MODULE"]
        # The clock is the machine's.
        arguments += ["--cap-drop", "SYS_TIME"]
        arguments += ["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
        # As on a machine; Docker lets everybody in a container listen on any port.
        arguments += ["--sysctl", "net.ipv4.ip_unprivileged_port_start=1024"]
        arguments += ["--tmpfs", "/run", "--tmpfs", "/run/lock"]
        for volume, mounted in self.volumes().items():
            arguments += ["--volume", f"{volume}:{mounted}"]
        if self.pip_cache:
            arguments += ["--volume", f"{PIP_CACHE_VOLUME}:/root/.cache/pip"]
        if docker("info", "--format", "{{.CgroupVersion}}").stdout.strip() == "2":
            arguments += ["--cgroupns", "private"]
            init = INIT.format(cgroups=WRITABLE_CGROUPS, snapshot=SNAPSHOT)
        else:
            arguments += ["--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]
            arguments += ["--env", f"SYSTEMD_PROC_CMDLINE={OLD_CGROUPS}"]
            init = INIT.format(cgroups=":", snapshot=SNAPSHOT)
        return [*arguments, image, "sh", "-c", init]

    def wait_for_boot(self) -> str:
        """Return "running" or "degraded" once systemd has started everything."""
        state = [""]

        def booted() -> str:
            if not self.is_up():
                raise SupportError(f"{self.container} ended while it booted:\n{self._console()}")
            asked = docker("exec", self.container, "systemctl", "is-system-running", check=False)
            state[0] = (asked.stdout + asked.stderr).strip()
            return state[0] if state[0] in ("running", "degraded") else ""

        def details() -> str:
            jobs = docker("exec", self.container, "systemctl", "list-jobs", "--no-pager", check=False)
            return f"systemd says {state[0]!r}\n{jobs.stdout}{jobs.stderr}"

        return str(wait_for(booted, timeout=BOOT_TIMEOUT, what=f"the boot of {self.container}", details=details))

    def _console(self) -> str:
        shown = docker("logs", "--tail", "30", self.container, check=False)
        return shown.stdout + shown.stderr

    def down(self, purge: bool = False) -> None:
        """Remove the container and its volumes; with ``purge`` the shared pip cache too."""
        self.recall("host", "key")
        self.disconnect()
        if self.exists():
            docker("rm", "--force", "--volumes", self.container)
        made = docker("volume", "ls", "--quiet").stdout.split()
        wanted = [*self.volumes(), *([PIP_CACHE_VOLUME] if purge else [])]
        for volume in wanted:
            if volume in made:
                docker("volume", "rm", volume)
        self.forget()


def leftovers() -> list[str]:
    """Containers of this state directory in the engine, recorded or not."""
    label = f"label={LABEL}={paths.state_id()}"
    return docker("ps", "--all", "--filter", label, "--format", "{{.Names}}").stdout.split()
