"""The part of the spawner that looks after servers while they run, and tells people about them in JupyterLab."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dockerspawner import DockerSpawner
from tornado.ioloop import PeriodicCallback
from traitlets import Unicode

from . import failures, memory, notices
from .accounts import find_entry
from .disk_quota import Notice
from .network import DOCKER_ERRORS
from .planning import PlannedSpawner

# Seconds between two looks whether the kernel ended something for want of memory.
MEMORY_INTERVAL = 5


class WatchedSpawner(PlannedSpawner, DockerSpawner):
    """Looks after the containers of DockerSpawner's servers."""

    notices_dir = Unicode(
        "/run/plasma/notices",
        config=True,
        help="Directory of the host for what people are told in JupyterLab, which is root's. Empty for nothing.",
    )

    def __init__(self, **kwargs: Any) -> None:
        # What is told in this server alone, by its subject.
        self.told: dict[str, Notice] = {}
        super().__init__(**kwargs)
        self._events: Path | None = None
        self._killed = 0
        self._look: PeriodicCallback | None = None

    def get_state(self) -> dict[str, Any]:
        """Return what is kept in the hub's database while the server runs."""
        told = {subject: asdict(notice) for subject, notice in self.told.items()}
        return {**super().get_state(), **({"told": told} if told else {})}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a server that was started before the hub."""
        super().load_state(state)
        self.told = {subject: Notice(**notice) for subject, notice in state.get("told", {}).items()}

    async def tell(self, level: int) -> str | None:
        """Bring what the person is told up to date.

        Args:
            level: of the log, where that does not work.

        Returns:
            The directory to mount, None when there is none.
        """
        if not self.notices_dir:
            return None
        address, told = self.server.base_url if self.server else "", list(self.told.values())
        try:
            uid = (await asyncio.to_thread(find_entry, self.user.name)).pw_uid
            return await asyncio.to_thread(notices.refresh, self.notices_dir, self.user.name, uid, address, told)
        except Exception as error:
            # Nobody's server waits for this, whatever it is.
            self.log.log(level, "Server %s has no notices: %s", self._log_name, error)
            return None

    # Memory.

    def start_polling(self) -> None:
        """Look after the server from now on; JupyterHub calls it, also for servers that outlived a hub."""
        super().start_polling()
        self._events, self._killed = None, 0
        self._look = PeriodicCallback(self.look_at_memory, MEMORY_INTERVAL * 1000)
        self._look.start()

    def stop_polling(self) -> None:
        """Look no more."""
        super().stop_polling()
        if self._look:
            self._look.stop()
            self._look = None

    async def look_at_memory(self) -> None:
        """Tell person and log when the kernel ended something in the server for want of memory."""
        if not self._events:
            pid = (await self._container_state()).get("Pid")
            self._events = memory.events_file(pid) if pid else None
        killed = memory.killed(self._events) if self._events else None
        if not killed or killed == self._killed:
            return
        self._killed = killed
        limit = self.summary.get("memory") or self.default_limits.memory
        said = memory.notice(killed, limit)
        self.log.warning("Server %s: %s, which is %s", self._log_name, said.title, memory.size(limit))
        self.told["memory"] = said
        await self.tell(logging.WARNING)

    async def explain_the_end(self) -> None:
        """Say so where a whole server ended for want of memory, before its container is removed."""
        state = await self._container_state()
        # Each of the two alone has other reasons, too: a kernel's end long ago, a restart of the machine.
        limit = self.summary.get("memory")
        if limit and state.get("OOMKilled") and state.get("ExitCode") == failures.KILLED:
            self.log.warning("Server %s was ended: out of memory, which is %s", self._log_name, memory.size(limit))
            memory.note_end(self.user.name, self.name, limit)

    def forget_the_end(self) -> None:
        """The server starts again."""
        memory.forget_end(self.user.name, self.name)

    async def _container_state(self) -> dict[str, Any]:
        """Return what Docker says of the container; nothing when there is none."""
        try:
            return (await self.docker("inspect_container", self.object_id))["State"] if self.object_id else {}
        except DOCKER_ERRORS:
            return {}
