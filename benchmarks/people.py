"""
What users cost, beside an Ansible playbook that does the same: `make bench-people`.

Both work on the same throwaway server over the same shared SSH connection, and take turns; each makes users of its
own. For each number of users: the first run, a run with nothing to do, and one with one user more. The server shares
this machine's kernel, which may have no disk quotas: the playbook calls a `setquota` that does nothing there, and ours
sets no limits. With --vm it has a kernel of its own, with real quotas on both sides; starting programs is slow there.

Writes benchmarks/people.json; `python -m benchmarks.people_plot` draws it.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from rich.console import Console

from benchmarks.people_ansible import PLAYBOOK, Playbook
from benchmarks.people_results import PHASES, RESULTS
from benchmarks.report import machine
from tests.support.container import ContainerTarget
from tests.support.engine import ensure_engine
from tests.support.site import Site
from tests.support.vm import VMTarget

STUB_PATH = "/usr/local/sbin/setquota"
STUB = "#!/bin/sh\nexit 0\n"
LIMITS = {"soft": "1G", "hard": "2G"}


def people(prefix: str, count: int) -> list[dict]:
    """So many people, with passwords that are theirs alone."""
    return [
        {"name": f"{prefix}{number:05}", "password": f"{prefix}-{number:05}-kaeru", "groups": [f"course-{number % 5}"]}
        for number in range(count)
    ]


class Ours:
    """`salt-ssh ID state.apply users` with the people in pillar."""

    def __init__(self, target, directory: pathlib.Path, quotas: bool):
        self.pillar = {"quota": LIMITS} if quotas else {}
        self.site = Site(target, directory, self.pillar)

    def run(self, users: list[dict], *, changes: bool | None = None) -> float:
        """Wall seconds of one run; `changes` says whether it has to change something."""
        self.site.set_pillar({**self.pillar, "users": users})
        result = self.site.apply("users")
        if result.returncode or result.failed:
            raise SystemExit(f"The apply failed:\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
        if changes is not None and bool(result.changed) is not changes:
            raise SystemExit(
                f"The apply changed {sorted(result.changed)}: expected {'something' if changes else 'nothing'}"
            )
        return result.seconds


def phases(run, prefix: str, count: int) -> dict[str, float]:
    """The three runs for new people."""
    users = people(prefix, count + 1)
    return {
        "first": run(users[:count], True),
        "no_op": run(users[:count], False),
        "one_more": run(users, True),
    }


def measure(target, counts: list[int], alone: list[int], rounds: dict[int, int], quotas: bool, console) -> dict:
    """All figures on one server; `alone` are numbers that the playbook is not run with."""
    with tempfile.TemporaryDirectory() as folder:
        directory = pathlib.Path(folder)
        ours = Ours(target, directory / "ours", quotas)
        (directory / "theirs").mkdir(mode=0o700)
        playbook = Playbook(target, directory / "theirs")
        salt = lambda users, changes: ours.run(users, changes=changes)  # noqa: E731
        ansible = lambda users, changes: playbook.run(users)  # noqa: E731
        # What the first connection costs (Salt copies itself there) is not about users.
        ours.run([])
        playbook.run(people("warm", 1))
        figures: dict = {"salt": {}, "ansible": {}}
        for count in [*counts, *alone]:
            for turn in range(rounds.get(count, 1)):
                mark = f"{chr(ord('a') + turn)}{count}-"
                for name, run in [("salt", salt), *([("ansible", ansible)] if count in counts else [])]:
                    seconds = phases(run, f"{name[0]}{mark}", count)
                    console.print(f"{name:8} {count:5} {seconds}")
                    for phase in PHASES:
                        figures[name].setdefault(str(count), {}).setdefault(phase, []).append(seconds[phase])
        # An apply that manages nobody beside one that manages a thousand, in turns.
        if 1000 in alone:
            thousand = people("sa1000-", 1001)
            pairs = [(ours.run([], changes=False), ours.run(thousand, changes=False)) for _ in range(7)]
            figures["nobody_s"] = statistics.median(pair[0] for pair in pairs)
            figures["thousand_s"] = statistics.median(pair[1] for pair in pairs)
            figures["thousand_more_s"] = statistics.median(pair[1] - pair[0] for pair in pairs)
        return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--vm", action="store_true", help="on a kernel of its own, with real quotas (slow)")
    parser.add_argument("--counts", type=int, nargs="*", help="numbers of users for both sides")
    parser.add_argument("--alone", type=int, nargs="*", help="numbers of users for ours alone")
    arguments = parser.parse_args()
    if not PLAYBOOK.exists():
        raise SystemExit(f"{PLAYBOOK} is missing: run this through `make bench-people`")
    counts = arguments.counts if arguments.counts is not None else ([1, 10] if arguments.vm else [1, 30, 200])
    alone = arguments.alone if arguments.alone is not None else ([200] if arguments.vm else [1000, 5000])
    if arguments.vm:
        target = VMTarget("bench-people")
    else:
        ensure_engine()
        target = ContainerTarget("bench-people")
    target.down()
    target.up()
    try:
        if not arguments.vm:
            target.ssh(
                "sudo tee /usr/local/sbin/setquota >/dev/null && sudo chmod 755 /usr/local/sbin/setquota", input=STUB
            )
        figures = measure(target, counts, alone, {1: 3, 30: 2}, arguments.vm, Console())
    finally:
        target.down()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    version = subprocess.run([str(PLAYBOOK), "--version"], capture_output=True, text=True, check=True)
    results["vm" if arguments.vm else "container"] = figures | {
        **machine(),
        "playbook": version.stdout.splitlines()[0],
    }
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
