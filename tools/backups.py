"""
Archives of `plasma.backup`, fetched from a server to this machine, and brought to one.

    python -m tools.backups list  [ID]
    python -m tools.backups fetch [ID] [--archive NAME]     # the newest one, into .salt/backups/ID/
    python -m tools.backups push  ID FILE

They go over ssh with what the roster says, are readable for you alone, and are compared with their checksums.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys
from typing import IO

from tools.plasma_follow import read_roster, ssh_command
from tools.private_files import private

DIRECTORY = "/var/opt/plasma/backups"
INTO = pathlib.Path(".salt/backups")
NAME = re.compile(r"plasma-[A-Za-z0-9.-]+-(?P<time>\d{8}T\d{6}Z)-[a-z]+\.tar\.gz")
# The checksum comes with the call, the archive on standard input; what is cut off never gets the archive's name.
RECEIVE = """set -eu
umask 077
directory=$1 name=$2 sum=$3
mkdir -p "$directory"
if [ -e "$directory/$name" ]; then echo "$directory/$name is there already." >&2; exit 4; fi
trap 'rm -f "$directory/.push-$name"' EXIT
cat > "$directory/.push-$name"
echo "$sum  $directory/.push-$name" | sha256sum --check --status || { echo "It did not arrive whole." >&2; exit 5; }
echo "$sum  $name" > "$directory/$name.sha256"
sync "$directory/.push-$name"
mv "$directory/.push-$name" "$directory/$name"
"""


class Failed(Exception):
    """Something is in the way; the text is one sentence."""


def _ssh(entry: dict, words: list[str], stdin: IO[bytes] | int = subprocess.DEVNULL) -> str:
    """What a command on the server writes."""
    done = subprocess.run(ssh_command(entry, shlex.join(words)), stdin=stdin, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise Failed(f"{entry['host']}: {last}")
    return done.stdout


def _sha256(file: io.BufferedIOBase) -> str:
    """The checksum of a file, which is read from its start to its end."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _time(archive: str) -> str | None:
    """The time in an archive's name; None when it is not named as archives are."""
    match = NAME.fullmatch(archive)
    return match and match["time"]


def archives(entry: dict, directory: str) -> list[tuple[str, int]]:
    """Names and sizes (bytes) of the archives on a server, newest first."""
    command = ["find", directory, "-maxdepth", "1", "-type", "f", "-name", "plasma-*.tar.gz", "-printf", r"%f %s\n"]
    listed = [line.rpartition(" ") for line in _ssh(entry, command).splitlines()]
    known = [(name, int(size)) for name, _, size in listed if _time(name)]
    return sorted(known, key=lambda archive: (_time(archive[0]), archive[0]), reverse=True)


def fetch(name: str, entry: dict, directory: str, archive: str | None, into: pathlib.Path) -> pathlib.Path:
    """Copy an archive, the newest one unless it is named, into a directory of this machine; return where it is."""
    known = dict(archives(entry, directory))
    archive = pathlib.PurePosixPath(archive).name if archive else next(iter(known), None)
    if archive not in known:
        raise Failed(
            f"{name} has no {archive or 'archive'} in {directory}: `salt-ssh {name} state.apply backup.now` makes one."
        )
    wanted = _ssh(entry, ["cat", f"{directory}/{archive}.sha256"]).split()[:1]
    for folder in (into, into / name):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    path, partial, sums = (into / name / f"{archive}{suffix}" for suffix in ("", ".partial", ".sha256"))
    partial.unlink(missing_ok=True)
    try:
        with open(partial, "x+b", opener=private) as file:
            command = ssh_command(entry, shlex.join(["cat", f"{directory}/{archive}"]))
            code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file).returncode
            digest = _sha256(file)
            os.fsync(file.fileno())
        if code or [digest] != wanted:
            raise Failed(f"{archive} did not arrive as it is on {name}: try again, or verify it there.")
        sums.unlink(missing_ok=True)
        with open(sums, "x", encoding="ascii", opener=private) as file:
            file.write(f"{digest}  {archive}\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def push(entry: dict, directory: str, path: pathlib.Path) -> str:
    """Copy an archive of this machine to a server; return its path there."""
    if not _time(path.name):
        raise Failed(f"{path.name} is not named as archives are: plasma-HOST-TIME-REASON.tar.gz")
    sums = pathlib.Path(f"{path}.sha256")
    with open(path, "rb") as file:
        digest = _sha256(file)
        if sums.is_file() and sums.read_text(encoding="ascii", errors="replace").split()[:1] != [digest]:
            raise Failed(f"{path} was changed: it is not the file that {sums.name} is about.")
        file.seek(0)
        _ssh(entry, ["sh", "-c", RECEIVE, "push", directory, path.name, digest], stdin=file)
    return f"{directory}/{path.name}"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="plasma-backups", description=__doc__.strip().splitlines()[0])
    parser.add_argument("command", choices=["list", "fetch", "push"])
    parser.add_argument("id", nargs="?", help="the server's name in the roster (not needed when there is only one)")
    parser.add_argument("file", nargs="?", help="with push: the archive")
    parser.add_argument("--archive", help="with fetch: its name (default: the newest one)")
    parser.add_argument("--directory", default=DIRECTORY, help="plasma.backup.directory (default: %(default)s)")
    parser.add_argument("--roster", default="roster", help="roster file (default: %(default)s)")
    parser.add_argument("--into", type=pathlib.Path, default=INTO, help="with fetch: where to (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.command == "push" and not arguments.file:
        parser.error("push needs the server's name and a file")
    name, entry = read_roster(arguments.roster, arguments.id)
    try:
        if arguments.command == "list":
            for archive, size in archives(entry, arguments.directory):
                print(f"{size / 2**20:10.1f} MB  {archive}" if size >= 2**20 else f"{size / 2**10:10.1f} kB  {archive}")
        elif arguments.command == "fetch":
            print(fetch(name, entry, arguments.directory, arguments.archive, arguments.into))
        else:
            print(push(entry, arguments.directory, pathlib.Path(arguments.file)))
    except (Failed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
