"""Notices that code was changed."""

from __future__ import annotations

from pathlib import Path

# Templates and style sheets are read again by themselves.
CODE = ("*.py", "*.sh", "*.yaml")


class Watch:
    """Looks at the dates of files.

    Args:
        directories: where they are, at any depth.
    """

    def __init__(self, *directories: Path) -> None:
        self._directories = directories
        self._seen = self._look()

    def _look(self) -> dict[Path, int]:
        files = (path for directory in self._directories for pattern in CODE for path in directory.rglob(pattern))
        # An editor's temporary file may be gone by now.
        return {path: path.stat().st_mtime_ns for path in files if path.exists()}

    def changed(self) -> list[Path]:
        """Return what was added, changed or removed since the last call."""
        now = self._look()
        changed = [path for path, _ in set(now.items()) ^ set(self._seen.items())]
        self._seen = now
        return sorted(set(changed))
