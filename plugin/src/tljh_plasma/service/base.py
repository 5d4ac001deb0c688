"""What every handler of the service does before and after its own work: origin, login, XSRF, headers, errors."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import urlsplit

from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from jupyterhub.utils import url_path_join
from tljh_repo2docker import TLJH_R2D_ADMIN_SCOPE
from tornado import web
from traitlets import default

from .. import announcement, operators
from ..domains import SESSION_COOKIE
from ..hub_rules import APPLICATIONS
from .errors import HUB_SILENT, Refused, sentence_for
from .requests import Body, parse

READ_ONLY = frozenset({"GET", "HEAD", "OPTIONS"})
# A page on which a thousand environments are given to fifty groups each is smaller.
MAX_BODY = 1024 * 1024
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "frame-ancestors 'none'",
        "form-action 'self'",
        "base-uri 'none'",
        "object-src 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    # As the hub's (theme.py): the addresses of Cockpit are secrets.
    "Referrer-Policy": "origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NOT_SAME_ORIGIN = "This request did not come from a page of this hub, so nothing was done."
NO_XSRF = "The page you came from is no longer valid, so nothing was done. Please reload it and try again."
NOT_LOGGED_IN = "You are not logged in (any more). Please reload the page."
LOGIN_FAILED = "The login could not be completed. Please go to the page you wanted once more."
NO_ACCESS = "Your account may not use this service. Please ask the administrator of the hub."
NOT_ADMINISTRATOR = "Only administrators of the hub may do this."

AnyBody = TypeVar("AnyBody", bound=Body)


class HubLogin(HubOAuth):
    """Login through the hub, which is asked at every request.

    JupyterHub's own class remembers answers for five minutes: an administrator whose rights were taken away, or
    somebody whose account is gone, would go on for so long.
    """

    def user_for_token(self, token: str, use_cache: bool = True, session_id: str = "", *, sync: bool = True) -> Any:
        """Ask the hub who a token belongs to."""
        return super().user_for_token(token, use_cache=False, session_id=session_id, sync=sync)

    @default("cookie_options")
    def _default_cookie_options(self) -> dict[str, Any]:
        # Sent along when somebody follows a link to us, but with no request that another site makes.
        return {"samesite": "Lax", **super()._default_cookie_options()}

    @default("cookie_host_prefix_enabled")
    def _default_cookie_host_prefix_enabled(self) -> bool:
        # Servers have hosts of their own then, which could set cookies for this one.
        return os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL", "").startswith("https://")

    def get_session_id(self, handler: Any) -> str:
        """Return the session of the visitor at the hub, by whichever name its cookie has."""
        return handler.get_cookie(SESSION_COOKIE) or super().get_session_id(handler)


class Guarded(HubOAuthenticated, web.RequestHandler):
    """Base of every handler of the service.

    Attributes:
        public: whether the handler answers people who are not logged in.
        administrators: whether it answers administrators only.
    """

    hub_auth_class = HubLogin
    public = False
    administrators = False
    _visitor: dict[str, Any] | None = None

    @property
    def log(self) -> Any:
        """The service's log."""
        return self.settings["log"]

    def set_default_headers(self) -> None:
        """Headers of every answer, errors included."""
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.clear_header("Server")

    # Who is asking.

    def get_current_user(self) -> dict[str, Any] | None:
        """Return the hub's answer about the visitor; ``prepare`` has asked."""
        return self._visitor

    @property
    def is_administrator(self) -> bool:
        """Whether the visitor administers the hub, or was given tljh-repo2docker's scope for this service."""
        visitor = self._visitor or {}
        return bool(visitor.get("admin")) or TLJH_R2D_ADMIN_SCOPE in visitor.get("scopes", ())

    @property
    def is_operator(self) -> bool:
        """Whether the visitor is root on this machine, for pillar."""
        return operators.is_operator(self._visitor)

    async def prepare(self) -> None:
        """Let a request through to its handler, or refuse it.

        Raises:
            Refused: it comes from another site, lacks the XSRF token, or its visitor may not do this.
        """
        if self.request.method not in READ_ONLY:
            self._check_origin()
        if len(self.request.body) > MAX_BODY:
            raise Refused(413)
        if self.public:
            return
        await self.identify()
        if self._visitor is None:
            self.ask_to_log_in()
            return
        if self.request.method not in READ_ONLY:
            self._check_xsrf()
        if self.administrators and not self.is_administrator:
            raise Refused(403, NOT_ADMINISTRATOR)

    def _check_origin(self, links: bool = False) -> None:
        """Refuse what another site makes a browser send; links to follow are left out where they may come from there.

        The host is compared and not the scheme: a proxy in front of ours may end TLS without our knowing. A browser
        says where a request comes from in at least one of the two headers whenever the request changes something.
        """
        headers = self.request.headers
        mode = headers.get("Sec-Fetch-Mode")
        link = links and mode == "navigate" and headers.get("Sec-Fetch-Dest", "document") == "document"
        if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none") and not link:
            raise Refused(403, NOT_SAME_ORIGIN)
        # JupyterHub asks no token of WebSockets, which the service "plasma" does not have.
        if mode == "websocket" and not links:
            raise Refused(403, NOT_SAME_ORIGIN)
        for origin in headers.get_list("Origin"):
            if urlsplit(origin).netloc.lower() != self.request.host.lower():
                raise Refused(403, NOT_SAME_ORIGIN)

    def _check_xsrf(self) -> None:
        """Refuse a state-changing request that has a login cookie and no XSRF token to go with it."""
        if getattr(self, "_token_authenticated", False):
            # A cookie played no part: no other site can send this header.
            return
        if not {"Origin", "Sec-Fetch-Site"} & set(self.request.headers):
            raise Refused(403, NOT_SAME_ORIGIN)
        try:
            self.check_xsrf_cookie()
        except web.HTTPError as error:
            raise Refused(403, NO_XSRF) from error

    async def identify(self) -> None:
        """Ask the hub who the visitor is.

        Raises:
            Refused: the hub does not answer, or the visitor may not use this service.
        """
        try:
            visitor = await self.hub_auth.get_user(self, sync=False)
        except web.HTTPError as error:
            self.log.error("The hub did not say who a visitor is: %s", error)
            raise Refused(503, HUB_SILENT) from error
        if visitor is None:
            return
        try:
            self._visitor = self.check_hub_user(visitor)
        except UserNotAllowed as error:
            raise Refused(403, NO_ACCESS) from error

    def ask_to_log_in(self) -> None:
        """Answer somebody who is not logged in.

        Raises:
            Refused: always, here.
        """
        # JupyterHub counts people without XSRF token as not logged in: tell the two apart.
        cookie = self.get_secure_cookie(self.hub_auth.cookie_name)
        raise Refused(403, NO_XSRF if cookie and self.request.method not in READ_ONLY else NOT_LOGGED_IN)

    # Errors.

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log refusals in a line, failures with their traceback."""
        if isinstance(value, web.HTTPError):
            self.log.warning("%s %s: %s", self.request.method, self.request.path, value)
        else:
            self.log.error("%s %s failed", self.request.method, self.request.path, exc_info=(typ, value, tb))

    def error_answer(self, status: int, **options: Any) -> tuple[str, dict[str, Any]]:
        """Return the sentence and further keys with which an error is answered.

        Args:
            status: the HTTP status.
            options: those of ``write_error``.
        """
        error = (options.get("exc_info") or (None, None))[1]
        if isinstance(error, Refused):
            return error.sentence, error.details
        return sentence_for(status), {}

    def write_error(self, status: int, **options: Any) -> None:
        """Answer with an error, as JSON."""
        sentence, details = self.error_answer(status, **options)
        self.write_json({"status": status, "message": sentence, **details})

    def write_json(self, answer: dict[str, Any], status: int | None = None) -> None:
        """Finish the request with a JSON object."""
        if status is not None:
            self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(answer))


class ApiHandler(Guarded):
    """Base of the API's handlers."""

    def read_body(self, model: type[AnyBody]) -> AnyBody:
        """Return the request's body, checked.

        Args:
            model: what it has to look like.

        Raises:
            Refused: it is not JSON, or does not look like it.
        """
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(415)
        return parse(model, self.request.body)


class PageHandler(Guarded):
    """Base of the pages' handlers."""

    def ask_to_log_in(self) -> None:
        """Send browsers to the hub's login page; refuse everything else."""
        mode = self.request.headers.get("Sec-Fetch-Mode", "navigate")
        if self.request.method != "GET" or mode != "navigate":
            super().ask_to_log_in()
        # A request line may hold anything: after the login people come back to a page of ours and nowhere else.
        if not (self.request.uri or "").startswith(self.settings["service_prefix"]):
            raise Refused(404)
        self.redirect(self.get_login_url())

    def page_values(self, page: str) -> dict[str, Any]:
        """Return what the templates are rendered with."""
        base_url = self.settings["base_url"]
        administrator = self.is_administrator
        return {
            "user": SimpleNamespace(name=(self._visitor or {}).get("name", ""), admin=administrator),
            "base_url": base_url,
            "hub_prefix": self.settings["hub_prefix"],
            "service_prefix": self.settings["service_prefix"],
            "logout_url": url_path_join(base_url, "hub/logout"),
            "xsrf_token": self.xsrf_token.decode("ascii"),
            "version_hash": self.settings["version_hash"],
            "nav": {
                "environments": administrator,
                "permissions": administrator,
                "servers": True,
                # The hub's own pages ask the hub's own administrators.
                "admin": bool((self._visitor or {}).get("admin")),
                "token": True,
                "monitoring_url": self.settings["plasma"].monitoring_url if administrator else "",
                "cockpit_url": self.settings["plasma"].cockpit_url,
            },
            "page": page,
            "applications": list(APPLICATIONS),
            "plasma_announcement": announcement.visible(self.settings["plasma"].state_dir, administrator),
        }

    def render_page(self, template: str, page: str, **values: Any) -> None:
        """Finish the request with a page.

        Args:
            template: name of the template.
            page: which entry of the navigation it is.
            values: further values for the template.
        """
        self.set_header("Content-Type", "text/html; charset=UTF-8")
        self.finish(self.settings["jinja2_env"].get_template(template).render(**self.page_values(page), **values))

    def write_error(self, status: int, **options: Any) -> None:
        """Answer with an error, as a page."""
        sentence, _ = self.error_answer(status, **options)
        self.render_page("service/error.html", "error", status=status, message=sentence)


class Page(PageHandler):
    """A page of the navigation.

    Args:
        name: of the page, which is that of its template.
        administrators: whether it is for them alone.
    """

    def initialize(self, name: str, administrators: bool = True) -> None:
        """Say which page it is; Tornado calls it."""
        self.name, self.administrators = name, administrators

    def get(self) -> None:
        """Show the page."""
        self.render_page(f"service/{self.name}.html", self.name)


class NotFoundHandler(PageHandler):
    """Answers at all addresses that are nobody else's."""

    async def prepare(self) -> None:
        """Refuse, after the login."""
        await super().prepare()
        if not self._finished:
            raise Refused(404)


class RootHandler(PageHandler):
    """Sends people who asked for no page in particular to one they may see."""

    def get(self) -> None:
        """Redirect."""
        page = "environments" if self.is_administrator else "servers"
        self.redirect(url_path_join(self.settings["service_prefix"], page))


class CallbackHandler(HubOAuthCallbackHandler, PageHandler):
    """The end of a login, reached from the hub."""

    public = True

    def error_answer(self, status: int, **options: Any) -> tuple[str, dict[str, Any]]:
        """Return what to say when a login fails, which is mostly one that took too long or began twice."""
        if status < 500:
            return LOGIN_FAILED, {}
        return super().error_answer(status, **options)

    async def prepare(self) -> None:
        """Find out whether the visitor is logged in already, which is no condition here."""
        await super().prepare()
        await self.identify()


class StaticHandler(web.StaticFileHandler, Guarded):
    """Style sheets and scripts, the same for everybody."""

    public = True

    def set_extra_headers(self, path: str) -> None:
        """Let browsers keep what they got under the name of its content."""
        if not self.get_argument("v", ""):
            self.set_header("Cache-Control", "no-cache")
