"""Whose password is checked, and when."""

from __future__ import annotations

import asyncio

import pytest
from tljh_plasma import logins
from tljh_plasma.logins import ADDRESS, PAIR, STRICT, WAITING, WINDOW, Logins, TooMany, network

HERE, ELSEWHERE = "192.0.2.1", "198.51.100.9"


class World:
    """Logins with a clock that stands still, and a PAM whose checks end when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.logins = Logins(lambda: self.now)
        self.asked: list[str] = []
        self.gate = asyncio.Event()

    async def log_in(self, name: str, address: str = HERE, right: bool = False) -> bool:
        async def ask() -> bool:
            self.asked.append(name)
            return right

        return await self.logins.check(name, address, ask)

    async def held(self, name: str, address: str = HERE) -> bool:
        """The same, and it takes until the gate opens."""

        async def ask() -> bool:
            self.asked.append(name)
            await self.gate.wait()
            return True

        return await self.logins.check(name, address, ask)


def test_guesses_end_and_begin_again():
    async def play():
        world = World()
        for _ in range(PAIR):
            assert not await world.log_in("ada")
        with pytest.raises(TooMany, match=r"Please try again in 10 minutes\.") as error:
            await world.log_in("ada", right=True)
        assert error.value.seconds == WINDOW
        assert len(world.asked) == PAIR
        # The account is open from elsewhere, and the address for others.
        assert await world.log_in("ada", ELSEWHERE, right=True)
        assert await world.log_in("bob", right=True)
        world.now += WINDOW
        assert await world.log_in("ada", right=True)

    asyncio.run(play())


def test_a_right_password_takes_back_the_wrong_ones():
    async def play():
        world = World()
        for _ in range(3):
            for _ in range(PAIR - 1):
                await world.log_in("ada")
            assert await world.log_in("ada", right=True)

    asyncio.run(play())


def test_an_address_with_very_many_wrong_ones_gets_fewer_tries():
    async def play():
        world = World()
        assert await world.log_in("regular", right=True)
        for number in range(ADDRESS):
            await world.log_in(f"nobody-{number}")
        for _ in range(STRICT):
            await world.log_in("ada")
        with pytest.raises(TooMany):
            await world.log_in("ada", right=True)
        # Who has not mistyped is let in, and who was in before may mistype as ever.
        assert await world.log_in("bob", right=True)
        for _ in range(PAIR - 1):
            await world.log_in("regular")
        assert await world.log_in("regular", right=True)

    asyncio.run(play())


def test_an_account_that_is_guessed_from_everywhere():
    async def play():
        world = World()
        for number in range(logins.ACCOUNT):
            await world.log_in("ada", f"203.0.113.{number}")
        for _ in range(STRICT):
            await world.log_in("ada", ELSEWHERE)
        with pytest.raises(TooMany):
            await world.log_in("ada", ELSEWHERE)
        assert await world.log_in("ada", HERE, right=True)

    asyncio.run(play())


async def _settle():
    for _ in range(5):
        await asyncio.sleep(0)


def test_addresses_take_turns():
    async def play():
        world = World()
        flood = [asyncio.ensure_future(world.held(f"name-{number}")) for number in range(100)]
        await _settle()
        assert len(world.asked) == logins.AT_ONCE_FROM
        right = asyncio.ensure_future(world.held("ada", ELSEWHERE))
        await _settle()
        # At once, past the hundred.
        assert world.asked[-1] == "ada"
        world.gate.set()
        await asyncio.gather(right, *flood)

    asyncio.run(play())


def test_within_an_address_those_with_the_fewest_wrong_ones_come_first():
    async def play():
        world = World()
        for number in range(50):
            await world.log_in(f"name-{number}")
        flood = [asyncio.ensure_future(world.held(f"name-{number}")) for number in range(50)]
        await _settle()
        right = asyncio.ensure_future(world.held("ada"))
        await _settle()
        world.gate.set()
        await right
        begun = world.asked[50:]
        assert begun.index("ada") <= logins.AT_ONCE_FROM
        await asyncio.gather(*flood)

    asyncio.run(play())


def test_a_name_is_checked_once_at_a_time():
    """Or many at once would all count as the first."""

    async def play():
        world = World()
        answers = await asyncio.gather(*(world.log_in("ada") for _ in range(100)), return_exceptions=True)
        assert answers.count(False) == len(world.asked) == PAIR
        assert sum(isinstance(answer, TooMany) for answer in answers) == 100 - PAIR

    asyncio.run(play())


def test_a_full_queue_sends_away_those_with_the_most_wrong_ones():
    async def play():
        world = World()
        await world.log_in("guesser")
        flood = [asyncio.ensure_future(world.held(f"name-{number}")) for number in range(logins.AT_ONCE_FROM)]
        await _settle()
        guesser = asyncio.ensure_future(world.held("guesser"))
        flood += [asyncio.ensure_future(world.held(f"more-{number}")) for number in range(WAITING)]
        await _settle()
        with pytest.raises(TooMany, match="Too many people are logging in"):
            await guesser
        world.gate.set()
        assert await asyncio.gather(*flood) == [True] * len(flood)

    asyncio.run(play())


def test_who_leaves_the_queue_holds_up_nobody():
    async def play():
        world = World()
        flood = [asyncio.ensure_future(world.held(f"name-{number}")) for number in range(20)]
        await _settle()
        for one in flood:
            one.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
        assert await world.log_in("ada", right=True)
        assert not world.logins._running.total()

    asyncio.run(play())


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(logins, "REMEMBERED", 10)

    async def play():
        world = World()
        for number in range(100):
            await world.log_in(f"name-{number}", f"198.51.100.{number}", right=number % 2 == 0)
        kept = world.logins
        assert len(kept._known) == len(kept._pairs._times) == len(kept._addresses._times) == 10

    asyncio.run(play())


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_household_counts_as_one(address, counted):
    assert network(address) == counted
