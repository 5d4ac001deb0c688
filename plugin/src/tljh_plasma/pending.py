"""Logins that PAM has begun and a person has to go on with: a code to enter, or a password to change.

Each is known by a random key, which is in the form of the browser that began it and nowhere else. It works once: the
next form has another one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from .logins import network
from .pam import Conversation, Given, Prompt

# Seconds for a form.
TIME = 180
# Logins that wait, each of which may have a process, and those of one network among them. Beyond, those of the network
# that has the most make way. Nobody makes way for another login by the same name: whoever knows it could end that.
MOST = 200
FROM = 100


class Unfinished(Exception):
    """A login goes on with another form.

    Attributes:
        key: of the login, for the form.
        waiting: the login.
        problem: what was wrong with the last form, in a sentence.
    """

    def __init__(self, key: str, waiting: Waiting, problem: str = "") -> None:
        super().__init__()
        self.key = key
        self.waiting = waiting
        self.problem = problem


@dataclass
class Waiting:
    """One login.

    Attributes:
        name: login name, as the account database has it.
        written: the name as it was written.
        address: from where.
        given: what was entered so far.
        talk: the conversation that goes on; None where the password has to be changed.
        asked: what PAM asks.
        answers: those of the answers that are known.
        said: what it said.
        real: whether there is an account of this name.
        known: whether it has logged in from there before.
    """

    name: str
    written: str
    address: str
    given: Given = field(repr=False)
    talk: Conversation | None = None
    asked: tuple[Prompt, ...] = ()
    answers: list[str | None] = field(default_factory=list, repr=False)
    said: tuple[str, ...] = ()
    real: bool = True
    known: bool = False

    @property
    def prompts(self) -> list[Prompt]:
        """What only the person can answer."""
        return [prompt for prompt, answer in zip(self.asked, self.answers, strict=True) if answer is None]

    def complete(self, answers: list[str]) -> list[str]:
        """Return all answers, with those of the person in their places."""
        given = iter(answers)
        return [next(given, "") if answer is None else answer for answer in self.answers]


class Pending:
    """All logins that wait. One that nobody goes on with ends by itself.

    Args:
        lost: is called with logins that end before PAM has said whether the password is right.
    """

    def __init__(self, lost: Callable[[Waiting], None]) -> None:
        self._lost = lost
        self._waiting: dict[str, tuple[Waiting, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, one: Waiting) -> str:
        """Keep a login, and return its key."""
        networks = Counter(network(other.address) for other, _ in self._waiting.values())
        crowded = network(one.address)
        if networks[crowded] < FROM and len(self._waiting) >= MOST:
            crowded = networks.most_common(1)[0][0]
        if networks[crowded] >= FROM or len(self._waiting) >= MOST:
            here = [(key, other) for key, (other, _) in self._waiting.items() if network(other.address) == crowded]
            # The oldest one; but first those who have never been in.
            self.end(min(here, key=lambda pair: pair[1].known)[0])
        key = secrets.token_urlsafe(32)
        timer = asyncio.get_running_loop().call_later(TIME, self.end, key)
        self._waiting[key] = (one, timer)
        return key

    def take(self, key: str) -> Waiting | None:
        """Return the login of a key, which is worth nothing from now on."""
        found = self._waiting.pop(key, None)
        if found is None:
            return None
        found[1].cancel()
        return found[0]

    def end(self, key: str) -> None:
        """End a login, if it still waits."""
        one = self.take(key)
        if one:
            self.give_up(one)

    def give_up(self, one: Waiting) -> None:
        """End a login that was taken, and that nobody goes on with."""
        if one.talk:
            one.talk.kill()
            if one.talk.stage == "password":
                self._lost(one)
