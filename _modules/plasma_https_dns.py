"""
What the proxy needs to answer an authority by a record in DNS: the environment variables of the DNS provider.

They are secrets. They reach the server with the pillar, stand in one file that root alone can read, and systemd hands
them to the proxy; they are in no argument of a state or a command, and in nothing that is shown.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_https_dns"

DROP_IN = pathlib.Path("/etc/systemd/system/traefik.service.d/plasma-dns.conf")
_SHORTEST = 4  # what is shorter, such as a number of seconds, is in many words, and no secret
_LINE = re.compile(r'([A-Z][A-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def __virtual__():
    return __virtualname__


def path(prefix="/opt/tljh"):
    """
    Return the path of the file with the variables.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_dns.path
    """
    return str(pathlib.Path(prefix) / "plasma" / "traefik-dns.env")


def section(dns):
    """
    Return the lines of Traefik's configuration, as TOML, to stand in the section of the authority.

    dns
        ``{"provider", "resolvers"}``, or None for the challenge on port 443.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_dns.section '{provider: cloudflare, resolvers: []}'
    """
    if not dns:
        return []
    lines = [
        # Else names without a wildcard would be proved on port 443, which may be closed.
        "tlsChallenge = false",
        "[certificatesResolvers.letsencrypt.acme.dnsChallenge]",
        f"provider = {json.dumps(dns['provider'])}",
    ]
    if dns.get("resolvers"):
        lines.append(f"resolvers = {json.dumps(dns['resolvers'])}")
    return lines


def text(environment):
    """
    Return the file's content for these variables, ``{name: value}``, as systemd reads it; empty for none.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_dns.text '{}'
    """
    # The four characters that systemd.exec(5) names for double quotes.
    quoted = {name: re.sub(r'(["\\`$])', r"\\\1", str(value)) for name, value in sorted((environment or {}).items())}
    return "".join(f'{name}="{value}"\n' for name, value in quoted.items())


def current(prefix="/opt/tljh"):
    """
    Return the file's content, secrets included; empty when there is none.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_dns.current  # not from the command line: secrets are in it
    """
    try:
        return pathlib.Path(path(prefix)).read_text(encoding="utf-8")
    except OSError:
        return ""


def compare(environment, prefix="/opt/tljh"):
    """
    Return what ``write`` would change, ``{"old", "new"}`` with names of variables and no values, or None.

    environment, prefix
        As for ``text`` and ``path``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_dns.compare '{}'
    """
    old, new = _variables(current(prefix)), _variables(text(environment))
    if old == new and bool(new) == _handed_on(prefix):
        return None
    word = {True: "", False: " (another value)"}
    names = [f"{name}{word[name not in old or old[name] == new[name]]}" for name in new]
    return {"old": ", ".join(old) or None, "new": ", ".join(names) or None}


def write(content, prefix="/opt/tljh"):
    """
    Put the variables where the proxy gets them at its next start, or take them away.

    content
        What ``text`` or ``current`` returns.

    Returns whether that changed anything. Raises CommandExecutionError when it cannot be done.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_dns.write ''
    """
    file, changed = pathlib.Path(path(prefix)), content != current(prefix)
    try:
        if content and changed:
            __salt__["plasma_files.write"](file, content)
        elif not content:
            file.unlink(missing_ok=True)
        if bool(content) != _handed_on(prefix):
            changed = True
            _hand_on(prefix, bool(content))
    except OSError as exc:
        raise CommandExecutionError(f"{exc.filename or file} cannot be written: {exc.strerror}.") from exc
    return changed


def hide(words, prefix="/opt/tljh"):
    """
    Return a text without the values of the variables: an authority or a provider may repeat what it was told.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_dns.hide 'invalid token'
    """
    if not words:
        return words
    for value in sorted(_variables(current(prefix)).values(), key=len, reverse=True):
        if len(value) >= _SHORTEST:
            words = words.replace(value, "********")
    return words


def _variables(content):
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in _LINE.findall(content)}


def _drop_in(prefix):
    return (
        "# Managed by Plasma on Salt (plasma.https.dns).\n"
        f"[Service]\n# systemd reads it, before the unit's own restrictions.\nEnvironmentFile={path(prefix)}\n"
    )


def _handed_on(prefix):
    try:
        return DROP_IN.read_text(encoding="utf-8") == _drop_in(prefix)
    except OSError:
        return False


def _hand_on(prefix, wanted):
    if wanted:
        DROP_IN.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        __salt__["plasma_files.write"](DROP_IN, _drop_in(prefix), 0o644)
    else:
        DROP_IN.unlink(missing_ok=True)
        if DROP_IN.parent.is_dir() and not os.listdir(DROP_IN.parent):
            DROP_IN.parent.rmdir()
    done = subprocess.run(["systemctl", "daemon-reload"], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise CommandExecutionError(f"systemd does not read its units again: {done.stderr.strip()}.")
