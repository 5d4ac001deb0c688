"""Another tree than this one: the states and the plugin of an older, a newer or a broken release."""

from __future__ import annotations

import pathlib
import re
import shutil

from tests.support.paths import REPOSITORY

# What a server gets of the repository, and what makes it.
PARTS = ("salt", "_modules", "_states", "_utils", "plugin")


class Tree:
    """A copy of the repository's states and plugin, to be changed; a Site takes it with ``use_tree``."""

    def __init__(self, directory: pathlib.Path):
        self.directory = pathlib.Path(directory)
        for part in PARTS:
            shutil.copytree(
                REPOSITORY / part,
                self.directory / part,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", "node_modules"),
            )

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace a text that is in the file."""
        file = self.directory / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {path}"
        file.write_text(text.replace(old, new), encoding="utf-8")

    def append(self, path: str, text: str) -> None:
        """Add lines to a file, or make it."""
        with open(self.directory / path, "a", encoding="utf-8") as file:
            file.write(text)

    def plugin_version(self, version: str) -> None:
        """Give the plugin another version."""
        file = self.directory / "plugin/src/tljh_plasma/__init__.py"
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', text), encoding="utf-8")

    def lock(self, requirements: str) -> None:
        """Put these requirements, with their hashes, in the place of those of the same projects in the hub's locks."""
        path = self.directory / "plugin/requirements.txt"
        ours = entries(path.read_text(encoding="utf-8"))
        theirs = entries(requirements)
        assert theirs.keys() <= ours.keys(), theirs.keys() - ours.keys()
        path.write_text("".join({**ours, **theirs}.values()), encoding="utf-8")
        # The one of the official installer has versions alone.
        path = path.with_name("requirements-tljh.txt")
        text = path.read_text(encoding="utf-8")
        for name, lines in theirs.items():
            version = lines.split()[0].partition("==")[2]
            text = re.sub(rf"(?m)^{re.escape(name)}==\S+", f"{name}=={version}", text)
        path.write_text(text, encoding="utf-8")


def entries(lock: str) -> dict[str, str]:
    """The requirements of a lock by project; each with the lines of its hashes and comments."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        begins = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==", line)
        if begins:
            name = begins.group(1).lower()
        if name:
            found[name] = found.get(name, "") + line
    return found


def requirement(lock: pathlib.Path, project: str) -> str:
    """The lines of one project in a lock."""
    return entries(lock.read_text(encoding="utf-8"))[project]
