"""
The bytes of a CSV file of people: found, read and decrypted on the controller.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from .base import Section, checked, option
from .hub_rules import NotAllowed
from .report import show
from .rules import check_line

# More than 59,001 people do not fit into the user ids of a server.
LARGEST = 8 * 2**20
ENCRYPTED = (".gpg", ".asc")
_DECRYPTION = 60
_HOME = Path(__file__).resolve().parents[2]


def _csv_file(text: str) -> str:
    check_line(text, 200)
    if not text.endswith((".csv", ".csv.gpg", ".csv.asc")):
        raise NotAllowed("does not end with .csv, .csv.gpg or .csv.asc")
    if not text.isprintable() or not text.isascii() or ".." in text.split("/"):
        raise NotAllowed("has a character outside of printable ASCII, or `..` as a part")
    return text


CsvFile = checked(
    _csv_file,
    "the name of a file beside the pillar files, or an absolute path on the controller, that ends with .csv, "
    ".csv.gpg or .csv.asc",
)


class CsvEntry(Section):
    file: CsvFile = option(example="students.csv")
    """The file. A plain name is looked for beside the pillar files. One that ends with `.gpg` or `.asc` is decrypted
    with the keys of the encrypted pillar."""
    absent: bool = option(False, example=True)
    """Remove the accounts of everybody in the file; homes are kept in archives."""


def _named(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


CsvItem = Annotated[CsvEntry, BeforeValidator(_named)]


class FileProblem(Exception):
    """A file cannot be used; the text is the end of a line that starts with its name."""


def master(opts: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The controller's own configuration: beside a pillar on the command line salt-ssh hands over the server's."""
    opts = opts or {}
    return opts.get("__master_opts__") or opts


def read(name: str, opts: Mapping[str, Any] | None) -> tuple[bytes, bool]:
    """
    The content of a file, and whether other people of the controller can read or change it.

    name
        As in pillar: beside the pillar files, or an absolute path.
    opts
        The controller's configuration.

    Raises FileProblem.
    """
    path = find(name, opts)
    try:
        # Not blocking: the file may be a pipe that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FileProblem(_reason(error)) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise FileProblem(f"is {kind}. Allowed: a file in CSV format.")
    with open(descriptor, "rb") as file:
        try:
            content = file.read(LARGEST + 1)
        except OSError as error:
            raise FileProblem(_reason(error)) from None
    _bounded(content)
    if name.endswith(ENCRYPTED):
        return _decrypted(content, opts), False
    # Whoever owns the directory can put any file there.
    trusted = {os.geteuid(), 0, path.parent.stat().st_uid}
    return content, bool(status.st_mode & 0o077) or status.st_uid not in trusted


def _reason(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "cannot be read by the user who runs Salt. Allowed: a file of that user alone (chown, chmod 600)."
    return f"cannot be read ({error.strerror})."


def find(name: str, opts: Mapping[str, Any] | None) -> Path:
    """Where a file that pillar names is: beside the pillar files, or at its absolute path. Raises FileProblem."""
    if name.startswith("/"):
        return Path(name)
    roots = master(opts).get("pillar_roots") or {}
    directories = [Path(root) for root in roots.get("base", [])] or [_HOME / "pillar"]
    for directory in directories:
        if os.path.lexists(directory / name):
            return directory / name
    raise FileProblem(
        f"does not exist in {' or '.join(map(str, directories))}. Allowed: a file beside the pillar files."
    )


def _bounded(content: bytes) -> None:
    if len(content) > LARGEST:
        raise FileProblem(f"is larger than {LARGEST // 2**20} MB. Allowed: one line for each person, {LARGEST} bytes.")


def key_directory(opts: Mapping[str, Any] | None) -> str:
    """Where the keys of the encrypted pillar are, by the rule of Salt's own renderer."""
    options = master(opts)
    place = options.get("gpg_keydir")
    return str(place or Path(options.get("conf_file") or _HOME / "conf" / "master").parent / "gpgkeys")


def _decrypted(content: bytes, opts: Mapping[str, Any] | None) -> bytes:
    keys = key_directory(opts)
    command = ["gpg", "--homedir", keys, "--batch", "--no-tty", "--quiet", "--decrypt"]
    # gpg may write without end: a small file can stand for a huge one. What it says is not shown.
    command += ["--max-output", str(LARGEST + 1)]
    try:
        result = subprocess.run(
            command, input=content, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_DECRYPTION, check=False
        )
    except FileNotFoundError:
        raise FileProblem("cannot be decrypted: the program gpg is missing on this machine (package gnupg).") from None
    except subprocess.TimeoutExpired:
        raise FileProblem(f"cannot be decrypted: gpg did not end within {_DECRYPTION} s.") from None
    if len(result.stdout) > LARGEST:
        _bounded(result.stdout)
    if result.returncode:
        raise FileProblem(f"cannot be decrypted with the keys in {show(keys)}: gpg ended with {result.returncode}.")
    return result.stdout
