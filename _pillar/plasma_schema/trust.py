"""
Certificates of authorities that servers trust beside those of the system: text in pillar, or files of the controller.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from .base import checked
from .csv_file import FileProblem, find
from .hub_rules import NotAllowed
from .report import path
from .rules import check_line

LARGEST = 256 * 1024
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s*([A-Za-z0-9+/=\s]*?)-----END \1-----")
_NAMES = (".pem", ".crt", ".cer")
_WORDS = (
    "certificates of authorities in PEM format (-----BEGIN CERTIFICATE-----), or the name of a file with them that "
    "ends with .pem, .crt or .cer: one beside the pillar files, or an absolute path on the controller"
)


def _entry(text: str) -> str:
    if "-----" in text:
        certificates(text.encode())
        return text
    check_line(text, 200)
    if not text.isascii() or not text.endswith(_NAMES) or ".." in text.split("/"):
        raise NotAllowed("is neither a certificate nor the name of such a file")
    return text


Authority = checked(_entry, _WORDS)


def certificates(content: bytes) -> list[str]:
    """
    The certificates of a file or a text, each as PEM of its own with a line break at the end.

    content
        PEM, with whatever words between the certificates, or one certificate in DER.

    Raises NotAllowed; its text repeats nothing of the content.
    """
    if len(content) > LARGEST:
        raise NotAllowed(f"is larger than {LARGEST // 1024} kB")
    if content.startswith(b"\x30"):
        return [_pem(content)]
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise NotAllowed("is no text, and no certificate either") from None
    if "PRIVATE KEY" in text:
        raise NotAllowed("has a private key in it: give the certificate alone, and keep the key where it is needed")
    found = _BLOCK.findall(text)
    if text.count("-----BEGIN") != len(found) or not found:
        raise NotAllowed("has no whole certificate in PEM format in it")
    if any(kind != "CERTIFICATE" for kind, _ in found):
        raise NotAllowed("has something else than certificates in it")
    try:
        return [_pem(base64.b64decode("".join(body.split()), validate=True)) for _, body in found]
    except ValueError:
        raise NotAllowed("has a damaged certificate in it") from None


def _pem(der: bytes) -> str:
    # It takes a tenth of a second to load, and few pillars have authorities.
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()
    except ValueError:
        raise NotAllowed("has a damaged certificate in it") from None


def load(entries: list[str], opts: Mapping[str, Any] | None) -> tuple[list[str], list[str]]:
    """
    The certificates of all entries, each once, and a line for each entry that is wrong.

    entries
        As pillar has them, checked.
    opts
        The controller's configuration.
    """
    found: dict[str, None] = {}
    lines: list[str] = []
    for index, entry in enumerate(entries):
        try:
            found.update(dict.fromkeys(certificates(entry.encode() if "-----" in entry else _read(entry, opts))))
        except (FileProblem, NotAllowed) as error:
            why = str(error).partition(" Allowed: ")[0].rstrip(".")
            lines.append(f"{path(('trust', index))}: {entry} {why}. Allowed: {_WORDS}.")
    return list(found), lines


def _read(name: str, opts: Mapping[str, Any] | None) -> bytes:
    place = find(name, opts)
    try:
        if not place.is_file():
            raise FileProblem("is no file")
        with place.open("rb") as file:
            return file.read(LARGEST + 1)
    except OSError as error:
        raise FileProblem(f"cannot be read ({error.strerror})") from None
