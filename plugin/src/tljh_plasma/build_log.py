"""The log of one build: bounded, without secrets, followed live by any number of readers."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable
from itertools import islice

HEAD_LINES = 200
TAIL_LINES = 5000
MAX_LINE = 4096
CUT = " [cut]"
REDACTED = "[redacted]"
# Of a line that has not ended yet no more than this is kept, so that no build can fill the memory with one. It is more
# than what is shown: a secret across the cut is still seen as a whole, and taken out.
MAX_PENDING = 16 * MAX_LINE


class Redactor:
    """Takes credentials out of text, also where they are percent-encoded.

    The password is taken out wherever it is. The user name, which may be as short as "git", only where it stands as a
    word of its own, unless there is no password: then it is a token.
    """

    def __init__(self, username: str = "", password: str = ""):
        patterns = [_encoded(password)] if password else []
        if username:
            patterns.append(rf"(?<!\w){_encoded(username)}(?!\w)" if password else _encoded(username))
        # The longest first: one may hold the other.
        self._pattern = re.compile("|".join(sorted(patterns, key=len, reverse=True))) if patterns else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(REDACTED, text) if self._pattern else text


def _encoded(secret: str) -> str:
    """Pattern for a secret in which any character may be percent-encoded, in capitals or not."""
    parts = []
    for char in secret:
        hexadecimal = "".join(f"%{_either_case(f'{byte:02x}')}" for byte in char.encode())
        parts.append(f"(?:{re.escape(char)}|{hexadecimal}{'|[+]' if char == ' ' else ''})")
    return "".join(parts)


def _either_case(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


class BuildLog:
    """Lines of a build, of which the first and the last are kept.

    Readers get every line as it comes; who comes late or cannot keep up is told how many lines are left out.
    """

    def __init__(self, redact: Redactor | None = None, head: int = HEAD_LINES, tail: int = TAIL_LINES):
        self.redact = redact or Redactor()
        self.ended = False
        self._head: list[str] = []
        self._head_size = head
        self._tail: deque[str] = deque(maxlen=tail)
        self._count = 0
        self._pending = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._news = asyncio.Event()

    @property
    def count(self) -> int:
        """Number of lines there have been."""
        return self._count

    @property
    def _left_out(self) -> int:
        return self._count - len(self._head) - len(self._tail)

    def feed(self, data: bytes | str) -> None:
        """Take output of the build, in pieces of any size. A line is there for readers when it has ended."""
        self._pending += data if isinstance(data, str) else self._decoder.decode(data)
        *lines, self._pending = re.split("\r\n|\n|\r(?!$)", self._pending)
        self._add(lines)
        self._pending = self._pending[:MAX_PENDING]

    def flush(self) -> None:
        """Take what came after the last end of a line as a line."""
        rest, self._pending = self._pending.rstrip("\r"), ""
        if rest:
            self._add([rest])

    def say(self, sentence: str) -> None:
        """Add a line of our own."""
        self.flush()
        self._add([sentence])

    def end(self) -> None:
        """Nothing comes any more: readers are done when they have read what is here."""
        self.flush()
        self.ended = True
        self._wake()

    def text(self) -> str:
        """Everything that is kept."""
        return self._join(self._head, self._tail, self._left_out)

    async def follow(self) -> AsyncIterator[str]:
        """Give what is kept, then each line as it comes, until the end. Pieces are whole lines."""
        position = 0
        while True:
            news = self._news
            if position < self._count:
                piece = self._since(position)
                position = self._count
                yield piece
            elif self.ended:
                return
            else:
                await news.wait()

    def _since(self, position: int) -> str:
        head = self._head[position:]
        first_of_tail = self._count - len(self._tail)
        missing = max(0, first_of_tail - max(position, len(self._head)))
        # From the right: a reader that keeps up wants the last line of thousands.
        tail = list(islice(reversed(self._tail), min(len(self._tail), self._count - position)))
        return self._join(head, reversed(tail), missing)

    @staticmethod
    def _join(head: Iterable[str], tail: Iterable[str], left_out: int) -> str:
        middle = [f"[{left_out} lines are left out here]"] if left_out else []
        return "".join(f"{line}\n" for line in [*head, *middle, *tail])

    def _add(self, lines: Iterable[str]) -> None:
        for line in lines:
            line = self.redact(line)
            if len(line) > MAX_LINE:
                line = line[:MAX_LINE] + CUT
            (self._head if len(self._head) < self._head_size else self._tail).append(line)
            self._count += 1
        self._wake()

    def _wake(self) -> None:
        # Each reader waits for the event it saw, so that none misses news while another is slow.
        self._news.set()
        self._news = asyncio.Event()
