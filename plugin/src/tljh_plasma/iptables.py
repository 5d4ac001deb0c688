"""The tables of packets, through the tools of iptables: the language that Docker speaks with the kernel too."""

from __future__ import annotations

import shutil
import subprocess

SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
# Seconds: for the lock of the tables, and for a whole command.
TABLES_WAIT = 10
COMMAND_TIMEOUT = 30

# Chain -> its rules, as iptables-save writes them.
Rules = dict[str, list[str]]


class ToolError(Exception):
    """A command of iptables failed; the text is what it said."""


def _run(program: str, *arguments: str, text: str = "") -> str:
    path = shutil.which(program, path=SYSTEM_PATH)
    if path is None:
        raise ToolError(f"{program} is not installed")
    try:
        done = subprocess.run(
            [path, *arguments],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_TIMEOUT,
            env={"PATH": SYSTEM_PATH, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{program} did not end within {COMMAND_TIMEOUT} s") from error
    if done.returncode:
        raise ToolError(f"{program}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout


class Tables:
    """A table of one protocol, through one of the two families of iptables tools."""

    def __init__(self, name: str, variant: str = "", table: str = "filter") -> None:
        # "iptables", "-legacy" -> iptables-legacy-save, iptables-legacy-restore.
        self.name = name
        self.prefix = f"{name}{variant}"
        self.table = table

    def rules(self) -> Rules:
        """Return every chain's rules, as iptables-save writes them."""
        found: Rules = {}
        for line in _run(f"{self.prefix}-save", "-t", self.table).splitlines():
            if line.startswith(":"):
                found[line[1:].split()[0]] = []
            elif line.startswith("-A "):
                found.setdefault(line.split()[1], []).append(line)
        return found

    def commit(self, lines: list[str]) -> None:
        """Apply lines of iptables-restore, all or none, and leave every other rule alone."""
        text = "\n".join([f"*{self.table}", *lines, "COMMIT", ""])
        _run(f"{self.prefix}-restore", "--noflush", "-w", str(TABLES_WAIT), text=text)
