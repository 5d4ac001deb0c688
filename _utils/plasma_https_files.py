"""
Keys and certificates that the operator brings: paths on the server, or files of the repository (salt://FILE).

A file of the repository gets a directory of its own for each content, below the hub's prefix: the pair in use stays as
it is until the proxy has been seen to work with the new one, and afterwards, as the copy of what was there before.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_https_certificates

_KEYS = {"key": "plasma.https.tls.key", "cert": "plasma.https.tls.cert", "acme_ca": "plasma.https.acme_ca"}
_NAMES = {"key": "key.pem", "cert": "cert.pem", "acme_ca": "acme-ca.pem"}


@dataclass(frozen=True)
class File:
    """One file: what to call it, its path for the proxy, and where its content is now."""

    label: str
    path: str
    source: str

    @property
    def copied(self) -> bool:
        """Whether it comes from the repository."""
        return self.source != self.path


def locate(
    values: Mapping[str, str | None], cache_file: Callable[[str], str], prefix: str = "/opt/tljh"
) -> dict[str, File]:
    """
    Return the files that the operator names.

    values
        ``{"key", "cert", "acme_ca"}``: paths on the server, salt://FILE, or None.
    cache_file
        Salt's function ``cp.cache_file``.
    prefix
        Where the hub is installed.

    Raises CommandExecutionError when a file of the repository does not exist.
    """
    sources = {name: value for name, value in values.items() if value}
    copied = [name for name, value in sources.items() if value.startswith("salt://")]
    for name in copied:
        sources[name] = cache_file(sources[name])
        if not sources[name]:
            raise CommandExecutionError(
                f"{_KEYS[name]}: there is no {values[name]}: put the file into the folder salt/ of the repository."
            )
        os.chmod(sources[name], 0o600)
    files = {}
    for name, source in sources.items():
        path = source
        if name in copied:
            # A key and its certificate change together, and are in one directory.
            together = [other for other in copied if (other == "acme_ca") == (name == "acme_ca")]
            digest = hashlib.sha256(b"".join(pathlib.Path(sources[other]).read_bytes() for other in together))
            path = str(pathlib.Path(prefix, "plasma", "tls", digest.hexdigest()[:16], _NAMES[name]))
        files[name] = File(f"{_KEYS[name]} ({values[name]})", path, source)
    return files


def problem(files: Mapping[str, File], domains: Iterable[str] = ()) -> str | None:
    """
    Return why these files cannot be used, as one sentence, or None.

    files
        What ``locate`` returns.
    domains
        Names that the certificate must be good for.
    """
    for file in files.values():
        # What is copied will be readable.
        why = None if file.copied else plasma_https_certificates.readable_problem(file.path)
        if why:
            return f"{file.label}: {why}"
    if "acme_ca" in files:
        try:
            plasma_https_certificates.describe_file(files["acme_ca"].source)
        except CommandExecutionError as exc:
            return f"{files['acme_ca'].label}: {exc}"
    if "key" not in files or "cert" not in files:
        return None
    key, cert = files["key"], files["cert"]
    return plasma_https_certificates.pair_problem(key.source, cert.source, domains, key.label, cert.label)


def install(files: Mapping[str, File]) -> None:
    """
    Copy files of the repository to their paths, for root alone. What is there already is left as it is.

    Raises CommandExecutionError when that fails.
    """
    for file in files.values():
        path = pathlib.Path(file.path)
        if path.exists():
            continue
        try:
            plasma_files.directory(path.parent, 0o700)
            plasma_files.write(path, pathlib.Path(file.source).read_bytes())
        except OSError as exc:
            raise CommandExecutionError(f"{path} cannot be written: {exc.strerror}.") from exc
