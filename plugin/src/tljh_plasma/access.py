"""Who may use which environment: what administrators said on the permissions page, kept in the hub's state directory.

The hub reads it when somebody starts a server, the service "plasma" writes to it. Both are processes on one machine,
so a SQLite file serves: transactions are short and the file is read anew every time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from . import kept

# What makes the tables of each revision out of those before. The file says which one it has in the table of Alembic,
# which former releases worked with.
MIGRATIONS = {
    "1": (
        'CREATE TABLE permissions (image VARCHAR(512) NOT NULL, "group" VARCHAR(64) NOT NULL, '
        'PRIMARY KEY (image, "group"))',
        "CREATE TABLE descriptions (image VARCHAR(512) NOT NULL PRIMARY KEY, text VARCHAR(1024) NOT NULL)",
    ),
    "2": ("CREATE TABLE pillar (image VARCHAR(512) NOT NULL PRIMARY KEY)",),
    "3": ("CREATE TABLE opens (image VARCHAR(512) NOT NULL PRIMARY KEY, text VARCHAR(512) NOT NULL)",),
    "4": ("CREATE TABLE webhooks (image VARCHAR(512) NOT NULL PRIMARY KEY, secret VARCHAR(64) NOT NULL)",),
    "5": (
        "CREATE TABLE archived (image VARCHAR(512) NOT NULL PRIMARY KEY)",
        "CREATE TABLE builds (image VARCHAR(512) NOT NULL PRIMARY KEY, seconds INTEGER NOT NULL)",
        'CREATE TABLE uses (image VARCHAR(512) NOT NULL, "user" VARCHAR(255) NOT NULL, at VARCHAR(32) NOT NULL, '
        'PRIMARY KEY (image, "user"))',
    ),
    "6": ("CREATE TABLE gpus (image VARCHAR(512) NOT NULL PRIMARY KEY, number INTEGER NOT NULL)",),
}
# What decides is read at every start; the rest is for people to look at.
TABLES = ("permissions", "descriptions", "pillar", "opens", "webhooks", "archived", "gpus")
HISTORY = ("builds", "uses")


class AccessError(Exception):
    """The file cannot be used; the text is one sentence that says what to do."""


@dataclass(frozen=True)
class Entry:
    """What was said of one environment.

    Attributes:
        groups: UNIX groups whose members may start it, sorted; empty when nobody said.
        description: what people read about it.
        pillar: whether it is among the environments of pillar.
        opens: what its servers open with (see ``hub_rules.OPENS``); empty for the hub's default.
        webhook: whether a push to its repository builds it again.
        archived: whether its image was given up, and its recipe kept.
        gpus: how many GPUs each of its servers has.
    """

    groups: tuple[str, ...] = ()
    description: str = ""
    pillar: bool = False
    opens: str = ""
    webhook: bool = False
    archived: bool = False
    gpus: int = 0


@dataclass(frozen=True)
class History:
    """What is known of an environment's past.

    Attributes:
        build_seconds: how long the latest build took that succeeded; None when nobody knows.
        last_used: when somebody last started or stopped a server of it, ISO 8601; empty when nobody is known to have.
        used_by: how many people have had one.
    """

    build_seconds: int | None = None
    last_used: str = ""
    used_by: int = 0


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

    def upgrade(self) -> None:
        """Make the file, or bring it to the tables of this release; a file that is changed is copied first.

        The copy is named after the file with ``.REVISION.bak`` added, and is made while nobody else writes.

        Raises:
            AccessError: the file is not ours, of a newer release, gone, or cannot be written.
        """
        mend = f" `plasma_databases.mend {self.path.name}` brings it back."
        try:
            new = not self.path.exists() or not self.path.stat().st_size
            if new and kept.copy_of(self.path).exists():
                # An empty file would open environments that are closed.
                raise AccessError(
                    f"{self.path}, which says who may start which environment, is gone, so nobody is let in:{mend}"
                )
            if new:
                os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))
            os.chmod(self.path, 0o600)
            with self._transaction(mend) as database:
                self._migrate(database)
        except OSError as error:
            raise AccessError(f"{self.path} cannot be used: {error}.{mend}") from error

    def _migrate(self, database: sqlite3.Connection) -> None:
        database.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        (current,) = database.execute("SELECT max(version_num) FROM alembic_version").fetchone()
        revisions = list(MIGRATIONS)
        if current not in (None, *revisions):
            raise AccessError(
                f"{self.path} was made by a newer release of the plugin (it has revision {current}): install that "
                "release, or put back the copy that was made when it was upgraded."
            )
        missing = revisions[revisions.index(current) + 1 if current else 0 :]
        if missing and current:
            # The transaction has written nothing yet, and keeps others from it.
            copy = self.path.with_name(f"{self.path.name}.{current}.bak")
            copy = copy.with_name(f"{copy.name}.{time.time_ns()}") if copy.exists() else copy
            shutil.copyfile(self.path, copy)
            os.chmod(copy, 0o600)
        for revision in missing:
            for statement in MIGRATIONS[revision]:
                database.execute(statement)
            database.execute("DELETE FROM alembic_version")
            database.execute("INSERT INTO alembic_version VALUES (?)", (revision,))

    def keep(self) -> None:
        """Copy the file for the day on which it is damaged (see ``kept``).

        Raises:
            AccessError: it cannot be copied.
        """
        try:
            kept.keep(self.path)
        except (OSError, sqlite3.Error) as error:
            raise AccessError(f"{self.path} cannot be copied: {error}.") from error

    @contextlib.contextmanager
    def _transaction(self, advice: str = "") -> Generator[sqlite3.Connection]:
        """All that is done in it, or nothing.

        It waits for the other process rather than fail: both write in milliseconds. No connection is kept: one would go
        on with the old file when a backup is put back.
        """
        place = f"{self.path.absolute().as_uri()}?mode=rw"
        try:
            with contextlib.closing(sqlite3.connect(place, uri=True, timeout=30, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
        except sqlite3.Error as error:
            raise AccessError(f"{self.path} cannot be used: {error}.{advice}") from error

    def all(self) -> dict[str, Entry]:
        """Return what was said, by image. Images of which nothing was said are not in it.

        Raises:
            AccessError: the file cannot be read.
        """
        with self._transaction() as database:
            rows = [database.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES]
        permitted, described, declared, opening, hooked, shelved, equipped = rows
        groups: dict[str, list[str]] = {}
        for image, group in permitted:
            groups.setdefault(image, []).append(group)
        texts, opens, webhooks, gpus = dict(described), dict(opening), dict(hooked), dict(equipped)
        in_pillar, archived = ({image for (image,) in rows} for rows in (declared, shelved))
        return {
            image: Entry(
                tuple(sorted(groups.get(image, []))),
                texts.get(image, ""),
                image in in_pillar,
                opens.get(image, ""),
                image in webhooks,
                image in archived,
                gpus.get(image, 0),
            )
            for image in sorted({*groups, *texts, *in_pillar, *opens, *webhooks, *archived, *gpus})
        }

    def history(self) -> dict[str, History]:
        """Return what is known of the past of environments, by image."""
        with self._transaction() as database:
            seconds = dict(database.execute("SELECT image, seconds FROM builds").fetchall())
            uses = database.execute("SELECT image, max(at), count(*) FROM uses GROUP BY image").fetchall()
        used = {image: (at, count) for image, at, count in uses}
        return {image: History(seconds.get(image), *used.get(image, ("", 0))) for image in {*seconds, *used}}

    def get(self, image: str) -> Entry:
        """Return what was said of one image."""
        return self.all().get(image, Entry())

    def _replace(self, table: str, images: Iterable[str], rows: Iterable[tuple[str | int, ...]]) -> None:
        """Replace what a table says of some images, all or none."""
        with self._transaction() as database:
            database.executemany(f"DELETE FROM {table} WHERE image = ?", [(image,) for image in images])
            for row in rows:
                database.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        self.keep()

    def set_groups(self, groups: Mapping[str, Iterable[str]]) -> None:
        """Replace the groups of the named images, all or none; other images keep theirs.

        Args:
            groups: names of groups by image. Whether they exist is the caller's business.

        Raises:
            AccessError: the file cannot be written.
        """
        rows = ((image, name) for image, names in groups.items() for name in sorted(set(names)))
        self._replace("permissions", groups, rows)

    def set_description(self, image: str, text: str) -> None:
        """Replace the description of an image; an empty one removes it."""
        self._replace("descriptions", [image], [(image, text)] if text else [])

    def set_opens(self, image: str, text: str) -> None:
        """Replace what servers of an image open with; an empty text leaves it to the hub."""
        self._replace("opens", [image], [(image, text)] if text else [])

    def set_gpus(self, image: str, number: int) -> None:
        """Replace how many GPUs each server of an image has."""
        self._replace("gpus", [image], [(image, number)] if number else [])

    def webhook(self, image: str) -> str:
        """Return the secret of an image's webhook; empty when it has none."""
        with self._transaction() as database:
            found = database.execute("SELECT secret FROM webhooks WHERE image = ?", (image,)).fetchone()
        return found[0] if found else ""

    def set_webhook(self, image: str, secret: str) -> None:
        """Replace the secret of an image's webhook; an empty one removes the webhook."""
        self._replace("webhooks", [image], [(image, secret)] if secret else [])

    def set_archived(self, image: str, archived: bool) -> None:
        """Note that an image was given up, or that it is wanted again."""
        self._replace("archived", [image], [(image,)] if archived else [])

    def note_build(self, image: str, seconds: float) -> None:
        """Note how long the build of an image took."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO builds VALUES (?, ?)", (image, round(seconds)))

    def note_use(self, image: str, user: str) -> None:
        """Note that somebody uses an image at this moment."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO uses VALUES (?, ?, ?)", (image, user, now))

    def rename_user(self, old: str, new: str) -> None:
        """Let what somebody has used be of their new name."""
        with self._transaction() as database:
            database.execute('UPDATE OR REPLACE uses SET "user" = ? WHERE "user" = ?', (new, old))

    def forget_user(self, name: str) -> None:
        """Forget what somebody has used who is gone."""
        with self._transaction() as database:
            database.execute('DELETE FROM uses WHERE "user" = ?', (name,))

    def set_pillar(self, image: str) -> None:
        """Note that an image's environment is among those of pillar, until it is removed."""
        self._replace("pillar", [image], [(image,)])

    def rename_group(self, old: str, new: str) -> None:
        """Let the permissions of a group be those of another name, which it has now."""
        with self._transaction() as database:
            database.execute('UPDATE OR REPLACE permissions SET "group" = ? WHERE "group" = ?', (new, old))
        self.keep()

    def remove(self, image: str) -> None:
        """Forget everything about an image, so that the next one of its name starts anew."""
        with self._transaction() as database:
            for table in (*TABLES, *HISTORY):
                database.execute(f"DELETE FROM {table} WHERE image = ?", (image,))
        self.keep()
