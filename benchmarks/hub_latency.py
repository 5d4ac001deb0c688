"""How long the hub takes for a trifle while it is busy with something else."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import requests

from .hub_bench import summary

EVERY = 0.2


class Sampler:
    """Asks for some addresses again and again, each in a thread of its own, while a block runs (one or more).

    Args:
        addresses: what to ask for, by the name of the figure.
    """

    def __init__(self, addresses: dict[str, str]) -> None:
        self._addresses = addresses
        self._times: dict[str, list[float]] = {name: [] for name in addresses}
        self._errors: dict[str, int] = dict.fromkeys(addresses, 0)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Sampler:
        self._stop.clear()
        self._threads.clear()
        for name, address in self._addresses.items():
            thread = threading.Thread(target=self._sample, args=(name, address))
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _sample(self, name: str, address: str) -> None:
        session = requests.Session()
        while not self._stop.wait(EVERY):
            # Everybody who comes to the login page comes for the first time.
            session.cookies.clear()
            begin = time.perf_counter()
            try:
                answered = session.get(address, timeout=30).ok
            except requests.RequestException:
                answered = False
            self._times[name].append((time.perf_counter() - begin) * 1000)
            self._errors[name] += not answered

    def results(self) -> dict[str, dict[str, float]]:
        """Return the latencies in milliseconds, with the number of failures, by the name of the figure."""
        return {name: {**summary(times), "errors": self._errors[name]} for name, times in self._times.items() if times}
