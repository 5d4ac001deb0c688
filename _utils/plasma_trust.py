"""
Authorities of pillar among those that the system trusts: programs of the server read its list, the hub is told to, and
the plugin gives it to builds and to servers of users.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import ssl
from collections.abc import Sequence
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_engine
import plasma_files
import plasma_https_certificates
import plasma_run
import plasma_systemd

# The plugin looks for these names (trust.py).
FOLDER = pathlib.Path("/usr/local/share/ca-certificates")
PREFIX = "plasma-"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
DROP_IN = pathlib.Path("/etc/systemd/system/jupyterhub.service.d/plasma-trust.conf")
# Packages from PyPI bring a list of their own, unless they are told of another.
_DROP_IN_TEXT = f"""# Managed by Plasma on Salt (plasma.trust).
[Service]
Environment=SSL_CERT_FILE={BUNDLE} REQUESTS_CA_BUNDLE={BUNDLE} CURL_CA_BUNDLE={BUNDLE}
"""


def compare(certificates: Sequence[str]) -> dict[str, dict[str, Any]]:
    """
    Return what ``apply`` would change, ``{subject or file: {"old", "new"}}``.

    certificates
        In PEM, one each.

    Raises CommandExecutionError when one of them cannot be read.
    """
    wanted = _files(certificates)
    there = {path.name: path for path in FOLDER.glob(f"{PREFIX}*.crt")}
    changes: dict[str, dict[str, Any]] = {}
    for name, pem in wanted.items():
        if name not in there or there[name].read_text(encoding="utf-8", errors="replace") != pem:
            changes[plasma_https_certificates.describe(pem)["subject"]] = {"old": None, "new": "trusted"}
    for name in sorted(there.keys() - wanted.keys()):
        changes[name] = {"old": "trusted", "new": None}
    if not changes and pending(list(wanted.values())):
        changes[BUNDLE] = {"old": "without some of them", "new": "with all"}  # an apply was interrupted
    if _drop_in() != (_DROP_IN_TEXT if wanted else None):
        changes["hub"] = {"old": None, "new": BUNDLE} if wanted else {"old": BUNDLE, "new": None}
    return changes


def apply(certificates: Sequence[str]) -> dict[str, dict[str, Any]]:
    """
    Trust these authorities and, of those that an earlier apply brought, no others. What runs takes it over when it
    starts again: Docker does so here, if servers go on meanwhile.

    certificates
        As for ``compare``.

    Returns what ``compare`` did. Raises CommandExecutionError when it cannot be done.
    """
    changes = compare(certificates)
    if not changes:
        return {}
    wanted = _files(certificates)
    try:
        plasma_files.directory(FOLDER)
        for path in FOLDER.glob(f"{PREFIX}*.crt"):
            if path.name not in wanted:
                path.unlink()
        for name, pem in wanted.items():
            plasma_files.write(FOLDER / name, pem, 0o644)
        plasma_run.run(["update-ca-certificates"]).check()
        if wanted:
            plasma_files.directory(DROP_IN.parent)
            plasma_files.write(DROP_IN, _DROP_IN_TEXT, 0o644)
        else:
            DROP_IN.unlink(missing_ok=True)
    except OSError as exc:
        raise CommandExecutionError(f"{exc.filename} cannot be written: {exc.strerror}.") from exc
    plasma_systemd.check("daemon-reload")
    # It reads them once, and asks registries and mirrors.
    if changes.keys() - {"hub"} and plasma_engine.info(timeout=5).get("live_restore"):
        plasma_systemd.check("restart", "docker.service")
    return changes


def pending(certificates: Sequence[str]) -> list[str]:
    """
    Return those of these authorities that are not in the system's list yet.

    certificates
        As for ``compare``.
    """
    bundle = _bundle()
    return [pem for pem in certificates if "".join(pem.split()) not in bundle]


def context(bundle: str | None = None, also: Sequence[str] = ()) -> ssl.SSLContext:
    """
    Return how a server is spoken to that shows a certificate of a trusted authority. Where the list of them is not
    there, nobody can judge, and every certificate is good.

    bundle
        File with the authorities, in PEM, in place of the system's.
    also
        Those that the same run is going to bring into the system's list, as for ``compare``.

    Raises OSError where there is no certificate in PEM in the file.
    """
    found = ssl.create_default_context(cafile=bundle if bundle and os.path.exists(bundle) else None)
    if not os.path.exists(bundle or BUNDLE):
        found.check_hostname = False
        found.verify_mode = ssl.CERT_NONE
    if also and bundle in (None, BUNDLE):
        found.load_verify_locations(cadata="\n".join(also))
    return found


def warnings(certificates: Sequence[str]) -> list[str]:
    """
    Return a sentence for each authority that is out of date, or soon will be.

    certificates
        As for ``compare``.
    """
    found = []
    for pem in certificates:
        about = plasma_https_certificates.describe(pem)
        if about["days_left"] < 30:
            verb = "has expired" if about["days_left"] <= 0 else "expires"
            found.append(f"plasma.trust: the certificate of {about['subject']} {verb} on {about['not_after'][:10]}")
    return found


def _files(certificates):
    """{name: text} in the folder; the name tells the content, which a dry run of the other direction needs."""
    digests = {hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.strip())).hexdigest()[:16]: pem for pem in certificates}
    return {f"{PREFIX}{digest}.crt": pem for digest, pem in digests.items()}


def _bundle():
    """The system's list without white space."""
    try:
        return "".join(pathlib.Path(BUNDLE).read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return ""


def _drop_in():
    try:
        return DROP_IN.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
