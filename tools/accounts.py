"""
Make accounts for a list of people: a CSV file for pillar with new passwords, and a sheet to print and cut.

    python -m tools.accounts names.txt --group biology --out pillar/students.csv --sheet sheet.html

The list has one name a line: a login name, a full name (`Anna Müller` or `Müller, Anna`), or both (`amueller: Anna
Müller`). Full names become login names such as anna.muller. Nothing is ever overwritten. With --add the accounts in the
file stay as they are, and people of the list who are not among them are added.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import fcntl
import importlib.util
import io
import os
import secrets
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tools import accounts_names as names
from tools.accounts_sheet import page

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("username", "password", "group", "quota_soft", "quota_hard", "fullname")
MOST = 20
# A cell that starts so is computed by spreadsheets.
FORMULA = ("=", "+", "-", "@")


class Refused(Exception):
    """Nothing was written; the text says why, in one line or more."""


def schema(module: str) -> Any:
    """A module of the pillar's schema, loaded in the way Salt loads it."""
    spec = importlib.util.spec_from_file_location("plasma_pillar", ROOT / "_pillar" / "plasma.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded.schema(module)


def reason(kind: Any, value: str) -> str | None:
    """Why the schema refuses a value of one of its types; None when it does not."""
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        words = next(mark.allowed for mark in kind.__metadata__ if hasattr(mark, "allowed"))
        return f"{schema('report').reason(error.errors()[0])}. Allowed: {words}"
    return None


def is_login(text: str) -> bool:
    return reason(schema("names").UserName, text) is None


def logins(
    people: list[names.Entry], source: str, style: str, existing: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """
    (login name, full name) of each person who is not in `existing` yet.

    existing
        The same of the accounts that are there.

    Raises Refused.
    """
    rules = schema("names")
    known, there = {login for login, _ in existing}, Counter(fullname for _, fullname in existing if fullname)
    problems, missing = [], []
    for entry, first in names.repeated_logins(people):
        problems.append(f"{source}:{entry.line}: is the login name of line {first.line} too.")
    for entry in people:
        shown = f"{source}:{entry.line}:"
        if entry.login and (why := reason(rules.UserName, entry.login)):
            problems.append(f"{shown} the login name {why}.")
        elif entry.fullname and (why := reason(schema("rules").FullName, entry.fullname)):
            problems.append(f"{shown} the name {why}.")
        elif entry.fullname.startswith(FORMULA):
            problems.append(f"{shown} the name starts as a formula of a spreadsheet. Allowed: a letter at the start.")
        elif not entry.login and not names.proposal(entry.fullname, style):
            problems.append(
                f"{shown} the name has no Latin letters. Allowed: a login name in front, `name: full name`."
            )
        elif entry.login:
            if entry.login not in known:
                missing.append(entry)
        elif there[entry.fullname]:
            # One account of this name for each line with it.
            there[entry.fullname] -= 1
        else:
            missing.append(entry)
    if problems:
        raise Refused("\n".join(problems[:MOST]))
    taken = known | {entry.login for entry in missing if entry.login}
    made = []
    for entry in missing:
        login = entry.login or names.unique(
            names.proposal(entry.fullname, style),
            lambda login: login in taken or not is_login(login),
        )
        taken.add(login)
        made.append((login, entry.fullname))
    return made


def rows(made: list[tuple[str, str]], options: argparse.Namespace) -> list[dict[str, str]]:
    """The accounts as cells by the names of their columns, with new passwords."""
    return [
        {
            "username": login,
            "password": names.password(),
            "group": " ".join(options.group),
            "quota_soft": options.quota_soft,
            "quota_hard": options.quota_hard,
            "fullname": fullname,
        }
        for login, fullname in made
    ]


def existing(path: Path) -> tuple[str, list[tuple[str, str]], list[str], str]:
    """
    What a CSV file holds: its text, (login name, full name) of its accounts, its columns and its delimiter.

    Raises Refused when it is not valid.
    """
    people, problems = schema("csv_people").load(str(path), None)
    if problems:
        raise Refused("\n".join(problems[:MOST]))
    text = path.read_bytes().decode()
    header = next(line for line in text.removeprefix("\ufeff").splitlines() if line.strip())
    delimiter = ";" if header.count(";") > header.count(",") else ","
    columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter))]
    return text, [(person.user.name, person.user.fullname or "") for person in people], columns, delimiter


def text_of(cells: list[dict[str, str]], columns: list[str], delimiter: str, end: str) -> str:
    """Lines of CSV. Raises Refused when a value has no column."""
    lost = {column for row in cells for column, value in row.items() if value and column not in columns}
    if lost:
        raise Refused(f"The file has no column {' and '.join(sorted(lost))}: add it to the header, and to every line.")
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(
        [[row.get(column, "") for column in columns] for row in cells]
    )
    return text.getvalue()


def create(path: Path, content: str) -> None:
    """Write a new file that its owner alone can read. Raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def prepared(path: Path, content: str) -> Iterator[Path]:
    """A valid CSV file beside `path`, to take that place. Raises Refused when the schema refuses it."""
    new = path.with_name(f".{secrets.token_hex(8)}.csv")
    try:
        create(new, content)
        _, problems = schema("csv_people").load(str(new), None)
        if problems:
            raise Refused("\n".join(problem.replace(str(new), path.name) for problem in problems[:MOST]))
        yield new
    finally:
        new.unlink(missing_ok=True)


def write(options: argparse.Namespace) -> tuple[int, int]:
    """Do the work. Returns the numbers of new and of earlier accounts. Raises Refused or OSError."""
    # The schema looks for relative names beside the pillar files.
    out, sheet = Path(os.path.abspath(options.out)), options.sheet
    rules = schema("rules")
    for option, kind, value in (
        ("--out", schema("csv_file").CsvFile, out.name),
        ("--url", rules.IndexUrl, options.url),
        ("--quota-soft", rules.DiskSize, options.quota_soft),
        ("--quota-hard", rules.DiskSize, options.quota_hard),
        *(("--group", schema("names").Membership, group) for group in options.group),
    ):
        if value and (why := reason(kind, value)):
            raise Refused(f"{option} {why}.")
    if out.suffix != ".csv":
        raise Refused("--out is to be encrypted. Allowed: a .csv file, which gpg can encrypt then.")
    for path in (out, sheet):
        if path and not path.parent.is_dir():
            raise Refused(f"The directory {path.parent} does not exist.")
    if sheet and os.path.lexists(sheet):
        raise Refused(f"{sheet} exists: print it or remove it first, or give --sheet another name.")
    source = str(options.names)
    content = sys.stdin.buffer.read() if source == "-" else options.names.read_bytes()
    people = names.entries(content, source, options.column, is_login)
    if not people:
        raise Refused(f"{source} names nobody.")
    with contextlib.ExitStack() as stack:
        before, there, columns, delimiter = "", [], list(COLUMNS), ","
        if options.add:
            lock = stack.enter_context(open(out, "rb"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.samestat(os.fstat(lock.fileno()), os.stat(out)):
                raise Refused(f"{options.out} was changed by another run meanwhile: run this again.")
            before, there, columns, delimiter = existing(out)
        elif os.path.lexists(out):
            raise Refused(
                f"{options.out} exists: use --add to add those who are not in it yet, or give --out another name."
            )
        cells = rows(logins(people, source, options.style, there), options)
        if not cells:
            return 0, len(there)
        end = "\r\n" if "\r\n" in before else "\n"
        if not before:
            before = text_of([dict(zip(COLUMNS, COLUMNS, strict=True))], columns, delimiter, end)
        elif not before.endswith(("\n", "\r")):
            before += end
        new = stack.enter_context(prepared(out, before + text_of(cells, columns, delimiter, end)))
        if sheet:
            create(sheet, page(((row["username"], row["password"], row["fullname"]) for row in cells), options.url))
        try:
            if options.add:
                os.replace(new, out)
            else:
                # Unlike a renaming, this never takes the place of a file that came meanwhile.
                os.link(new, out)
        except BaseException:
            if sheet:
                sheet.unlink()
            raise
    return len(cells), len(there)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tools.accounts",
        description="Make accounts with new passwords for a list of people.",
        epilog=f"Passwords have {names.BITS} random bits, and no characters that look alike.",
    )
    made.add_argument("names", type=Path, help="the list, one name a line, in UTF-8; - reads standard input")
    made.add_argument("--column", metavar="NAME", help="the list is a CSV file with a header: the column of the names")
    made.add_argument(
        "--group", action="append", default=[], help="a group of all of them (may be given several times)"
    )
    made.add_argument("--quota-soft", default="", metavar="SIZE", help="disk quota of each, such as 10G")
    made.add_argument("--quota-hard", default="", metavar="SIZE", help="what each can never exceed, such as 12G")
    made.add_argument("--style", choices=("first.last", "initial"), default="first.last", help="anna.muller or amuller")
    made.add_argument("--out", type=Path, required=True, metavar="FILE.csv", help="the CSV file to write")
    made.add_argument("--add", action="store_true", help="add to that file those who are not in it yet")
    made.add_argument("--sheet", type=Path, metavar="FILE.html", help="a page with the new passwords, to print and cut")
    made.add_argument("--url", help="address of the hub, for the sheet")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        new, before = write(options)
    except (Refused, names.NamesError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or options.out}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{options.out}: {new} new accounts" + (f" beside {before}" if options.add else ""))
    if new and options.sheet:
        print(f"{options.sheet}: their passwords, to print. Remove it afterwards.")
    if new and not options.add:
        print(f"Name the file in pillar: users_csv: [{options.out.name}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
