"""What builds reach: the internet and what ``plasma.network`` names, and neither the hub nor its users' servers.

repo2docker, and the steps of builds where it uses the engine's older builder, run on a network of their own. BuildKit
takes no network but the engine's own one, which others may use, too: there the same rules hold while something is
built, for everything that is no container (see ``firewall``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import docker
import requests

from . import firewall, network
from .build_container import BuildFailed
from .reach import INTERNET, Reach
from .settings import DEFAULT_NETWORK_NAME

# Seconds between two looks. Containers that others start meanwhile are under the rules for that long.
INTERVAL = 2

log = logging.getLogger(__name__)


def name_for(users: str) -> str:
    """Return the name of the builds' network, from that of the users' servers."""
    return f"{users}-builds"


class BuildNetwork:
    """Keeps the rules in place as long as something is built.

    Args:
        users: name of the network of the users' servers.
        reach: what builds reach beside the internet; names are looked up anew each time.
        busy: tells whether something is built.
    """

    def __init__(self, users: str = DEFAULT_NETWORK_NAME, reach: Reach = INTERNET, *, busy: Callable[[], bool]):
        self.name = name_for(users)
        self._reach = reach
        self._busy = busy
        self._changing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def make(self) -> None:
        """Make the network where there is none.

        Raises:
            BuildFailed: it cannot be had.
        """
        await self._do(lambda client: network.ensure_network(client, self.name))

    async def close(self) -> None:
        """Put the rules in place, and keep them there.

        Raises:
            BuildFailed: they cannot be written.
        """
        await self._do(self._protect)
        self.watch()

    def watch(self) -> None:
        """Begin to look after the rules. Without builds the engine's own network has none."""
        if self._task is None:
            self._task = asyncio.create_task(self._watch(), name="rules of the builds' network")

    async def leave(self) -> None:
        """End looking after the rules; builds may go on under those that there are."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _do(self, work: Callable[[Any], Any]) -> None:
        try:
            async with self._changing:
                await asyncio.to_thread(_with_client, work)
        except (firewall.FirewallError, network.NetworkError) as error:
            raise BuildFailed(str(error)) from error
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise BuildFailed(f"The Docker engine refused or went away: {' '.join(str(error).split())}") from error

    def _protect(self, client: Any) -> None:
        reach = self._reach.resolved()
        firewall.ensure(client, self.name, None, reach=reach)
        if network.has_shared(client):
            firewall.ensure(client, network.SHARED, None, reach=reach)

    def _release(self, client: Any) -> None:
        if not self._busy() and network.has_shared(client):
            firewall.release(client.inspect_network(network.SHARED))

    async def _watch(self) -> None:
        while True:
            try:
                await self._do(self._protect if self._busy() else self._release)
            except BuildFailed as error:
                log.error("Network of the builds: %s", error)
            await asyncio.sleep(INTERVAL)


def _with_client(work: Callable[[Any], Any]) -> None:
    client = network.connect(timeout=0)
    try:
        work(client)
    finally:
        client.close()
