"""
What attacks of ``plasma.prove`` are, and what they play with: two throwaway people, their browsers and their servers.
"""

from __future__ import annotations

import contextlib
import http.client
import inspect
import json
import secrets
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_files
import plasma_hub_accounts
import plasma_hub_connection
import plasma_hub_installed
import plasma_listeners
import plasma_prove_browser
import plasma_prove_environment
import plasma_prove_people
import tljh_settings

DIRECTORY = "/run/plasma-prove"  # root's, in memory: keys of a run
Person = dict[str, Any]
# Whether it was refused (None: this server has not what is attacked), and what was seen.
Outcome = tuple["bool | None", str]


@dataclass(frozen=True)
class Attack:
    """One attack; an exception that ``play`` ends with says that it could not be played, and counts as not refused."""

    name: str
    what: str
    expected: str
    play: Callable[[Scene], Outcome]
    last: bool = False  # whether it changes the two people, and is played after those that do not
    begin: Callable[[Scene], None] | None = None  # called before the first attack

    @property
    def group(self) -> str:
        """The number that it belongs to, ``A2`` of ``A2.key``."""
        return self.name.partition(".")[0]


def attack(name: str, expected: str, **options: Any) -> Callable[[Callable[[Scene], Outcome]], Attack]:
    """
    Make an attack of a function. Its docstring says what is tried; ``{NAME}`` in it is a constant of its module.

    name, expected, options
        See ``Attack``.
    """

    def make(play: Callable[[Scene], Outcome]) -> Attack:
        what = inspect.getdoc(play) or ""
        return Attack(name, what.format_map(vars(inspect.getmodule(play))), expected, play, **options)

    return make


def refused_unless(successes: Sequence[Any], refused: str, most: int = 4) -> Outcome:
    """Return the outcome of an attack in several ways: those that succeeded, or, with none, what *refused* says."""
    return not successes, ", ".join(map(str, successes[:most])) or refused


class Scene:
    """The two people, their browsers and servers; made when an attack asks for them."""

    def __init__(self, prefix: str):
        self.prefix, self.tag, self.key = prefix, secrets.token_hex(3), secrets.token_hex(16)
        self.where = plasma_prove_browser.place(prefix)
        self.hub()
        if plasma_listeners.listeners(self.where["address"], self.where["port"]) != [0]:
            raise CommandExecutionError(
                f"Port {self.where['port']} is not that of a proxy of root's: nothing is tried."
            )
        if tljh_settings.get("users.allowed", prefix=prefix):
            raise CommandExecutionError(
                "The hub lets in nobody but the people named in users.allowed of its config.yaml, so throwaway people "
                "cannot log in: plasma.prove needs a hub that people with accounts on the server may use."
            )
        self.image = ""
        self.notes: dict[str, Any] = {}  # of attacks, for later ones
        self._browsers: dict[str, plasma_prove_browser.Visitor] = {}
        self._agents: dict[str, Agent] = {}

    def hub(self) -> plasma_hub_connection.Hub:
        """The hub, with root's own access. Raises CommandExecutionError where none runs."""
        if not (hub := plasma_hub_connection.connect(self.prefix)):
            raise CommandExecutionError(plasma_hub_installed.absent(self.prefix, "runs"))
        return hub

    def make_people(self) -> None:
        """Make the two people."""
        plasma_files.directory(DIRECTORY, 0o700)
        self.a, self.b = plasma_prove_people.make(self.tag)

    def visitor(self, source: str = "127.0.0.1") -> plasma_prove_browser.Visitor:
        """Somebody without a session."""
        return plasma_prove_browser.Visitor(self.where, source)

    def login_page(self, source: str) -> plasma_prove_browser.Visitor:
        """Somebody without a session who looks at the login page."""
        visitor = self.visitor(source)
        visitor.open("hub/login")
        return visitor

    def session(self, person: Person) -> plasma_prove_browser.Visitor:
        """A new session of somebody."""
        visitor = self.visitor()
        answer = visitor.sign_in(person["name"], person["password"])
        if answer.status != 302:
            raise CommandExecutionError(f"a throwaway person cannot log in ({answer})")
        visitor.open("hub/home")
        return visitor

    def browser(self, person: Person) -> plasma_prove_browser.Visitor:
        """The session of somebody, the same one each time."""
        if person["name"] not in self._browsers:
            self._browsers[person["name"]] = self.session(person)
        return self._browsers[person["name"]]

    def make_image(self) -> str:
        """Make the environment, and return its name."""
        if not self.image:
            groups = [self.a["name"], self.b["name"]]
            self.image = plasma_prove_environment.make(self.tag, groups, self.a["uid"], self.key, prefix=self.prefix)
        return self.image

    def agent(self, person: Person) -> Agent:
        """The program in somebody's container: a function that has it do something and returns what came of it."""
        name = person["name"]
        if name in self._agents and not self._agents[name].alive():
            self.stop(person)
        if name not in self._agents:
            self.browser(person).start(name, self.make_image())
            address = plasma_prove_environment.container(name)
            if not address:
                raise CommandExecutionError("the throwaway server has no address")
            self._agents[name] = Agent(address, self.key)
        return self._agents[name]

    def stop(self, person: Person) -> None:
        """Stop somebody's server, if it runs."""
        self._agents.pop(person["name"], None)
        self.hub().ask("DELETE", f"users/{person['name']}/server", also=(202, 400, 404))
        end = time.monotonic() + 30
        while plasma_prove_environment.container(person["name"]) and time.monotonic() < end:
            time.sleep(0.2)

    @contextlib.contextmanager
    def administrator(self) -> Generator[plasma_prove_browser.Visitor]:
        """The browser of the second person, who is an administrator for as long as this lasts."""
        plasma_hub_accounts.set_admin([self.b["name"]], True, prefix=self.prefix)
        try:
            yield self.browser(self.b)
        finally:
            plasma_hub_accounts.set_admin([self.b["name"]], False, prefix=self.prefix)


class Agent:
    """Calls functions of the program in a container, past the proxy."""

    def __init__(self, address: str, key: str):
        self.address, self.key = address, key

    def alive(self) -> bool:
        """Return whether it answers: a container may have ended of an attack."""
        try:
            return bool(self("hub_api", timeout=5))
        except (OSError, http.client.HTTPException, CommandExecutionError):
            return False

    def __call__(self, function: str, timeout: float = 60, **arguments: Any) -> Any:
        """Call a function; returns what it does. Raises OSError, HTTPException, CommandExecutionError."""
        with contextlib.closing(http.client.HTTPConnection(self.address, 8888, timeout=timeout)) as connection:
            body = json.dumps({"do": function, "with": arguments})
            connection.request("POST", "/", body, {"X-Plasma-Prove": self.key})
            answer = connection.getresponse()
            content = answer.read()
        if answer.status != 200:
            raise CommandExecutionError(f"the program in the container failed at {function}")
        return json.loads(content)
