"""
The hub under load, and what it adds to the start of a server: `make bench-hub`.

A real hub with real accounts (plasmat-*) and real containers on this machine; all that is made is removed again. Writes
benchmarks/hub.json and prints a table. Nothing here passes or fails on time.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import hub_bench, hub_compare, hub_scenarios

RESULTS = Path(__file__).with_name("hub.json")
PARTS = ("idle", "listing", "logins", "together", "compare", "environments")


def measure(bench: hub_bench.Bench, parts: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure the parts that were asked for, in their order."""
    calls = {
        "idle": lambda: hub_scenarios.idle(bench, 20),
        "listing": lambda: hub_scenarios.listing(bench, 100, arguments.rounds),
        "logins": lambda: hub_scenarios.logins(bench, 30, 60),
        "together": lambda: hub_scenarios.together(bench, arguments.together, 3),
        "compare": lambda: hub_compare.compare(bench, arguments.pairs),
        "environments": lambda: hub_scenarios.environments(bench, 50, arguments.rounds),
    }
    results = {}
    for part in parts:
        print(f"{part} ...", flush=True)
        results[part] = calls[part]()
    return results


def rows(results: dict[str, Any], before: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Return the figures with their names, however deep they are."""
    found = []
    for name, value in results.items():
        if isinstance(value, dict) and "median" in value:
            found.append((f"{before}{name}", value))
        elif isinstance(value, dict):
            found += rows(value, f"{before}{name}: ")
    return found


def table(results: dict[str, Any]) -> str:
    """Return the figures as a table."""
    lines = [f"{'figure':<66}{'median':>9}{'p95':>9}{'min':>9}{'max':>9}{'n':>5}"]
    for name, value in rows(results):
        digits = 1 if "_ms" in name else 2
        figures = "".join(f"{value[key]:>9.{digits}f}" for key in ("median", "p95", "min", "max"))
        failed = f"  ({value['errors']} failed)" if value.get("errors") else ""
        lines.append(f"{name:<66}{figures}{value['n']:>5}{failed}")
    return "\n".join(lines)


def main() -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS, help="measure only this (may be repeated)")
    parser.add_argument("--rounds", type=int, default=20, help="repetitions of each request (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=5, help="starts with and without the hub (default: %(default)s)")
    parser.add_argument("--together", type=int, default=10, help="servers that start at once (default: %(default)s)")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() and arguments.only else {}
    with hub_bench.running() as bench:
        results["machine"] = hub_bench.machine(bench.client)
        results |= measure(bench, arguments.only or list(PARTS), arguments)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(", ".join(f"{name} {value}" for name, value in results["machine"].items()))
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
