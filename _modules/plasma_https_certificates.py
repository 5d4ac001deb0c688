"""
Certificates: what is in a file, and what a server really shows. Read with openssl, which every supported system has.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import pathlib
import re
import socket
import ssl
import stat
import subprocess

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_https_certificates"

# Traefik shows it as long as it has no other (https://doc.traefik.io/traefik/https/tls/#default-certificate).
TRAEFIK_DEFAULT = "TRAEFIK DEFAULT CERT"
# traefik.service has ProtectHome=yes with both providers: these are empty for it.
_HIDDEN = ("/home", "/root", "/run/user")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_ANSWER = 30  # seconds for one call of openssl
_LARGEST = 1024 * 1024


def __virtual__():
    return __virtualname__


def describe(pem):
    """
    Return what a certificate says: ``{"subject", "issuer", "domains", "not_before", "not_after", "days_left",
    "fingerprint", "public_key"}``; dates in ISO 8601 UTC, the fingerprint and the key as SHA-256.

    pem
        The certificate's text; of several in it, the first.

    Raises CommandExecutionError when it is none.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_certificates.describe "$(cat hub.pem)"
    """
    first = _PEM.search(pem)
    if not first:
        raise CommandExecutionError("there is no certificate in PEM format (-----BEGIN CERTIFICATE-----) in it")
    fields = ["-subject", "-issuer", "-dates", "-fingerprint", "-sha256", "-ext", "subjectAltName"]
    out = _openssl(["x509", "-noout", "-nameopt", "RFC2253", *fields], first[0])
    found = dict(line.split("=", 1) for line in out.splitlines() if re.match(r"^[A-Za-z0-9 ]+=", line))
    after = _date(found["notAfter"])
    names = re.findall(r"(?:DNS|IP Address):([^,\s]+)", out)
    common = re.search(r"(?:^|,)CN=([^,]+)", found["subject"])
    return {
        "subject": found["subject"],
        "issuer": found["issuer"],
        "domains": names or ([common[1]] if common else []),
        "not_before": _date(found["notBefore"]).isoformat(),
        "not_after": after.isoformat(),
        "days_left": round((after - _now()).total_seconds() / 86400, 2),
        "fingerprint": next(value for key, value in found.items() if key.lower().startswith("sha256")).replace(":", ""),
        "public_key": _digest(_openssl(["x509", "-noout", "-pubkey"], first[0])),
    }


def pair_problem(key, cert, domains=(), shown_key="", shown_cert=""):
    """
    Return why a key and a certificate cannot serve these domains, as one sentence, or None.

    key, cert
        Paths of PEM files on this server.
    domains
        Names that the certificate must be good for.
    shown_key, shown_cert
        What to call the files instead of their paths.

    Looked at are: a key without a passphrase, a certificate of that key, within its dates,
    for every domain, with the certificates of its chain in order.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_certificates.pair_problem /etc/ssl/private/hub.key /etc/ssl/certs/hub.pem
    """
    key_name, cert_name = shown_key or key, shown_cert or cert
    text = pathlib.Path(cert).read_text(encoding="utf-8", errors="replace")
    try:
        leaf = describe(text)
    except CommandExecutionError as exc:
        return f"{cert_name}: {exc}"
    try:
        public = _digest(
            _openssl(["pkey", "-pubout", "-passin", "pass:"], pathlib.Path(key).read_text(encoding="utf-8"))
        )
    except (CommandExecutionError, UnicodeDecodeError):
        return f"{key_name}: it is no private key in PEM format, or it has a passphrase, which nobody could type"
    if public != leaf["public_key"]:
        return f"{key_name}: it is not the key of the certificate in {cert_name}, which is that of {leaf['subject']}"
    return _content_problem(text, leaf, domains, cert_name)


def _content_problem(text, leaf, domains, name):
    now = _now().isoformat()
    if leaf["not_after"] <= now:
        return f"{name}: it has expired on {leaf['not_after'][:10]}: put a new one in its place"
    if leaf["not_before"] > now:
        return f"{name}: it is valid from {leaf['not_before'][:10]} on only: is the clock of this server right?"
    missing = [domain for domain in domains if not covers(leaf["domains"], domain)]
    if missing:
        return f"{name}: it is for {', '.join(leaf['domains'])}, and not for {', '.join(missing)}"
    chain = [describe(part) for part in _PEM.findall(text)]
    for lower, upper in zip(chain, chain[1:], strict=False):
        if lower["issuer"] != upper["subject"]:
            return (
                f"{name}: after the certificate of {lower['subject']} comes that of {upper['subject']}, which did not "
                f"sign it ({lower['issuer']} did): put the chain in order, the server's own certificate first"
            )
        if upper["not_after"] <= now:
            return f"{name}: the certificate of {upper['subject']} in its chain has expired"
    top = chain[-1]
    if top["issuer"] != top["subject"] and not _known_issuer(text):
        return (
            f"{name}: its chain is not complete: browsers do not know {top['issuer']}, which signed the last "
            "certificate in it; append the certificates that the authority gave you"
        )
    return None


def _known_issuer(text):
    """Whether this system can follow the chain to an authority that it trusts, or that stands in the file itself."""
    parts = _PEM.findall(text)
    with _memory_file("\n".join(parts)) as path:
        command = ["openssl", "verify", "-untrusted", path]
        done = subprocess.run(command, input=parts[0].encode(), capture_output=True, timeout=_ANSWER, check=False)
    return done.returncode == 0


@contextlib.contextmanager
def _memory_file(text):
    """A file that only this process and its children see."""
    descriptor = os.memfd_create("plasma-chain", 0)
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def covers(names, domain):
    """
    Return whether a certificate with these names is good for a domain; ``*.example.org`` is for one label more.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_certificates.covers '["*.example.org"]' hub.example.org
    """
    wanted = str(domain).lower()
    above = wanted.partition(".")[2]
    return any(name.lower() == wanted or (above and name.lower() == f"*.{above}") for name in names)


def is_stand_in(certificate):
    """
    Return whether this certificate, as of ``served``, is the one that Traefik makes for itself until it has another.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_certificates.is_stand_in '{subject: CN=TRAEFIK DEFAULT CERT}'
    """
    return TRAEFIK_DEFAULT in certificate.get("subject", "")


def readable_problem(path):
    """
    Return why Traefik cannot read a file, as the end of a sentence, or None. Its unit sees no home directories, and is
    root without the right to pass over permissions (CapabilityBoundingSet).

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_certificates.readable_problem /etc/ssl/private/hub.key
    """
    real = os.path.realpath(path)
    if any(f"{real}/".startswith(f"{place}/") for place in _HIDDEN):
        return f"the proxy sees no files below {', '.join(_HIDDEN)}: put it elsewhere, such as in /etc/ssl/private"
    try:
        status = os.stat(real)
    except OSError as exc:
        return f"there is no such file on the server ({exc.strerror})"
    if not stat.S_ISREG(status.st_mode):
        return "it is no file"
    if status.st_size > _LARGEST:
        return "it is larger than 1 MB"
    for place in [real, *map(str, pathlib.Path(real).parents)]:
        held = os.stat(place)
        bits = stat.S_IXOTH if stat.S_ISDIR(held.st_mode) else stat.S_IROTH
        wanted = bits << 6 if held.st_uid == 0 else bits << 3 if held.st_gid == 0 else bits
        if not held.st_mode & wanted:
            return f"the proxy may not read {place}: give it to root with chown root {place}"
    return None


def served(name, address="127.0.0.1", port=443, timeout=5):
    """
    Return the certificate that a server shows for a name, as ``describe`` does; ``{}`` when there is no TLS.

    name
        The domain to ask for (SNI).
    address, port
        Where to connect to.
    timeout
        Seconds.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_https_certificates.served hub.example.org
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # what it is good for is looked at by the caller
    try:
        with (
            socket.create_connection((address, port), timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=name) as secured,
        ):
            binary = secured.getpeercert(binary_form=True)
    except OSError:
        return {}
    return describe(ssl.DER_cert_to_PEM_cert(binary))


def _openssl(arguments, text):
    try:
        done = subprocess.run(
            ["openssl", *arguments],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ANSWER,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError as exc:
        raise CommandExecutionError("openssl is not installed on the server: apt-get install openssl") from exc
    except subprocess.TimeoutExpired as exc:
        raise CommandExecutionError("openssl gave no answer") from exc
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise CommandExecutionError(f"openssl cannot read it ({said})")
    return done.stdout


def _digest(text):
    return hashlib.sha256("".join(text.split()).encode()).hexdigest()


def _date(text):
    # "Nov  5 10:00:00 2026 GMT"
    return datetime.datetime.strptime(text.replace(" GMT", ""), "%b %d %H:%M:%S %Y").replace(
        tzinfo=datetime.timezone.utc
    )


def _now():
    return datetime.datetime.now(datetime.timezone.utc)
