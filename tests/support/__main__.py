"""Throwaway servers from the command line: python -m tests.support --help."""

from __future__ import annotations

import argparse
import shlex
import sys
import time

from tests.support import engine, purge, registry
from tests.support.shell import SupportError
from tests.support.target import write_roster


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(prog="python -m tests.support", description="Throwaway servers for demo and tests.")
    commands = main.add_subparsers(dest="command", required=True)
    one = commands.add_parser("engine", help="print the DOCKER_HOST of an engine, starting one when there is none")
    one.add_argument("--stop", action="store_true", help="stop the engine that was started here")
    up = commands.add_parser("up", help="bring a server up and print how to reach it")
    up.add_argument("--suite", default="bookworm", help="Debian release (default: bookworm)")
    down = commands.add_parser("down", help="remove a server with everything on it")
    down.add_argument("--all", action="store_true", help="every server made here")
    purge_help = "with a container: the shared pip cache too; with --all: everything that was made here"
    down.add_argument("--purge", action="store_true", help=purge_help)
    for command in (up, down):
        command.add_argument("--name", default="dev", help="name of the server (default: dev)")
        command.add_argument("--kind", choices=sorted(registry.KINDS), default="container")
    commands.add_parser("status", help="list the servers made here")
    roster = commands.add_parser("roster", help="write a salt-ssh roster of the servers that are up")
    roster.add_argument("--out", default="roster", help="file to write (default: roster)")
    return main


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        return COMMANDS[args.command](args)
    except SupportError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _engine(args: argparse.Namespace) -> int:
    if args.stop:
        print("stopped" if engine.stop_engine() else "no engine was started here")
    else:
        print(engine.ensure_engine())
    return 0


def _up(args: argparse.Namespace) -> int:
    started = time.monotonic()
    target = registry.make(args.kind, args.name, suite=args.suite).up()
    print(f"{target.name} is up at {target.host} port {target.port} ({time.monotonic() - started:.0f} s)")
    print(shlex.join(target.ssh_command()))
    return 0


def _down(args: argparse.Namespace) -> int:
    if args.all:
        names = registry.down_all()
        if args.purge:
            names += purge.purge()
    else:
        target = registry.load(args.name)
        if target is None:
            print(f"There is no server {args.name}")
            return 0
        target.down(purge=True) if args.purge and target.kind == "container" else target.down()
        names = [target.name]
    print("\n".join(f"{name} is removed" for name in names) or "There was nothing to remove")
    return 0


def _status(_args: argparse.Namespace) -> int:
    targets = registry.load_all()
    for target in targets:
        state = "up" if target.is_up() else "down"
        print(f"{target.name:<20} {target.kind:<10} {state:<5} {target.host}:{target.port}")
    if not targets:
        print("There is no server")
    return 0


def _roster(args: argparse.Namespace) -> int:
    targets = [target for target in registry.load_all() if target.is_up()]
    write_roster(args.out, targets)
    print(f"{args.out}: {', '.join(target.name for target in targets) or 'no server is up'}")
    return 0


COMMANDS = {"engine": _engine, "up": _up, "down": _down, "status": _status, "roster": _roster}

if __name__ == "__main__":
    sys.exit(main())
