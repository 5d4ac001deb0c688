"""Numbers and lists in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: int, what: str) -> str:
    """Return a number of things: ``1 backup``, ``2,000 backups``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def some(names: Sequence[str], shown: int = 10) -> str:
    """Return names for a sentence, not all of them where there are many: ``ada, bea and 5 more``."""
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def size(number: float) -> str:
    """Return a number of bytes for people, in powers of 1000 as disks are sold."""
    for unit, digits in (("B", 0), ("kB", 0), ("MB", 1), ("GB", 1)):
        if number < 1000:
            return f"{number:.{digits}f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
