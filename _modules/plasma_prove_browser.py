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

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_prove_browser"

ANSWER = 70  # seconds: a hub without descriptors says nothing for a minute
START = 60  # seconds for a server of a container
MOST = 4 * 1024 * 1024  # bytes of an answer that are read


def __virtual__():
    return __virtualname__


def place(prefix="/opt/tljh"):
    """
    Return where people reach the hub, ``{"address", "port", "secure", "host", "base"}``: the address and port of the
    proxy on this machine, the name that browsers ask for, and the path below which the hub is, with slashes around it.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_browser.place
    """
    config = __salt__["tljh_config.show"](prefix)
    proxy, path = __salt__["tljh_service.connection"](config, ANSWER)
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


def visitor(where, source="127.0.0.1"):
    """
    Return a visitor without cookies, whose class is below.

    where
        As of ``place``.

    source
        The address that requests come from.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_browser.visitor '{}'  # not from the command line: what it returns is an object
    """
    return Visitor(where, source)


class Answer:
    """Status, headers and content of an answer; status 0 when the connection was closed without one."""

    def __init__(self, status, headers, content, seconds):
        self.status, self.headers, self.content, self.seconds = status, headers, content, seconds

    @property
    def text(self):
        """The content as text."""
        return self.content.decode(errors="replace")

    def all(self, name):
        """All values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name):
        """The values of a header in one line, empty when there is none."""
        return ", ".join(self.all(name))


class Visitor:
    """Somebody with a browser."""

    def __init__(self, where, source):
        self.where, self.source = where, source
        self.cookies = {}  # (host, path, name): value
        self.base = where["base"]
        default = where["port"] == (443 if where["secure"] else 80)
        self.origin_host = where["host"] if default else f"{where['host']}:{where['port']}"
        self.origin = f"{'https' if where['secure'] else 'http'}://{self.origin_host}"

    def socket(self, host=None):
        """A connection to the proxy, encrypted where the hub is."""
        made = socket.create_connection(
            (self.where["address"], self.where["port"]), ANSWER, source_address=(self._source(), 0)
        )
        if not self.where["secure"]:
            return made
        context = ssl.create_default_context()
        context.check_hostname = False  # it is this machine, and the certificate may be one of its own
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(made, server_hostname=(host or self.where["host"]).partition(":")[0])

    def _source(self):
        return self.source if ":" not in self.where["address"] else ""

    def request(self, method, path, body=None, headers=(), host=None, keep=True):
        """Send one request; cookies go along and are kept. *path* is the whole path, or one below the hub's base."""
        path = path if path.startswith("/") else self.base + path
        name = host or self.where["host"]
        connection = http.client.HTTPConnection(self.where["address"], timeout=ANSWER)
        begun = time.monotonic()
        sent = {"Host": host or self.origin_host, "User-Agent": "plasma.prove", **dict(headers)}
        cookies = self._cookies(name, path)
        if cookies and "Cookie" not in sent:
            sent["Cookie"] = cookies
        try:
            connection.sock = self.socket(host)
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            found = Answer(answer.status, answer.getheaders(), answer.read(MOST), time.monotonic() - begun)
        except (OSError, http.client.HTTPException):
            found = Answer(0, [], b"", time.monotonic() - begun)
        finally:
            connection.close()
        if keep:
            self._keep(name, path, found.all("Set-Cookie"))
        return found

    def _cookies(self, host, path):
        fitting = [
            (key[1], key[2], value)
            for key, value in self.cookies.items()
            if (host == key[0] or host.endswith(f".{key[0]}")) and path.startswith(key[1])
        ]
        return "; ".join(f"{name}={value}" for _, name, value in sorted(fitting, reverse=True))

    def _keep(self, host, path, lines):
        for line in lines:
            with contextlib.suppress(http.cookies.CookieError):
                for name, found in http.cookies.SimpleCookie(line).items():
                    where = (found["domain"].lstrip(".") or host.partition(":")[0], found["path"] or "/", name)
                    self.cookies[where] = found.value
                    if found["max-age"] == "0" or found["expires"].endswith(" 1970 00:00:00 GMT") or not found.value:
                        del self.cookies[where]

    # What a browser says of itself.

    def open(self, path, headers=(), **options):
        """Open a page as somebody does who typed its address or followed a link; redirections are followed."""
        for _ in range(12):
            said = {
                "Accept": "text/html,application/xhtml+xml",
                "Sec-Fetch-Site": "none",
                "Sec-Fetch-Mode": "navigate",
                "Sec-Fetch-Dest": "document",
                "Sec-Fetch-User": "?1",
                **dict(headers),
            }
            answer = self.request("GET", path, headers=said, **options)
            target = answer.header("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not target:
                return answer
            parts = urllib.parse.urlsplit(target)
            if parts.netloc:
                options["host"] = parts.netloc
            path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        return answer

    def script(self, method, path, body=None, headers=(), page="hub/home", **options):
        """What ``fetch`` of a script sends from a page of the same origin."""
        said = {
            "Accept": "*/*",
            "Origin": self.origin,
            "Referer": f"{self.origin}{self.base}{page}",
            "Sec-Fetch-Site": "same-origin",
            "Sec-Fetch-Mode": "cors",
            "Sec-Fetch-Dest": "empty",
            **dict(headers),
        }
        if method == "GET":
            del said["Origin"]
        return self.request(method, path, body, said, **options)

    def api(self, method, path, body=None, raw=None):
        """What the hub's own pages do: a call of its API with the token of the page."""
        headers = {"X-XSRFToken": self.xsrf, "Content-Type": "application/json"}
        text = raw if raw is not None else None if body is None else json.dumps(body)
        return self.script(method, f"hub/api/{path}", text, headers)

    @property
    def xsrf(self):
        """The token of the hub's pages."""
        ours = [(f"{self.base}hub/", "_xsrf"), ("/", "__Host-_xsrf")]
        return next((value for key, value in self.cookies.items() if key[1:] in ours), "")

    # People.

    def sign_in(self, name, password):
        """Fill in the form; the answer to it, with status 302 when it let them in."""
        self.open("hub/login")
        return self.submit(name, password)

    def submit(self, name, password):
        """Send the form of the login page, which was opened before."""
        form = urllib.parse.urlencode({"username": name, "password": password, "_xsrf": self.xsrf})
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
            "Sec-Fetch-User": "?1",
        }
        return self.script("POST", "hub/login?next=", form, headers, page="hub/login")

    def signed_in(self, name):
        """Whether the session is this person's."""
        answer = self.api("GET", "user")
        return answer.status == 200 and json.loads(answer.content).get("name") == name

    def start(self, name, image):
        """Start somebody's server and wait until it runs."""
        answer = self.api("POST", f"users/{name}/server", {"image": image})
        end = time.monotonic() + START
        while answer.status in (201, 202) and time.monotonic() < end:
            server = json.loads(self.api("GET", f"users/{name}").content or b"{}").get("servers", {}).get("")
            if server and server.get("ready"):
                return
            if not server:
                break
            time.sleep(0.2)
        raise CommandExecutionError(f"the throwaway server did not start ({said(answer)})")


def said(answer):
    """
    Return an answer in a few words, for a line of the table.

    answer
        As of a visitor.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_prove_browser.said  # not from the command line: it takes an object
    """
    if not answer.status:
        return "the connection was closed"
    found = re.search(r'"message"\s*:\s*"([^"]{1,80})', answer.text[:2000]) if answer.status >= 400 else None
    return f"status {answer.status}" + (f", {found[1]}" if found else "")
