"""Draws benchmarks/people.json into docs/_static/people.svg, and prints the table of docs/people/figures.md."""

from __future__ import annotations

import statistics

import matplotlib

from benchmarks import HERE, load, median_ratio

matplotlib.use("svg")
# Text stays text, and the file is the same for the same figures.
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "plasma", "font.size": 10})

import matplotlib.pyplot as plt  # noqa: E402

PHASES = {"first": "first run", "no_op": "nothing to do", "one_more": "one user more"}
SIDES = {
    "ansible": ("#b5442d", "Ansible playbook"),
    "mitogen": ("#c98a1b", "the playbook by Mitogen"),
    "pyinfra": ("#4464ad", "pyinfra"),
    "salt": ("#0b6e4f", "Plasma on Salt"),
}


def draw(figures: dict) -> None:
    picture, axes = plt.subplots(1, len(PHASES), figsize=(10, 3.4), sharey=True, layout="constrained")
    for axis, (phase, title) in zip(axes, PHASES.items(), strict=True):
        for side, (colour, name) in SIDES.items():
            if side not in figures:
                continue
            points = [(int(count), statistics.median(runs[phase])) for count, runs in figures[side].items()]
            axis.plot(*zip(*points, strict=True), marker="o", color=colour, label=name)
        axis.set(xscale="log", yscale="log", title=title, xlabel="users")
        axis.grid(True, which="major", alpha=0.3)
    axes[0].set_ylabel("seconds")
    axes[0].legend(frameon=False)
    picture.savefig(HERE.parent / "docs" / "_static" / "people.svg", metadata={"Date": None})


def table(figures: dict) -> str:
    """For each number of users and run: our seconds, and those of the others with their ratio to ours."""
    others = [side for side in SIDES if side != "salt" and side in figures]
    lines = [f"| users | run | Plasma on Salt | {' | '.join(SIDES[side][1] for side in others)} |"]
    lines.append("|---" * (3 + len(others)) + "|")
    for count, runs in figures["salt"].items():
        for phase, title in PHASES.items():
            ours = runs[phase]
            cells = [f"{int(count):,}", title, f"{statistics.median(ours):.1f} s"]
            for side in others:
                theirs = figures[side].get(count, {}).get(phase)
                ratio = theirs and f"{statistics.median(theirs):.1f} s ({median_ratio(theirs, ours):.2g})"
                cells.append(ratio or "not measured")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    results = load("people.json")
    draw(results["container"])
    for figures in results.values():
        print(f"{figures['date']}, {figures['machine']}, {figures['playbook']}\n\n{table(figures)}\n")
        print({key: round(value, 2) for key, value in figures.items() if key.endswith("_s")})


if __name__ == "__main__":
    main()
