"""What all benchmarks share: where figures are kept, how they are taken together and shown."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def machine() -> dict[str, str]:
    """Where and when figures were measured."""
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "kernel": platform.release(),
        "date": time.strftime("%Y-%m-%d"),
    }


def load(name: str) -> dict[str, Any]:
    """The figures of an earlier run; none when there was no run."""
    path = HERE / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def report(results: dict[str, Any], name: str) -> None:
    """Write figures to a file beside the benchmarks, and print them."""
    (HERE / name).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for figure, value in _flat(results):
        print(f"{figure:<66}{_shown(value)}")


def _flat(results: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The figures with their names, however deep they are."""
    for name, value in results.items():
        if isinstance(value, dict) and "median" not in value:
            yield from _flat(value, f"{before}{name}: ")
        else:
            yield f"{before}{name}", value


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {_shown(part)}" for key, part in value.items())
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def alternating(calls: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each of the calls returns in each round; they take turns, so that a noisy machine disturbs all alike."""
    series: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            series[name].append(call())
    return series


def medians(series: dict[str, list[float]], before: str = "", unit: str = "s") -> dict[str, float]:
    return {f"{before}{name}_{unit}": statistics.median(values) for name, values in series.items()}


def median_ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of figures that were measured beside each other."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median, 95th percentile, least and most of some values, and their number."""
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "min": ordered[0],
        "max": ordered[-1],
        "n": len(ordered),
    }
