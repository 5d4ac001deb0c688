"""What the pages of the documentation contain: blocks of code, commands, links, headings and names in code."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.support.paths import REPOSITORY

NOT_RUN = re.compile(r"<!-- not run: (\S.*?) -->", re.DOTALL)
# `{doc}` and its kind in front of code are Sphinx's, which checks them itself.
_ROLE = re.compile(r"\{[a-z:]+\}$")


@dataclass(frozen=True)
class Link:
    """A link or a picture: what it leads to, and in which line its paragraph begins."""

    target: str
    line: int
    picture: bool


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    text: str
    line: int
    not_run: str | None
    """Why a comment above it says that its commands are not run, or its pillar not applied."""

    @property
    def pillar(self) -> dict | None:
        """What the block says under `plasma:`, if it is a pillar file."""
        if self.language != "yaml":
            return None
        # Salt decrypts these before anybody reads them.
        text = re.sub(r"\|\n( +)-----BEGIN PGP .*\n(?:\1.*\n|\n)*", "decrypted\n", self.text)
        found = yaml.safe_load(text)
        return found["plasma"] if isinstance(found, dict) and "plasma" in found else None

    @property
    def commands(self) -> list[str]:
        """The lines after a prompt, with those that they go on in; what follows ` #` is said to the reader."""
        if self.language != "console":
            return []
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        return [re.split(r"\s+# ", line[2:])[0].strip() for line in lines if line.startswith(("$ ", "# salt-call "))]


@dataclass(frozen=True)
class Page:
    """One Markdown file of the repository."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(REPOSITORY))

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.text)

    @cached_property
    def inline(self) -> list[tuple[Token, int]]:
        """The pieces of all paragraphs, headings and cells, with their lines."""
        return [
            (child, token.map[0] + 1) for token in self.tokens if token.type == "inline" for child in token.children
        ]

    @cached_property
    def links(self) -> list[Link]:
        found = [Link(token.attrGet("href"), line, False) for token, line in self.inline if token.type == "link_open"]
        return found + [Link(token.attrGet("src"), line, True) for token, line in self.inline if token.type == "image"]

    @cached_property
    def names(self) -> list[tuple[str, int]]:
        """What stands in code between words, with its line."""
        found = []
        for (before, _), (token, line) in zip([(None, 0), *self.inline], self.inline, strict=False):
            role = before is not None and before.type == "text" and _ROLE.search(before.content)
            if token.type == "code_inline" and not role:
                found.append((token.content, line))
        return found

    @cached_property
    def anchors(self) -> set[str]:
        """The anchors of the headings, as hosts of repositories make them."""
        found: set[str] = set()
        for opening, inline in zip(self.tokens, self.tokens[1:], strict=False):
            if opening.type == "heading_open":
                text = "".join(child.content for child in inline.children if child.type in ("text", "code_inline"))
                slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
                number = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
                found.add(f"{slug}-{number}" if number else slug)
        return found

    @cached_property
    def blocks(self) -> list[Block]:
        found = []
        for before, token in zip([None, *self.tokens], self.tokens, strict=False):
            if token.type == "fence":
                said = NOT_RUN.match(before.content) if before is not None and before.type == "html_block" else None
                language = token.info.split()[0] if token.info else ""
                found.append(Block(language, token.content, token.map[0] + 1, said[1] if said else None))
        return found


@cache
def pages() -> tuple[Page, ...]:
    """Every Markdown file that Git knows, or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [REPOSITORY / name for name in sorted(set(listed.stdout.split()))]
    return tuple(Page(path) for path in paths if path.exists())


@dataclass(frozen=True)
class Call:
    """A call of salt-ssh, salt or salt-call."""

    program: str
    target: str
    function: str
    arguments: tuple[str, ...]

    @property
    def states(self) -> list[str]:
        """What `state.apply` is to apply; none for the whole site."""
        names = [word for word in self.arguments if "=" not in word]
        return names[0].split(",") if self.function == "state.apply" and names else []


def salt_call(command: str) -> Call | None:
    """What a command asks Salt for, if it does."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    while words and words[0] in ("sudo", "$"):
        words = words[1:]
    if not words or words[0] not in ("salt", "salt-ssh", "salt-call"):
        return None
    program, *rest = words
    rest = [word for word in rest if not word.startswith("-") or word == "-"]
    if program != "salt-call":
        target, *rest = rest
    else:
        target = "*"
    # A shell goes on after these.
    rest = list(_until(rest, (">", "|", "||", "&&", ";")))
    return Call(program, target, rest[0], tuple(rest[1:])) if rest else None


def _until(words: list[str], ends: tuple[str, ...]) -> Iterator[str]:
    for word in words:
        if word in ends:
            return
        yield word


def on_the_server(command: str) -> bool:
    """Whether a command is for a shell of the server."""
    return command.startswith("sudo ")


def runnable(command: str) -> bool:
    """Whether a command can be run against one server that stands for all that the pages name."""
    call = salt_call(command)
    if call:
        return call.program == "salt-ssh" and "," not in call.target
    return on_the_server(command)
