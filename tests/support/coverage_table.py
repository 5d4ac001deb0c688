"""How much of the code in each folder the tests ran: `make coverage`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path


def table(files: dict[str, dict]) -> str:
    """
    Lines for the folders of the product, and one for all of it.

    files
        What `coverage json` says of each file.
    """
    lines, run = Counter(), Counter()
    for name, figures in files.items():
        folder = str(Path(name).parent)
        for key in (folder, "all"):
            lines[key] += figures["summary"]["num_statements"]
            run[key] += figures["summary"]["covered_lines"]
    rows = [f"{'folder':<44}{'statements':>11}{'run':>8}"]
    for folder in sorted(lines, key=lambda name: (name == "all", name)):
        rows.append(f"{folder:<44}{lines[folder]:>11}{100 * run[folder] / max(1, lines[folder]):>7.0f}%")
    return "\n".join(rows)


if __name__ == "__main__":
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [str(Path(sys.executable).parent / "coverage"), "json", "--quiet", "-o", report.name]
        subprocess.run(command, check=True)
        print(table(json.load(report)["files"]))
