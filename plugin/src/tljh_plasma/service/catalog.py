"""The environments there are: images of the engine, builds under way, and builds that failed, in one list."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from tljh_repo2docker.database.model import DockerImageSQL
from tljh_repo2docker.database.schemas import BuildStatusType

from .. import environments as envs
from .. import policy
from ..access import Entry, History, Store
from ..builds import Builder, former
from ..builds.images import LABEL_CREATED, LABEL_OWNER
from ..builds.rows import READY
from ..operators import PILLAR
from ..settings import Settings
from .engine import Engine
from .errors import Refused, refusals
from .requests import shown

LOG_END = 600
# What the API says of an environment as it is.
OF_ENVIRONMENT = ("name", "repo", "ref", "commit", "reference", "base", "source_url")
OF_ITEM = ("image", "status", "has_image", "created", "owner", "buildargs", "message", "size", "previous")
OF_FORMER = ("repo", "ref", "commit", "reference", "base")
IMAGE_GONE = "The image is gone from Docker: build the environment again, or remove it."

# The status of an environment whose image was given up.
ARCHIVED = "archived"

Session = Callable[[], AbstractAsyncContextManager[AsyncSession]]


def iso_date(text: Any) -> str:
    """Return a date if it is one in ISO 8601, else ""; tljh-repo2docker writes 24/12/2025."""
    try:
        return datetime.fromisoformat(str(text)).isoformat()
    except ValueError:
        return ""


@dataclass(frozen=True)
class Row:
    """What the database knows of an environment.

    Attributes:
        uid: key of the row.
        status: of the latest build.
        meta: name, repository and so on, as tljh-repo2docker keeps them.
        end: the end of the build's log.
    """

    uid: Any
    status: str
    meta: dict[str, Any]
    end: str

    @property
    def last_line(self) -> str:
        """What the log ends with."""
        lines = [line.strip() for line in self.end.splitlines() if line.strip()]
        return lines[-1] if lines else ""


@dataclass(frozen=True)
class Item:
    """An environment.

    Attributes:
        environment: what its image says, or its row where there is no image.
        status: "built", "building", "queued", "failed" or "archived".
        has_image: whether it can be started.
        created: when the image was made, ISO 8601; empty when unknown.
        owner: who added it.
        buildargs: one KEY=VALUE a line.
        message: why the latest build failed; empty otherwise.
        size: of the image in bytes, with what it shares with others; 0 where there is none.
        kept: the image that is kept beside it; None where there is none.
        previous: whether the image in use is the older of the two.
    """

    environment: envs.Environment
    status: str
    has_image: bool
    created: str = ""
    owner: str = ""
    buildargs: str = ""
    message: str = ""
    size: int = 0
    kept: former.Former | None = None
    previous: bool = False

    @property
    def former_as_json(self) -> dict[str, Any] | None:
        """What the API says of the image that is kept."""
        if self.kept is None:
            return None
        environment = self.kept.environment
        described = {name: getattr(environment, name) for name in OF_FORMER}
        return {**described, "created": iso_date(self.kept.created), "size": self.kept.size}

    @property
    def image(self) -> str:
        """Name and tag of the image, which identify the environment."""
        return self.environment.image


class Catalog:
    """Lists environments.

    Args:
        engine: the Docker engine.
        store: permissions and descriptions.
        builder: runs the builds.
        session: opens a session of the database.
        settings: the hub's settings.
    """

    def __init__(self, engine: Engine, store: Store, builder: Builder, session: Session, settings: Settings) -> None:
        self.engine = engine
        self.store = store
        self.builder = builder
        self.session = session
        self.defaults = policy.default_limits(settings.memory, settings.cpu, 0)

    async def rows(self) -> dict[str, Row]:
        """Return the rows of the database by image, of their logs the end alone: logs may be long."""
        table = DockerImageSQL
        end = sa.func.substr(table.log, -LOG_END)
        async with self.session() as session:
            # As JSON: SQLAlchemy does not cache statements with the type of JupyterHub's own.
            meta = sa.type_coerce(table.image_meta, sa.JSON)
            result = await session.execute(sa.select(table.uid, table.name, table.status, meta, end))
            return {
                name: Row(uid, BuildStatusType(status).value, meta or {}, text or "")
                for uid, name, status, meta, text in result
            }

    async def items(self) -> list[Item]:
        """Return all environments, by name."""
        with refusals():
            await self.builder.resume()
        # Before and after: of what ends or begins meanwhile, images and rows may say one thing or the other.
        states = self.builder.states()
        images, rows, entries = await asyncio.gather(self.engine.images(), self.rows(), self.entries())
        states = {**self.builder.states(), **states}
        found = []
        formers = former.from_images(images)
        raw = {name: image for image in images for name in image.get("RepoTags") or []}
        for environment in envs.from_images(images):
            row = rows.pop(environment.image, None)
            found.append(self._item(environment, row, raw[environment.image], states, formers))
        for image, row in rows.items():
            meta = row.meta
            source = meta.get("repo", "")
            ready = meta.get("provider") == READY
            environment = envs.Environment(
                image=image,
                image_id="",
                name=meta.get("display_name") or image,
                directory=envs.directory_name(meta.get("display_name") or image),
                repo="" if ready else source,
                reference=source if ready else "",
                ref=meta.get("ref", ""),
                memory=envs.parse_memory(meta.get("mem_limit", "")),
                cpu=envs.parse_cpu(meta.get("cpu_limit", "")),
            )
            item = self._item(environment, row, None, states, formers)
            shelved = item.status == "failed" and entries.get(image, Entry()).archived
            found.append(replace(item, status=ARCHIVED, message="") if shelved else item)
        return sorted(found, key=lambda item: (item.environment.name.casefold(), item.image))

    def _item(
        self,
        environment: envs.Environment,
        row: Row | None,
        image: dict[str, Any] | None,
        states: dict[str, str],
        formers: dict[str, former.Former],
    ) -> Item:
        message, status = "", states.get(environment.image)
        if status is None:
            # A build that nobody runs any more has failed, whatever its row says.
            status = "built" if image and (row is None or row.status == "built") else "failed"
            if status == "failed":
                message = IMAGE_GONE if row and row.status == "built" else row.last_line if row else ""
        meta = row.meta if row else {}
        labels = (image or {}).get("Labels") or {}
        # Docker's own date is that of the layers, which may come from its cache.
        created = iso_date(labels.get(LABEL_CREATED) or meta.get("creation_date"))
        if image and not created:
            created = datetime.fromtimestamp(image["Created"], timezone.utc).isoformat()
        kept = formers.get(environment.image) if image else None
        return Item(
            environment=environment,
            status=status,
            has_image=image is not None,
            created=created,
            owner=labels.get(LABEL_OWNER) or meta.get("owner", ""),
            buildargs=meta.get("buildargs") or "",
            message=message,
            size=int((image or {}).get("Size") or 0),
            kept=kept,
            previous=kept is not None and kept.in_place_of(labels.get(LABEL_CREATED, "")),
        )

    async def find(self, image: str) -> Item:
        """Return one environment.

        Raises:
            Refused: there is none of this name.
        """
        for item in await self.items():
            if item.image == image:
                return item
        raise Refused(404, f"There is no environment '{shown(image)}' (any more).")

    async def entries(self) -> dict[str, Entry]:
        """Return groups and descriptions by image."""
        return await asyncio.to_thread(self.store.all)

    async def as_json(self) -> list[dict[str, Any]]:
        """Return all environments as the API lists them."""
        items, entries, users, past = await asyncio.gather(
            self.items(), self.entries(), self.engine.users(), asyncio.to_thread(self.store.history)
        )
        listed = []
        for item in items:
            environment = item.environment
            limits = policy.limits_of(environment, self.defaults)
            entry = entries.get(item.image, Entry())
            # Containers whose image has lost its name are listed by the image's id.
            names = users.get(item.image, set()) | users.get(environment.image_id, set())
            listed.append(
                {
                    **{name: getattr(environment, name) for name in OF_ENVIRONMENT},
                    **{name: getattr(item, name) for name in OF_ITEM},
                    "memory": limits.memory,
                    "cpu": limits.cpu,
                    "former": item.former_as_json,
                    "limits": {"memory": environment.memory, "cpu": environment.cpu},
                    "description": entry.description,
                    "opens": entry.opens,
                    "gpus": entry.gpus,
                    "webhook": entry.webhook,
                    "groups": list(entry.groups),
                    "source": PILLAR if entry.pillar else "browser",
                    "users": sorted(names),
                    **asdict(past.get(item.image, History())),
                }
            )
        return listed

    async def permissions_as_json(self) -> list[dict[str, Any]]:
        """Return all environments as the permissions page shows them."""
        items, entries = await asyncio.gather(self.items(), self.entries())
        return [
            {
                "image": item.image,
                "name": item.environment.name,
                "owner": item.owner,
                "source_url": item.environment.source_url,
                "groups": list(entries.get(item.image, Entry()).groups),
            }
            for item in items
        ]

    async def limits(self) -> dict[str, tuple[str, int, float]]:
        """Return name, memory (bytes) and CPUs of the environments that can be started, by image."""
        found = {}
        for environment in envs.from_images(await self.engine.images()):
            limits = policy.limits_of(environment, self.defaults)
            found[environment.image] = (environment.name, limits.memory, limits.cpu)
        return found
