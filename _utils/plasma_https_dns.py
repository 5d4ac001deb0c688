"""
What the proxy needs to answer an authority by a record in DNS: the environment variables of the DNS provider.

They are secrets. They reach the server with the pillar, stand in one file that root alone can read, and systemd hands
them to the proxy; they are in no argument of a state or a command, and in nothing that is shown.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_systemd

DROP_IN = pathlib.Path("/etc/systemd/system/traefik.service.d/plasma-dns.conf")
_SHORTEST = 4  # characters of a secret: shorter values, such as a number of seconds, are in many words
_LINE = re.compile(r'([A-Z][A-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def path(prefix: str = "/opt/tljh") -> pathlib.Path:
    """Return the path of the file with the variables."""
    return pathlib.Path(prefix) / "plasma" / "traefik-dns.env"


def text(environment: Mapping[str, str] | None) -> str:
    """Return the file's content for these variables, ``{name: value}``, as systemd reads it; empty for none."""
    # The four characters that systemd.exec(5) names for double quotes.
    quoted = {name: re.sub(r'(["\\`$])', r"\\\1", str(value)) for name, value in sorted((environment or {}).items())}
    return "".join(f'{name}="{value}"\n' for name, value in quoted.items())


def current(prefix: str = "/opt/tljh") -> str:
    """Return the file's content, secrets included; empty when there is none."""
    return _read(path(prefix))


def compare(content: str, prefix: str = "/opt/tljh") -> dict[str, str | None] | None:
    """Return what ``write`` would change, ``{"old", "new"}`` with names of variables and no values, or None."""
    old, new = _variables(current(prefix)), _variables(content)
    if old == new and _read(DROP_IN) == _drop_in(new, prefix):
        return None
    names = [f"{name} (another value)" if old.get(name, value) != value else name for name, value in new.items()]
    return {"old": ", ".join(old) or None, "new": ", ".join(names) or None}


def write(content: str, prefix: str = "/opt/tljh") -> None:
    """
    Put the variables where the proxy gets them at its next start, or take them away.

    content
        What ``text`` or ``current`` returns.

    Raises CommandExecutionError when it cannot be done.
    """
    drop_in = _drop_in(content, prefix)
    try:
        if content:
            plasma_files.write(path(prefix), content)
        else:
            path(prefix).unlink(missing_ok=True)
        if drop_in == _read(DROP_IN):
            return
        if drop_in:
            plasma_files.directory(DROP_IN.parent)
            plasma_files.write(DROP_IN, drop_in, 0o644)
        else:
            DROP_IN.unlink()
            if not any(DROP_IN.parent.iterdir()):
                DROP_IN.parent.rmdir()
    except OSError as exc:
        raise CommandExecutionError(f"{exc.filename or path(prefix)} cannot be written: {exc.strerror}.") from exc
    plasma_systemd.check("daemon-reload")


def hide(message: str | None, prefix: str = "/opt/tljh") -> str | None:
    """Return a message without the values of the variables: an authority or a provider may repeat what it was told."""
    if message is None:
        return None
    values: list[str] = sorted(_variables(current(prefix)).values(), key=len, reverse=True)
    for value in values:
        if len(value) >= _SHORTEST:
            message = message.replace(value, "********")
    return message


def _variables(content: str) -> dict[str, str]:
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in _LINE.findall(content)}


def _drop_in(content, prefix):
    """What systemd reads, before the unit's own restrictions; empty without variables."""
    if not content:
        return ""
    return (
        "# Managed by Plasma on Salt (plasma.https.dns).\n"
        f"[Service]\n# systemd reads it, before the unit's own restrictions.\nEnvironmentFile={path(prefix)}\n"
    )


def _read(file):
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
