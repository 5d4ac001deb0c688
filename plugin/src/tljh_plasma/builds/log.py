"""The log of one build: bounded, without secrets, followed live by any number of readers."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable

HEAD_LINES = 200
TAIL_LINES = 5000
MAX_LINE = 4096
CUT = " [cut]"
REDACTED = "[redacted]"
# Of an unfinished line no more than this is kept, so that no build can fill the memory. It is more than what is shown:
# a secret across the cut is still seen as a whole, and taken out.
MAX_PENDING = 16 * MAX_LINE


class Redactor:
    """Takes credentials out of text, also where they are percent-encoded.

    The password is taken out everywhere; the user name, which may be as short as "git", only as a word of its own.
    Without a password the user name is a token, and taken out everywhere.

    Args:
        username, password: those of the repository or the registry.
        others: further ones, as those of proxies.
    """

    def __init__(self, username: str = "", password: str = "", others: Iterable[tuple[str, str]] = ()):
        patterns = []
        for name, secret in ((username, password), *others):
            patterns += [_encoded(secret)] if secret else []
            if name:
                patterns.append(rf"(?<!\w){_encoded(name)}(?!\w)" if secret else _encoded(name))
        # The longest first: one may contain the other.
        self._pattern = re.compile("|".join(sorted(patterns, key=len, reverse=True))) if patterns else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(REDACTED, text) if self._pattern else text


def _encoded(secret: str) -> str:
    """Return a pattern for a secret in which any character may be percent-encoded."""
    parts = []
    for char in secret:
        hexadecimal = "".join(f"%{byte:02x}" for byte in char.encode())
        parts.append(f"(?:{re.escape(char)}|(?i:{hexadecimal}){'|[+]' if char == ' ' else ''})")
    return "".join(parts)


class BuildLog:
    """Lines of a build, of which the first and the last are kept.

    Readers get every line as it comes; a reader that is late or too slow is told how many lines it missed.

    Attributes:
        count: number of lines so far, with those that are no longer kept.
        ended: whether nothing comes any more.
    """

    def __init__(self, redact: Redactor | None = None, head: int = HEAD_LINES, tail: int = TAIL_LINES):
        self.count = 0
        self.ended = False
        self._redact = redact or Redactor()
        self._head: list[str] = []
        self._head_size = head
        self._tail: deque[str] = deque(maxlen=tail)
        self._pending = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._news = asyncio.Event()

    def feed(self, data: bytes | str) -> None:
        """Take output of the build, in pieces of any size. Readers get a line once it has ended."""
        self._pending += data if isinstance(data, str) else self._decoder.decode(data)
        *lines, self._pending = re.split("\r\n|\n|\r(?!$)", self._pending)
        self._add(lines)
        self._pending = self._pending[:MAX_PENDING]

    def flush(self) -> None:
        """Take what came after the last end of a line as a line."""
        rest, self._pending = self._pending.rstrip("\r"), ""
        self._add([rest] if rest else [])

    def say(self, sentence: str) -> None:
        """Add a line of our own."""
        self.flush()
        self._add([sentence])

    def end(self) -> None:
        """Let readers finish once they have read everything."""
        self.ended = True
        self.flush()

    def text(self) -> str:
        """Return everything that is kept."""
        return self._since(0)

    async def follow(self) -> AsyncIterator[str]:
        """Yield what is kept, then each line as it comes, until the end. Pieces are whole lines."""
        position = 0
        while True:
            news = self._news
            if position < self.count:
                piece, position = self._since(position), self.count
                yield piece
            elif self.ended:
                return
            else:
                await news.wait()

    def _since(self, position: int) -> str:
        """Return the lines from a position on, with a note where some are missing."""
        tail_start = self.count - len(self._tail)
        missing = max(0, tail_start - max(position, len(self._head)))
        note = [f"[{missing} lines are left out here]"] if missing else []
        lines = [*self._head[position:], *note, *list(self._tail)[max(0, position - tail_start) :]]
        return "".join(f"{line}\n" for line in lines)

    def _add(self, lines: Iterable[str]) -> None:
        for line in map(self._redact, lines):
            kept = self._head if len(self._head) < self._head_size else self._tail
            kept.append(line if len(line) <= MAX_LINE else line[:MAX_LINE] + CUT)
            self.count += 1
        # Each reader waits for the event it saw, so that none misses news while another is slow.
        self._news.set()
        self._news = asyncio.Event()
