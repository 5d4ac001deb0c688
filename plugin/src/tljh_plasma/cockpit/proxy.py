"""Requests and WebSockets of administrators, handed on to Cockpit."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import re
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from jupyterhub.services.auth import UserNotAllowed
from tornado import web
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler
from yarl import URL

from .. import guard
from ..service.base import HEADERS, NOT_LOGGED_IN, NOT_SAME_ORIGIN, CallbackHandler, PageHandler
from ..service.errors import Refused
from . import headers

# Seconds between two looks at whether the person at a WebSocket is still an administrator, and how often in a row the
# hub may fail to say so.
RECHECK = 10
SILENT = 6
# Cockpit sends its messages in pieces of 64 to 128 KiB.
MAX_MESSAGE = 16 * 1024 * 1024
CHUNK = 64 * 1024
NO_HTTPS = "Cockpit asks for passwords of this server, so it is open through https:// only."
NOT_ADMINISTRATOR = "Cockpit is for administrators of the hub only."
SILENT_COCKPIT = (
    "Cockpit does not answer. Somebody with a shell on the server sees why with: "
    "systemctl status cockpit.socket cockpit.service"
)
# Cockpit shows its own pages in frames of its own.
ANSWER_HEADERS = {
    **{name: value for name, value in HEADERS.items() if name not in ("Cache-Control", "Content-Security-Policy")},
    "X-Frame-Options": "SAMEORIGIN",
}
# What Cockpit's own policy leaves open, beside it: browsers follow both.
POLICY = "frame-ancestors 'self'; base-uri 'self'; form-action 'self'; object-src 'none'"
# Where a visitor's own paths begin, behind the service's.
OWN = re.compile(r"~[0-9a-f]+/")


class Administrators(PageHandler):
    """What holds for every request to this service."""

    administrators = True

    @property
    def is_administrator(self) -> bool:
        """Whether the visitor administers the hub. To manage environments is not enough."""
        return bool((self._visitor or {}).get("admin"))

    def check_xsrf_cookie(self) -> None:
        """Accept requests of this origin, which is all that Cockpit's pages can show: they know no token of the hub.

        JupyterHub asks this of scripts that read. Nothing else than reading and WebSockets is let through.
        """
        self._check_origin(links=True)

    async def prepare(self) -> None:
        """Refuse what did not come through TLS, then who is no administrator."""
        if not headers.is_secure(self.request.headers):
            raise Refused(403, NO_HTTPS)
        self._check_origin(links=True)
        try:
            await super().prepare()
        except Refused as error:
            if self._visitor is not None and not self.is_administrator:
                raise Refused(403, NOT_ADMINISTRATOR) from error
            raise

    def page_values(self, page: str) -> dict[str, Any]:
        """Return what the error page is rendered with, which is a page of the service "plasma"."""
        values = super().page_values(page)
        return {**values, "service_prefix": self.settings["plasma_prefix"]}


class CockpitCallback(Administrators, CallbackHandler):
    """The end of a login at the hub."""

    public = True


class CockpitHandler(Administrators, WebSocketHandler):
    """Hands requests on. Cockpit's pages read, and do everything else through their WebSocket."""

    SUPPORTED_METHODS = ("GET", "HEAD")
    _cockpit: aiohttp.ClientWebSocketResponse | None = None
    _tasks: tuple[asyncio.Task, ...] = ()

    @property
    def _client(self) -> aiohttp.ClientSession:
        return self.settings["cockpit"]

    @property
    def _address(self) -> URL:
        # As it was written. The name in it is nobody's: the connection is to a Unix socket.
        path = (self.request.uri or "").removeprefix(self._root).removeprefix(self.settings["service_prefix"])
        return URL(f"http://cockpit{self.settings['service_prefix']}{path}", encoded=True)

    def _sent(self) -> dict[str, str]:
        sent = headers.for_cockpit(self.request.headers, self.request.host, self.request.remote_ip or "")
        if self.request.headers.get("Sec-Fetch-Mode") == "navigate":
            # Pages are changed on their way.
            sent.pop("Accept-Encoding", None)
        return sent

    def set_default_headers(self) -> None:
        """Headers of answers of our own."""
        super().set_default_headers()
        # An error may be shown in one of Cockpit's frames.
        self.set_header("X-Frame-Options", "SAMEORIGIN")
        policy = HEADERS["Content-Security-Policy"]
        self.set_header("Content-Security-Policy", policy.replace("frame-ancestors 'none'", "frame-ancestors 'self'"))

    def compute_etag(self) -> None:
        """Answers are Cockpit's, tags and all."""

    async def prepare(self) -> None:
        """Nothing outside the service's path is asked for, however it is written.

        Pages of user servers are on this origin: browsers send them what they ask for, and let them into Cockpit's
        frames. So all of Cockpit is at a path that the visitor alone knows. It is told to documents that a person goes
        to, which no other page can look into.
        """
        prefix, uri = self.settings["service_prefix"], self.request.uri or ""
        if not uri.startswith(prefix):
            raise Refused(404)
        await super().prepare()
        if self._finished or getattr(self, "_token_authenticated", False):
            return
        path = uri.removeprefix(prefix)
        if path.startswith(self._own):
            return
        if not guard.for_a_person(self.request.headers) or self.request.method != "GET" or self._is_websocket:
            raise Refused(403, NOT_SAME_ORIGIN)
        self.redirect(f"{prefix}{self._own}{OWN.sub('', path, count=1)}")

    @property
    def _own(self) -> str:
        """The first part of the visitor's own paths; another one after each login at the hub."""
        secret = self.settings["cookie_secret"].encode()
        return f"~{hmac.new(secret, self.hub_auth.get_token(self).encode(), hashlib.sha256).hexdigest()[:40]}/"

    @property
    def _root(self) -> str:
        """Where the visitor's browser finds Cockpit."""
        prefix = self.settings["service_prefix"]
        return prefix if getattr(self, "_token_authenticated", False) else f"{prefix}{self._own}"

    @property
    def _is_websocket(self) -> bool:
        return self.request.headers.get("Upgrade", "").lower() == "websocket"

    def ask_to_log_in(self) -> None:
        """Send pages to the hub's login, and nothing else."""
        if self._is_websocket:
            raise Refused(403, NOT_LOGGED_IN)
        super().ask_to_log_in()

    async def get(self, *args: Any) -> None:
        """Hand a request on, or connect two WebSockets."""
        if self._is_websocket:
            await self._open()
        else:
            await self._hand_on()

    async def head(self, *args: Any) -> None:
        """Hand a request on."""
        await self._hand_on()

    # Requests.

    async def _hand_on(self) -> None:
        try:
            async with self._client.request(
                self.request.method or "GET", self._address, headers=self._sent(), allow_redirects=False
            ) as answer:
                self._begin(answer)
                if self._is_page(answer):
                    page = self._relocated(await answer.read())
                    self.set_header("Content-Length", str(len(page)))
                    self.write(page)
                elif self.request.method == "GET":
                    async for piece in answer.content.iter_chunked(CHUNK):
                        self.write(piece)
                        # Until the browser has taken it, no more is read.
                        await self.flush()
        except StreamClosedError:
            return
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            if self._headers_written:
                # The length that was announced does not come: browsers must not take it for the whole.
                self.log.warning("Cockpit broke off its answer to %s: %s", self.request.path, error)
                self.request.connection.stream.close()  # ty: ignore[missing-attribute] # one of HTTP/1
                return
            raise self._silent(error) from error

    def _begin(self, answer: aiohttp.ClientResponse) -> None:
        """Give our answer the head of Cockpit's."""
        self.clear()
        for name in list(self._headers):
            self.clear_header(name)
        self.set_status(answer.status, answer.reason)
        for name, value in headers.answered(answer.headers.items()):
            self.add_header(name, value)
        if "Cache-Control" not in answer.headers:
            self.set_header("Cache-Control", "no-store")
        for name in answer.headers.getall("WWW-Authenticate", []):
            # What a browser would open its own window for stays away; Cockpit's page has a form.
            if name.partition(" ")[0].lower() in headers.LOGINS[1:]:
                self.add_header("WWW-Authenticate", name)
        for cookie in answer.headers.getall("Set-Cookie", []):
            kept = headers.set_cookie(cookie, self._root)
            if kept:
                self.add_header("Set-Cookie", kept)
        for name, value in ANSWER_HEADERS.items():
            self.set_header(name, value)
        for policy in [*answer.headers.getall("Content-Security-Policy", []), POLICY, self._own_policy()]:
            self.add_header("Content-Security-Policy", policy)
        if "Location" in answer.headers:
            self.set_header("Location", self._relocated(answer.headers["Location"].encode()).decode())
        if "Content-Length" in answer.headers:
            self.set_header("Content-Length", answer.headers["Content-Length"])

    def _is_page(self, answer: aiohttp.ClientResponse) -> bool:
        """Whether an answer is a whole page; one that is not compressed, as we asked for none that is."""
        return (
            self.request.method == "GET"
            and answer.content_type == "text/html"
            and "Content-Encoding" not in answer.headers
            and answer.status != 304
        )

    def _relocated(self, text: bytes) -> bytes:
        """Return a page or an address with the visitor's own path wherever it names the service's."""
        shared, own = (path.strip("/").encode() for path in (self.settings["service_prefix"], self._root))
        return re.sub(re.escape(shared) + rb"(?=[/\"'])|" + re.escape(shared) + rb"$", lambda _: own, text)

    def _own_policy(self) -> str:
        """Let pages connect to Cockpit and show its pages, and nothing else of the origin.

        They keep in the origin's storage where they find each other, and pages of user servers can write to that.
        """
        host, prefix = self.request.host, self.settings["service_prefix"]
        if not guard.HOST.fullmatch(host):
            return "frame-ancestors 'self'"
        here = f"https://{host}{prefix}"
        return f"connect-src {here} wss://{host}{prefix}; frame-src {here}"

    def _silent(self, error: BaseException) -> Refused:
        self.log.error("Cockpit does not answer: %s", error or type(error).__name__)
        return Refused(503, SILENT_COCKPIT)

    # WebSockets.

    def check_origin(self, origin: str) -> bool:
        """Whether a WebSocket comes from a page of this host. Tornado asks when there is an origin at all."""
        return urlsplit(origin).netloc.lower() == self.request.host.lower()

    async def _open(self) -> None:
        if not self.request.headers.get("Origin"):
            # Browsers always say where a WebSocket comes from.
            raise Refused(403, NOT_SAME_ORIGIN)
        wanted = self.request.headers.get("Sec-WebSocket-Protocol", "")
        try:
            self._cockpit = await self._client.ws_connect(
                self._address,
                headers=self._sent(),
                origin=self.request.headers["Origin"],
                protocols=[name.strip() for name in wanted.split(",") if name.strip()],
                max_msg_size=MAX_MESSAGE,
                autoclose=True,
                timeout=aiohttp.ClientWSTimeout(ws_close=5),  # ty: ignore[unknown-argument] # made by attrs
            )
        except aiohttp.WSServerHandshakeError as error:
            raise Refused(error.status if 400 <= error.status < 500 else 503, SILENT_COCKPIT) from error
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise self._silent(error) from error
        try:
            # Until one of the two ends it.
            await super().get()
        finally:
            await self._cockpit.close()

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """What Cockpit chose."""
        return self._cockpit.protocol if self._cockpit else None

    def open(self, *args: Any) -> None:
        """Both ends are there."""
        self._tasks = (asyncio.ensure_future(self._to_browser()), asyncio.ensure_future(self._recheck()))

    async def _to_browser(self) -> None:
        """Pass on what Cockpit says until it ends."""
        assert self._cockpit
        async for message in self._cockpit:
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                break
            with contextlib.suppress(WebSocketClosedError, StreamClosedError):
                await self.write_message(message.data, binary=message.type is aiohttp.WSMsgType.BINARY)
        self.close(self._cockpit.close_code if self._cockpit.close_code in range(1000, 1004) else 1001)

    async def on_message(self, message: str | bytes) -> None:
        """Pass on what the browser says; it is not read on until Cockpit has taken it."""
        assert self._cockpit
        with contextlib.suppress(aiohttp.ClientError, ConnectionError):
            if isinstance(message, bytes):
                await self._cockpit.send_bytes(message)
            else:
                await self._cockpit.send_str(message)

    async def _recheck(self) -> None:
        """End the connection soon after its person stops being an administrator, or logs out of the hub."""
        silent = 0
        while silent < SILENT:
            await asyncio.sleep(self.settings["recheck"])
            visitor = None
            try:
                visitor = await self.hub_auth.user_for_token(
                    self.hub_auth.get_token(self), session_id=self.hub_auth.get_session_id(self), sync=False
                )
                visitor = visitor and self.check_hub_user(visitor)
            except UserNotAllowed:
                break
            except web.HTTPError:
                silent += 1
                continue
            silent = 0
            if not visitor or not visitor.get("admin"):
                break
        self.log.warning("A connection to Cockpit ends: its person is no administrator of the hub any more")
        self.close(1008, "no administrator")

    def on_close(self) -> None:
        """The browser's end is gone."""
        for task in self._tasks:
            task.cancel()
