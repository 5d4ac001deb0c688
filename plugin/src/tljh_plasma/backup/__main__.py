"""
Back up a hub, and look into backups. Nothing but the standard library: it also works where the hub does not.

    python3 -I .../tljh_plasma/backup create --directory /var/opt/plasma/backups --prefix /opt/tljh
    python3 -I .../tljh_plasma/backup list|verify|extract ...

Prints one line of JSON, with "error" in it when something went wrong.
"""

from __future__ import annotations

import argparse
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
from archive import ABOUT, DEEPEST, FORMAT, NAME, TOOL, ArchiveError, Room, Writer, about, read

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
            if any(not _is_ours(name) for name in os.listdir(path)):
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
        for leftover in [*path.glob(f"plasma-*{PARTIAL}"), *path.glob(".plasma-*")]:
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
        for leftover in path.glob("plasma-*.tar.gz.sha256"):
            if not leftover.with_suffix("").exists():
                leftover.unlink()
        yield


def _is_ours(name: str) -> bool:
    return name == ".lock" or name.startswith((".plasma-", "plasma-"))


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
    prefix, place = Path(options.prefix), Path(options.directory)
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "server"
    with directory(place):
        stamp = datetime.datetime.now(datetime.timezone.utc)
        path = place / f"plasma-{host}-{stamp:%Y%m%dT%H%M%SZ}-{options.reason}.tar.gz"
        while path.exists():
            time.sleep(0.2)
            stamp = datetime.datetime.now(datetime.timezone.utc)
            path = place / f"plasma-{host}-{stamp:%Y%m%dT%H%M%SZ}-{options.reason}.tar.gz"
        _check_room(options, prefix, place)
        partial = Path(f"{path}{PARTIAL}")
        parts = ["hub", "accounts", "environments", *(name for name in ("images", "homes") if getattr(options, name))]
        said = {
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
        try:
            _write(options, prefix, place, partial, said)
            digest = _finish(partial, path)
        except OSError as error:
            raise ArchiveError(f"{path} cannot be written: {error.strerror or error}.") from error
        finally:
            partial.unlink(missing_ok=True)
        removed = rotate(place, options.keep) if options.keep and options.reason == "scheduled" else []
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": digest,
        "seconds": round(time.monotonic() - begun, 2),
        "parts": parts,
        "removed": removed,
    }


def _write(options: argparse.Namespace, prefix: Path, place: Path, partial: Path, said: dict[str, Any]) -> None:
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        writer = Writer(file)
        writer.text(ABOUT, json.dumps(said))
        contents.hub(writer, prefix, place)
        contents.tls(writer, said["tls"])
        contents.accounts(writer)
        known = contents.environments() or []
        writer.text("environments.json", json.dumps(known, indent=1))
        if options.images:
            contents.images(writer, known, place)
        if options.homes:
            contents.homes(writer, Path(options.home_path))
        writer.finish(said)
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


def _check_room(options: argparse.Namespace, prefix: Path, place: Path) -> None:
    """Refuse to begin what cannot fit: an archive that fills the disk would stop the hub."""
    needed = SPARE
    for folder in (prefix / "config", prefix / "state", *([Path(options.home_path)] if options.homes else [])):
        needed += _size(folder)
    if options.images:
        known = contents.environments()
        if known is None:
            raise ArchiveError(
                "The Docker engine does not answer, so its images cannot be backed up: start it, or set "
                "plasma.backup.images to false."
            )
        needed += 2 * sum(image["bytes"] or 0 for image in known)
    stats = os.statvfs(place)
    free = stats.f_bavail * stats.f_frsize
    if free < needed:
        raise ArchiveError(
            f"{free // 2**20} MB are free on the disk of {place}, and up to {needed // 2**20} MB are needed: remove "
            "old archives or other files, or name another place in plasma.backup.directory."
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


def listed(place: Path) -> list[dict[str, Any]]:
    """The archives of a directory, newest first: by their names, with what they say of themselves."""
    found = []
    for path in place.glob("plasma-*.tar.gz") if place.is_dir() else []:
        match = NAME.fullmatch(path.name)
        if match and path.is_file() and not path.is_symlink():
            made = datetime.datetime.strptime(match["time"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
            entry = {"path": str(path), "host": match["host"], "reason": match["reason"], "created": made.isoformat()}
            with contextlib.suppress(ArchiveError):  # `verify` says what is wrong with it
                said = about(path)
                entry.update({key: said[key] for key in ("versions", "provider", "parts") if key in said})
                entry["this_machine"] = said.get("machine") == machine_id()
            found.append({**entry, "bytes": path.stat().st_size})
    return sorted(found, key=lambda entry: (entry["created"], entry["path"]), reverse=True)


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
    said = {key: value for key, value in manifest.items() if key not in ("members", "homes")}
    sizes: dict[str, int] = {}
    for name, entry in manifest["members"].items():
        top = name.split("/")[0]
        sizes[top] = sizes.get(top, 0) + entry.get("size", 0)
    return {
        **said,
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
    return "-".join(
        str(part) for part in (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="plasma-backup", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("create")
    making.add_argument("--prefix", default="/opt/tljh")
    making.add_argument("--directory", required=True)
    making.add_argument("--reason", choices=REASONS, default="manual")
    making.add_argument("--keep", type=int, default=0)
    making.add_argument("--home-path", default="/home")
    making.add_argument("--homes", action="store_true")
    making.add_argument("--images", action="store_true")
    listing = commands.add_parser("list")
    listing.add_argument("--directory", required=True)
    for name in ("verify", "extract", "load"):
        looking = commands.add_parser(name)
        looking.add_argument("path")
        looking.add_argument("--seen", default="")
        if name == "extract":
            looking.add_argument("--into", required=True)
            looking.add_argument("--part", action="append", required=True)
            looking.add_argument("--room", type=int, default=0)
    options = parser.parse_args()
    os.umask(0o077)
    try:
        answer: Any
        if options.command == "create":
            answer = create(options)
        elif options.command == "list":
            answer = listed(Path(options.directory))
        elif options.command == "verify":
            answer = verify(Path(options.path))
        else:
            path = Path(options.path)
            if not path.is_file() or options.seen != seen(path):
                verify(path)
            if options.command == "load":
                answer = contents.load(path)
            else:
                answer = extract.parts(path, Path(options.into), options.part, options.room)
    except ArchiveError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
    failed = isinstance(answer, dict) and "error" in answer
    if failed:
        print(answer["error"], file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
