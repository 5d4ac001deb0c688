"""What builds reach: the internet and what ``plasma.network`` names, and neither the hub nor its users' servers.

repo2docker, and the steps of builds where it uses the engine's older builder, run on a network of their own. BuildKit
takes no network but the engine's own one, which others may use, too: there the same rules hold while something is
built, for everything that is no container (see ``firewall``).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

from .. import firewall, network
from ..firewall_upkeep import Upkeep
from ..reach import Reach
from .images import BuildFailed

# Seconds between two looks. Containers that others start meanwhile are under the rules for that long.
INTERVAL = 2


def name_for(users: str) -> str:
    """Return the name of the builds' network, from that of the users' servers."""
    return f"{users}-builds"


class BuildNetwork:
    """The network of builds, whose rules are in place as long as something is built.

    Args:
        users: name of the network of the users' servers.
        reach: what builds reach beside the internet; names are looked up anew each time.
        busy: tells whether something is built.
    """

    def __init__(self, users: str, reach: Reach, busy: Callable[[], bool]):
        self.name = name_for(users)
        self.upkeep = Upkeep(INTERVAL, self._update)
        self._reach = reach
        self._busy = busy
        self._lock = threading.Lock()
        self._released = False

    async def protect(self) -> None:
        """Make the network where there is none, and put the rules in place.

        Raises:
            BuildFailed: it cannot be made or protected.
        """
        try:
            await asyncio.to_thread(self._protect)
        except (firewall.FirewallError, network.NetworkError) as error:
            raise BuildFailed(str(error)) from error
        except network.DOCKER_ERRORS as error:
            raise BuildFailed(f"The Docker engine refused or went away: {' '.join(str(error).split())}") from error

    def _protect(self) -> None:
        with contextlib.closing(network.connect(timeout=0)) as client:
            network.ensure_network(client, self.name)
            self._update(client)

    def _update(self, client: Any) -> None:
        with self._lock:
            shared = [network.SHARED] if network.has_shared(client) else []
            if self._busy():
                reach = self._reach.resolved()
                for name in (self.name, *shared):
                    firewall.ensure(client, name, None, reach=reach)
                self._released = False
            elif shared and not self._released:
                firewall.release(client.inspect_network(network.SHARED))
                self._released = True
