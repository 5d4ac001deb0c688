"""What every benchmark says beside its figures, and how figures are written down and shown."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import time

from rich.console import Console
from rich.table import Table


def machine() -> dict[str, str]:
    """Where and when figures were measured."""
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
    }


def report(results: dict, path: pathlib.Path, title: str) -> None:
    """Write figures to a file as JSON, and print them as a table."""
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    table = Table("figure", "value", title=title)
    for name, value in results.items():
        table.add_row(name, f"{value:.2f}" if isinstance(value, float) else str(value))
    Console().print(table)
