"""
Back up a hub, and look into backups. Nothing but the standard library: it also works where the hub does not.

    python3 -I .../tljh_plasma/backup create --directory /var/opt/plasma/backups --prefix /opt/tljh
    python3 -I .../tljh_plasma/backup list|verify|extract ...

Prints one line of JSON, with "error" in it when something went wrong.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import contents
import extract
from archive import ABOUT, DEEPEST, FORMAT, NAME, TOOL, ArchiveError, Room, Writer, about_of, read

REASONS = ("manual", "scheduled", "upgrade", "uninstall", "restore")
SPARE = 64 * 1024 * 1024  # what a disk must have free after an archive
PARTIAL = ".partial"


@contextlib.contextmanager
def directory(path: Path) -> Iterator[None]:
    """The archives' directory: root's alone, and used by one of us at a time."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise ArchiveError(f"{path} is not a directory of root's: name another one in plasma.backup.directory.")
        if stat.S_IMODE(status.st_mode) != 0o700:
            if any(name != ".lock" and not name.startswith((".plasma-", "plasma-")) for name in os.listdir(path)):
                raise ArchiveError(
                    f"{path} has other files in it, and others may enter it: name a directory in "
                    "plasma.backup.directory that is for archives alone."
                )
            path.chmod(0o700)
        handle = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be used ({error.strerror}): see plasma.backup.directory.") from error
    with open(handle, "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArchiveError(f"Another backup is being made in {path}: let it finish, and try again.") from error
        # Nobody else is at it, so this is what an interrupted one left.
        alone = [found for found in path.glob("plasma-*.tar.gz.sha256") if not found.with_suffix("").exists()]
        for leftover in [*path.glob(f"plasma-*{PARTIAL}"), *path.glob(".plasma-*"), *alone]:
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
        yield


def machine_id() -> str:
    """A word for this installation of the system; not the id itself, which is confidential (machine-id(5))."""
    try:
        text = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        text = socket.gethostname()
    return hashlib.sha256(f"plasma-backup {text}".encode()).hexdigest()[:16]


def versions(prefix: Path) -> dict[str, str]:
    """The packages of the hub that a restore has to get along with."""
    wanted = ("jupyterhub", "tljh_plasma", "tljh_repo2docker", "the_littlest_jupyterhub", "sqlalchemy")
    found = {}
    for path in prefix.glob("hub/lib/python3*/site-packages/*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").rpartition("-")
        if name.lower() in wanted:
            found[name.lower()] = version
    return found


def provider(prefix: Path) -> str | None:
    """Who installed the hub, by the note of that."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return json.loads((prefix / "plasma" / "receipt.json").read_text(encoding="utf-8")).get("provider")
    return None


def create(options: argparse.Namespace) -> dict[str, Any]:
    """Make an archive; see the execution function ``plasma_backup.create``."""
    begun = time.monotonic()
    prefix, folder = Path(options.prefix), Path(options.directory)
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "server"
    with directory(folder):
        path = None
        while path is None or path.exists():
            stamp = datetime.datetime.now(datetime.timezone.utc)
            path = folder / f"plasma-{host}-{stamp:%Y%m%dT%H%M%SZ}-{options.reason}.tar.gz"
            time.sleep(0.2 if path.exists() else 0)
        _check_room(options)
        parts = ["hub", "accounts", "environments", *(name for name in ("images", "homes") if getattr(options, name))]
        about = {
            "tool": TOOL,
            "format": FORMAT,
            "created": stamp.isoformat(timespec="seconds"),
            "host": host,
            "machine": machine_id(),
            "reason": options.reason,
            "provider": provider(prefix),
            "prefix": str(prefix),
            "home_path": options.home_path,
            "versions": versions(prefix),
            "tls": contents.tls_files(prefix),
            "parts": parts,
        }
        partial = Path(f"{path}{PARTIAL}")
        try:
            _write(options, partial, about)
            digest = _finish(partial, path)
        except OSError as error:
            raise ArchiveError(f"{path} cannot be written: {error.strerror or error}.") from error
        finally:
            partial.unlink(missing_ok=True)
        removed = rotate(folder, options.keep) if options.keep and options.reason == "scheduled" else []
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": digest,
        "seconds": round(time.monotonic() - begun, 2),
        "parts": parts,
        "removed": removed,
    }


def _write(options: argparse.Namespace, partial: Path, about: dict[str, Any]) -> None:
    prefix, spool = Path(options.prefix), partial.parent
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        writer = Writer(file)
        writer.text(ABOUT, json.dumps(about))
        contents.hub(writer, prefix, spool)
        contents.tls(writer, about["tls"])
        contents.accounts(writer)
        known = contents.environments() or []
        writer.text("environments.json", json.dumps(known, indent=1))
        if options.images:
            contents.images(writer, known, spool)
        if options.homes:
            contents.homes(writer, Path(options.home_path))
        writer.finish(about)
        file.flush()
        os.fsync(file.fileno())


def _finish(partial: Path, path: Path) -> str:
    digest = hashlib.sha256()
    with open(partial, "rb") as file:
        while block := file.read(1024 * 1024):
            digest.update(block)
    # As sha256sum(1) writes it: whoever fetches the file can check it with --check.
    sum_file = Path(f"{path}.sha256")
    with open(os.open(sum_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(f"{digest.hexdigest()}  {path.name}\n")
    os.replace(partial, path)
    handle = os.open(path.parent, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    return digest.hexdigest()


def _check_room(options: argparse.Namespace) -> None:
    """Refuse to begin what cannot fit: an archive that fills the disk would stop the hub."""
    prefix = Path(options.prefix)
    folders = [prefix / "config", prefix / "state", *([Path(options.home_path)] if options.homes else [])]
    needed = SPARE + sum(map(_size, folders))
    if options.images:
        known = contents.environments()
        if known is None:
            raise ArchiveError(
                "The Docker engine does not answer, so its images cannot be backed up: start it, or set "
                "plasma.backup.images to false."
            )
        needed += 2 * sum(image["bytes"] or 0 for image in known)
    free = shutil.disk_usage(options.directory).free
    if free < needed:
        raise ArchiveError(
            f"{free // 2**20} MB are free on the disk of {options.directory}, and up to {needed // 2**20} MB are "
            "needed: remove old archives or other files, or name another place in plasma.backup.directory."
        )


def _size(folder: Path) -> int:
    """Bytes on the disk of the files below a directory, as deep as archives go: os.walk may be led too deep."""
    total, left, room = 0, [(str(folder), 0)], Room("")
    while left:
        path, depth = left.pop()
        if depth == 1:
            total, room = total + room.there + room.copies, Room(path)
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if depth < DEEPEST:
                        left.append((entry.path, depth + 1))
                else:
                    room.takes(entry.stat(follow_symlinks=False))
    return total + room.there + room.copies


def listed(folder: Path) -> list[dict[str, Any]]:
    """The archives of a directory, newest first: by their names, with what they say of themselves."""
    archives = []
    for path in folder.glob("plasma-*.tar.gz"):
        match = NAME.fullmatch(path.name)
        if match and path.is_file() and not path.is_symlink():
            made = datetime.datetime.strptime(match["time"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
            entry = {"path": str(path), "host": match["host"], "reason": match["reason"], "created": made.isoformat()}
            with contextlib.suppress(ArchiveError):  # `verify` says what is wrong with it
                about = about_of(path)
                entry.update({key: about[key] for key in ("versions", "provider", "parts") if key in about})
                entry["this_machine"] = about.get("machine") == machine_id()
            archives.append({**entry, "bytes": path.stat().st_size})
    return sorted(archives, key=lambda entry: (entry["created"], entry["path"]), reverse=True)


def rotate(place: Path, keep: int) -> list[str]:
    """Remove the oldest scheduled archives beyond so many; those made for another reason stay."""
    surplus = [entry["path"] for entry in listed(place) if entry["reason"] == "scheduled"][keep:]
    for path in surplus:
        os.unlink(path)
        Path(f"{path}.sha256").unlink(missing_ok=True)
    return surplus


def verify(path: Path) -> dict[str, Any]:
    """Read all of an archive; what its manifest says, or ArchiveError."""
    if path.is_symlink() or not path.is_file():
        raise ArchiveError(f"{path} is no file.")
    try:
        manifest, digest = read(path)
    except ArchiveError as error:
        raise ArchiveError(f"{path} {error}.") from error
    sum_file = Path(f"{path}.sha256")
    if sum_file.is_file() and sum_file.read_text(encoding="ascii", errors="replace").split()[:1] != [digest]:
        raise ArchiveError(f"{path} is not the file that {sum_file.name} is about: fetch it again.")
    sizes: collections.Counter[str] = collections.Counter()
    for name, entry in manifest["members"].items():
        sizes[name.split("/")[0]] += entry.get("size", 0)
    return {
        **manifest,
        "sha256": digest,
        "members": len(manifest["members"]) + manifest["homes"]["members"],
        "sizes": sizes,
        "homes": manifest["homes"]["bytes"],
        "this_machine": manifest.get("machine") == machine_id(),
        "seen": seen(path),
    }


def seen(path: Path) -> str:
    """A word for this very file as it is now: what was verified need not be verified again."""
    status = path.stat()
    return "-".join(map(str, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="plasma-backup", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("create", "list", "verify", "extract", "load"):
        command = commands.add_parser(name)
        if name in ("create", "list"):
            command.add_argument("--directory", required=True)
        else:
            command.add_argument("path", type=Path)
            command.add_argument("--seen", default="")
        if name == "create":
            command.add_argument("--prefix", default="/opt/tljh")
            command.add_argument("--reason", choices=REASONS, default="manual")
            command.add_argument("--keep", type=int, default=0)
            command.add_argument("--home-path", default="/home")
            command.add_argument("--homes", action="store_true")
            command.add_argument("--images", action="store_true")
        elif name == "extract":
            command.add_argument("--into", type=Path, required=True)
            command.add_argument("--part", action="append", required=True)
            command.add_argument("--room", type=int, default=0)
    return parser


def answer(options: argparse.Namespace) -> Any:
    """Do what the command line says, and return what is to be printed."""
    if options.command == "create":
        return create(options)
    if options.command == "list":
        return listed(Path(options.directory))
    if options.command == "verify":
        return verify(options.path)
    if not options.path.is_file() or options.seen != seen(options.path):
        verify(options.path)
    if options.command == "load":
        return contents.load(options.path)
    return extract.parts(options.path, options.into, options.part, options.room)


def main() -> int:
    """Command line."""
    options = _parser().parse_args()
    os.umask(0o077)
    try:
        print(json.dumps(answer(options)))
    except ArchiveError as error:
        print(json.dumps({"error": str(error)}))
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
