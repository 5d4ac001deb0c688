"""
A visitor of the hub for ``plasma.prove``: keeps cookies as a browser does and says what a browser says of a request.
All requests go to the hub's own proxy on this machine, from any address of the loopback network.
"""

from __future__ import annotations

import contextlib
import http.client
import http.cookies
import json
import re
import socket
import ssl
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from salt.exceptions import CommandExecutionError

import tljh_service
import tljh_settings

ANSWER = 70  # seconds: a hub without descriptors says nothing for a minute
START = 60  # seconds for a server of a container
MOST = 4 * 1024 * 1024  # bytes of an answer that are read
_NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}


def place(prefix: str = "/opt/tljh") -> dict[str, Any]:
    """
    Return where people reach the hub, ``{"address", "port", "secure", "host", "base"}``: the address and port of the
    proxy on this machine, the name that browsers ask for, and the path below which the hub is, with slashes around it.

    prefix
        Where the hub is installed.
    """
    config = tljh_settings.show(prefix)
    proxy, path = tljh_service.connection(config, ANSWER)
    https = config.get("https") if isinstance(config.get("https"), dict) else {}
    domains = (https.get("letsencrypt") or {}).get("domains") or https.get("domains") or []
    secure = isinstance(proxy, http.client.HTTPSConnection)
    named = (config.get("plasma") or {}).get("user_domains") or (domains[0] if secure and domains else "")
    return {
        "address": proxy.host,
        "port": int(proxy.port),
        "secure": secure,
        "host": str(named or proxy.host),
        "base": path.removesuffix("hub/api"),
    }


@dataclass
class Answer:
    """An answer of the hub or the proxy; as a string, what a line of the table says of it."""

    status: int = 0  # when the connection was closed without one
    headers: list[tuple[str, str]] = field(default_factory=list)
    content: bytes = b""
    seconds: float = 0

    def __str__(self) -> str:
        if not self.status:
            return "the connection was closed"
        message = re.search(r'"message"\s*:\s*"([^"]{1,80})', self.text[:2000]) if self.status >= 400 else None
        return f"status {self.status}" + (f", {message[1]}" if message else "")

    @property
    def text(self) -> str:
        """The content as text."""
        return self.content.decode(errors="replace")

    def all(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str:
        """The values of a header in one line, empty when there is none."""
        return ", ".join(self.all(name))


class Visitor:
    """Somebody with a browser and no cookies yet, whose requests come from the address *source*."""

    def __init__(self, where: dict[str, Any], source: str = "127.0.0.1"):
        self.where, self.source, self.base = where, source, where["base"]
        self.cookies: dict[tuple[str, str, str], str] = {}  # (host, path, name): value
        default = where["port"] == (443 if where["secure"] else 80)
        self.origin_host = where["host"] if default else f"{where['host']}:{where['port']}"
        self.origin = f"{'https' if where['secure'] else 'http'}://{self.origin_host}"

    def connect(self, host: str | None = None) -> socket.socket:
        """A connection to the proxy, encrypted where the hub is."""
        source = "" if ":" in self.where["address"] else self.source
        address = (self.where["address"], self.where["port"])
        made = socket.create_connection(address, ANSWER, source_address=(source, 0))
        if not self.where["secure"]:
            return made
        context = ssl.create_default_context()
        context.check_hostname = False  # it is this machine, and the certificate may be one of its own
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(made, server_hostname=(host or self.where["host"]).partition(":")[0])

    def request(self, method, path, body=None, headers=(), host=None, keep=True) -> Answer:
        """Send one request; cookies go along and are kept. *path* is the whole path, or one below the hub's base."""
        path = path if path.startswith("/") else self.base + path
        cookies = self.cookie_header(path, host)
        sent = {"Host": host or self.origin_host, "User-Agent": "plasma.prove", **dict(headers)}
        if cookies:
            sent.setdefault("Cookie", cookies)
        connection = http.client.HTTPConnection(self.where["address"], timeout=ANSWER)
        begun = time.monotonic()
        try:
            connection.sock = self.connect(host)
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            answer = Answer(response.status, response.getheaders(), response.read(MOST))
        except (OSError, http.client.HTTPException):
            answer = Answer()
        finally:
            connection.close()
        answer.seconds = time.monotonic() - begun
        if keep:
            self._keep_cookies(host or self.where["host"], answer.all("Set-Cookie"))
        return answer

    def cookie_header(self, path: str, host: str | None = None) -> str:
        """What the browser sends as ``Cookie`` for a whole path."""
        host = host or self.where["host"]
        matching = [
            (cookie_path, name, value)
            for (domain, cookie_path, name), value in self.cookies.items()
            if (host == domain or host.endswith(f".{domain}")) and path.startswith(cookie_path)
        ]
        return "; ".join(f"{name}={value}" for _, name, value in sorted(matching, reverse=True))

    def _keep_cookies(self, host, lines):
        for line in lines:
            with contextlib.suppress(http.cookies.CookieError):
                for name, cookie in http.cookies.SimpleCookie(line).items():
                    key = (cookie["domain"].lstrip(".") or host.partition(":")[0], cookie["path"] or "/", name)
                    self.cookies[key] = cookie.value
                    expired = cookie["max-age"] == "0" or cookie["expires"].endswith(" 1970 00:00:00 GMT")
                    if expired or not cookie.value:
                        del self.cookies[key]

    # What a browser says of itself.

    def open(self, path, headers=(), **options) -> Answer:
        """Open a page as somebody does who typed its address or followed a link; redirections are followed."""
        sent = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Site": "none", **_NAVIGATION, **dict(headers)}
        for _ in range(12):
            answer = self.request("GET", path, headers=sent, **options)
            target = answer.header("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not target:
                return answer
            parts = urllib.parse.urlsplit(target)
            if parts.netloc:
                options["host"] = parts.netloc
            path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        return answer

    def script(self, method, path, body=None, headers=(), page="hub/home", **options) -> Answer:
        """What ``fetch`` of a script sends from a page of the same origin."""
        sent = {
            "Accept": "*/*",
            "Referer": f"{self.origin}{self.base}{page}",
            "Sec-Fetch-Site": "same-origin",
            "Sec-Fetch-Mode": "cors",
            "Sec-Fetch-Dest": "empty",
            **({} if method == "GET" else {"Origin": self.origin}),
            **dict(headers),
        }
        return self.request(method, path, body, sent, **options)

    def api(self, method, path, body=None, raw=None) -> Answer:
        """What the hub's own pages do: a call of its API with the token of the page."""
        headers = {"X-XSRFToken": self.xsrf, "Content-Type": "application/json"}
        return self.script(method, f"hub/api/{path}", raw if body is None else json.dumps(body), headers)

    @property
    def xsrf(self) -> str:
        """The token of the hub's pages."""
        ours = [(f"{self.base}hub/", "_xsrf"), ("/", "__Host-_xsrf")]
        return next((value for key, value in self.cookies.items() if key[1:] in ours), "")

    # People.

    def sign_in(self, name: str, password: str) -> Answer:
        """Fill in the form; the answer to it, with status 302 when it let them in."""
        self.open("hub/login")
        return self.submit(name, password)

    def submit(self, name: str, password: str) -> Answer:
        """Send the form of the login page, which was opened before."""
        form = urllib.parse.urlencode({"username": name, "password": password, "_xsrf": self.xsrf})
        headers = {"Content-Type": "application/x-www-form-urlencoded", **_NAVIGATION}
        return self.script("POST", "hub/login?next=", form, headers, page="hub/login")

    def start(self, name: str, image: str) -> None:
        """Start somebody's server and wait until it runs. Raises CommandExecutionError."""
        answer = self.api("POST", f"users/{name}/server", {"image": image})
        end = time.monotonic() + START
        while answer.status in (201, 202) and time.monotonic() < end:
            server = json.loads(self.api("GET", f"users/{name}").content or b"{}").get("servers", {}).get("")
            if not server:
                break
            if server.get("ready"):
                return
            time.sleep(0.2)
        raise CommandExecutionError(f"the throwaway server did not start ({answer})")
