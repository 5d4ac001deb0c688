"""What of a server is in an archive."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from archive import ArchiveError, Writer

DOCKER = "/var/run/docker.sock"
ACCOUNTS = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
# Made again by the proxy and the hub at every start, or locks.
_PASSING = re.compile(r"state/(rules(/.*)?|traefik\.toml|.*\.(pid|lock|sock)|.*-(journal|wal|shm)|\..*\.new)")
_NOT_IN_CONFIG = re.compile(r"config/(\.reload-pending|.*\.(lock|swp)|.*~)")
_MAGIC = b"SQLite format 3\0"


def hub(writer: Writer, prefix: Path, spool: Path) -> None:
    """Configuration, state and the note of what is installed. Databases are copied as they are at one moment, while
    the hub goes on (https://www.sqlite.org/backup.html)."""
    for name, skip in (("config", _NOT_IN_CONFIG), ("state", _PASSING)):
        folder = prefix / name
        if not folder.is_dir() or folder.is_symlink():
            raise ArchiveError(f"{folder} is missing: no hub is installed in {prefix}, so there is nothing to back up.")
        databases = [path for path in sorted(folder.iterdir()) if _is_database(path)]
        names = {f"{name}/{path.name}" for path in databases}
        writer.tree(folder, name, lambda inner, skip=skip, names=names: bool(skip.fullmatch(inner)) or inner in names)
        for path in databases:
            _database(writer, path, f"{name}/{path.name}", spool)
    receipt = prefix / "plasma" / "receipt.json"
    if receipt.is_file():
        writer.text("plasma/receipt.json", receipt.read_bytes())


def _is_database(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _database(writer: Writer, path: Path, name: str, spool: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".plasma-", dir=spool) as place:
        copy = Path(place) / path.name
        try:
            with (
                contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
                problem = target.execute("PRAGMA quick_check").fetchone()[0]
        except sqlite3.Error as error:
            raise ArchiveError(f"{path} cannot be copied ({error}): is the disk all right?") from error
        if problem != "ok":
            raise ArchiveError(f"{path} is damaged ({problem}): restore an older backup, or mend it with sqlite3.")
        with open(copy, "rb") as file:
            os.fchmod(file.fileno(), 0o600)
            writer.opened(name, file)


def tls(writer: Writer, prefix: Path, files: dict[str, str]) -> None:
    """The pair of files of HTTPS that stands elsewhere than below the prefix."""
    for name, path in files.items():
        place = Path(path) if path else None
        if place and place.is_file():
            writer.text(f"tls/{name}.pem", place.read_bytes())


def accounts(writer: Writer, root: Path = Path("/")) -> None:
    """The account files, as they are."""
    for name in ACCOUNTS:
        path = root / "etc" / name
        if path.is_file():
            writer.text(f"accounts/{name}", path.read_bytes())


def homes(writer: Writer, home_path: Path) -> list[str]:
    """All directories below the place of the homes; returns their names."""
    if not home_path.is_dir():
        return []
    writer.tree(home_path, "homes", lambda name: name.split("/")[1].startswith(".plasma-new"))
    return sorted({name.split("/")[1] for name in writer.members if name.startswith("homes/")})


class _Engine(http.client.HTTPConnection):
    def __init__(self) -> None:
        super().__init__("localhost", timeout=600)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(DOCKER)


def environments() -> list[dict[str, Any]]:
    """How the environments on this server were made: what is needed to build them again. Empty without an engine."""
    engine = _Engine()
    try:
        engine.request("GET", "/images/json")
        images = json.loads(engine.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return []
    finally:
        engine.close()
    found = []
    for image in images:
        labels = image.get("Labels") or {}
        tags = [tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]
        if tags and any(label.startswith(("tljh_repo2docker.", "repo2docker.")) for label in labels):
            kept = {key: value for key, value in labels.items() if key.startswith(("tljh_", "repo2docker.", "plasma"))}
            found.append({"tags": tags, "id": image.get("Id"), "bytes": image.get("Size"), "labels": kept})
    return sorted(found, key=lambda entry: entry["tags"])


def images(writer: Writer, known: list[dict[str, Any]], spool: Path) -> int:
    """The images of the environments, by way of a file beside the archive; returns how many."""
    for number, image in enumerate(known):
        engine = _Engine()
        try:
            engine.request("GET", "/images/get?" + "&".join(f"names={tag}" for tag in image["tags"]))
            answer = engine.getresponse()
            if answer.status != 200:
                raise ArchiveError(f"The engine does not export {image['tags'][0]} (HTTP status {answer.status}).")
            with tempfile.TemporaryFile(dir=spool) as file:
                while block := answer.read(1024 * 1024):
                    file.write(block)
                file.flush()
                file.seek(0)
                writer.opened(f"images/{number}.tar", file)
        except (OSError, http.client.HTTPException) as error:
            raise ArchiveError(f"{image['tags'][0]} cannot be exported: {error}.") from error
        finally:
            engine.close()
    return len(known)
