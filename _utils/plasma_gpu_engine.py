"""
GPUs of NVIDIA: which the kernel's driver shows, what the Docker engine knows of the toolkit that gives them to
containers, and how it gets to know it without ending anybody's server.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_docker_undo
import plasma_engine
import plasma_files
import plasma_systemd

RUNTIME = "nvidia"
# The engine looks for this program when it starts, and never again: without it it refuses requests for GPUs.
HOOK = "nvidia-container-runtime-hook"
PACKAGE = "nvidia-container-toolkit"
LIST = pathlib.Path("/etc/apt/sources.list.d/nvidia-container-toolkit.list")
KEY = pathlib.Path("/etc/apt/keyrings/nvidia-container-toolkit.asc")
OURS = "# Managed by Plasma on Salt\n"
# The plugin's policy.LABEL_GPUS, and gpus.DRIVER_FILES.
LABEL_GPUS = "org.plasma.gpus"
DRIVER_FILES = pathlib.Path("/proc/driver/nvidia/gpus")
_PROC = pathlib.Path("/proc")
_PID = pathlib.Path("/run/docker.pid")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def count() -> int:
    """
    Return how many GPUs the driver of NVIDIA shows on this server.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_gpu.count
    """
    try:
        return sum(1 for _ in DRIVER_FILES.iterdir())
    except OSError:
        return 0


def missing(plasma: Mapping[str, Any]) -> str | None:
    """
    Return a sentence where an environment asks for more GPUs than servers can get here, or None.

    plasma
        The completed pillar below ``plasma``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_gpu.missing '{environments: [{name: course, gpus: 1}], gpu: {reserved: []}}'
    """
    there = len(set(range(count())) - set(plasma["gpu"]["reserved"]))
    names = [one["name"] for one in plasma["environments"] if (one.get("gpus") or 0) > there]
    if not names:
        return None
    return (
        f"{', '.join(names)} of plasma.environments asks for more GPUs than servers can get here, {there}: install "
        "and load the driver of NVIDIA (`nvidia-smi` shows what it knows), or look at `gpus` and plasma.gpu.reserved"
    )


def health() -> dict[str, Any]:
    """
    Return ``{"count", "used", "problem"}``: GPUs that the driver shows, those of them that servers have, and a sentence
    with its mend, or None. Empty on a server that was not set up for GPUs.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_gpu.health
    """
    if not _is_ours():
        return {}
    there, problem = count(), None
    if not there:
        problem = "The driver of NVIDIA shows no GPU: install and load it, `nvidia-smi` says what is wrong"
    elif compare():
        problem = "The Docker engine cannot give GPUs to servers: `state.apply gpu`"
    return {"count": there, "used": len(_used()), "problem": problem}


def compare() -> dict[str, dict[str, str | None]]:
    """
    Return what the running engine does not know yet, ``{"runtime" or "driver": {"old", "new"}}``; an empty one is good.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_gpu.compare
    """
    wanted = {"runtime": RUNTIME in plasma_engine.info().get("runtimes", ()), "driver": _knows_driver()}
    return {name: {"old": None, "new": RUNTIME} for name, known in wanted.items() if not known}


def make_known(timeout: float = 90) -> dict[str, dict[str, str | None]]:
    """
    Have the engine know the toolkit, and return the changes. A runtime of its configuration takes a reload. That it can
    be asked for GPUs it finds out when it starts: then it is restarted, which ends no server, as live-restore is on.

    timeout
        Seconds to wait for the engine.

    Raises CommandExecutionError when it does not come to know it, or when a restart would end servers.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_gpu.make_known
    """
    changes = compare()
    if not changes:
        return {}
    if not shutil.which(HOOK, path=_PATH):
        raise CommandExecutionError(f"{HOOK} is not here: apply the state gpu, which installs {PACKAGE}.")
    action = "restart" if "driver" in changes else "reload"
    if action == "restart":
        if not plasma_engine.info().get("live_restore"):
            raise CommandExecutionError("A restart of Docker would end servers: apply the state docker first.")
        plasma_systemd.run("reset-failed", "docker.service")
    plasma_systemd.run(action, "docker.service")
    end = time.monotonic() + timeout
    while left := compare():
        if time.monotonic() > end:
            raise CommandExecutionError(
                f"Docker does not know {RUNTIME} ({', '.join(left)}) after a {action}: look at /etc/docker/daemon.json "
                f"and at `journalctl -u docker`, whose last lines are:\n{plasma_systemd.journal('docker.service', 15)}"
            )
        time.sleep(0.2)
    return changes


def leftovers(path: str = plasma_docker_undo.CONFIGURATION) -> dict[str, dict[str, Any]]:
    """
    Return what the state gpu has brought and is still here, as changes to nothing; empty where it never ran.

    path
        The engine's configuration file.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_gpu.leftovers
    """
    if not _is_ours():
        return {}
    found = {str(file): {"old": "present", "new": None} for file in (LIST, KEY) if file.exists()}
    runtime = (_configuration(path).get("runtimes") or {}).get(RUNTIME)
    return {**found, **({path: {"old": {RUNTIME: runtime}, "new": None}} if runtime else {})}


def withdraw(path: str = plasma_docker_undo.CONFIGURATION) -> None:
    """
    Have the engine know the runtime no more, before the packages go.

    path
        As of ``leftovers``.

    Raises CommandExecutionError while servers with GPUs run: without its program the engine could not stop them.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_gpu.withdraw
    """
    if used := _used():
        raise CommandExecutionError(f"Servers have {len(used)} GPUs: stop them first, on the page Servers of the hub.")
    content = _configuration(path)
    runtimes = content.get("runtimes") or {}
    if runtimes.pop(RUNTIME, None) is not None:
        if not runtimes:
            del content["runtimes"]
        plasma_files.write(path, json.dumps(content, indent=2) + "\n", mode=0o644)
        plasma_systemd.run("reload", "docker.service")


def forget() -> None:
    """
    Take the repository of the packages away, and with it the mark that they are ours.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_gpu.forget
    """
    for file in (KEY, LIST):
        file.unlink(missing_ok=True)


def _is_ours() -> bool:
    try:
        return LIST.read_text(encoding="utf-8").startswith(OURS)
    except (OSError, UnicodeDecodeError):
        return False


def _configuration(path: str) -> dict[str, Any]:
    return plasma_docker_undo.read(path) or {}


def _used() -> set[str]:
    """The numbers of GPUs that servers have."""
    if plasma_engine.engine() is None:
        return set()
    containers = plasma_engine.request("GET", f"/containers/json?{plasma_engine.filters(label=[LABEL_GPUS])}")
    return {number for one in containers or () for number in one["Labels"][LABEL_GPUS].split(",")}


def _knows_driver() -> bool:
    """Whether the running engine is younger than the program that it looks for when it starts."""
    hook, started = shutil.which(HOOK, path=_PATH), _started()
    if not hook:
        return False
    return started is None or started > max(os.lstat(hook).st_ctime, os.stat(hook).st_ctime)


def _started() -> float | None:
    """When the running engine started, in seconds since 1970; None for one that systemd does not run."""
    try:
        words = (_PROC / _PID.read_text(encoding="ascii").strip() / "stat").read_text(encoding="utf-8").rpartition(")")
    except (OSError, UnicodeDecodeError):
        return None
    # The 22nd word of all, in ticks since the machine started (proc(5)).
    since_boot = int(words[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
