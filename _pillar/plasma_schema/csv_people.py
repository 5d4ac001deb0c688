"""
People in CSV files (RFC 4180), validated line by line by the rules of `plasma.users`.

No cell is ever shown in a message: columns get mixed up easily, and one of them is the password. The file, the line and
the column are enough to find it.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from .csv_file import FileProblem, read
from .everyone import COLUMNS, Person, cell
from .people import User
from .report import contradictions, reason, shape_at

KNOWN = tuple(dict.fromkeys(COLUMNS.values()))
MOST_LINES = 60_000
_LONGEST_HEADER = 2000
# What people call the columns elsewhere.
_OTHER_NAMES = {
    "name": "username",
    "user": "username",
    "login": "username",
    "groups": "group",
    "pass": "password",
    "passwort": "password",
    "hash": "password_hash",
    "soft": "quota_soft",
    "hard": "quota_hard",
    "quota": "quota_soft",
    "gecos": "fullname",
    "realname": "fullname",
    "policy": "password_policy",
}


# What a cell stands for where that is no text; what does not look like it stays one, and is refused as such.
_TYPED: dict[str, Callable[[str], Any]] = {
    "group": str.split,
    "uid": lambda text: int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text,
    "admin": lambda text: {"true": True, "yes": True, "false": False, "no": False}.get(text.lower(), text),
}


def load(name: str, opts: Mapping[str, Any] | None) -> tuple[list[Person], list[str]]:
    """
    The people of one file.

    name
        The file, as in pillar.
    opts
        The controller's configuration.

    Returns (people, lines): those whose lines are right, and one line for each problem.
    """
    try:
        content, exposed = read(name, opts)
        text = _text(name, content)
    except FileProblem as problem:
        return [], [f"{name}{problem}" if str(problem).startswith(":") else f"{name} {problem}"]
    people: list[Person] = []
    lines: list[str] = []
    for found in _rows(name, text):
        if isinstance(found, str):
            lines.append(found)
            continue
        number, given = found
        try:
            people.append(Person(User.model_validate(given), number, name))
        except ValidationError as error:
            lines.extend(_problems(name, number, error))
    if exposed and (people or lines):
        lines.insert(
            0,
            f"{name} can be read or changed by other users of this machine, and has passwords in it. "
            f"Allowed: access for its owner alone (chmod 600).",
        )
    return people, lines


def _text(name: str, content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FileProblem('is in UTF-16. Allowed: UTF-8 (in a spreadsheet, save it as "CSV UTF-8").')
    nul = content.find(b"\0")
    if nul >= 0:
        raise FileProblem(f":{_spot(content, nul)} is NUL. Allowed: text in UTF-8.")
    mark = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    try:
        return content[mark:].decode()
    except UnicodeDecodeError as error:
        spot = _spot(content, error.start + mark)
        raise FileProblem(f':{spot} is not UTF-8. Allowed: UTF-8 (in a spreadsheet, save it as "CSV UTF-8").') from None


def _spot(content: bytes, position: int) -> str:
    before = content[:position].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return f"{before.count(bytes([10])) + 1}: byte {len(before) - before.rfind(bytes([10]))} of the line"


def _rows(name: str, text: str) -> Iterator[str | tuple[int, dict[str, Any]]]:
    """Each person as (line, mapping in the form of `plasma.users`), and lines for what is no such row."""
    # Line breaks as they are: those inside quotation marks belong to the cell, and count as lines of the file.
    source = io.StringIO(text, newline="")
    header_line = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    delimiter = ";" if header_line.count(";") > header_line.count(",") else ","
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            if "larger than" in str(error):
                yield f"{name}:{number}: a cell is too long, or a quotation mark is not closed. Allowed: shorter cells."
                return
            yield (
                f"{name}:{number}: a quotation mark is not closed, or stands alone within a cell. Allowed: cells in "
                'quotation marks, with "" for a quotation mark in one.'
            )
            return
        if row is None:
            break
        if number > MOST_LINES:
            yield f"{name} has more than {MOST_LINES} lines. Allowed: one line for each person."
            return
        if not any(value.strip() for value in row):
            continue
        if columns is None:
            columns, problems = _header(name, number, row)
            yield from problems
            if problems:
                return
        elif any(value.strip() for value in row[len(columns) :]) or len(row) < len(columns):
            yield f"{name}:{number}: cells: {len(row)}. Allowed: {len(columns)}, as in the header."
        else:
            yield from _row(name, number, dict(zip(columns, row, strict=False)))
    if columns is None:
        yield f"{name} is empty. Allowed: a header with {', '.join(KNOWN[:2])} and more, and one line for each person."


def _header(name: str, number: int, row: list[str]) -> tuple[list[str], list[str]]:
    columns = [value.strip().lower() for value in row]
    while columns and not columns[-1]:
        # Columns that a spreadsheet once had.
        columns.pop()
    allowed = f"Allowed: a first line with the names of the columns, of {', '.join(KNOWN)}."
    if not set(columns) & {*KNOWN, *_OTHER_NAMES}:
        # It may be a person already: nothing of it is shown.
        return [], [f"{name}:{number}: is no header. {allowed}"]
    problems = []
    for index, column in enumerate(columns):
        if column in columns[:index]:
            problems.append(f"{name}:{number}: column {index + 1} has the name of an earlier one. {allowed}")
        elif column not in KNOWN:
            problems.append(f"{name}:{number}: column {index + 1}: {_unknown(column)} {allowed}")
    if not problems:
        if "username" not in columns:
            problems.append(f"{name}:{number}: the column username is missing. {allowed}")
        if not {"password", "password_hash"} & set(columns):
            problems.append(f"{name}:{number}: the column password (or password_hash) is missing. {allowed}")
    return columns, problems


def _unknown(column: str) -> str:
    if not column:
        return "has no name."
    close = _OTHER_NAMES.get(column) or next(iter(difflib.get_close_matches(column[:50], KNOWN, n=1)), None)
    # Where the first line is a header at all, what stands in it is none of the secrets, but for one that is misplaced.
    return f"unknown column; did you mean '{close}'?" if close else "unknown column."


def _row(name: str, number: int, cells: dict[str, str]) -> Iterator[str | tuple[int, dict[str, Any]]]:
    given: dict[str, Any] = {}
    for key, column in COLUMNS.items():
        value = cells.get(column, "")
        if column != "password":
            value = value.strip()
        if not value or key == ("quota",):
            continue
        if len(key) == 2:
            given.setdefault(key[0], {})[key[1]] = value
        else:
            given[key[0]] = _TYPED.get(column, lambda text: text)(value)
    if "password" not in given and "password_hash" not in given:
        column = "password" if "password" in cells else "password_hash"
        yield f"{name}:{number}: {column} is empty. Allowed: {shape_at(User, (column,)).words}."
    elif given.get("password", "").strip() != given.get("password", ""):
        yield f"{name}:{number}: password starts or ends with a space. Allowed: a password without."
    else:
        yield number, given


def _problems(name: str, number: int, error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False, include_input=False):
        loc = item["loc"]
        found = contradictions(item)
        if not found:
            where = cell(name, number, loc or ("name",))
            yield f"{where} {reason(item)}. Allowed: {shape_at(User, loc).words}."
            continue
        for below, why, other in found:
            where = cell(name, number, (*loc, *below))
            yield f"{where} names a group twice." if other else f"{where} {why}."
