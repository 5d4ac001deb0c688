"""Who may use which environment: what administrators said on the permissions page, kept in the hub's state directory.

The hub reads it when somebody starts a server, the service "plasma" writes to it. Both are processes on one machine,
so a SQLite file serves: transactions are short and the file is read anew every time.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from . import kept

metadata = sa.MetaData()
permissions = sa.Table(
    "permissions",
    metadata,
    sa.Column("image", sa.Unicode(512), primary_key=True),
    sa.Column("group", sa.Unicode(64), primary_key=True),
)
descriptions = sa.Table(
    "descriptions",
    metadata,
    sa.Column("image", sa.Unicode(512), primary_key=True),
    sa.Column("text", sa.Unicode(1024), nullable=False),
)
pillar = sa.Table("pillar", metadata, sa.Column("image", sa.Unicode(512), primary_key=True))


class AccessError(Exception):
    """The file cannot be used; the text is one sentence that says what to do."""


@dataclass(frozen=True)
class Entry:
    """What was said of one environment.

    Attributes:
        groups: UNIX groups whose members may start it, sorted; empty when nobody said.
        description: what people read about it.
        pillar: whether it is among the environments of pillar.
    """

    groups: tuple[str, ...] = ()
    description: str = ""
    pillar: bool = False


def may_start(entry: Entry, groups: Iterable[str], *, admin: bool, open_by_default: bool) -> bool:
    """Tell whether somebody may start an environment.

    Args:
        entry: what was said of the environment.
        groups: names of all the person's groups, the primary one included.
        admin: whether the person administers the hub.
        open_by_default: what holds for environments without groups.
    """
    if admin:
        return True
    if not entry.groups:
        return open_by_default
    return not set(entry.groups).isdisjoint(groups)


class Store:
    """The file with the permissions and descriptions of environments.

    An environment is known by its image's name and tag. Entries of images that do not exist do no harm; they go when
    the environment is removed, and again before another one of the same name is added.

    Args:
        path: the SQLite file. It is made by ``upgrade`` with mode 0600.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        # Wait for the other process rather than fail: both write in milliseconds. No connection is kept: one would go
        # on with the old file when a backup is put back.
        self.engine = sa.create_engine(f"sqlite:///{self.path}", connect_args={"timeout": 30}, poolclass=sa.NullPool)

    def upgrade(self) -> None:
        """Make the file, or bring it to the tables of this release; a file that is changed is copied first.

        The copy is named after the file with ``.REVISION.bak`` added, and is made while nobody else writes.

        Raises:
            AccessError: the file is not ours, of a newer release, gone, or cannot be written.
        """
        from alembic import command
        from alembic.config import Config
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", f"{__package__}:migrations")
        try:
            new = not self.path.exists() or not self.path.stat().st_size
            if new and kept.copy_of(self.path).exists():
                # An empty file would open environments that are closed.
                raise AccessError(
                    f"{self.path}, which says who may start which environment, is gone, so nobody is let in: "
                    f"`plasma_databases.mend {self.path.name}` brings it back."
                )
            if new:
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))
            os.chmod(self.path, 0o600)
            head = ScriptDirectory.from_config(config).get_current_head()
            with self.engine.connect() as connection:
                current = MigrationContext.configure(connection).get_current_revision()
            if current == head:
                return
            if not new and current is not None:
                self._backup(current)
            with self.engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except CommandError as error:
            raise AccessError(
                f"{self.path} was made by a newer release of the plugin ({error}): install that release, "
                "or put back the copy that was made when it was upgraded."
            ) from error
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise AccessError(
                f"{self.path} cannot be used: {_short(error)}. `plasma_databases.mend {self.path.name}` brings it back."
            ) from error

    def keep(self) -> None:
        """Copy the file for the day on which it is damaged (see ``kept``).

        Raises:
            AccessError: it cannot be copied.
        """
        try:
            kept.keep(self.path)
        except (OSError, sqlite3.Error) as error:
            raise AccessError(f"{self.path} cannot be copied: {error}.") from error

    def _write(self, work: Any) -> None:
        self._run(work)
        self.keep()

    def _backup(self, revision: str) -> None:
        copy = self.path.with_name(f"{self.path.name}.{revision}.bak")
        if copy.exists():
            copy = copy.with_name(f"{copy.name}.{time.time_ns()}")
        with self.engine.begin() as connection:
            # Nobody writes while the file is copied.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            shutil.copyfile(self.path, copy)
        os.chmod(copy, 0o600)

    def _run(self, work: Any) -> Any:
        try:
            with self.engine.begin() as connection:
                return work(connection)
        except sa.exc.SQLAlchemyError as error:
            raise AccessError(f"{self.path} cannot be used: {_short(error)}.") from error

    def all(self) -> dict[str, Entry]:
        """Return what was said, by image. Images of which nothing was said are not in it.

        Raises:
            AccessError: the file cannot be read.
        """

        def read(connection: sa.Connection) -> dict[str, Entry]:
            groups: dict[str, list[str]] = {}
            for row in connection.execute(sa.select(permissions)):
                groups.setdefault(row.image, []).append(row.group)
            texts = {row.image: row.text for row in connection.execute(sa.select(descriptions))}
            declared = {row.image for row in connection.execute(sa.select(pillar))}
            return {
                image: Entry(tuple(sorted(groups.get(image, []))), texts.get(image, ""), image in declared)
                for image in sorted({*groups, *texts, *declared})
            }

        return self._run(read)

    def get(self, image: str) -> Entry:
        """Return what was said of one image."""
        return self.all().get(image, Entry())

    def set_groups(self, groups: Mapping[str, Iterable[str]]) -> None:
        """Replace the groups of the named images, all or none; other images keep theirs.

        Args:
            groups: names of groups by image. Whether they exist is the caller's business.

        Raises:
            AccessError: the file cannot be written.
        """
        rows = [{"image": image, "group": name} for image, names in groups.items() for name in sorted(set(names))]

        def write(connection: sa.Connection) -> None:
            for image in groups:
                connection.execute(sa.delete(permissions).where(permissions.c.image == image))
            if rows:
                connection.execute(sa.insert(permissions), rows)

        self._write(write)

    def set_description(self, image: str, text: str) -> None:
        """Replace the description of an image; an empty one removes it."""

        def write(connection: sa.Connection) -> None:
            connection.execute(sa.delete(descriptions).where(descriptions.c.image == image))
            if text:
                connection.execute(sa.insert(descriptions), {"image": image, "text": text})

        self._write(write)

    def set_pillar(self, image: str) -> None:
        """Note that an image's environment is among those of pillar, until it is removed."""

        def write(connection: sa.Connection) -> None:
            connection.execute(sa.delete(pillar).where(pillar.c.image == image))
            connection.execute(sa.insert(pillar), {"image": image})

        self._write(write)

    def remove(self, image: str) -> None:
        """Forget everything about an image, so that the next one of its name starts anew."""

        def write(connection: sa.Connection) -> None:
            for table in (permissions, descriptions, pillar):
                connection.execute(sa.delete(table).where(table.c.image == image))

        self._write(write)


def _short(error: Exception) -> str:
    """The cause of a database error without SQL and links."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
