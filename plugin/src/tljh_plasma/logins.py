"""Whose password is checked, and when: nobody guesses for long, and nobody waits for those who guess.

Wrong passwords are counted for an account *at an address*. So a stranger who tries somebody's name again and again
shuts out nobody but themselves. An address or an account with very many of them makes the count strict, except for
people who have logged in from there before. Right passwords count nothing: a class may log in at once, from the one
address that all of them share.

Counted are names as they were written, in lower case: what is looked at before the account database is asked must not
depend on its answer. What else an account is called, such as by its name in a directory, counts besides, and is told
nobody.

Checks wait in a queue: addresses take turns, and among the names of one address those with the fewest wrong passwords
come first. Where it is full, those with the most are sent away.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

# Seconds for which a wrong password counts.
WINDOW = 600
# Wrong passwords for an account from an address: a person's mistakes, and 1,440 guesses a day.
PAIR = 10
# The same where the address or the account has too many of them.
STRICT = 2
# Wrong passwords from one address, for all accounts. A class of 300 in which every third mistypes once has as many.
ADDRESS = 100
# Wrong passwords for one account, from all addresses.
ACCOUNT = 50
# Checks at a time, in all and for one address: they are work for the processor, or wait for a directory service.
AT_ONCE = 12
AT_ONCE_FROM = 6
# Checks that wait, for one address: two large lectures that log in within the same second.
WAITING = 512
# Accounts, addresses, and pairs of the two that are remembered. The ones that were seen last stay.
REMEMBERED = 16384


class TooMany(Exception):
    """A password is not checked.

    Attributes:
        seconds: after which it would be.
    """

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = max(1, round(seconds))


def network(address: str) -> str:
    """Return what stands for a client: its address, or with IPv6 the network that a household or a machine has."""
    try:
        version = ip_address(address).version
    except ValueError:
        return address
    return address if version == 4 else str(ip_network(f"{address.partition('%')[0]}/64", strict=False))


def _account(name: str, address: str) -> tuple[str, str]:
    """What an account is counted by, whatever name was written: nobody can write this one."""
    return f"\0{name}", network(address)


class _Recent:
    """When something happened to whom, for as long as it counts."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._times: OrderedDict[Any, deque[float]] = OrderedDict()

    def add(self, key: Any) -> None:
        times = self._times.setdefault(key, deque(maxlen=self._most))
        times.append(self._clock())
        self._times.move_to_end(key)
        if len(self._times) > REMEMBERED:
            self._times.popitem(last=False)

    def times(self, key: Any) -> deque[float]:
        times = self._times.get(key, deque())
        while times and times[0] <= self._clock() - WINDOW:
            times.popleft()
        return times

    def full(self, key: Any) -> bool:
        return len(self.times(key)) >= self._most

    def forget(self, key: Any) -> None:
        self._times.pop(key, None)


@dataclass(eq=False)
class _Waiter:
    name: str
    address: str
    order: tuple[bool, int, int]
    turn: asyncio.Future[None] = field(repr=False)


class Logins:
    """The queue and the counts.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pairs = _Recent(PAIR, clock)
        self._addresses = _Recent(ADDRESS, clock)
        self._accounts = _Recent(ACCOUNT, clock)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._numbers = itertools.count()
        # By address, the one whose turn is next first.
        self._waiting: OrderedDict[str, list[_Waiter]] = OrderedDict()
        self._running: Counter[str] = Counter()
        self._names: set[tuple[str, str]] = set()

    async def check(self, name: str, address: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Check a password when it is its turn.

        Args:
            name: whose it is said to be, in lower case.
            address: IP address of whoever says so.
            ask: checks it; returns something false when it is wrong.

        Returns:
            What ``ask`` returned.

        Raises:
            TooMany: it is not checked.
        """
        pair = (name, network(address))
        self._refuse_guesses(pair)
        await self._turn(pair)
        try:
            # Others of this pair were before us.
            self._refuse_guesses(pair)
            answer = await ask()
            self._count(pair, bool(answer))
            if not answer:
                self._addresses.add(pair[1])
            return answer
        finally:
            self._running[pair[1]] -= 1
            self._names.discard(pair)
            self._next()

    def blocked(self, account: str, address: str) -> bool:
        """Return whether too many wrong passwords were entered for an account, by any of its names.

        It is not told: that two names are one account is nobody's business.

        Args:
            account: the name that the account has.
            address: IP address.
        """
        return self._seconds(_account(account, address)) > 0

    def also(self, account: str, address: str, right: bool) -> None:
        """Count a password for an account, besides for the name as it was written, which ``check`` counts."""
        self._count(_account(account, address), right)

    def wrong(self, name: str, account: str, address: str) -> None:
        """Count a wrong password. The arguments are those of ``check`` and ``blocked``."""
        self._count((name, network(address)), False)
        self._addresses.add(network(address))
        self.also(account, address, False)

    def knows(self, name: str, address: str) -> bool:
        """Return whether somebody has logged in from there before."""
        return (name, network(address)) in self._known

    def _count(self, pair: tuple[str, str], right: bool) -> None:
        if right:
            self._pairs.forget(pair)
            self._known[pair] = None
            self._known.move_to_end(pair)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._pairs.add(pair)
            self._accounts.add(pair[0])

    def _seconds(self, pair: tuple[str, str]) -> float:
        """For how long no password of this pair is checked."""
        strict = pair not in self._known and (self._addresses.full(pair[1]) or self._accounts.full(pair[0]))
        most = STRICT if strict else PAIR
        times = self._pairs.times(pair)
        return times[-most] + WINDOW - self._clock() if len(times) >= most else 0

    def _refuse_guesses(self, pair: tuple[str, str]) -> None:
        seconds = self._seconds(pair)
        if seconds:
            minutes = max(1, -int(-seconds // 60))
            raise TooMany(
                "Too many wrong passwords were entered for this account from your network. "
                f"Please try again in {minutes} minute{'s' if minutes > 1 else ''}.",
                seconds,
            )

    async def _turn(self, pair: tuple[str, str]) -> None:
        """Wait until a check may begin, and count it as running."""
        name, address = pair
        order = (pair not in self._known, len(self._pairs.times(pair)), next(self._numbers))
        waiter = _Waiter(name, address, order, asyncio.get_running_loop().create_future())
        queue = self._waiting.setdefault(address, [])
        queue.append(waiter)
        queue.sort(key=lambda other: other.order)
        if len(queue) > WAITING:
            last = queue.pop()
            if not last.turn.done():
                last.turn.set_exception(
                    TooMany("Too many people are logging in from your network. Please try again in a moment.", 5)
                )
        self._next()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter in self._waiting.get(address, ()):
                self._waiting[address].remove(waiter)
            elif not waiter.turn.cancelled():
                # Its turn had just come.
                self._running[address] -= 1
                self._names.discard(pair)
                self._next()
            raise

    def _next(self) -> None:
        """Begin as many checks as there is room for."""
        for address in [address for address, queue in self._waiting.items() if not queue]:
            del self._waiting[address]
        for address in [address for address, count in self._running.items() if count <= 0]:
            del self._running[address]
        begun = True
        while begun and self._running.total() < AT_ONCE:
            begun = False
            for address in list(self._waiting):
                if self._running.total() >= AT_ONCE:
                    return
                if self._running[address] >= AT_ONCE_FROM:
                    continue
                queue = self._waiting[address]
                # One at a time for each name, so that the count is right when the next one begins.
                free = (one for one in queue if (one.name, address) not in self._names)
                waiter = next(free, None)
                if waiter is None:
                    continue
                queue.remove(waiter)
                self._waiting.move_to_end(address)
                if waiter.turn.done():
                    continue
                self._running[address] += 1
                self._names.add((waiter.name, address))
                waiter.turn.set_result(None)
                begun = True
