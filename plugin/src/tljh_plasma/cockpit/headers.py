"""Which headers pass between browsers and Cockpit, and in which form.

The hub and the user servers share one origin, so browsers send the cookies of all of them wherever their paths allow:
Cockpit gets none but its own, and its own go nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# What Cockpit reads, by cockpit-ws's sources, and what browsers use to save work. Everything else stays here: cookies
# and tokens of the hub first of all.
ASKED = (
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Cache-Control",
    "If-Modified-Since",
    "If-None-Match",
    "Pragma",
    "Range",
    "User-Agent",
    "X-Superuser",
)
# How people log in at Cockpit. A "token" or "Bearer" is for the hub.
LOGINS = ("basic", "x-conversation")
COOKIE = re.compile(r"cockpit|CockpitLang|machine-cockpit\+[A-Za-z0-9.:@_-]+")

# Of a connection and not of an answer (RFC 9110, 7.6.1), made anew by us, or nobody's business.
NOT_ANSWERED = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"),
    *("upgrade", "server", "date", "content-length", "set-cookie", "www-authenticate"),
    *("content-security-policy", "x-frame-options", "referrer-policy", "x-content-type-options"),
    "cross-origin-opener-policy",
}


def is_secure(headers: Mapping[str, str]) -> bool:
    """Whether the browser speaks TLS with the proxy. Traefik says "wss" of a WebSocket."""
    return headers.get("X-Forwarded-Proto", "").lower() in ("https", "wss")


def cookies_for_cockpit(header: str) -> str:
    """Return those cookies of a request's header that are Cockpit's own, as a header."""
    pairs = [pair.strip() for pair in header.split(";")]
    return "; ".join(pair for pair in pairs if COOKIE.fullmatch(pair.partition("=")[0].strip()))


def for_cockpit(headers: Mapping[str, str], host: str, address: str) -> dict[str, str]:
    """Return the headers with which Cockpit is asked.

    Args:
        headers: those of the browser's request.
        host: host and port that the browser asked for.
        address: the browser's IP address.
    """
    passed = {name: headers[name] for name in ASKED if name in headers}
    cookies = cookies_for_cockpit(headers.get("Cookie", ""))
    if cookies:
        passed["Cookie"] = cookies
    login = headers.get("Authorization", "")
    if login.partition(" ")[0].lower() in LOGINS:
        passed["Authorization"] = login
    return {**passed, "Host": host, "X-Forwarded-Proto": "https", "X-Forwarded-For": address}


def set_cookie(header: str, prefix: str) -> str | None:
    """Return a cookie that Cockpit sets as browsers get it, or None when it is none of Cockpit's.

    Cockpit sets it for "/": browsers would show it to every user's server.

    Args:
        header: the value of ``Set-Cookie``.
        prefix: path of the service.
    """
    pair, *attributes = [part.strip() for part in header.split(";")]
    if not COOKIE.fullmatch(pair.partition("=")[0].strip()):
        return None
    kept = [part for part in attributes if part.partition("=")[0].strip().lower() in ("expires", "max-age")]
    return "; ".join([pair, *kept, f"Path={prefix}", "SameSite=Strict", "Secure", "HttpOnly"])


def answered(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the headers of an answer of Cockpit's that browsers get as they are."""
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in NOT_ANSWERED and not name.lower().startswith("access-control-")
    ]
