"""What of a server is in an archive."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import sqlite3
import tempfile
import urllib.parse
from pathlib import Path
from typing import Any

from archive import ArchiveError, Writer, members

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
    writer.folder("plasma")
    for name in ("receipt.json", "constraints.txt"):
        path = prefix / "plasma" / name
        if path.is_file():
            writer.text(f"plasma/{name}", path.read_bytes())


def _is_database(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _database(writer: Writer, path: Path, name: str, spool: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".plasma-", dir=spool) as place:
        copy = Path(place) / path.name
        # Opened to write, though nothing is written: only so can what a crash left half done be undone by SQLite.
        try:
            with (
                contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=60)) as source,
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


def tls_files(prefix: Path) -> dict[str, str]:
    """The pair of files that config.yaml names in https.tls, ``{"key": path, "cert": path}``. Only block style is
    read, as tljh-config writes it: this must work without a YAML library."""
    try:
        lines = (prefix / "config" / "config.yaml").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found, above = {}, []
    for line in lines:
        match = re.fullmatch(r"( *)([A-Za-z_]+) *:(?: +(.*?))? *(?:(?<= )#.*)?", line)
        if not match:
            continue
        depth = len(match[1])
        above = [*(entry for entry in above if entry[0] < depth), (depth, match[2])]
        if [name for _, name in above] in (["https", "tls", "key"], ["https", "tls", "cert"]) and match[3]:
            found[match[2]] = match[3].strip().strip("\"'")
    return found


def tls(writer: Writer, files: dict[str, str]) -> None:
    """The pair of files of HTTPS, wherever it stands."""
    writer.folder("tls")
    for name, path in files.items():
        if Path(path).is_file():
            writer.text(f"tls/{name}.pem", Path(path).read_bytes())


def accounts(writer: Writer, root: Path = Path("/")) -> None:
    """The account files as they are, and what earlier applies noted about people."""
    writer.folder("accounts")
    for name in ACCOUNTS:
        path = root / "etc" / name
        if path.is_file():
            writer.text(f"accounts/{name}", path.read_bytes())
    notes = root / "var" / "lib" / "plasma"
    if notes.is_dir() and not notes.is_symlink():
        writer.tree(notes, "notes", lambda name: not name.endswith(".json"))


def homes(writer: Writer, home_path: Path) -> None:
    """All directories below the place of the homes."""
    if home_path.is_dir():
        passing = (".plasma-new", ".plasma-restore-")
        writer.tree(home_path, "homes", lambda name: name.split("/")[1].startswith(passing))


class _Engine(http.client.HTTPConnection):
    """A connection to the Docker engine, which is closed at the end of a ``with``."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(DOCKER)

    def ask(self, method: str, path: str, body: Any = None, size: int = 0) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/x-tar", "Content-Length": str(size)} if body else {}
        self.request(method, path, body=body, headers=headers)
        return self.getresponse()


def _engine(timeout: int = 3600) -> contextlib.closing[_Engine]:
    return contextlib.closing(_Engine("localhost", timeout=timeout))


def environments() -> list[dict[str, Any]] | None:
    """How the environments on this server were made: what is needed to build them again. None without an engine."""
    try:
        with _engine(60) as engine:
            answer = engine.ask("GET", "/images/json")
            images = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    if answer.status != 200:
        return None
    recipes = []
    for image in images:
        labels = image.get("Labels") or {}
        tags = [tag for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]
        if tags and any(label.startswith(("tljh_repo2docker.", "repo2docker.")) for label in labels):
            ours = {key: value for key, value in labels.items() if key.startswith(("tljh_", "repo2docker.", "plasma"))}
            recipes.append({"tags": tags, "id": image.get("Id"), "bytes": image.get("Size"), "labels": ours})
    return sorted(recipes, key=lambda recipe: recipe["tags"])


def images(writer: Writer, known: list[dict[str, Any]], spool: Path) -> None:
    """The images of the environments, by way of a file beside the archive: a tar says sizes before contents."""
    writer.folder("images")
    for number, image in enumerate(known):
        names = "&".join(f"names={urllib.parse.quote(tag, safe='')}" for tag in image["tags"])
        try:
            with _engine() as engine, tempfile.TemporaryFile(dir=spool) as file:
                answer = engine.ask("GET", f"/images/get?{names}")
                if answer.status != 200:
                    raise ArchiveError(f"The engine does not export {image['tags'][0]} (HTTP status {answer.status}).")
                shutil.copyfileobj(answer, file, 1024 * 1024)
                file.flush()
                file.seek(0)
                writer.opened(f"images/{number}.tar", file)
        except (OSError, http.client.HTTPException) as error:
            raise ArchiveError(f"{image['tags'][0]} cannot be exported: {error}.") from error


def load(path: Path) -> list[str]:
    """Give the engine the images of a verified archive that it does not have; returns their tags."""
    recipes = [json.loads(file.read()) for _, _, file in members(path, ["environments.json"]) if file]
    here = {image["id"] for image in environments() or []}
    wanted = {f"images/{number}.tar": image for number, image in enumerate(recipes[0] if recipes else [])}
    loaded = []
    for _, info, file in members(path, ["images"]):
        image = wanted.get(info.name)
        if not file or not image or image["id"] in here:
            continue
        try:
            with _engine() as engine:
                answer = engine.ask("POST", "/images/load?quiet=1", file, info.size)
                text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise ArchiveError(f"{image['tags'][0]} cannot be given to the engine: {error}.") from error
        if answer.status != 200 or '"error"' in text:
            raise ArchiveError(f"The engine does not take {image['tags'][0]}: {text.strip()[:300]}")
        loaded += image["tags"]
    return loaded
