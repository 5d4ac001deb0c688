"""Looking into containers, from inside as a person and from the host."""

from __future__ import annotations

from pathlib import Path


def run_in(container, *command: str) -> tuple[int, str]:
    """Run a command in a container as the person, as a terminal in JupyterLab does."""
    code, output = container.exec_run(list(command))
    return code, output.decode(errors="replace")


def process_status(container) -> list[dict[str, str]]:
    """/proc/PID/status of every process of a container, seen from the host."""
    found = []
    for row in container.top(ps_args="-eo pid")["Processes"]:
        try:
            text = Path(f"/proc/{row[0]}/status").read_text()
        except FileNotFoundError:
            continue
        found.append(dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line))
    return found


def cgroup_file(container, controller: str, v1: str, v2: str) -> str:
    """What the kernel says about a container's cgroup, of whichever version the machine has.

    Args:
        controller: of version 1, for instance "memory".
        v1: name of the file in that controller's hierarchy.
        v2: name of the file in version 2.
    """
    unified = None
    for line in Path(f"/proc/{container.attrs['State']['Pid']}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return (Path("/sys/fs/cgroup") / controller / path.lstrip("/") / v1).read_text()
        if not names:
            unified = path
    assert unified is not None
    return (Path("/sys/fs/cgroup") / unified.lstrip("/") / v2).read_text()


def cpu_seconds(container) -> float:
    """Processor time that a container has used so far."""
    text = cgroup_file(container, "cpuacct", "cpuacct.usage", "cpu.stat")
    if text.startswith("usage_usec"):
        return int(text.split()[1]) / 1e6
    return int(text) / 1e9


def cpu_quota(container) -> float:
    """How many processors the kernel lets a container use at a time."""
    quota = cgroup_file(container, "cpu", "cpu.cfs_quota_us", "cpu.max").split()
    period = quota[1:] or cgroup_file(container, "cpu", "cpu.cfs_period_us", "cpu.max").split()
    return int(quota[0]) / int(period[0])


def out_of_memory(container) -> int:
    """How many processes of a container the kernel has killed for want of memory."""
    text = cgroup_file(container, "memory", "memory.oom_control", "memory.events")
    return int(dict(line.split() for line in text.splitlines())["oom_kill"])


def written_to_disk(container) -> int:
    """Bytes on the engine's disk that are this container's alone."""
    (found,) = container.client.api.containers(all=True, size=True, filters={"id": container.id})
    return found.get("SizeRw", 0)
