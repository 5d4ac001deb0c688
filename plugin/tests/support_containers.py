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
