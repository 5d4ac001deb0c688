"""Logins that PAM has begun, and names as they are written: what others can make of them."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest
from jupyterhub.handlers.login import LoginHandler
from support_pam import Script, form
from tljh_plasma import accounts, logins, pam, pam_words, passwords, pending
from tljh_plasma.auth import PlasmaPAMAuthenticator, Unfinished
from tornado import web

HERE = "192.0.2.7"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(pam_words, "DELAY", 0)


class World:
    """An authenticator, the names of accounts, and the conversations with PAM, which goes by ``steps``."""

    def __init__(self, monkeypatch) -> None:
        self.authenticator = PlasmaPAMAuthenticator(allow_all=True)
        self.names = {"anna": "anna", "example\\anna": "anna", "Hans": "Hans"}
        self.looked_up: list[str] = []
        self.talks: list[Script] = []
        self.steps: tuple = ("Verification code: ", "Password: ", pam_words.SUCCESS)
        monkeypatch.setattr(accounts, "canonical", self.canonical)
        monkeypatch.setattr(pam.Conversation, "start", self.start)

    def canonical(self, name: str) -> str | None:
        self.looked_up.append(name)
        return self.names.get(name) or self.names.get(name.lower())

    async def start(self, service, name, stages, uid=None) -> Script:
        self.talks.append(Script(*self.steps))
        return self.talks[-1]

    async def begin(self, name: str, address: str = HERE) -> Unfinished:
        with pytest.raises(Unfinished) as caught:
            await self.log_in(name, address)
        return caught.value

    async def log_in(self, name: str, address: str = HERE) -> str | None:
        data = {"username": name, "password": "pw"}
        return await self.authenticator.authenticate(form(address), data)

    async def go_on(self, key: str, handler=None) -> str | None:
        return await self.authenticator.authenticate(handler or form(HERE), {"dialogue": key, "answer-0": "123"})


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


async def refused(answering) -> web.HTTPError:
    with pytest.raises(web.HTTPError) as caught:
        await answering
    return caught.value


# Whoever asks the account database.


def test_names_are_looked_up_when_it_is_their_turn_and_beside_everything_else(world, monkeypatch):
    """A directory that is asked for many names, by anybody, must not hold up the hub, or the answers to others."""
    running, most, threads = 0, 0, set()
    lock = threading.Lock()

    def slow(name):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            threads.add(threading.current_thread().name.split("_")[0])
        time.sleep(0.02)
        with lock:
            running -= 1

    monkeypatch.setattr(accounts, "canonical", slow)

    async def play():
        await asyncio.gather(*(world.log_in(f"name-{number}") for number in range(60)))
        assert (most, threads) == (logins.AT_ONCE_FROM, {"names"})

    asyncio.run(play())


def test_nothing_is_looked_up_for_who_is_refused(world):
    async def play():
        for _ in range(logins.PAIR):
            assert await world.log_in("nobody") is None
        world.looked_up.clear()
        assert (await refused(world.log_in("nobody"))).status_code == 429
        assert world.looked_up == []

    asyncio.run(play())


# Going on.


def test_a_program_goes_on_with_no_login(world):
    """Or whoever asks for a token for somebody else would say who they are with a key, and be named as another."""

    async def play():
        begun = await world.begin("anna")
        program = SimpleNamespace(request=SimpleNamespace(remote_ip=HERE))
        assert await world.go_on(begun.key, program) is None
        # In the browser it goes on.
        assert await world.go_on(begun.key) == "anna"

    asyncio.run(play())


def test_the_process_of_an_answer_that_is_not_looked_at_ends(world):
    async def play():
        begun = await world.begin("anna")
        for _ in range(logins.PAIR):
            world.authenticator._logins.wrong("anna", "anna", HERE)
        assert (await refused(world.go_on(begun.key))).status_code == 429
        assert world.talks[0].killed and not len(world.authenticator._pending)

    asyncio.run(play())


def test_a_process_that_fails_at_the_first_question_ends(world, monkeypatch):
    async def fail(self, answers=None):
        raise OSError("gone")

    async def end(self):
        self.killed = True

    monkeypatch.setattr(Script, "step", fail)
    monkeypatch.setattr(Script, "end", end, raising=False)

    async def play():
        with pytest.raises(OSError):
            await world.log_in("anna")
        assert world.talks[0].killed

    asyncio.run(play())


# Who can end whose, and how many there can be.


def test_a_login_that_is_begun_and_not_completed_is_a_wrong_password(world):
    """Where PAM asks for the code first, nothing else would count."""

    async def play():
        for number in range(logins.PAIR):
            begun = await world.begin("anna")
            if number:
                world.authenticator._pending.end(begun.key)
            else:
                first = begun
        world.authenticator._pending.end(first.key)
        assert (await refused(world.log_in("anna"))).status_code == 429
        assert (await world.begin("anna", "198.51.100.9")).waiting.name == "anna"
        # After the right password, none is counted.
        begun = await world.begin("Hans")
        world.talks[-1].stage = "account"
        world.authenticator._pending.end(begun.key)
        assert not world.authenticator._logins._pairs.times(("hans", HERE))

    asyncio.run(play())


def test_nobody_ends_the_form_of_another_with_their_name(world):
    async def play():
        begun = await world.begin("anna")
        for _ in range(5):
            await world.begin("anna")
        assert await world.go_on(begun.key) == "anna"

    asyncio.run(play())


def test_logins_that_wait_have_an_end():
    lost = []

    def one(name, address="192.0.2.1", **keys):
        return pending.Waiting(name, name, address, pam.Given("pw"), Script(), **keys)

    async def play():
        waiting = pending.Pending(lost.append)
        other = waiting.add(one("bea", "198.51.100.9"))
        known = waiting.add(one("regular", known=True))
        for number in range(pending.FROM):
            waiting.add(one(f"name-{number}"))
        # The oldest of the same address makes way, but nobody who has been in before, and it counts.
        assert len(waiting) == pending.FROM + 1
        assert [gone.name for gone in lost] == ["name-0"] and lost[0].talk.killed
        assert waiting.take(known) and waiting.take(other)
        # A machine has all addresses of an IPv6 network.
        for number in range(2 * pending.FROM):
            waiting.add(one("x", f"2001:db8::{number:x}"))
        assert len(waiting) == pending.FROM - 1 + pending.FROM
        for number in range(pending.MOST):
            waiting.add(one("y", f"203.0.113.{number % 200}"))
        assert len(waiting) == pending.MOST

    asyncio.run(play())


# Spellings.


@pytest.mark.parametrize("name", ["Hans", "Nobody"])
def test_capitals_do_not_tell_who_there_is(world, name):
    """Wrong passwords for "Hans" count for "hans" where there is such an account, and where there is none."""
    world.steps = ("Password: ", pam_words.AUTH_ERR)

    async def play():
        for _ in range(logins.PAIR):
            assert await world.log_in(name) is None
        assert (await refused(world.log_in(name.lower()))).status_code == 429

    asyncio.run(play())


@pytest.mark.parametrize("more", [False, True])
def test_other_names_of_an_account_give_no_more_guesses_and_tell_nothing(world, more):
    world.steps = ("Password: ", "Code: ", pam_words.AUTH_ERR) if more else ("Password: ", pam_words.AUTH_ERR)

    async def attempt(name):
        try:
            return await world.log_in(name)
        except Unfinished as unfinished:
            return await world.go_on(unfinished.key)

    async def play():
        world.authenticator._asks_for_more = more
        for name in ("example\\anna", "example\\nobody"):
            for _ in range(logins.PAIR):
                assert await attempt(name) is None
        # By the other name, both look like one more wrong password, though this one is right.
        world.steps = (*world.steps[:-1], pam_words.SUCCESS)
        assert await attempt("anna") is None
        assert await attempt("nobody") is None
        # From elsewhere it opens.
        world.steps = ("Password: ", pam_words.SUCCESS)
        assert await world.log_in("anna", "198.51.100.9") == "anna"

    asyncio.run(play())


def test_the_second_page_shows_the_name_as_it_was_written(world, monkeypatch):
    """How the account database spells it is nobody's business before the password was right."""

    class Page(passwords.Login):
        def __init__(self) -> None:
            self.shown: dict = {}

        async def _render(self, **values):
            self.shown = values

        def finish(self, page) -> None:
            pass

    async def play():
        begun = await world.begin("EXAMPLE\\anna")
        assert begun.waiting.name == "anna"

        async def post(self):
            raise begun

        monkeypatch.setattr(LoginHandler, "post", post)
        page = Page()
        await page.post()
        assert page.shown["username"] == "EXAMPLE\\anna"

    asyncio.run(play())
