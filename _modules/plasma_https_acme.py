"""
What the proxy and a certificate authority that speaks ACME said to each other.
"""

from __future__ import annotations

import datetime
import json
import pathlib
import re
import shutil
import subprocess
import urllib.parse

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_https_acme"

BACKUPS = "/var/backups/plasma"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# 2026-11-25T08:00:00Z ERR Unable to obtain ACME certificate for domains error="unable to ... acme: error: 403 :: ..."
_FAILED = re.compile(r"(?:ERR|level=error).*(?:ACME|acme)", re.IGNORECASE)
_REASON = re.compile(r'error="((?:[^"\\]|\\.)*)"')


def __virtual__():
    return __virtualname__


def last_error(since=None, unit="traefik.service"):
    """
    Return the last reason why the proxy got no certificate, as it stands in its journal, on one line; None when there
    is none.

    since
        Time in ISO 8601, UTC, or seconds since 1970; what is older does not count.
    unit
        The proxy's unit.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_acme.last_error
    """
    command = ["journalctl", "--no-pager", "--output=cat", "--reverse", "--lines=2000", f"--unit={unit}"]
    if since is not None:
        seconds = float(since) if not isinstance(since, str) else datetime.datetime.fromisoformat(since).timestamp()
        command.append(f"--since=@{int(seconds)}")
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30, check=False)
    for line in done.stdout.splitlines():
        plain = _COLOURS.sub("", line)
        if _FAILED.search(plain):
            reason = _REASON.search(plain)
            text = reason[1] if reason else plain
            # Go quotes what it logs; of several lines the first few say it.
            return " ".join(text.replace("\\n", " ").replace('\\"', '"').split())[:600]
    return None


def authority(prefix="/opt/tljh"):
    """
    Return the host of the authority that the proxy has an account with; None without one.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_acme.authority
    """
    try:
        found = json.loads((pathlib.Path(prefix) / "state" / "acme.json").read_text(encoding="utf-8"))
        place = found["letsencrypt"]["Account"]["Registration"]["uri"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return urllib.parse.urlsplit(str(place)).netloc or None


def put_aside(prefix="/opt/tljh", directory=BACKUPS):
    """
    Move the account and the certificates of one authority out of the way, so that the proxy asks another one for new
    ones; it would go on with the old ones until they expire.

    prefix
        Where the hub is installed.
    directory
        Where they are kept, for root alone.

    Returns the path of the copy, or None when there was nothing. Raises CommandExecutionError when it cannot be kept.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_acme.put_aside
    """
    store = pathlib.Path(prefix) / "state" / "acme.json"
    if not store.exists() or not store.stat().st_size:
        return None
    place = pathlib.Path(directory)
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S%fZ")
    copy = place / f"acme-{stamp}.json"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.chmod(0o700)
        shutil.copy2(store, copy)  # with its mode, 0600
        copy.chmod(0o600)
        # The same file, emptied: the proxy's unit is allowed this one.
        with open(store, "r+", encoding="utf-8") as file:
            file.truncate(0)
    except OSError as exc:
        raise CommandExecutionError(f"{store} cannot be put aside into {place}: {exc.strerror}.") from exc
    return str(copy)


def bring_back(copy, prefix="/opt/tljh"):
    """
    Undo ``put_aside``.

    copy
        What it returned; None does nothing.
    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_acme.bring_back /var/backups/plasma/acme-20261125T080000000000Z.json
    """
    if copy:
        store = pathlib.Path(prefix) / "state" / "acme.json"
        with open(store, "w", encoding="utf-8") as file:
            file.write(pathlib.Path(copy).read_text(encoding="utf-8"))
    return copy is not None
