"""A person with a browser, as far as the hub can tell."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import requests
from support_accounts import Person
from support_hub import Hub, wait_until

START_TIMEOUT = 180


class Browser:
    """A person's session at the hub.

    Args:
        hub: the hub.
        person: who it is.
    """

    def __init__(self, hub: Hub, person: Person) -> None:
        self.hub = hub
        self.person = person
        self.session = requests.Session()
        self.page: requests.Response | None = None
        hub.visitors.add(person.name)

    @property
    def server(self) -> str:
        """Address of the person's server, without the slash at the end."""
        return f"{self.hub.url}/user/{self.person.name}"

    def login(self) -> dict[str, float]:
        """Log in through the form; returns the seconds that form and login took."""
        begin = time.perf_counter()
        page = self.session.get(f"{self.hub.url}/hub/login", timeout=60)
        token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)[1]
        form = time.perf_counter()
        data = {"username": self.person.name, "password": self.person.password, "_xsrf": token}
        self.page = self.session.post(f"{self.hub.url}/hub/login?next=", data=data, timeout=60)
        if self.page.url != f"{self.hub.url}/hub/spawn":
            raise RuntimeError(f"{self.person.name} did not arrive at the list of environments but at {self.page.url}")
        return {"form": form - begin, "login": time.perf_counter() - form}

    def start(self, image: str) -> list[tuple[float, dict[str, Any]]]:
        """Start a server through the form and follow its progress as the page does.

        Args:
            image: the environment.

        Returns:
            The steps with their times (``time.time()``); the first one is the click, the last one says "ready".
        """
        action = re.search(r'action="([^"]*_xsrf=[^"]*)"', self.page.text)[1].replace("&amp;", "&")
        steps = [(time.time(), {"progress": 0, "message": "the click"})]
        self.page = self.session.post(f"{self.hub.origin}{action}", data={"image": image}, timeout=START_TIMEOUT)
        self.page.raise_for_status()
        steps.append((time.time(), {"progress": 1, "message": "the page that waits"}))
        token = next(cookie.value for cookie in self.session.cookies if cookie.name == "_xsrf" and "hub" in cookie.path)
        address = f"{self.hub.url}/hub/api/users/{self.person.name}/server/progress"
        with self.session.get(address, params={"_xsrf": token}, stream=True, timeout=START_TIMEOUT) as events:
            events.raise_for_status()
            for line in events.iter_lines(chunk_size=1):
                if line.startswith(b"data:"):
                    event = json.loads(line[5:])
                    steps.append((time.time(), event))
                    if event.get("failed"):
                        raise RuntimeError(f"the server of {self.person.name} failed to start: {event['message']}")
                    if event.get("ready"):
                        return steps
        raise RuntimeError(f"the server of {self.person.name} did not become ready")

    def open(self) -> dict[str, float]:
        """Load the page again, which leads to JupyterLab, then ask its API; returns the seconds of each."""
        begin = time.perf_counter()
        lab = self.session.get(self.page.url, timeout=60)
        if lab.status_code != 200 or not lab.url.startswith(f"{self.server}/lab"):
            raise RuntimeError(f"{lab.url} answers {lab.status_code} in place of JupyterLab")
        loaded = time.perf_counter()
        status = self.session.get(f"{self.server}/api/status", timeout=60)
        status.raise_for_status()
        return {"lab": loaded - begin, "status": time.perf_counter() - loaded}

    def stop(self) -> None:
        """Stop the server and wait until it is gone."""
        self.hub.stop_server(self.person.name)

    def wait_for_lab(self, timeout: float) -> None:
        """Wait until JupyterLab answers."""
        wait_until(lambda: self.session.get(f"{self.server}/api/status", timeout=60).ok, timeout, "JupyterLab")
