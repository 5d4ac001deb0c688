"""A person at the hub without a browser: logs in through the form, then uses the API with the session's cookies."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import requests

from tests.support.shell import SupportError

# What browsers say of their requests: over HTTPS, cookies count for nothing without.
DOCUMENT = {"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"}
SCRIPT = {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}


class HubUser:
    """One person's session."""

    def __init__(self, url: str, name: str):
        self.url = url.rstrip("/")
        self.name = name
        self.session = requests.Session()
        self.session.headers.update(DOCUMENT)

    def _xsrf(self) -> str:
        # The hub sets one _xsrf cookie for its own path, a user server another for its path.
        for cookie in self.session.cookies:
            if cookie.name == "_xsrf" and cookie.path == f"{urlsplit(self.url).path}/hub/":
                return cookie.value
        raise SupportError("The hub set no _xsrf cookie")

    def login(self, password: str) -> requests.Response:
        """Fill in the login form; returns the page that follows."""
        self.session.get(f"{self.url}/hub/login", timeout=30).raise_for_status()
        return self.session.post(
            f"{self.url}/hub/login",
            data={"username": self.name, "password": password, "_xsrf": self._xsrf()},
            timeout=60,
        )

    @property
    def logged_in(self) -> bool:
        """Whether the session belongs to this user."""
        answer = self.api("GET", "/user", check=False)
        return answer.status_code == 200 and answer.json()["name"] == self.name

    def api(self, method: str, path: str, *, check: bool = True, **options) -> requests.Response:
        """A call of the hub's REST API with the session's cookies, as its own pages do it."""
        answer = self.session.request(
            method,
            f"{self.url}/hub/api{path}",
            headers={**SCRIPT, "X-XSRFToken": self._xsrf()},
            timeout=60,
            **options,
        )
        if check and not answer.ok:
            raise SupportError(f"{method} {path}: {answer.status_code} {answer.text[:400]}")
        return answer

    def server(self, server: str = "") -> dict | None:
        """The model of this user's server, or None when it is not there."""
        return self.api("GET", f"/users/{self.name}").json()["servers"].get(server)

    def start(self, image: str, server: str = "", timeout: float = 90) -> dict:
        """Start a server from this image and return its model once it is ready."""
        path = f"/users/{self.name}/servers/{server}" if server else f"/users/{self.name}/server"
        self.api("POST", path, json={"image": image})
        deadline = time.monotonic() + timeout
        while True:
            model = self.server(server)
            if model and model["ready"]:
                return model
            if model is None or time.monotonic() > deadline:
                raise SupportError(f"The server of {self.name} did not start: {model}")
            time.sleep(0.3)

    def status(self, server: str = "") -> dict:
        """What this user's server says of itself, through the proxy."""
        path = f"{self.url}/user/{self.name}/{server + '/' if server else ''}"
        # The first visit logs the session in at the server.
        self.session.get(f"{path}lab", timeout=30).raise_for_status()
        answer = self.session.get(f"{path}api/status", timeout=30)
        answer.raise_for_status()
        return answer.json()

    def stop(self, server: str = "", timeout: float = 60) -> None:
        """Stop a server and return when it is gone."""
        path = f"/users/{self.name}/servers/{server}" if server else f"/users/{self.name}/server"
        self.api("DELETE", path)
        deadline = time.monotonic() + timeout
        while self.server(server):
            if time.monotonic() > deadline:
                raise SupportError(f"The server of {self.name} did not stop")
            time.sleep(0.3)
