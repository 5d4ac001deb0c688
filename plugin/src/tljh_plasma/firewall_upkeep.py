"""Looks after rules of the firewall for as long as the process lives, as a reload of the host's firewall drops them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from . import firewall, network, old_ports
from .reach import Reach

# Seconds between two looks at the users' network: how long what is flushed stays open.
INTERVAL = 10

log = logging.getLogger("tornado.application")  # JupyterHub's own log follows it


class Upkeep:
    """Calls a function again and again in a thread of its own; failures go to the log.

    Args:
        interval: seconds between two calls.
        work: is called with a docker-py API client.
    """

    def __init__(self, interval: float, work: Callable[[Any], None]):
        self._interval = interval
        self._work = work
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. May be repeated."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="firewall", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End with one more call."""
        self._stopped.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        client = None
        last = False
        while not last:
            last = self._stopped.is_set()
            try:
                client = client or network.connect(timeout=0)
                self._work(client)
            except (firewall.FirewallError, network.NetworkError, *network.DOCKER_ERRORS) as error:
                log.error("Firewall: %s", error)
            self._stopped.wait(self._interval)


_followed: tuple[str, int, Reach]


def follow(name: str, hub_port: int, reach: Reach) -> None:
    """Look after the users' network from now on, whether or not any server runs later. May be repeated.

    Args: as for ``firewall.ensure``; names of hosts will do, and are looked up each time.
    """
    global _followed
    _followed = (name, hub_port, reach)
    _upkeep.start()


def _protect(client: Any) -> None:
    name, hub_port, reach = _followed
    firewall.ensure(client, name, hub_port, reach=reach.resolved())
    old_ports.ensure()


_upkeep = Upkeep(INTERVAL, _protect)
