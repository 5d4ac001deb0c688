"""
What users cost, beside an Ansible playbook that does the same, also by Mitogen, and pyinfra: `make bench-people`.

All work on the same throwaway server, and take turns; each makes users of its own. Salt and Ansible share one SSH
connection; pyinfra makes one in each run, having no other way. For each number of users: the first run, a run with
nothing to do, and one with one user more. The server shares this machine's kernel, which may have no disk quotas: the
others call a `setquota` that does nothing there, and ours sets no limits. With --vm it has a kernel of its own, with
real quotas on all sides; starting programs is slow there.

Writes benchmarks/people.json; `python -m benchmarks.people_plot` draws it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
from collections.abc import Callable
from typing import Any

from benchmarks import load, machine, report
from benchmarks.people_ansible import PLAYBOOK, Playbook
from benchmarks.people_pyinfra import PyInfra
from benchmarks.servers import throwaway
from tests.support.container import ContainerTarget
from tests.support.site import Site
from tests.support.vm import VMTarget

STUB = "printf '#!/bin/sh\\nexit 0\\n' > /usr/local/sbin/setquota && chmod 755 /usr/local/sbin/setquota"
LIMITS = {"soft": "1G", "hard": "2G"}
# Makes users (and checks whether that changes anything, where it can); returns wall seconds.
Run = Callable[[list[dict], bool], float]


def people(prefix: str, count: int) -> list[dict]:
    """So many people, with passwords that are theirs alone."""
    return [
        {"name": f"{prefix}{number:05}", "password": f"{prefix}-{number:05}-kaeru", "groups": [f"course-{number % 5}"]}
        for number in range(count)
    ]


def ours(site: Site, quotas: bool, users: list[dict], changes: bool) -> float:
    """`salt-ssh ID state.apply users` with the people in pillar; `changes`: whether it has to change something."""
    site.set_pillar({**({"quota": LIMITS} if quotas else {}), "users": users})
    result = site.apply("users")
    if result.returncode or result.failed or bool(result.changed) is not changes:
        raise SystemExit(f"The apply failed, or changed what it should not:\n{result.stdout[-3000:]}\n{result.stderr}")
    return result.seconds


def phases(run: Run, prefix: str, count: int) -> dict[str, float]:
    """The three runs for new people."""
    users = people(prefix, count + 1)
    return {
        "first": run(users[:count], True),
        "no_op": run(users[:count], False),
        "one_more": run(users, True),
    }


def measure(sides: dict[str, Run], counts: list[int], alone: list[int]) -> dict[str, Any]:
    """All figures on one server; `alone` are numbers that only ours is run with."""
    figures: dict[str, Any] = {name: {} for name in sides}
    for count in [*counts, *alone]:
        for turn in range({1: 3, 30: 2}.get(count, 1)):
            for name in sides if count in counts else ["salt"]:
                seconds = phases(sides[name], f"{name[0]}{chr(ord('a') + turn)}{count}-", count)
                print(f"{name:8} {count:5} {seconds}", flush=True)
                for phase, value in seconds.items():
                    figures[name].setdefault(str(count), {}).setdefault(phase, []).append(value)
    # An apply that manages nobody beside one that manages a thousand, in turns.
    if 1000 in alone:
        run, thousand = sides["salt"], people("sa1000-", 1001)
        pairs = [(run([], False), run(thousand, False)) for _ in range(7)]
        figures["nobody_s"] = statistics.median(nobody for nobody, _ in pairs)
        figures["thousand_s"] = statistics.median(everybody for _, everybody in pairs)
        figures["thousand_more_s"] = statistics.median(everybody - nobody for nobody, everybody in pairs)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vm", action="store_true", help="on a kernel of its own, with real quotas (slow)")
    parser.add_argument("--counts", type=int, nargs="*", help="numbers of users for both sides")
    parser.add_argument("--alone", type=int, nargs="*", help="numbers of users for ours alone")
    arguments = parser.parse_args()
    if not PLAYBOOK.exists():
        raise SystemExit(f"{PLAYBOOK} is missing: run this through `make bench-people`")
    counts = arguments.counts if arguments.counts is not None else ([1, 10] if arguments.vm else [1, 30, 200])
    alone = arguments.alone if arguments.alone is not None else ([200] if arguments.vm else [1000, 5000])
    target = (VMTarget if arguments.vm else ContainerTarget)("bench-people")
    with throwaway(target) as folder:
        if not arguments.vm:
            target.sudo(STUB)
        site = Site(target, folder / "ours")
        others = {
            "ansible": Playbook(target, folder),
            "mitogen": Playbook(target, folder, mitogen=True),
            "pyinfra": PyInfra(target, folder),
        }
        # What the first connection costs (Salt copies itself there) is not about users.
        site.apply("users")
        for other in others.values():
            other.run(people("warm", 1))
        sides: dict[str, Run] = {
            "salt": lambda users, changes: ours(site, arguments.vm, users, changes),
            **{name: lambda users, _, run=other.run: run(users) for name, other in others.items()},
        }
        figures = measure(sides, counts, alone)
    version = subprocess.run([PLAYBOOK, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    figures |= {**machine(), "playbook": version}
    report({**load("people.json"), ("vm" if arguments.vm else "container"): figures}, "people.json")


if __name__ == "__main__":
    main()
