"""
The proxy and a certificate authority that speaks ACME: the last refusal, and the account.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import re
import urllib.parse

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_systemd

BACKUPS = "/var/backups/plasma"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# 2026-11-25T08:00:00Z ERR Unable to obtain ACME certificate for domains error="unable to ... acme: error: 403 :: ..."
_FAILED = re.compile(r"(?:ERR|level=error).*ACME", re.IGNORECASE)
_REASON = re.compile(r'error="((?:[^"\\]|\\.)*)"')


def last_error(since: float = 0) -> str | None:
    """
    Return the last reason in the proxy's journal why it got no certificate, on one line; None when there is none.

    since
        Seconds since 1970; what is older does not count.
    """
    journal = plasma_systemd.journal("traefik.service", 2000, "--reverse", f"--since=@{int(since)}")
    line = next(filter(_FAILED.search, _COLOURS.sub("", journal).splitlines()), None)
    if line is None:
        return None
    reason = _REASON.search(line)
    # Go quotes what it logs. The first words of a long message say what happened.
    return " ".join((reason[1] if reason else line).replace("\\n", " ").replace('\\"', '"').split())[:600]


def authority(prefix: str = "/opt/tljh") -> str | None:
    """Return the host of the authority that the proxy has an account with; None without one."""
    try:
        account = json.loads(_store(prefix).read_text(encoding="utf-8"))["letsencrypt"]["Account"]
        return urllib.parse.urlsplit(str(account["Registration"]["uri"])).netloc or None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def put_aside(prefix: str = "/opt/tljh", directory: str = BACKUPS) -> str | None:
    """
    Move the account and the certificates of one authority out of the way, so that the proxy asks another one for new
    ones; it would go on with the old ones until they expire.

    directory
        Where the copy is kept, for root alone.

    Returns the path of the copy, or None when there was nothing. Raises CommandExecutionError when it cannot be kept.
    """
    store, backups = _store(prefix), pathlib.Path(directory)
    if not store.exists() or not store.stat().st_size:
        return None
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S%fZ")
    try:
        plasma_files.directory(backups, 0o700)
        backups.chmod(0o700)
        copy = plasma_files.write(backups / f"acme-{stamp}.json", store.read_bytes())
        # The same file, emptied: the proxy's unit may write to this one.
        with open(store, "r+b") as file:
            file.truncate(0)
    except OSError as exc:
        raise CommandExecutionError(f"{store} cannot be put aside into {backups}: {exc.strerror}.") from exc
    return copy


def bring_back(copy: str | None, prefix: str = "/opt/tljh") -> None:
    """Undo ``put_aside``, which returned ``copy``; None does nothing. Raises OSError."""
    if copy:
        _store(prefix).write_bytes(pathlib.Path(copy).read_bytes())


def _store(prefix):
    return pathlib.Path(prefix) / "state" / "acme.json"
