"""A student's server with pages of the student's own, and somebody who opens them in a browser."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import requests
from playwright.sync_api import BrowserContext, Page
from support_accounts import Person
from support_attacks import LOOKS, TOOLS, keeper, together
from support_hub import Hub

from tests.support.browsing import TIMEOUT, sign_in

ENVIRONMENT = "plasmat-course"
# What anybody can put into their own server: a handler that asks nobody for a login, and answers as its address says.
EXTENSION = """
from jupyter_server.base.handlers import AuthenticatedFileHandler
from tornado import web, websocket


class Evil(websocket.WebSocketHandler):
    def check_xsrf_cookie(self):
        pass

    def check_origin(self, origin):
        return True

    async def get(self, path):
        self.clear()
        for name in list(self._headers):
            self.clear_header(name)
        self.set_header("Content-Type", self.get_argument("type", "text/html"))
        for pair in self.get_arguments("h"):
            name, _, value = pair.partition(": ")
            self.add_header(name, value)
        if self.request.headers.get("Upgrade") == "websocket":
            return await super().get(path)
        if self.get_argument("to", ""):
            return self.redirect(self.get_argument("to"))
        self.finish(self.get_argument("body", "<!DOCTYPE html><title>A lesson</title>"))

    def on_message(self, message):
        self.write_message(message)


def _jupyter_server_extension_points():
    return [{"module": "evil"}]


# Without the sandbox in which JupyterLab shows files.
sandboxed = AuthenticatedFileHandler.content_security_policy
AuthenticatedFileHandler.content_security_policy = property(
    lambda self: "" if self.request.path.endswith("/open.html") else sandboxed.fget(self)
)


def _load_jupyter_server_extension(app):
    # And at the server's own path, without the slash at its end.
    own = app.base_url.rstrip("/") + "()"
    app.web_app.add_handlers(".*", [(app.base_url + "evil/(.*)", Evil), (own, Evil)])
"""
CONFIG = """
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parent))
c.ServerApp.jpserver_extensions = {"evil": True}
"""


def plant(person: Person) -> None:
    """Write the student's configuration of their server, before it starts."""
    directory = person.home / ENVIRONMENT / ".jupyter"
    directory.mkdir(parents=True)
    (directory / "evil.py").write_text(EXTENSION)
    (directory / "jupyter_server_config.py").write_text(CONFIG)
    for path in (directory.parent, directory, *directory.iterdir()):
        os.chown(path, person.uid, person.gid)


@dataclass
class Lesson:
    """An administrator, logged in with a browser, and the page of a student."""

    hub: Hub
    student: Person
    teacher: Person
    context: BrowserContext

    def address(self, path: str = "page", headers: tuple[str, ...] = (), **options: str) -> str:
        """The path of a page of the student's, which has these headers.

        Args:
            path: its name.
            headers: "Name: value" each.
            options: type, body, to (a redirect).
        """
        query = [f"h={quote(header)}" for header in headers] + [f"{k}={quote(v)}" for k, v in options.items()]
        return f"/user/{self.student.name}/evil/{path}?{'&'.join(query)}"

    def open(self, path: str | None = None) -> Page:
        """Open a page, the student's by default, in a window of its own."""
        page = self.context.new_page()
        page.set_default_timeout(TIMEOUT)
        page.goto(f"{self.hub.url}{path or self.address()}")
        return page

    def play(self, script: str, path: str | None = None, **values: Any) -> Any:
        """Run a script in the student's page, as the page itself would; returns what it got hold of.

        Args:
            script: body of an asynchronous function of ``v``.
            path: the page.
            values: what the script knows: ``v.student``, ``v.teacher`` and these.
        """
        page = self.open(path)
        try:
            return page.evaluate(
                f"async v => {{ {TOOLS} {script} }}",
                {"student": self.student.name, "teacher": self.teacher.name, **values},
            )
        finally:
            self.leave()

    def play_all(self, scripts: dict[str, str], path: str | None = None) -> dict[str, str]:
        """Run scripts one after the other in one page; returns what each got hold of, by name."""
        looks = self.address(body=f"<!DOCTYPE html><script>{LOOKS}</script>")
        moves = self.address(body=f"<!DOCTYPE html><script>{keeper(looks)}</script>")
        return self.play(together(scripts), path, redirect=self.address(to="/hub/token"), keeper=moves)

    def leave(self) -> None:
        """Close all windows."""
        for other in self.context.pages:
            other.close()

    def asked(self, word: str) -> list[tuple[int, str]]:
        """Status and person of each request to a page of the hub that has the word in its address, from its log."""
        line = rf" (\d+) GET /hub/token\?asked={word}(?: -> \S+)? \(([^@)]*)@"
        return [(int(status), name) for status, name in re.findall(line, self.hub.log())]

    def put(self, name: str, text: str) -> str:
        """Write a file by the student's API, and nothing else; returns its path."""
        answer = requests.put(
            f"{self.hub.url}/user/{self.student.name}/api/contents/{name}",
            json={"type": "file", "format": "text", "content": text},
            headers={"Authorization": f"token {self.hub.user_token(self.student.name)}"},
            timeout=30,
        )
        assert answer.status_code in (200, 201), answer.text
        return f"/user/{self.student.name}/files/{name}"

    def enter(self, path: str) -> None:
        """Let the administrator into the student's server, by a page of it that asks for that."""
        page = self.open(path)
        if "/oauth2/authorize" in page.url:
            page.get_by_role("button", name="Authorize").click()
        page.wait_for_url(f"**{path}")
        page.close()

    def people(self) -> dict[str, Any]:
        """What must not change: who administers the hub, which tokens people have, which servers run."""
        found = {}
        for user in self.hub.api("GET", "/users").json():
            tokens = self.hub.api("GET", f"/users/{user['name']}/tokens").json()["api_tokens"]
            found[user["name"]] = (
                user["admin"],
                user["groups"],
                sorted(user["servers"]),
                # Those of logins come and go.
                sorted(token["id"] for token in tokens if not token["oauth_client"]),
            )
        return found


@contextmanager
def beginning(hubs: list[Hub], browser: Any, accounts: Any, image: str) -> Iterator[list[Lesson]]:
    """At each hub, which is started if it does not run: a student's server, and an administrator who is logged in."""
    pairs = [(hub, accounts.add("student"), accounts.add("teacher")) for hub in hubs]

    def start(hub: Hub, student: Person, teacher: Person) -> None:
        plant(student)
        if not hub.processes:
            hub.start()
        answer = hub.spawn(student.name, image)
        assert answer.status_code in (201, 202), answer.text
        hub.add_user(teacher.name)
        assert hub.api("PATCH", f"/users/{teacher.name}", json={"admin": True}).status_code == 200

    with ThreadPoolExecutor() as side_by_side:
        for started in [side_by_side.submit(start, *pair) for pair in pairs]:
            started.result()
    lessons = [Lesson(*pair, browser.new_context()) for pair in pairs]
    for lesson in lessons:
        page = lesson.context.new_page()
        sign_in(page, lesson.hub.url, lesson.teacher.name, lesson.teacher.password)
        page.close()
    yield lessons
    for lesson in lessons:
        lesson.context.close()
