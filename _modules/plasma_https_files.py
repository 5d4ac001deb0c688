"""
Keys and certificates that the operator brings: paths on the server, or files of the repository (salt://FILE).

A file of the repository gets a place of its own for each content, below the hub's prefix: the pair in use stays as it
is until the proxy has been seen to work with the new one, and afterwards, as the copy of what was there before.
"""

from __future__ import annotations

import hashlib
import os
import pathlib

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_https_files"

_NAMES = {"key": "key.pem", "cert": "cert.pem", "acme_ca": "acme-ca.pem"}


def __virtual__():
    return __virtualname__


def found(given, prefix="/opt/tljh"):
    """
    Return where the files are for the proxy, and where they come from.

    given
        ``{"key", "cert", "acme_ca"}``: paths on the server, salt://FILE, or None.
    prefix
        Where the hub is installed.

    Returns the same keys with paths on the server or None; beside them ``shown`` (what the operator wrote, by key) and
    ``sources`` (of those that have to be copied: the content's present path, by key). Raises CommandExecutionError when
    a file of the repository does not exist.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_files.found '{key: /etc/ssl/hub.key, cert: /etc/ssl/hub.pem, acme_ca: null}'
    """
    cached = {}
    for name, value in given.items():
        if value and value.startswith("salt://"):
            cached[name] = __salt__["cp.cache_file"](value)
            if not cached[name]:
                raise CommandExecutionError(
                    f"{_key(name)}: there is no {value}: put the file into the folder salt/ of the repository."
                )
            os.chmod(cached[name], 0o600)
    ours = pathlib.Path(prefix) / "plasma" / "tls"
    # A key and its certificate change together, and are in one place.
    pair = _digest(cached[name] for name in ("key", "cert") if name in cached)
    places = {"key": pair, "cert": pair, "acme_ca": _digest([cached["acme_ca"]]) if "acme_ca" in cached else ""}
    return {
        **{name: str(ours / places[name] / _NAMES[name]) if name in cached else given[name] for name in given},
        "shown": dict(given),
        "sources": cached,
    }


def problem(files, domains=()):
    """
    Return why these files cannot be used, as one sentence, or None.

    files
        What ``found`` returns.
    domains
        Names that the certificate must be good for.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_files.problem '{key: null, cert: null, acme_ca: null, shown: {}, sources: {}}'
    """
    now = {name: files["sources"].get(name) or files[name] for name in ("key", "cert", "acme_ca") if files[name]}
    for name, path in now.items():
        # What is copied will be readable.
        why = None if name in files["sources"] else __salt__["plasma_https_certificates.readable_problem"](path)
        if why:
            return f"{_key(name)} ({files['shown'][name]}): {why}"
    if "acme_ca" in now:
        try:
            text = pathlib.Path(now["acme_ca"]).read_text(encoding="utf-8", errors="replace")
            __salt__["plasma_https_certificates.describe"](text)
        except CommandExecutionError as exc:
            return f"{_key('acme_ca')} ({files['shown']['acme_ca']}): {exc}"
    if "key" not in now:
        return None
    return __salt__["plasma_https_certificates.pair_problem"](
        now["key"],
        now["cert"],
        domains,
        shown_key=f"{_key('key')} ({files['shown']['key']})",
        shown_cert=f"{_key('cert')} ({files['shown']['cert']})",
    )


def place(files):
    """
    Copy files of the repository to their places, for root alone. What is there already is left as it is.

    files
        What ``found`` returns.

    Returns the paths that were written. Raises CommandExecutionError when that fails.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_files.place '{sources: {}}'
    """
    written = []
    for name, source in files["sources"].items():
        path = pathlib.Path(files[name])
        if path.exists():
            continue
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            __salt__["plasma_files.write"](path, pathlib.Path(source).read_bytes())
        except OSError as exc:
            raise CommandExecutionError(f"{path} cannot be written: {exc.strerror}.") from exc
        written.append(str(path))
    return written


def _key(name):
    return f"plasma.https.{name if name == 'acme_ca' else f'tls.{name}'}"


def _digest(paths):
    digest = hashlib.sha256()
    for path in paths:
        digest.update(pathlib.Path(path).read_bytes())
    return digest.hexdigest()[:16]
