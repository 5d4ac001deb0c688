"""Authorities of the operator (``plasma.trust``), for servers of users and for builds.

The state ``trust`` has the system trust them. Containers have lists of their own, so they are given the system's.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

# As the state names them (plasma_trust.py).
FOLDER = Path("/usr/local/share/ca-certificates")
PATTERN = "plasma-*.crt"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# Where programs look for a list of authorities: OpenSSL and Python, requests and conda, pip, curl and R, Git, Node.
VARIABLES = (
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"),
    *("NODE_EXTRA_CA_CERTS", "JULIA_SSL_CA_ROOTS_PATH"),
)


def own() -> list[bytes]:
    """Return the operator's own certificates, in PEM."""
    return [path.read_bytes() for path in sorted(FOLDER.glob(PATTERN))]


def bundle() -> bytes | None:
    """Return all that the system trusts, the operator's own among it, in PEM; None where the operator has none."""
    with contextlib.suppress(OSError):
        if own():
            return BUNDLE.read_bytes()
    return None


def variables(path: str) -> dict[str, str]:
    """Return the variables that lead programs to a list.

    Args:
        path: where it is for them.
    """
    return dict.fromkeys(VARIABLES, path)
