"""
From people's names to the names of their accounts, and passwords for them.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import secrets
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# Letters that Unicode does not take apart into a plain one and a mark (casefold() has made ss of ß).
_LETTERS = str.maketrans(
    {
        "æ": "ae",
        "œ": "oe",
        "ø": "o",
        "ł": "l",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "ħ": "h",
        "ı": "i",
        "ŋ": "n",
        "ŧ": "t",
        "ĸ": "k",
    }
)
LONGEST = 32

# No two that look alike (0 o, 1 l i, 2 z, 5 s, 6 b, 9 g q), no vowels that would make words, no capitals.
ALPHABET = "cdfhjkmnprtvwxy23456789"
GROUPS, GROUP_LENGTH = 3, 5
BITS = math.floor(GROUPS * GROUP_LENGTH * math.log2(len(ALPHABET)))


class Refused(Exception):
    """The input cannot be used and nothing was written; the text says why, in one line or more."""


@dataclass
class Entry:
    """One line of a list."""

    line: int
    # Either may be empty: an account without a person's name, or a person whose account has no name yet.
    login: str
    fullname: str


def password() -> str:
    """A new password of BITS random bits, in groups that can be read aloud: `k7fmx-29wdc-h3ntp`."""
    return "-".join("".join(secrets.choice(ALPHABET) for _ in range(GROUP_LENGTH)) for _ in range(GROUPS))


def folded(text: str) -> str:
    """Lower-case ASCII letters and digits for a name in Latin letters; other characters are left out."""
    plain = unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS))
    return "".join(char for char in plain.translate(_LETTERS) if char.isascii() and (char.isalnum() or char == "-"))


def proposal(fullname: str, style: str) -> str:
    """
    A login name for a person; empty when there are no Latin letters in the name.

    style
        `first.last` (anna.muller) or `initial` (amuller).
    """
    words = [word for part in fullname.split() if (word := folded(part).strip("-"))]
    if not words:
        return ""
    login, last = words[0], words[-1]
    if len(words) > 1:
        login = login[:1] + last if style == "initial" else f"{login}.{last}"
    return login.lstrip("0123456789.-")[:LONGEST].rstrip(".-")


def unique(login: str, taken: Callable[[str], bool]) -> str:
    """The name itself, or with the first number from 2 on that makes it free."""
    numbered = (login[: LONGEST - len(str(number))].rstrip(".-") + str(number) for number in itertools.count(2))
    return next(name for name in itertools.chain([login], numbered) if not taken(name))


def entries(content: bytes, source: str, column: str | None, is_login: Callable[[str], bool]) -> list[Entry]:
    """
    The people of a list.

    content
        One name a line, blank lines and those that start with # left out: a login name, a full name (`Anna Müller` or
        `Müller, Anna`) or both (`amueller: Anna Müller`). With `column` a CSV file that has a header.
    source
        The name of the list, for messages.
    column
        The column that holds the names.
    is_login
        Whether a word can be the name of an account.

    Raises Refused.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Refused(f"{source}:{line}: is not UTF-8. Allowed: text in UTF-8.") from None
    lines = _column(text, source, column) if column else enumerate(text.splitlines(), 1)
    return [_entry(line, written, is_login) for line, written in lines if written and not written.startswith("#")]


def _column(text: str, source: str, column: str) -> Iterator[tuple[int, str]]:
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        names = [name.strip() for name in next(reader, [])]
        if column not in names:
            raise Refused(f"{source}:1: has no column {column!r}. Allowed: one of {', '.join(map(repr, names))}.")
        place = names.index(column)
        line = reader.line_num + 1
        for row in reader:
            if len(row) > place:
                yield line, row[place].strip()
            line = reader.line_num + 1
    except csv.Error as error:
        raise Refused(f"{source}:{reader.line_num}: is not CSV ({error}).") from None


def _entry(line: int, written: str, is_login: Callable[[str], bool]) -> Entry:
    written = " ".join(unicodedata.normalize("NFC", written).split())
    login, colon, fullname = written.partition(":")
    if colon:
        return Entry(line, login.strip(), fullname.strip())
    if is_login(written):
        return Entry(line, written, "")
    last, comma, first = written.partition(",")
    return Entry(line, "", f"{first.strip()} {last.strip()}".strip() if comma else written)
