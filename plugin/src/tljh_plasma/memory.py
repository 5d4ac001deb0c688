"""What the kernel ended in a server for want of memory, and what the person is told about it.

Jupyter only sees that a kernel is gone and starts it afresh. The kernel of the host counts, for each container, the
processes that it killed; the hub reads that from the host's side, which works with any image.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from .disk_quota import Notice

CGROUPS = Path("/sys/fs/cgroup")
PROCESSES = Path("/proc")
# Seconds for which the hub's pages say why a server ended.
SAID_FOR = 24 * 60 * 60
# A person may have any number of named servers over time.
KEPT = 1000
ADVICE = (
    "Variables of a kernel that started afresh are gone. Load less at a time, shut down kernels that you no longer "
    "need, or choose an environment with more memory."
)

# By name of the person and of the server: when it ended, and what is told.
_ended: dict[tuple[str, str], tuple[float, Notice]] = {}


def events_file(pid: int) -> Path | None:
    """Return the file in which the kernel counts for a container.

    Args:
        pid: number of the container's first process on this machine.

    Returns:
        A file of either version of cgroups; None when the container is gone.
    """
    try:
        lines = (PROCESSES / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    unified = None
    for line in lines:
        _, names, path = line.split(":", 2)
        if "memory" in names.split(","):
            return CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
        if not names:
            unified = CGROUPS / path.lstrip("/") / "memory.events"
    return unified


def killed(path: Path) -> int | None:
    """Return how many processes the kernel has ended for want of memory; None when the container is gone."""
    try:
        found = re.search(r"^oom_kill (\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def size(memory: int) -> str:
    """Return a limit of memory as people read it: "2 GB"."""
    return f"{memory / 1024**3:.2g} GB"


def notice(times: int, memory: int) -> Notice:
    """Return what is told in JupyterLab.

    Args:
        times: how many processes were ended.
        memory: the server's limit in bytes.
    """
    # Another heading each time: a notice that was dismissed stays away.
    title = "Your server ran out of memory" + (f" ({times} times)" if times > 1 else "")
    text = f"A program was ended, because this server had used all of its {size(memory)} of memory. {ADVICE}"
    return Notice("error", title, text)


def note_end(name: str, server: str, memory: int) -> None:
    """Have the hub's pages say that a whole server ended for want of memory.

    Args:
        name: login name.
        server: name of the server; empty for the default one.
        memory: its limit in bytes.
    """
    which = f"Your server {server}" if server else "Your server"
    text = f"It had used all of its {size(memory)} of memory. {ADVICE}"
    if len(_ended) >= KEPT:
        del _ended[next(iter(_ended))]
    _ended[name, server] = (time.time(), Notice("warning", f"{which} was ended: out of memory", text))


def forget_end(name: str, server: str) -> None:
    """A server starts again."""
    _ended.pop((name, server), None)


def ended(name: str) -> Notice | None:
    """Return what the hub's pages are to tell somebody."""
    since = time.time() - SAID_FOR
    return next((told for (who, _), (at, told) in _ended.items() if who == name and at >= since), None)
