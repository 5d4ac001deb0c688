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
import io
import os
import secrets
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

from plasma_schema import csv_file, csv_people, report, rules
from plasma_schema.names import Membership, UserName
from pydantic import TypeAdapter, ValidationError

from tools import accounts_names as names
from tools.accounts_names import Refused
from tools.accounts_sheet import page
from tools.private_files import private

COLUMNS = ("username", "password", "group", "quota_soft", "quota_hard", "fullname")
# Problems that are shown at once.
MOST = 20
# A spreadsheet computes a cell that starts like this.
FORMULA = ("=", "+", "-", "@")


def reason(kind: Any, value: str) -> str | None:
    """Why the schema refuses a value of one of its types; None when it does not."""
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        allowed = next(mark.allowed for mark in kind.__metadata__ if hasattr(mark, "allowed"))
        return f"{report.reason(error.errors()[0])}. Allowed: {allowed}"
    return None


def is_login(text: str) -> bool:
    return reason(UserName, text) is None


def entry_problem(entry: names.Entry, style: str) -> str | None:
    """What is wrong with one line of a list."""
    if entry.login and (why := reason(UserName, entry.login)):
        return f"the login name {why}."
    if entry.fullname and (why := reason(rules.FullName, entry.fullname)):
        return f"the name {why}."
    if entry.fullname.startswith(FORMULA):
        return "the name starts as a formula of a spreadsheet. Allowed: a letter at the start."
    if not entry.login and not names.proposal(entry.fullname, style):
        return "the name has no Latin letters. Allowed: a login name in front, `name: full name`."
    return None


def logins(
    people: list[names.Entry], source: str, style: str, existing: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """
    (login name, full name) of each person who is not in `existing` yet.

    existing
        The same of the accounts that are there.

    Raises Refused.
    """
    known, namesakes = {login for login, _ in existing}, Counter(fullname for _, fullname in existing if fullname)
    first_lines: dict[str, int] = {}
    problems, missing = [], []
    for entry in people:
        problem = entry_problem(entry, style)
        if entry.login and (first := first_lines.setdefault(entry.login, entry.line)) != entry.line:
            problem = f"is the login name of line {first} too."
        if problem:
            problems.append(f"{source}:{entry.line}: {problem}")
        elif not entry.login and namesakes[entry.fullname]:
            # One account of this name for each line with it.
            namesakes[entry.fullname] -= 1
        elif entry.login not in known:
            missing.append(entry)
    if problems:
        raise Refused("\n".join(problems[:MOST]))
    taken = known | {entry.login for entry in missing if entry.login}
    made = []
    for entry in missing:
        login = entry.login or names.unique(
            names.proposal(entry.fullname, style), lambda login: login in taken or not is_login(login)
        )
        taken.add(login)
        made.append((login, entry.fullname))
    return made


def existing_accounts(path: Path) -> tuple[str, list[tuple[str, str]], list[str], str]:
    """
    What a CSV file holds: its text, (login name, full name) of its accounts, its columns and its delimiter.

    Raises Refused when it is not valid.
    """
    people, problems = csv_people.load(str(path), None)
    if problems:
        raise Refused("\n".join(problems[:MOST]))
    text = path.read_bytes().decode()
    header = next(line for line in text.removeprefix("\ufeff").splitlines() if line.strip())
    delimiter = ";" if header.count(";") > header.count(",") else ","
    columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter))]
    return text, [(person.user.name, person.user.fullname or "") for person in people], columns, delimiter


def with_rows(before: str, rows: list[dict[str, str]], columns: list[str], delimiter: str) -> str:
    """The text of a CSV file with more rows, and with a header when it is empty. Raises Refused when a column lacks."""
    lost = {column for row in rows for column, value in row.items() if value and column not in columns}
    if lost:
        raise Refused(f"The file has no column {' and '.join(sorted(lost))}: add it to the header, and to every line.")
    end = "\r\n" if "\r\n" in before else "\n"
    text = io.StringIO(before + (end if before and not before.endswith(("\n", "\r")) else ""), newline="")
    text.seek(0, io.SEEK_END)
    writer = csv.DictWriter(text, columns, extrasaction="ignore", delimiter=delimiter, lineterminator=end)
    if not before:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def create(path: Path, content: str) -> None:
    """Write a new file that its owner alone can read. Raises FileExistsError."""
    with open(path, "x", encoding="utf-8", newline="", opener=private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def prepared(path: Path, content: str) -> Generator[Path]:
    """A valid CSV file beside `path`, to take its place. Raises Refused when the schema refuses it."""
    new = path.with_name(f".{secrets.token_hex(8)}.csv")
    try:
        create(new, content)
        _, problems = csv_people.load(str(new), None)
        if problems:
            raise Refused("\n".join(problem.replace(str(new), path.name) for problem in problems[:MOST]))
        yield new
    finally:
        new.unlink(missing_ok=True)


def check_options(options: argparse.Namespace) -> None:
    """Raise Refused for options that can only fail."""
    for option, kind, value in (
        ("--out", csv_file.CsvFile, options.out.name),
        ("--url", rules.IndexUrl, options.url),
        ("--quota-soft", rules.DiskSize, options.quota_soft),
        ("--quota-hard", rules.DiskSize, options.quota_hard),
        *(("--group", Membership, group) for group in options.group),
    ):
        if value and (why := reason(kind, value)):
            raise Refused(f"{option} {why}.")
    if options.out.suffix != ".csv":
        raise Refused("--out is to be encrypted. Allowed: a .csv file, which gpg can encrypt then.")
    for path in (options.out, options.sheet):
        if path and not path.parent.is_dir():
            raise Refused(f"The directory {path.parent} does not exist.")
    if options.sheet and os.path.lexists(options.sheet):
        raise Refused(f"{options.sheet} exists: print it or remove it first, or give --sheet another name.")


def write(options: argparse.Namespace) -> tuple[int, int]:
    """Do the work. Returns the numbers of new and of earlier accounts. Raises Refused or OSError."""
    check_options(options)
    # The schema looks for relative names beside the pillar files.
    out, source = Path(os.path.abspath(options.out)), str(options.names)
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
            before, there, columns, delimiter = existing_accounts(out)
        elif os.path.lexists(out):
            raise Refused(
                f"{options.out} exists: use --add to add those who are not in it yet, or give --out another name."
            )
        same = {"group": " ".join(options.group), "quota_soft": options.quota_soft, "quota_hard": options.quota_hard}
        rows = [
            {"username": login, "password": names.password(), "fullname": fullname, **same}
            for login, fullname in logins(people, source, options.style, there)
        ]
        if not rows:
            return 0, len(there)
        new = stack.enter_context(prepared(out, with_rows(before, rows, columns, delimiter)))
        if options.sheet:
            cards = ((row["username"], row["password"], row["fullname"]) for row in rows)
            create(options.sheet, page(cards, options.url))
        try:
            # Unlike os.replace(), os.link() never takes the place of a file that came meanwhile.
            (os.replace if options.add else os.link)(new, out)
        except BaseException:
            if options.sheet:
                options.sheet.unlink()
            raise
    return len(rows), len(there)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tools.accounts",
        description="Make accounts with new passwords for a list of people.",
        epilog=f"Passwords have {names.BITS} random bits, and no characters that look alike.",
    )
    add = made.add_argument
    add("names", type=Path, help="the list, one name a line, in UTF-8; - reads standard input")
    add("--column", metavar="NAME", help="the list is a CSV file with a header: the column of the names")
    add("--group", action="append", default=[], help="a group of all of them (may be given several times)")
    add("--quota-soft", default="", metavar="SIZE", help="disk quota of each, such as 10G")
    add("--quota-hard", default="", metavar="SIZE", help="what each can never exceed, such as 12G")
    add("--style", choices=("first.last", "initial"), default="first.last", help="anna.muller or amuller")
    add("--out", type=Path, required=True, metavar="FILE.csv", help="the CSV file to write")
    add("--add", action="store_true", help="add to that file those who are not in it yet")
    add("--sheet", type=Path, metavar="FILE.html", help="a page with the new passwords, to print and cut")
    add("--url", help="address of the hub, for the sheet")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        new, before = write(options)
    except Refused as error:
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
