"""
Certificates: what is in a file, and what a server really shows. Read with openssl, which every supported system has.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import pathlib
import re
import socket
import ssl
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_run

# Traefik shows it as long as it has no other (https://doc.traefik.io/traefik/https/tls/#default-certificate).
TRAEFIK_DEFAULT = "TRAEFIK DEFAULT CERT"
# traefik.service has ProtectHome=yes with both providers: these are empty for it.
_HIDDEN = ("/home", "/root", "/run/user")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_LARGEST = 1024 * 1024


def describe(pem: str) -> dict[str, Any]:
    """
    Return what a certificate says: ``{"subject", "issuer", "domains", "not_before", "not_after", "days_left",
    "fingerprint", "public_key"}``; dates in ISO 8601 UTC, the fingerprint and the key as SHA-256.

    pem
        The certificate's text; of several in it, the first.

    Raises CommandExecutionError when it is none.
    """
    first = _PEM.search(pem)
    if not first:
        raise CommandExecutionError("there is no certificate in PEM format (-----BEGIN CERTIFICATE-----) in it")
    wanted = ["-subject", "-issuer", "-dates", "-pubkey", "-ext", "subjectAltName"]
    text = _openssl(["x509", "-noout", "-nameopt", "RFC2253", *wanted], first[0])
    fields = dict(re.findall(r"^(subject|issuer|notBefore|notAfter)=(.*)$", text, re.MULTILINE))
    begin, end = (
        datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(fields[key]), datetime.timezone.utc)
        for key in ("notBefore", "notAfter")
    )
    names = re.findall(r"(?:DNS|IP Address):([^,\s]+)", text) or re.findall(r"(?:^|,)CN=([^,]+)", fields["subject"])[:1]
    return {
        "subject": fields["subject"],
        "issuer": fields["issuer"],
        "domains": names,
        "not_before": begin.isoformat(),
        "not_after": end.isoformat(),
        "days_left": round((end - _now()).total_seconds() / 86400, 2),
        "fingerprint": hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[0])).hexdigest().upper(),
        "public_key": _key_digest(text),
    }


def describe_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what the first certificate of a file says, as ``describe`` does."""
    return describe(pathlib.Path(path).read_text(encoding="utf-8", errors="replace"))


def pair_problem(
    key: str, cert: str, domains: Iterable[str] = (), key_name: str = "", cert_name: str = ""
) -> str | None:
    """
    Return why a key and a certificate cannot serve these domains, as one sentence, or None.

    key, cert
        Paths of PEM files on this server.
    domains
        Names that the certificate must be good for.
    key_name, cert_name
        What to call the files instead of their paths.

    The key must have no passphrase and be the certificate's; the certificate must be within its dates and for every
    domain, with the certificates of its chain in order.
    """
    key_name, cert_name = key_name or key, cert_name or cert
    try:
        leaf = describe_file(cert)
    except CommandExecutionError as exc:
        return f"{cert_name}: {exc}"
    try:
        private = pathlib.Path(key).read_text(encoding="utf-8")
        public = _key_digest(_openssl(["pkey", "-pubout", "-passin", "pass:"], private))
    except (CommandExecutionError, UnicodeDecodeError):
        return f"{key_name}: it is no private key in PEM format, or it has a passphrase, which nobody could type"
    if public != leaf["public_key"]:
        return f"{key_name}: it is not the key of the certificate in {cert_name}, which is that of {leaf['subject']}"
    why = _certificate_problem(leaf, domains) or _chain_problem(cert)
    return f"{cert_name}: {why}" if why else None


def _certificate_problem(leaf, domains):
    now = _now().isoformat()
    if leaf["not_after"] <= now:
        return f"it has expired on {leaf['not_after'][:10]}: put a new one in its place"
    if leaf["not_before"] > now:
        return f"it is valid from {leaf['not_before'][:10]} on only: is the clock of this server right?"
    missing = [domain for domain in domains if not covers(leaf["domains"], domain)]
    return f"it is for {', '.join(leaf['domains'])}, and not for {', '.join(missing)}" if missing else None


def _chain_problem(cert):
    chain = [describe(part) for part in _PEM.findall(pathlib.Path(cert).read_text(encoding="utf-8", errors="replace"))]
    for lower, upper in zip(chain, chain[1:], strict=False):
        if lower["issuer"] != upper["subject"]:
            return (
                f"after the certificate of {lower['subject']} comes that of {upper['subject']}, which did not "
                f"sign it ({lower['issuer']} did): put the chain in order, the server's own certificate first"
            )
        if upper["not_after"] <= _now().isoformat():
            return f"the certificate of {upper['subject']} in its chain has expired"
    issuer = chain[-1]["issuer"]
    # Complete is a chain up to a root of its own, or to an authority that this system trusts.
    if issuer == chain[-1]["subject"] or not plasma_run.run(["openssl", "verify", "-untrusted", cert, cert]).returncode:
        return None
    return (
        f"its chain is not complete: browsers do not know {issuer}, which signed the last certificate in it; append "
        "the certificates that the authority gave you"
    )


def covers(names: Iterable[str], domain: str) -> bool:
    """
    Return whether a certificate with these names is good for a domain; ``*.example.org`` is for one label more.
    """
    wanted = domain.lower()
    above = wanted.partition(".")[2]
    return any(name.lower() == wanted or (above and name.lower() == f"*.{above}") for name in names)


def is_stand_in(certificate: Mapping[str, Any]) -> bool:
    """Return whether this, as of ``served``, is the certificate that Traefik makes for itself until it has another."""
    return TRAEFIK_DEFAULT in certificate.get("subject", "")


def readable_problem(path: str) -> str | None:
    """
    Return why Traefik cannot read a file, as the end of a sentence, or None. Its unit sees no home directories, and is
    root without the right to pass over permissions (CapabilityBoundingSet).
    """
    real = os.path.realpath(path)
    if real.startswith(tuple(f"{directory}/" for directory in _HIDDEN)):
        return f"the proxy sees no files below {', '.join(_HIDDEN)}: put it elsewhere, such as in /etc/ssl/private"
    try:
        status = os.stat(real)
    except OSError as exc:
        return f"there is no such file on the server ({exc.strerror})"
    if not stat.S_ISREG(status.st_mode):
        return "it is no file"
    if status.st_size > _LARGEST:
        return "it is larger than 1 MB"
    for part in [real, *map(str, pathlib.Path(real).parents)]:
        status = os.stat(part)
        needed = stat.S_IXOTH if stat.S_ISDIR(status.st_mode) else stat.S_IROTH
        shift = 6 if status.st_uid == 0 else 3 if status.st_gid == 0 else 0
        if not status.st_mode & needed << shift:
            return f"the proxy may not read {part}: give it to root with chown root {part}"
    return None


def served(name: str, address: str = "127.0.0.1", port: int = 443) -> dict[str, Any]:
    """
    Return the certificate that a server shows for a name, as ``describe`` does; ``{}`` when there is no TLS.

    name
        The domain to ask for (SNI).
    address, port
        Where to connect to.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the caller looks at what it is good for
    try:
        with (
            socket.create_connection((address, port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname=name) as secured,
        ):
            binary = secured.getpeercert(binary_form=True)
    except OSError:
        return {}
    return describe(ssl.DER_cert_to_PEM_cert(binary)) if binary else {}


def _openssl(arguments, text):
    done = plasma_run.run(["openssl", *arguments], stdin=text, timeout=30)
    if done.returncode:
        reason = (done.stderr.splitlines() or ["no reason given"])[0]
        raise CommandExecutionError(f"openssl cannot read it ({reason})")
    return done.stdout


def _key_digest(text):
    """SHA-256 of the public key in a text, whatever its line ends are."""
    key = text[text.index("-----BEGIN PUBLIC KEY-----") : text.index("-----END PUBLIC KEY-----")]
    return hashlib.sha256("".join(key.split()).encode()).hexdigest()


def _now():
    return datetime.datetime.now(datetime.timezone.utc)
