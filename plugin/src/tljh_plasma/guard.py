"""What pages of user servers may not get from the hub and its services, with which they share an origin.

Browsers say of every request what it is for, in headers that no script can set (Sec-Fetch-...). Cookies count for
documents that a person goes to, and for requests to the API that carry the XSRF token. Pages are answers to documents
alone, so no script can read the token that is in them; they cannot be framed, fetched ahead, found in a cache, or held
by the window that opened them.

Browsers say so over HTTPS, and to this machine itself, only. Over plain HTTP nothing is known, and nothing of this
holds. Over HTTPS, cookies without these headers are those of an outdated browser, and do not count.

A ``Guard`` is a transform of Tornado's: it is made before the handler of each request, the application's own and those
that others add, and sees every answer.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from typing import Any

from jinja2.ext import Extension
from tornado.httputil import HTTPHeaders
from tornado.web import OutputTransform

# The scripts of the page that is being made.
NONCE: ContextVar[str] = ContextVar("NONCE", default="")

PREFETCHES = ("Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")
# How pages of the hub ask its API; none of them asks with HEAD.
API_MODES = ("cors", "same-origin")
API_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

HEADERS = {
    # Whoever opened a page of the hub has no hold of its window, and the page none of the one it opened.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # A fetch takes what is in the browser's cache, without asking us.
    "Cache-Control": "no-store",
}
# Beside the scripts of the page's own: what it may do. No form-action: a login may lead on to an application on
# another host that uses the hub's OAuth.
PAGE_POLICY = (
    "default-src 'self'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data:",
    "font-src 'self' data:",
    "object-src 'none'",
    "base-uri 'none'",
    "frame-src 'none'",
    "worker-src 'none'",
    "frame-ancestors 'none'",
)
# Names and IPv4 addresses. A policy cannot name an IPv6 address.
HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")
REFUSED = (
    "This is a page for people: open it in a window of its own. Browsers may not fetch it for other pages, or show "
    "it in them.\n"
)
TOSSED = (
    "Another page of this server has set a cookie of the hub's in your browser. All cookies have been deleted: please "
    "log in again, and tell the administrator whose page you had opened.\n"
)
OUTDATED = "Your browser is too old for this hub: it does not say what its requests are for. Please update it.\n"


def for_a_person(sent: HTTPHeaders) -> bool:
    """Return whether a browser says that a request is for a document that fills a window.

    Args:
        sent: headers of the request.
    """
    ahead = any(name in sent for name in PREFETCHES)
    return sent.get("Sec-Fetch-Dest") == "document" and sent.get("Sec-Fetch-Mode") == "navigate" and not ahead


def tossed(cookies: str) -> bool:
    """Return whether one of the hub's own cookies was sent twice: scripts can set it for another path.

    Args:
        cookies: the header of a request.
    """
    names = [cookie.partition("=")[0].strip() for cookie in cookies.split(";")]
    ours = [name for name in names if name.startswith(("jupyterhub-", "service-"))]
    return len(set(ours)) < len(ours)


class Nonces(Extension):
    """Marks the scripts that stand in templates, JupyterHub's own included, as the page's own.

    Done to the templates and not to the page: what people write is filled in later.
    """

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        environment.globals["plasma_nonce"] = NONCE.get

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Return a template with a nonce in each start of a script."""
        return re.sub(r"<script\b", r'\g<0> nonce="{{ plasma_nonce() }}"', source, flags=re.IGNORECASE)


class Guard(OutputTransform):
    """Guards one request and its answer; ``of_hub`` and ``of_service`` make the classes of applications."""

    # Paths that begin so.
    api: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
    # Paths of files that are the same for everybody.
    files: tuple[str, ...] = ()
    # Where the hub answers for servers that do not run; JupyterLab goes by the status.
    stopped: tuple[str, ...] = ()

    def __init__(self, request: Any) -> None:
        self.host = request.host
        self.is_static = request.path.startswith(self.static) or request.path in self.files
        self.refused = ""
        self.nonce = secrets.token_urlsafe(16)
        NONCE.set(self.nonce)
        sent = request.headers
        self.tossed = tossed(sent.get("Cookie", ""))
        if self.tossed:
            sent.pop("Cookie")
        self.outdated = not any(name in sent for name in ("Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site"))
        if self.outdated:
            # Programs and plain HTTP; the hub's own processes ask without cookies.
            self.is_document = request.protocol != "https" or "Cookie" not in sent
        else:
            self.is_document = for_a_person(sent)
        if sent.get("Upgrade", "").lower() == "websocket":
            # Browsers open these with cookies, and say nothing of what they are for. The hub has none.
            self.is_document = False
        if not self.is_document and not self._counts(request):
            sent.pop("Cookie", None)
            # Else JupyterHub would give whoever it does not know a new XSRF cookie in the place of the visitor's.
            if sent.get("Sec-Fetch-Mode") != "websocket":
                sent["Sec-Fetch-Mode"] = "cors"

    def _counts(self, request: Any) -> bool:
        """Whether the cookies of a request that is for no document count. Its token is still to be checked."""
        sent = request.headers
        if request.path.startswith(self.stopped):
            return request.method == "GET"
        return (
            request.path.startswith(self.api)
            and sent.get("Sec-Fetch-Dest") == "empty"
            and sent.get("Sec-Fetch-Mode") in API_MODES
            and sent.get("Sec-Fetch-Site") == "same-origin"
            and request.method in API_METHODS
            # With a token of the API in it, the cookie has no say.
            and "Authorization" not in sent
            and ("X-XSRFToken" in sent or "_xsrf" in request.query_arguments)
        )

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Set the headers of an answer; put a sentence in the place of a page that is for no document."""
        if self.is_static and status_code < 400:
            headers["X-Content-Type-Options"] = "nosniff"
            return status_code, headers, chunk
        for name, value in HEADERS.items():
            headers[name] = value
        is_page = headers.get("Content-Type", "").lower().startswith("text/html")
        if self.tossed:
            headers["Clear-Site-Data"] = '"cookies"'
            headers.pop("Location", None)
            self.refused = TOSSED
        elif is_page and not self.is_document and not 300 <= status_code < 400:
            self.refused = OUTDATED if self.outdated else REFUSED
        if not self.refused:
            if is_page and self.is_document:
                headers.add("Content-Security-Policy", self.page_policy())
            return status_code, headers, chunk
        text = self.refused.encode()
        for name in ("Etag", "Content-Encoding"):
            headers.pop(name, None)
        headers["Content-Type"] = "text/plain; charset=UTF-8"
        headers["Content-Length"] = str(len(text))
        # JupyterLab knows a server that has stopped by the status.
        return (status_code if status_code >= 400 else 403), headers, text

    def transform_chunk(self, chunk: bytes, finishing: bool) -> bytes:
        """Let the rest of an answer through, unless it was refused."""
        return b"" if self.refused else chunk

    def page_policy(self) -> str:
        """Return what a page may load and do, as a Content-Security-Policy."""
        allowed = [f"'nonce-{self.nonce}'"]
        if HOST.fullmatch(self.host):
            # Not all of this origin: scripts of user servers are on it.
            allowed += [f"{self.host}{path}" for path in self.scripts]
        else:
            allowed.append("'self'")
        return "; ".join((*PAGE_POLICY, f"script-src {' '.join(allowed)}"))


def of_hub(base_url: str) -> type[Guard]:
    """Return the guard of the hub's own pages.

    Args:
        base_url: path of the whole site, "/" mostly.
    """
    base = f"{base_url.rstrip('/')}/"

    class HubGuard(Guard):
        api = (f"{base}hub/api/",)
        static = (f"{base}hub/static/",)
        files = (f"{base}hub/logo",)
        scripts = (f"{base}hub/static/",)
        stopped = (f"{base}user/", f"{base}hub/user/")

    return HubGuard


def of_service(base_url: str, prefix: str) -> type[Guard]:
    """Return the guard of the pages of the service.

    Args:
        base_url: path of the whole site.
        prefix: path of the service.
    """

    class ServiceGuard(Guard):
        api = (f"{prefix}api/",)
        static = (f"{prefix}static/",)
        scripts = (f"{base_url.rstrip('/')}/hub/static/", f"{prefix}static/")

    return ServiceGuard
