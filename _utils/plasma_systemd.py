"""
Ask systemd, and tell it what to do.
"""

from __future__ import annotations

import plasma_run


def run(*words: str, timeout: float = 120) -> plasma_run.Result:
    """Run ``systemctl`` with these arguments; returns its result, whatever its exit code is."""
    return plasma_run.run(["systemctl", *words], timeout=timeout)


def check(*words: str, timeout: float = 120) -> None:
    """Run ``systemctl`` with these arguments. Raises CommandExecutionError, with its last line, when it fails."""
    run(*words, timeout=timeout).check()


def show(unit: str, *properties: str) -> dict[str, str]:
    """Return properties of a unit, ``{property: text}``; of one that does not exist, LoadState is ``not-found``."""
    done = run("show", f"--property={','.join(properties)}", "--", unit)
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def active(unit: str) -> bool:
    """Return whether a unit is active."""
    return run("is-active", "--quiet", unit).returncode == 0


def enabled(unit: str) -> bool:
    """Return whether a unit is started at boot."""
    return run("is-enabled", "--quiet", unit).returncode == 0


def journal(unit: str, lines: int, *matches: str) -> str:
    """Return the last lines that a unit wrote to the journal."""
    command = ["journalctl", "--no-pager", "--output=cat", f"--lines={lines}", f"--unit={unit}", *matches]
    return plasma_run.run(command).stdout
