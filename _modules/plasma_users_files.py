"""
The account files of a server as tables: ``passwd``, ``shadow``, ``group``, ``gshadow``, and what ``login.defs`` says.

A table keeps every line as it is, so that a line nobody changes is written back byte for byte. Nothing here writes;
``plasma_users_edit`` does. Hashes of passwords are in these tables: what functions here return is not for the command
line, and must not be shown.
"""

from __future__ import annotations

import os
import pathlib
import stat

__virtualname__ = "plasma_users_files"

FIELDS = {"passwd": 7, "shadow": 9, "group": 4, "gshadow": 4}
_IDS = {"passwd": (2, 3), "shadow": (), "group": (2,), "gshadow": ()}  # fields that are numbers
# What login.defs(5) and useradd take where the file says nothing.
# Images use small numbers for their files, from 1000 on: whoever gets such a number may change those in their server.
_FIRST_OWN = 20000
_NUMBERS = {"UID_MIN": 1000, "UID_MAX": 60000, "GID_MIN": 1000, "GID_MAX": 60000}
_AGES = {"PASS_MIN_DAYS": "0", "PASS_MAX_DAYS": "99999", "PASS_WARN_AGE": "7"}
# Sources of accounts in nsswitch.conf that are these files, or hold no accounts of people.
_OWN_SOURCES = {"files", "compat", "systemd", "altfiles", "extrausers"}


def __virtual__():
    return __virtualname__


def parse(kind, text):
    """
    Return the table of one file.

    kind
        ``passwd``, ``shadow``, ``group`` or ``gshadow``.

    text
        Its content, decoded with ``surrogateescape``.

    Returns ``{"kind", "text", "lines": [str], "rows": {name: [field]}, "at": {name: index of its line}, "odd":
    {names}}``; odd are names that stand twice, or in a line with the wrong number of fields or an id that is no number:
    nothing may be changed about those.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_files.parse group 'biology:x:2000:anna'
    """
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    rows, at, odd = {}, {}, set()
    wanted = FIELDS[kind]
    for number, line in enumerate(lines):
        # + and - are entries of NIS (nsswitch.conf(5), compat).
        if not line or line[0] in "#+-":
            continue
        fields = line.split(":")
        name = fields[0]
        if len(fields) != wanted or name in rows or not all(numeric(fields[place]) for place in _IDS[kind]):
            odd.add(name)
        if name not in rows:
            rows[name] = fields
            at[name] = number
    return {"kind": kind, "text": text, "lines": lines, "rows": rows, "at": at, "odd": odd}


def numeric(field):
    """
    Whether a field is a number as these files have them.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_files.numeric 1001
    """
    return field.isascii() and field.isdigit()


def path(home):
    """
    Return the home of an account as an absolute path without doubled slashes and without one at the end; an empty text
    where it is none that root could use: empty, relative, or with ``.`` or ``..`` in it.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_files.path /home//anna/
    """
    parts = [part for part in home.split("/") if part]
    return f"/{'/'.join(parts)}" if home.startswith("/") and not {".", ".."} & set(parts) else ""


def text(table):
    """
    Return the content of the file that a table stands for.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_files.text '{lines: ["biology:x:2000:anna"]}'
    """
    return "".join(line + "\n" for line in table["lines"])


def edited(table, edits):
    """
    Return the table with some entries replaced, added or removed; the table given stays as it is.

    edits
        ``{name: [field] | None}``; None removes. New entries come last, before those of NIS.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_files.edited '{kind: group, lines: [], at: {}}' '{biology: [biology, x, "2000", ""]}'
    """
    if not edits:
        return table
    lines, added = list(table["lines"]), []
    for name, fields in edits.items():
        place = table["at"].get(name)
        if fields is None:
            if place is not None:
                lines[place] = None
        elif place is None:
            added.append(":".join(fields))
        else:
            lines[place] = ":".join(fields)
    lines = [line for line in lines if line is not None]
    end = next((number for number, line in enumerate(lines) if line.startswith(("+", "-"))), len(lines))
    return parse(table["kind"], "".join(line + "\n" for line in [*lines[:end], *added, *lines[end:]]))


def read(root="/"):
    """
    Return ``{"passwd": table, "shadow": table, "group": table, "gshadow": table | None, "defs": {...}}``.

    root
        Another directory than ``/`` holds ``etc``: for tests.

    ``defs`` has ``UID_MIN``, ``UID_MAX``, ``GID_MIN``, ``GID_MAX``, ``UID_FIRST``, ``GID_FIRST`` (where new ones
    begin that nobody chose) and ``HOME_MODE`` as numbers, and the three ages of a new password (``PASS_MIN_DAYS`` ...)
    as they stand in shadow. gshadow is None where a server has none.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_files.read root=/srv/copy
    """
    found = {}
    for kind in FIELDS:
        content = raw(kind, root)
        found[kind] = None if content is None else parse(kind, content.decode("utf-8", "surrogateescape"))
    for kind in ("passwd", "group", "shadow"):
        if found[kind] is None:
            found[kind] = parse(kind, "")
    found["defs"] = defaults(root)
    return found


def raw(kind, root="/"):
    """
    Return the bytes of one of the files, or None where there is no such file.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_files.raw group
    """
    try:
        return pathlib.Path(root, "etc", kind).read_bytes()
    except FileNotFoundError:
        return None


def defaults(root="/"):
    """
    Return what ``/etc/login.defs`` says about new accounts, with the defaults of useradd(8) for the rest.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_files.defaults
    """
    said = {}
    try:
        content = pathlib.Path(root, "etc", "login.defs").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        content = ""
    for line in content.splitlines():
        words = line.split()
        if len(words) >= 2 and not words[0].startswith("#"):
            said[words[0]] = words[1]
    found = {key: _number(said.get(key), default) for key, default in _NUMBERS.items()}
    for kind in ("UID", "GID"):
        # Only where that leaves most of the range.
        first = _FIRST_OWN if found[f"{kind}_MAX"] >= 2 * _FIRST_OWN else 0
        found[f"{kind}_FIRST"] = max(found[f"{kind}_MIN"], first)
    found.update({key: said.get(key, default) for key, default in _AGES.items()})
    try:
        # Never writable by others, whatever stands there.
        found["HOME_MODE"] = int(said.get("HOME_MODE", "0700"), 8) & 0o755
    except ValueError:
        found["HOME_MODE"] = 0o700
    return found


def _number(said, default):
    try:
        return int(said, 0)
    except (TypeError, ValueError):
        return default


def other_sources(root="/", database="passwd"):
    """
    Return the sources of accounts beside the files (``ldap``, ``sss`` ...) in ``/etc/nsswitch.conf``, as a list.

    database
        ``passwd`` or ``group``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_files.other_sources
    """
    try:
        content = pathlib.Path(root, "etc", "nsswitch.conf").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    for line in content.splitlines():
        key, _, sources = line.partition("#")[0].partition(":")
        if key.strip() == database:
            return [word for word in sources.split() if word not in _OWN_SOURCES and not word.startswith("[")]
    return []


def runnable(shell, root="/"):
    """
    Whether a login shell can be run: a file that everybody may execute.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users_files.runnable /bin/bash
    """
    try:
        found = os.stat(os.path.join(root, shell.lstrip("/")))
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mode & 0o111 == 0o111
