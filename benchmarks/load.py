"""
The hub under load, and what it adds to the start of a server: `make bench-hub`.

A real hub with real accounts (plasmat-*) and real containers on this machine; all that is made is removed again. Writes
benchmarks/hub.json and prints it. Nothing here passes or fails on time.
"""

from __future__ import annotations

import argparse

import benchmarks
from benchmarks import hub_scenarios
from benchmarks.hub_bench import running
from benchmarks.hub_compare import compare


def main() -> None:
    """Measure, write, print."""
    parts = {
        "idle": lambda bench: hub_scenarios.idle(bench, 20),
        "listing": lambda bench: hub_scenarios.listing(bench, 100, arguments.rounds),
        "logins": lambda bench: hub_scenarios.logins(bench, 30, 60),
        "together": lambda bench: hub_scenarios.together(bench, arguments.together, 3),
        "compare": lambda bench: compare(bench, arguments.pairs),
        "environments": lambda bench: hub_scenarios.environments(bench, 50, arguments.rounds),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=parts, help="measure only this (may be repeated)")
    parser.add_argument("--rounds", type=int, default=20, help="repetitions of each request (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=5, help="starts with and without the hub (default: %(default)s)")
    parser.add_argument("--together", type=int, default=10, help="servers that start at once (default: %(default)s)")
    arguments = parser.parse_args()
    results = benchmarks.load("hub.json") if arguments.only else {}
    with running() as bench:
        results["machine"] = bench.about()
        for part in arguments.only or parts:
            print(f"{part} ...", flush=True)
            results[part] = parts[part](bench)
    benchmarks.report(results, "hub.json")


if __name__ == "__main__":
    main()
