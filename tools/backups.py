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
import os
import pathlib
import re
import shlex
import subprocess
import sys

from tools.plasma_follow import read_roster, ssh_command

DIRECTORY = "/var/opt/plasma/backups"
PLACE = pathlib.Path(".salt/backups")
NAME = re.compile(r"plasma-[A-Za-z0-9.-]+-(?P<time>\d{8}T\d{6}Z)-[a-z]+\.tar\.gz")
BLOCK = 1024 * 1024
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


def _ask(entry: dict, remote: str) -> str:
    done = subprocess.run(ssh_command(entry, remote), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise Failed(f"{entry['host']} does not do that: {said}")
    return done.stdout


def archives(entry: dict, directory: str) -> list[tuple[str, int]]:
    """Names and sizes of the archives on a server, newest first."""
    command = ["find", directory, "-maxdepth", "1", "-type", "f", "-name", "plasma-*.tar.gz", "-printf", r"%s %f\n"]
    found = []
    for line in _ask(entry, shlex.join(command)).splitlines():
        size, _, name = line.partition(" ")
        if NAME.fullmatch(name) and size.isdecimal():
            found.append((name, int(size)))
    return sorted(found, key=lambda archive: (NAME.fullmatch(archive[0])["time"], archive[0]), reverse=True)


def fetch(name: str, entry: dict, directory: str, archive: str | None, place: pathlib.Path) -> pathlib.Path:
    """Copy an archive, the newest one unless it is named, into the place; return where it is."""
    known = dict(archives(entry, directory))
    archive = pathlib.PurePosixPath(archive).name if archive else next(iter(known), None)
    if archive not in known:
        raise Failed(
            f"{name} has no {archive or 'archive'} in {directory}: `salt-ssh {name} state.apply backup.now` makes one."
        )
    wanted = _ask(entry, shlex.join(["cat", f"{directory}/{archive}.sha256"])).split()[:1]
    for folder in (place, place / name):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    path, partial = place / name / archive, place / name / f"{archive}.partial"
    partial.unlink(missing_ok=True)
    digest = hashlib.sha256()
    try:
        with (
            open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
            subprocess.Popen(
                ssh_command(entry, shlex.join(["cat", f"{directory}/{archive}"])),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            ) as process,
        ):
            while block := process.stdout.read(BLOCK):
                file.write(block)
                digest.update(block)
            file.flush()
            os.fsync(file.fileno())
        if process.returncode or [digest.hexdigest()] != wanted:
            raise Failed(f"{archive} did not arrive as it is on {name}: try again, or verify it there.")
        _write(pathlib.Path(f"{path}.sha256"), f"{digest.hexdigest()}  {archive}\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _write(path: pathlib.Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)


def push(name: str, entry: dict, directory: str, path: pathlib.Path) -> str:
    """Copy an archive of this machine to a server; return its path there."""
    if not NAME.fullmatch(path.name):
        raise Failed(f"{path.name} is not named as archives are: plasma-HOST-TIME-REASON.tar.gz")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
        sums = pathlib.Path(f"{path}.sha256")
        if sums.is_file() and sums.read_text(encoding="ascii", errors="replace").split()[:1] != [digest.hexdigest()]:
            raise Failed(f"{path} was changed: it is not the file that {sums.name} is about.")
        file.seek(0)
        remote = shlex.join(["sh", "-c", RECEIVE, "push", directory, path.name, digest.hexdigest()])
        done = subprocess.run(ssh_command(entry, remote), stdin=file, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise Failed(f"{name} did not take {path.name}: {said}")
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
    parser.add_argument("--into", type=pathlib.Path, default=PLACE, help="with fetch: where to (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.command == "push" and not arguments.file:
        parser.error("push needs the server's name and a file")
    name, entry = read_roster(arguments.roster, arguments.id)
    try:
        if arguments.command == "list":
            for archive, size in archives(entry, arguments.directory):
                print(f"{size / 2**20:10.1f} MB  {archive}")
        elif arguments.command == "fetch":
            print(fetch(name, entry, arguments.directory, arguments.archive, arguments.into))
        else:
            print(push(name, entry, arguments.directory, pathlib.Path(arguments.file)))
    except (Failed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
