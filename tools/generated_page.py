"""
Parts of the documentation's pages that are written from source.

Such a part is between two comments, `<!-- generated: NAME -->` and `<!-- end of NAME -->`; the rest of the page is
written by hand.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from pathlib import Path


def filled(text: str, parts: dict[str, str]) -> str:
    """The text of a page with these parts. Raises ValueError for a part that the page has no place for."""
    for name, part in parts.items():
        place = re.compile(rf"(<!-- generated: {name} -->).*?(<!-- end of {name} -->)", re.DOTALL)
        text, places = place.subn(lambda match, part=part: match[1] + part + match[2], text)
        if places != 1:
            raise ValueError(f"the page has {places} places for the part {name!r}: one is needed")
    return text


def main(about: str, page: Path, parts: Callable[[], dict[str, str]], command: str) -> int:
    """
    The command line of a tool that writes parts of `page`; with `--check` it compares.

    Returns the exit code: 1 when the page does not match its source.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="do not write: compare")
    parser.add_argument("--page", type=Path, default=page, help=f"another page than {page.name}")
    options = parser.parse_args()
    current = options.page.read_text(encoding="utf-8")
    wanted = filled(current, parts())
    if wanted == current:
        return 0
    if not options.check:
        options.page.write_text(wanted, encoding="utf-8")
        return 0
    diff = difflib.unified_diff(current.splitlines(True), wanted.splitlines(True), str(options.page), "from the source")
    sys.stdout.writelines(diff)
    print(f"{options.page} does not match its source: run {command}", file=sys.stderr)
    return 1
