"""Takes over a renewed pair of key and certificate, without a controller: ``python -m tljh_plasma.renewal``.

The proxy reads the files of ``https.tls`` when it starts, and again when a file of its dynamic configuration is put in
place anew. A timer of the server calls this; so may whoever has renewed the pair. A pair that is no good yet, as one
that is being copied, is left for the next time, and the proxy goes on with the one that it has.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import socket
import ssl
import stat
import sys
import time
from pathlib import Path
from typing import Any

from . import settings
from .replace import replace
from .settings import Settings, SettingsError, section

# Seconds that the proxy may take to show the new one.
PATIENCE = 20


class NotTaken(Exception):
    """The pair is not taken over; the text is one sentence that says why."""


def take_over(values: Settings, patience: float = PATIENCE) -> bool:
    """Have the proxy read the pair if it is another one than at the last time; returns whether it was.

    Args:
        values: the settings.
        patience: seconds until the proxy has to show it.

    Raises:
        NotTaken: it is no good, or the proxy does not show it.
    """
    https = section(values.config, "https")
    names = section(https, "tls")
    if https.get("enabled") is not True or not (names.get("cert") and names.get("key")):
        return False
    cert, key = Path(names["cert"]), Path(names["key"])
    for path in (cert, key):
        if problem := unreadable(path):
            raise NotTaken(problem)
    digest = hashlib.sha256(cert.read_bytes() + b"\0" + key.read_bytes()).hexdigest()
    note = values.state_dir / "pair.sha256"
    with contextlib.suppress(FileNotFoundError):
        if note.read_text(encoding="ascii").strip() == digest:
            return False
    fingerprint = _checked(cert, key)
    if _shown(https) != fingerprint:
        dynamic = values.state_dir / "rules" / "dynamic.toml"
        try:
            replace(dynamic, dynamic.read_text(encoding="utf-8"), like=dynamic.stat())
        except OSError as error:
            raise NotTaken(f"{dynamic} cannot be written: {error.strerror}.") from error
        end = time.monotonic() + patience
        while _shown(https) != fingerprint:
            if time.monotonic() >= end:
                raise NotTaken(f"The proxy does not show the certificate of {cert}: see journalctl -u traefik.")
            time.sleep(0.5)
    replace(note, f"{digest}\n")
    return True


def unreadable(path: Path) -> str | None:
    """Return why the proxy cannot read a file, as a sentence, or None: it is root without the right to pass over modes.

    Args:
        path: the file.
    """
    try:
        real = path.resolve(strict=True)
        for part in (real, *real.parents):
            status = part.stat()
            needed = stat.S_IXOTH if part.is_dir() else stat.S_IROTH
            shift = 6 if status.st_uid == 0 else 3 if status.st_gid == 0 else 0
            if not status.st_mode & needed << shift:
                return f"The proxy may not read {part}: give it to root with chown root {part}."
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}."
    return None


def _checked(cert: Path, key: Path) -> str:
    """The fingerprint of a certificate that is good with its key. Raises NotTaken."""
    from cryptography import x509

    try:
        # Without a question on the terminal, where the key has a passphrase.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
        leaf = x509.load_pem_x509_certificate(cert.read_bytes())
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or "they cannot be read"
        raise NotTaken(f"{cert} and {key} are no certificate and its key ({why}).") from error
    if leaf.not_valid_after_utc <= datetime.datetime.now(datetime.timezone.utc):
        raise NotTaken(f"The certificate of {cert} has expired.")
    # Whatever letters stand between the certificates.
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(_first(cert.read_bytes().decode(errors="replace")))).hexdigest()


def _first(pem: str) -> str:
    end = "-----END CERTIFICATE-----"
    return pem[pem.index("-----BEGIN CERTIFICATE-----") : pem.index(end) + len(end)]


def _shown(https: dict[str, Any]) -> str | None:
    """The fingerprint of the certificate that the proxy shows; None while it shows none."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only looked at
    address = str(https.get("address") or "0.0.0.0").strip("[]")
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    try:
        with (
            socket.create_connection((address, https.get("port") or 443), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
    except OSError:
        return None


def main() -> int:
    """Command line: no arguments; the exit code is 1 when there is a pair that is not taken over."""
    os.umask(0o077)
    try:
        if take_over(settings.load()):
            print("The proxy shows the certificate that is in the files now.")
    except (NotTaken, SettingsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
