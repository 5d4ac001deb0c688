"""Pages of the documentation that are written from source, and kept beside it: write them, or say that they are old."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable
from pathlib import Path


def main(about: str, page: Path, wanted: Callable[[], str], command: str) -> int:
    """
    The command line of a tool that writes ``page``; with ``--check`` it compares.

    :returns: the exit code, 1 when the page is not what it should be.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="do not write: compare")
    parser.add_argument(
        "--page", type=Path, default=page, help=f"the page (default: {page.name} in {page.parent.name})"
    )
    options = parser.parse_args()
    text = wanted()
    found = options.page.read_text(encoding="utf-8") if options.page.exists() else ""
    if text == found:
        return 0
    if options.check:
        sys.stdout.writelines(
            difflib.unified_diff(found.splitlines(True), text.splitlines(True), str(options.page), "from the source")
        )
        print(f"{options.page} does not match its source: run {command}", file=sys.stderr)
        return 1
    options.page.parent.mkdir(parents=True, exist_ok=True)
    options.page.write_text(text, encoding="utf-8")
    return 0
