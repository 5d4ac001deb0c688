"""The guard of the hub's pages, request by request."""

from __future__ import annotations

import json

import jinja2
import pytest
from tljh_plasma import guard
from tornado.testing import AsyncHTTPTestCase
from tornado.web import Application, RequestHandler

DOCUMENT = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"}
SCRIPT = {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
TOKEN = {"X-XSRFToken": "x"}
LOGIN = "jupyterhub-hub-login=a; jupyterhub-session-id=b; _xsrf=c"


class Show(RequestHandler):
    """Says which cookies it was sent; as a page, unless it is the API."""

    def get(self) -> None:
        if "api" in self.request.path:
            self.set_header("Content-Type", "application/json")
        if "moved" in self.request.path:
            self.set_status(302)
            self.set_header("Location", "/x")
        self.finish(json.dumps(sorted(self.cookies)))

    post = put = patch = delete = get

    def head(self) -> None:
        self.get()


class TestGuard(AsyncHTTPTestCase):
    def get_app(self) -> Application:
        return Application([("/.*", Show)], transforms=[guard.of_hub("/")])

    def get_http_server(self):
        server = super().get_http_server()
        server.xheaders = True
        return server

    def ask(self, path: str, *headers: dict[str, str], method: str = "GET"):
        sent = {"Cookie": LOGIN}
        for more in headers:
            sent.update(more)
        body = "" if method in ("POST", "PUT", "PATCH") else None
        return self.fetch(path, method=method, headers=sent, body=body, follow_redirects=False)

    def cookies(self, path: str, *headers: dict[str, str], method: str = "GET") -> int:
        """How many cookies counted."""
        return len(json.loads(self.ask(path, *headers, method=method).body))

    def test_cookies_count_for_documents(self):
        answer = self.ask("/hub/home", DOCUMENT)
        assert (answer.code, len(json.loads(answer.body))) == (200, 3)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        policy = answer.headers["Content-Security-Policy"]
        assert f"{answer.request.url.split('/')[2]}/hub/static/" in policy
        assert "unsafe-inline" not in policy.partition("script-src")[2]

    def test_pages_are_for_nothing_else(self):
        for headers in (
            SCRIPT,
            {**SCRIPT, **TOKEN},
            {**SCRIPT, "Authorization": "token x"},
            *({**DOCUMENT, "Sec-Fetch-Dest": dest} for dest in ("iframe", "frame", "object", "embed", "fencedframe")),
            *({**SCRIPT, "Sec-Fetch-Mode": mode} for mode in ("no-cors", "same-origin", "websocket", "navigate")),
            *({**DOCUMENT, name: "prefetch;prerender"} for name in guard.PREFETCHES),
        ):
            for path in ("/hub/token", "/hub/login", "/hub/user/x/", "/user/x/", "/hub/logout", "/hub/static"):
                answer = self.ask(path, headers)
                assert (answer.code, answer.body.decode()) == (403, guard.REFUSED), (path, headers)
                assert "text/plain" in answer.headers["Content-Type"]
        assert self.ask("/hub/moved", SCRIPT).code == 302

    def test_scripts_of_the_hub_ask_the_api_with_the_token(self):
        for method in guard.API_METHODS:
            assert self.cookies("/hub/api/users", SCRIPT, TOKEN, method=method) == 3
        assert self.cookies("/hub/api/users?_xsrf=x", SCRIPT) == 3
        assert self.cookies("/hub/api/users", SCRIPT) == 0
        for other in (
            {"Sec-Fetch-Mode": "no-cors"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Dest": "json"},
            {"Sec-Fetch-Dest": "image"},
            {"Authorization": "token x"},
        ):
            assert self.cookies("/hub/api/users", SCRIPT, TOKEN, other) == 0, other
        # What is told of servers that have stopped.
        assert self.cookies("/hub/user/x/api/kernels", SCRIPT) == 3
        assert self.cookies("/hub/user/x/api/kernels", SCRIPT, method="POST") == 0

    def test_over_https_cookies_need_a_browser_that_says_what_for(self):
        assert self.cookies("/hub/home") == 3
        answer = self.ask("/hub/home", {"X-Forwarded-Proto": "https"})
        assert (answer.code, answer.body.decode()) == (403, guard.OUTDATED)
        assert self.cookies("/hub/api/users", {"X-Forwarded-Proto": "https"}, TOKEN) == 0
        # Nor do they say what a WebSocket is for, with HTTPS or without. The hub has none.
        answer = self.ask("/hub/token", {"Upgrade": "WebSocket", "Connection": "Upgrade"})
        assert (answer.code, answer.body.decode()) == (403, guard.OUTDATED)
        # Programs have no cookies.
        assert self.ask("/hub/login", {"X-Forwarded-Proto": "https", "Cookie": "x=y"}).code == 403
        answer = self.fetch("/hub/login", headers={"X-Forwarded-Proto": "https"})
        assert answer.code == 200

    def test_a_cookie_that_was_set_twice_ends_the_session(self):
        for name in ("jupyterhub-hub-login", "jupyterhub-session-id", "service-plasma"):
            answer = self.ask("/hub/home", DOCUMENT, {"Cookie": f"{name}=mine; x=y; {name}=theirs"})
            assert (answer.code, answer.body.decode()) == (403, guard.TOSSED)
            assert answer.headers["Clear-Site-Data"] == '"cookies"'
        answer = self.ask("/hub/moved", DOCUMENT, {"Cookie": f"{name}=mine; {name}=theirs"})
        assert (answer.code, "Location" in answer.headers) == (403, False)
        # JupyterHub looks for the valid one.
        assert self.ask("/hub/home", DOCUMENT, {"Cookie": "_xsrf=a; _xsrf=b"}).code == 200

    def test_files_are_for_everybody(self):
        for path in ("/hub/static/x.js", "/hub/logo"):
            answer = self.ask(path, {**SCRIPT, "Sec-Fetch-Dest": "script", "Sec-Fetch-Mode": "no-cors"})
            assert answer.code == 200
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "no-store" not in answer.headers.get("Cache-Control", "")


@pytest.mark.parametrize("host", ["hub.example.org", "hub.example.org:8443", "192.0.2.1", "[2001:db8::1]:8443"])
def test_scripts_are_the_hubs_files(host):
    made = guard.of_hub("/base/").__new__(guard.of_hub("/base/"))
    made.scripts, made.host, made.nonce = ("/base/hub/static/",), host, "n"
    allowed = made.page_policy().partition("script-src ")[2].split()
    assert allowed == ["'nonce-n'", "'self'" if "[" in host else f"{host}/base/hub/static/"]


def test_scripts_of_templates_are_marked_and_what_people_write_is_not():
    environment = jinja2.Environment(extensions=[guard.Nonces], autoescape=True)
    template = environment.from_string('<script src="x"></script><SCRIPT>a</SCRIPT>{{ text | safe }}<script>b</script>')
    token = guard.NONCE.set("n")
    try:
        html = template.render(text="<script>evil</script>")
    finally:
        guard.NONCE.reset(token)
    ours = '<script nonce="n" src="x"></script><SCRIPT nonce="n">a</SCRIPT>'
    assert html == f'{ours}<script>evil</script><script nonce="n">b</script>'
