"""
Follow an apply that runs on a server, from a second connection.

    python -m tools.plasma_follow [ID] [--roster roster] [--wait 120]

Shows each state as it runs and ends, a bar over all of them with the elapsed time, and the output of the hub's
installer. Stopping it does not stop the apply.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shlex
import subprocess
import sys
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

REMOTE = pathlib.Path(__file__).with_name("follow_remote.py")
SLOW_MS = 1000


def ssh_command(entry: dict, remote: str) -> list[str]:
    """The ssh command line for a roster entry."""
    command = ["ssh", "-o", "BatchMode=yes"]
    for option in entry.get("ssh_options", []):
        command += ["-o", option]
    if entry.get("port"):
        command += ["-p", str(entry["port"])]
    # Salt's word for the keys and the agent that ssh itself finds; it asks for no forwarding.
    if entry.get("priv") not in (None, "", "agent-forwarding"):
        command += ["-i", entry["priv"]]
    target = f"{entry['user']}@{entry['host']}" if entry.get("user") else entry["host"]
    return [*command, target, ("sudo -n " if entry.get("sudo") else "") + remote]


def read_roster(path: str, name: str | None) -> tuple[str, dict]:
    """The entry of this server, or of the only one there is."""
    try:
        roster = yaml.safe_load(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SystemExit(f"{path} cannot be read ({error.strerror}): copy roster.example, or use --roster") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # Not PyYAML's words: they quote the file.
        mark = getattr(error, "problem_mark", None)
        raise SystemExit(f"{path}{f':{mark.line + 1}' if mark else ''} is not valid YAML in UTF-8") from None
    if not roster or not isinstance(roster, dict):
        raise SystemExit(f"{path} names no server: roster.example shows how an entry looks")
    if name is None and len(roster) == 1:
        name = next(iter(roster))
    known = ", ".join(sorted(map(str, roster)))
    if name is None:
        raise SystemExit(f"{path} has {len(roster)} servers: say which one, with ID=NAME. They are {known}.")
    if name not in roster:
        raise SystemExit(f"{path} has no server {name}: name one of {known}")
    entry: Any = {"host": roster[name]} if isinstance(roster[name], str) else roster[name]
    if not isinstance(entry, dict) or not entry.get("host"):
        raise SystemExit(f"{path}: {name} has no `host`: roster.example shows how an entry looks")
    return name, entry


class Display:
    """Turns the events of the far end into lines and a progress bar."""

    def __init__(self, console: Console, name: str):
        self.console = console
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self.task = self.progress.add_task(f"{name}: waiting for an apply", total=None)
        self.name = name

    def show(self, event: dict) -> None:
        match event:
            case {"event": "start", "total": total}:
                self.progress.update(self.task, total=total or None)
            case {"event": "running", "name": name}:
                self.progress.update(self.task, description=f"{self.name}: {_short(name)}")
            case {"event": "completed", "name": name, "ms": ms}:
                self.progress.advance(self.task)
                if (ms or 0) >= SLOW_MS or not self.console.is_terminal:
                    duration = (f"{(ms or 0) / 1000:.1f} s", "dim")
                    self.console.print(Text.assemble("  ", ("done", "green"), f" {_short(name)} ", duration))
            case {"event": "installer", "line": line}:
                self.console.print(Text.assemble("    ", (_plain(line), "dim")), overflow="ellipsis", no_wrap=True)


def _short(name: str, width: int = 60) -> str:
    name = _plain(name)
    return name if len(name) <= width else name[: width - 1] + "…"


def _plain(line: str) -> str:
    """What a terminal would show of a line of the server, without its colours and commands to the terminal."""
    # A progress bar redraws its line after each carriage return; at the end of a line it is half a line break.
    shown = Text.from_ansi(line.rstrip("\r\n").expandtabs()).plain
    return "".join(char for char in shown if char.isprintable())


def _event(line: str) -> dict:
    """The event on this line. Other lines are what the login prints, or were cut when the connection broke."""
    try:
        return json.loads(line) if line.startswith('{"event"') else {}
    except ValueError:
        return {}


def follow(name: str, entry: dict, wait: float, console: Console) -> int:
    """Show one apply on this server; return 0 when it was seen to its end, 3 when none ran."""
    command = ssh_command(entry, f"python3 -u - {shlex.quote(str(wait))}")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(REMOTE.read_text(encoding="utf-8"))
        process.stdin.close()
        display = Display(console, name)
        with display.progress:
            for line in process.stdout:
                display.show(_event(line))
    if process.returncode == 3:
        console.print(f"No apply ran on {name} within {wait:g} s.")
    return process.returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="plasma-follow", description="Follow an apply that runs on a server.")
    parser.add_argument("id", nargs="?", help="the server's name in the roster (not needed when there is only one)")
    parser.add_argument("--roster", default="roster", help="roster file (default: %(default)s)")
    parser.add_argument("--wait", type=float, default=120, help="seconds to wait for an apply (default: %(default)s)")
    arguments = parser.parse_args()
    name, entry = read_roster(arguments.roster, arguments.id)
    try:
        return follow(name, entry, arguments.wait, Console())
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
