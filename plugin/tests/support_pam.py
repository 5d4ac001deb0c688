"""Services of PAM for tests, in the /etc/pam.d of this machine, and conversations without PAM."""

from __future__ import annotations

import secrets
from pathlib import Path
from types import SimpleNamespace

import pytest
from jupyterhub.handlers.login import LoginHandler
from tljh_plasma.pam import Prompt, Step

DIRECTORY = Path("/etc/pam.d")


@pytest.fixture
def pam_service():
    """Factory of services; returns the name."""
    made = []

    def make(text: str) -> str:
        name = f"plasmat-{secrets.token_hex(3)}"
        path = DIRECTORY / name
        path.write_text(text)
        made.append(path)
        return name

    yield make
    for path in made:
        path.unlink()


class form(LoginHandler):
    """The login page's handler, as far as the authenticator needs it."""

    db = None

    def __init__(self, address: str = "192.0.2.7") -> None:
        self.request = SimpleNamespace(remote_ip=address)

    def find_user(self, name: str) -> None:
        return None


class Script:
    """A conversation that asks what it is told to, and records the answers.

    Args:
        steps: questions as texts or tuples of them, in order; what ends it is a code.
        errors: what it says with the step of this number.
    """

    stage = "password"
    killed = False

    def __init__(self, *steps, errors: dict[int, str] | None = None) -> None:
        self.steps, self.errors = list(steps), errors or {}
        self.answers: list[list[str]] = []
        self.abandoned = False
        self._at = -1

    async def step(self, answers=None):
        if answers is not None:
            self.answers.append(answers)
        self._at += 1
        now, said = self.steps[self._at], self.errors.get(self._at, "")
        said = (said,) if said else ()
        if isinstance(now, int):
            return Step("change", said, said, code=now)
        texts = (now,) if isinstance(now, str) else now
        return Step("change", said, said, tuple(Prompt(text.removesuffix("+"), text.endswith("+")) for text in texts))

    async def abandon(self):
        self.abandoned = True

    async def end(self):
        pass

    def kill(self):
        self.killed = True
