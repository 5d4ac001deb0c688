"""The API of the environments page and of the page that makes links."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from tornado.iostream import StreamClosedError

from ..access import Entry
from ..builds import BuildRefused
from ..links import Link, NoLink
from ..operators import PILLAR
from .base import ApiHandler
from .errors import Invalid, Refused, refusals
from .requests import Change, NewEnvironment, NewLink, Rebuild, tail

# Proxies close connections on which nothing happens.
HEARTBEAT = 15


class AdministratorsApi(ApiHandler):
    """Base of the API for administrators."""

    administrators = True

    @property
    def catalog(self):
        """Lists environments."""
        return self.settings["catalog"]

    @property
    def operations(self):
        """Changes environments."""
        return self.settings["operations"]

    @property
    def visitor_name(self) -> str:
        """Name of the administrator, or that they come with pillar."""
        return PILLAR if self.is_operator else self.current_user["name"]


class EnvironmentsApi(AdministratorsApi):
    """``api/environments``"""

    async def get(self) -> None:
        """List all environments."""
        self.write_json({"environments": await self.catalog.as_json()})

    async def post(self) -> None:
        """Add one."""
        body = self.read_body(NewEnvironment)
        image = await self.operations.add(body, self.visitor_name, self.is_operator)
        self.log.info("%s adds the environment %s", self.visitor_name, image)
        self.write_json({"image": image}, 201)


class EnvironmentApi(AdministratorsApi):
    """``api/environments/IMAGE``"""

    async def patch(self, image: str) -> None:
        """Change description, groups, limits, GPUs, what it opens with, or which of its images is in use."""
        await self.operations.change(image, self.read_body(Change), self.is_operator)
        self.log.info("%s changes the environment %s", self.visitor_name, image)
        self.write_json({"image": image})

    async def delete(self, image: str) -> None:
        """Remove it."""
        await self.operations.remove(image)
        self.log.info("%s removes the environment %s", self.visitor_name, image)
        self.write_json({"image": image})


class BuildApi(AdministratorsApi):
    """``api/environments/IMAGE/build``"""

    async def post(self, image: str) -> None:
        """Build it again."""
        await self.operations.rebuild(image, self.read_body(Rebuild), self.visitor_name, self.is_operator)
        self.log.info("%s builds the environment %s again", self.visitor_name, image)
        self.write_json({"image": image}, 202)


class ArchiveApi(AdministratorsApi):
    """``POST api/environments/IMAGE/archive``"""

    async def post(self, image: str) -> None:
        """Give its image up, and keep how it is built."""
        await self.operations.archive(image, self.is_operator)
        self.log.info("%s archives the environment %s", self.visitor_name, image)
        self.write_json({"image": image})


class LinksApi(AdministratorsApi):
    """``POST api/links``: a link that starts an environment and opens something in it."""

    async def post(self) -> None:
        """Answer with the path of the link. Where nothing is said, files open with what the environment opens with."""
        given = {name: value.strip() for name, value in self.read_body(NewLink).model_dump().items()}
        image = given["image"]
        await self.catalog.find(image)
        if given["repo"] or given["file"]:
            given["opens"] = given["opens"] or (await self.catalog.entries()).get(image, Entry()).opens
        try:
            link = Link(**given).checked()
        except NoLink as error:
            raise Invalid(str(error)) from error
        self.write_json({"path": f"{self.settings['hub_prefix']}spawn?{link.query}"})


class TailApi(AdministratorsApi):
    """``GET api/environments/IMAGE/log/tail``: the end of the log of the latest build, as far as it has come."""

    async def get(self, image: str) -> None:
        """Answer with the last lines."""
        number = tail(self.get_query_argument("lines", "20"))
        item = await self.catalog.find(image)
        with refusals():
            lines = (await self.catalog.builder.text(image)).splitlines()
        self.write_json({"image": image, "status": item.status, "message": item.message, "lines": lines[-number:]})


class LogApi(AdministratorsApi):
    """``GET api/environments/IMAGE/log``: the log of the latest build as server-sent events."""

    _task: asyncio.Task | None = None

    def on_connection_close(self) -> None:
        """Stop when nobody listens any more."""
        if self._task is not None:
            self._task.cancel()

    async def get(self, image: str) -> None:
        """Send the log from its start, then each line as it comes, then how the build ended."""
        await self.catalog.find(image)
        self.set_header("Content-Type", "text/event-stream")
        # Proxies that keep answers back to send them in one piece.
        self.set_header("X-Accel-Buffering", "no")
        self._task = asyncio.ensure_future(self._send(image))
        try:
            await self._task
        except (asyncio.CancelledError, StreamClosedError):
            self.log.debug("Nobody follows the build of %s here any more", image)

    async def _send(self, image: str) -> None:
        await self.flush()
        log = self.catalog.builder.follow(image)
        try:
            await self._send_all(log)
            item = await self.catalog.find(image)
        except BuildRefused as error:
            # There is no log: the environment was not built here.
            await self._event("failed" if error.status >= 500 else "built", error.message)
        except Refused as error:
            await self._event("failed", error.sentence)
        else:
            await self._event("built" if item.status == "built" else "failed", item.message)
        finally:
            await log.aclose()

    async def _send_all(self, log: AsyncIterator[str]) -> None:
        """Send a log until it ends, and a sign of life whenever nothing came for a while."""
        following: asyncio.Future | None = None
        try:
            while True:
                following = following or asyncio.ensure_future(log.__anext__())
                done, _ = await asyncio.wait({following}, timeout=HEARTBEAT)
                if not done:
                    self.write(": still here\n\n")
                    await self.flush()
                    continue
                try:
                    text = following.result()
                except StopAsyncIteration:
                    return
                following = None
                await self._event("log", text)
        finally:
            if following is not None and not following.done():
                following.cancel()
                await asyncio.wait({following})

    async def _event(self, phase: str, message: str) -> None:
        self.write(f"data: {json.dumps({'phase': phase, 'message': message})}\n\n")
        await self.flush()
