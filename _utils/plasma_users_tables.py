"""
The account files of a server as tables: ``passwd``, ``shadow``, ``group``, ``gshadow``, and what ``login.defs`` says.

A table keeps every line as it is, so that a line nobody changes is written back byte for byte. Hashes of passwords are
in these tables: they are not for the command line, and must not be shown.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

Table = dict[str, Any]

FIELDS = {"passwd": 7, "shadow": 9, "group": 4, "gshadow": 4}
_ID_FIELDS = {"passwd": (2, 3), "group": (2,)}
# Images use small numbers for their files, from 1000 on: whoever gets such a number may change those in their server.
_FIRST_OWN = 20000
# What login.defs(5) and useradd take where the file says nothing.
_RANGES = {"UID_MIN": 1000, "UID_MAX": 60000, "GID_MIN": 1000, "GID_MAX": 60000}
_AGES = {"PASS_MIN_DAYS": "0", "PASS_MAX_DAYS": "99999", "PASS_WARN_AGE": "7"}
# Sources of accounts in nsswitch.conf that are these files, or hold no accounts of people.
_OWN_SOURCES = {"files", "systemd", "altfiles"}


def parse(kind: str, text: str | None) -> Table:
    """
    Return the table of one file.

    kind
        ``passwd``, ``shadow``, ``group`` or ``gshadow``.
    text
        Its content, decoded with ``surrogateescape``; None for a file that does not exist.

    Returns ``{"kind", "text", "lines": [str], "rows": {name: [field]}, "at": {name: index of its line}, "odd":
    {names}}``; odd are names that stand twice, or in a line with the wrong number of fields or an id that is no number:
    nothing may be changed about those. Every row has the number of fields that its file should have.
    """
    lines = (text or "").split("\n")
    if not lines[-1]:
        lines.pop()
    rows: dict[str, list[str]] = {}
    at: dict[str, int] = {}
    odd = set()
    for number, line in enumerate(lines):
        # + and - are entries of NIS (nsswitch.conf(5), compat).
        if not line or line[0] in "#+-":
            continue
        fields = line.split(":")
        name, sound = fields[0], len(fields) == FIELDS[kind]
        if name in rows or not (sound and all(numeric(fields[field]) for field in _ID_FIELDS.get(kind, ()))):
            odd.add(name)
        if name not in rows:
            rows[name] = fields if sound else (fields + [""] * FIELDS[kind])[: FIELDS[kind]]
            at[name] = number
    return {"kind": kind, "text": text, "lines": lines, "rows": rows, "at": at, "odd": odd}


def numeric(field: str) -> bool:
    """Return whether a field is a number as these files have them."""
    return field.isascii() and field.isdigit()


def ids(table: Table, field: int = 2) -> dict[int, str]:
    """Return ``{number: name of somebody who has it}`` of a field of numbers: 2 is the own id, 3 the primary group."""
    return {int(row[field]): name for name, row in table["rows"].items() if numeric(row[field])}


def members(row: list[str]) -> list[str]:
    """Return the members of a group, from its row of group or gshadow."""
    return [name for name in row[3].split(",") if name]


def memberships(table: Table, names: Iterable[str]) -> dict[str, set[str]]:
    """Return ``{name: {groups}}`` of these people, from the table of group."""
    found: dict[str, set[str]] = {name: set() for name in names}
    for group, row in table["rows"].items():
        for name in found.keys() & set(members(row)):
            found[name].add(group)
    return found


def home_path(row: list[str]) -> str:
    """
    Return the home in a row of passwd as an absolute path without doubled slashes and without one at the end; an empty
    text where it is none that root could use: empty, relative, or with ``.`` or ``..`` in it.
    """
    parts = [part for part in row[5].split("/") if part]
    return f"/{'/'.join(parts)}" if row[5].startswith("/") and not {".", ".."} & set(parts) else ""


def text(table: Table) -> str:
    """Return the content of the file that a table stands for."""
    return "".join(f"{line}\n" for line in table["lines"])


def edited(table: Table, edits: Mapping[str, list[str] | None]) -> Table:
    """
    Return the table with some entries replaced, added or removed; the original stays as it is.

    edits
        ``{name: [field] | None}``; None removes. New entries come last, before those of NIS.
    """
    if not edits:
        return table
    new = {table["at"].get(name, name): fields and ":".join(fields) for name, fields in edits.items()}
    lines = [line for number, old in enumerate(table["lines"]) if (line := new.get(number, old)) is not None]
    end = next((number for number, line in enumerate(lines) if line.startswith(("+", "-"))), len(lines))
    lines[end:end] = [line for name, line in new.items() if isinstance(name, str) and line]
    return parse(table["kind"], "".join(f"{line}\n" for line in lines))


def read(root: str = "/") -> dict[str, Any]:
    """
    Return the tables, ``{"passwd", "shadow", "group", "gshadow"}``, and ``defs``, see ``defaults``.

    root
        Another directory than ``/`` holds ``etc``: for tests.
    """
    return {**{kind: parse(kind, _content(root, kind)) for kind in FIELDS}, "defs": defaults(root)}


def _content(root: str, name: str) -> str | None:
    try:
        return pathlib.Path(root, "etc", name).read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None


def defaults(root: str = "/") -> dict[str, Any]:
    """
    Return what ``/etc/login.defs`` says about new accounts, with the defaults of useradd(8) for the rest.

    ``UID_MIN``, ``UID_MAX``, ``GID_MIN``, ``GID_MAX``, ``UID_FIRST``, ``GID_FIRST`` (where new ids begin that nobody
    chose) and ``HOME_MODE`` are numbers; the three ages of a new password (``PASS_MIN_DAYS`` ...) are texts, as shadow
    has them.
    """
    lines = [line.split() for line in (_content(root, "login.defs") or "").splitlines()]
    settings = {words[0]: words[1] for words in lines if len(words) > 1}
    found: dict[str, Any] = {key: settings.get(key, default) for key, default in _AGES.items()}
    for key, default in {**_RANGES, "HOME_MODE": 0o700}.items():
        found[key] = default
        with contextlib.suppress(KeyError, ValueError):
            found[key] = int(settings[key], 8 if key == "HOME_MODE" else 0)
    found["HOME_MODE"] &= 0o755  # never writable by others
    for kind in ("UID", "GID"):
        # Only where that leaves most of the range.
        first = _FIRST_OWN if found[f"{kind}_MAX"] >= 2 * _FIRST_OWN else 0
        found[f"{kind}_FIRST"] = max(found[f"{kind}_MIN"], first)
    return found


def _has_nis(root: str, database: str) -> bool:
    return any(line.startswith(("+", "-")) for line in (_content(root, database) or "").splitlines())


def other_sources(root: str = "/", database: str = "passwd") -> list[str]:
    """
    Return the sources of accounts beside the files (``ldap``, ``sss`` ...) in ``/etc/nsswitch.conf``.

    database
        ``passwd`` or ``group``.
    """
    for line in (_content(root, "nsswitch.conf") or "").splitlines():
        key, _, sources = line.partition("#")[0].partition(":")
        if key.strip() == database:
            # compat is the files, and NIS where they have entries of it.
            own = _OWN_SOURCES | (set() if _has_nis(root, database) else {"compat"})
            return [word for word in sources.split() if word not in own and not word.startswith("[")]
    return []
