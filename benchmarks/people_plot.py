"""Draws benchmarks/people.json into docs/_static/people.svg, and prints the table of docs/people/figures.md."""

from __future__ import annotations

import json
import statistics
import sys

import matplotlib

matplotlib.use("svg")
# Text stays text, and the file is the same for the same figures.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "plasma", "font.size": 10})

import matplotlib.pyplot as plt  # noqa: E402

from benchmarks.people_results import PHASES, PICTURE, RESULTS  # noqa: E402

COLOURS = {"salt": "#0b6e4f", "ansible": "#b5442d"}
NAMES = {"salt": "Plasma on Salt", "ansible": "Ansible playbook"}


def medians(figures: dict, side: str, phase: str) -> list[tuple[int, float]]:
    return [(int(count), statistics.median(runs[phase])) for count, runs in figures[side].items()]


def draw(figures: dict) -> None:
    picture, axes = plt.subplots(1, len(PHASES), figsize=(10, 3.4), sharey=True, layout="constrained")
    for axis, phase in zip(axes, PHASES, strict=True):
        for side in ("ansible", "salt"):
            points = medians(figures, side, phase)
            axis.plot(*zip(*points, strict=True), marker="o", color=COLOURS[side], label=NAMES[side])
        axis.set(xscale="log", yscale="log", title=PHASES[phase], xlabel="users")
        axis.grid(True, which="major", alpha=0.3)
    axes[0].set_ylabel("seconds")
    axes[0].legend(frameon=False)
    picture.savefig(PICTURE, metadata={"Date": None})


def table(figures: dict) -> str:
    lines = ["| users | run | Plasma on Salt | Ansible playbook | ratio |", "|---|---|---|---|---|"]
    for count in figures["salt"]:
        for phase in PHASES:
            ours = figures["salt"][count][phase]
            theirs = figures["ansible"].get(count, {}).get(phase)
            ratio = ""
            if theirs:
                ratio = f"{statistics.median(t / o for t, o in zip(theirs, ours, strict=True)):.2g}"
            lines.append(
                f"| {int(count):,} | {PHASES[phase]} | {statistics.median(ours):.1f} s | "
                + (f"{statistics.median(theirs):.0f} s" if theirs else "not measured")
                + f" | {ratio} |"
            )
    return "\n".join(lines)


def main() -> int:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    draw(results["container"])
    for place, figures in results.items():
        print(f"{place}, {figures['date']}, {figures['machine']}, {figures['playbook']}\n\n{table(figures)}\n")
        if "nobody_s" in figures:
            print({key: round(value, 2) for key, value in figures.items() if key.endswith("_s")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
