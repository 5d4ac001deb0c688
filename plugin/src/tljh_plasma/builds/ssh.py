"""Fetches a repository over ssh, for a builder that cannot: repo2docker's image has no ssh.

Git and ssh are those of this server. They run as "nobody" with a group that nothing else has, so that neither people
nor other programs of that account can read the key, which is on the server only while it is needed, and in memory: no
container gets it. What comes of it goes to the builder as one file, a bundle.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import grp
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .container import LARGE_FILES
from .images import BuildFailed
from .log import BuildLog
from .request import BuildRequest

ACCOUNT = "nobody"
# Where services get numbers for the time that they run (systemd's DynamicUser).
GROUPS = range(61184, 65520)
# Made by Git, in a directory of ours: it wants its own account to have made it.
CLONE = "repository"
# Names of directories, followed by the id of the process that made them.
PREFIX = "plasma-fetch-"
# In memory.
KEYS = "/run"
PROGRAMS = "/usr/local/bin:/usr/bin:/bin"
MISSING = (
    "Git or ssh is not installed on this server, so the repository cannot be fetched: install the packages git and "
    "openssh-client."
)
SSH = (
    "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o GlobalKnownHostsFile=/dev/null "
    "-o UpdateHostKeys=no -o IdentitiesOnly=yes -o IdentityAgent=none -o PreferredAuthentications=publickey "
    "-o ClearAllForwardings=yes -o ConnectTimeout=30"
)


async def fetch(request: BuildRequest, output: IO[bytes], log: BuildLog) -> str:
    """Fetch a repository and write it as a bundle of Git.

    Args:
        request: the build, with its deploy key and known hosts.
        output: file that the bundle is written to.
        log: gets what Git and ssh say.

    Returns:
        The commit that is to be built, 40 hexadecimal digits.

    Raises:
        BuildFailed: it cannot be fetched, or has no such commit.
    """
    if not (shutil.which("git", path=PROGRAMS) and shutil.which("ssh", path=PROGRAMS)):
        raise BuildFailed(MISSING)
    sweep()
    group = _unused_group()
    try:
        # Git can change nothing in the first, and everything in the second.
        with _directory(KEYS, 0o750, group) as keys, _directory(LARGE_FILES, 0o770, group) as work:
            _write(keys / "key", request.deploy_key, group)
            _write(keys / "known_hosts", request.known_hosts, group)
            git = functools.partial(_git, log, keys, work, group)
            log.say(f"Fetching {request.repo} over ssh.")
            if await git("clone", "--quiet", "--bare", "--", request.repo, CLONE):
                raise BuildFailed("The repository could not be fetched over ssh: the lines above say why.")
            wanted = request.commit or request.ref
            with tempfile.TemporaryFile() as answer:
                revision = ("rev-parse", "--quiet", "--verify", f"{wanted}^{{commit}}")
                failed = await git(f"--git-dir={CLONE}", *revision, output=answer)
                answer.seek(0)
                commit = answer.read(100).decode("ascii", errors="replace").strip()
            if failed or not re.fullmatch(r"[0-9a-f]{40}", commit):
                raise BuildFailed(
                    f"The repository has no branch, tag or commit {wanted}, or no branch or tag leads to it."
                )
            if await git(f"--git-dir={CLONE}", "bundle", "create", "--quiet", "-", "--all", output=output):
                raise BuildFailed("Git could not pack the repository: the lines above say why.")
            return commit
    except OSError as error:
        raise BuildFailed(f"The repository could not be fetched over ssh: {error.strerror or error}.") from error


@contextlib.contextmanager
def _directory(parent: str, mode: int, group: int) -> Iterator[Path]:
    """Make a directory that the group may enter, and remove it at the end."""
    path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
    try:
        os.chown(path, -1, group)
        path.chmod(mode)
        yield path
    finally:
        # Not TemporaryDirectory: some versions of its removal follow links that Git's account may make.
        shutil.rmtree(path, ignore_errors=True)


def sweep() -> None:
    """Remove what a service left that was killed while it fetched something: keys among it."""
    for parent in (KEYS, LARGE_FILES):
        for path in Path(parent).glob(f"{PREFIX}[0-9]*-*"):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                # Anybody may make such a name in the second.
                ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
                process = path.name.removeprefix(PREFIX).partition("-")[0]
                if ours and not Path("/proc", process).exists():
                    shutil.rmtree(path, ignore_errors=True)


def _unused_group() -> int:
    while True:
        number = secrets.choice(GROUPS)
        try:
            grp.getgrgid(number)
        except KeyError:
            return number


def _write(path: Path, text: str, group: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        # It stays root's: ssh refuses a key of its own that a group can read.
        os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, 0o640)
        file.write(text)


async def _git(
    log: BuildLog, keys: Path, work: Path, group: int, *arguments: str, output: IO[bytes] | None = None
) -> int:
    """Run Git without anybody's settings, its messages to the log and its output to a file; return the exit code."""
    # Everybody can read the command.
    ssh = f"{SSH} -o {shlex.quote(f'UserKnownHostsFile={keys}/known_hosts')} -i {shlex.quote(f'{keys}/key')}"
    process = await asyncio.create_subprocess_exec(
        "git",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output or asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=work,
        user=pwd.getpwnam(ACCOUNT).pw_uid,
        group=group,
        extra_groups=[],
        umask=0o027,
        start_new_session=True,
        env={
            "PATH": PROGRAMS,
            "HOME": str(work),
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "ssh",
            "GIT_SSH_COMMAND": ssh,
            "GIT_SSH_VARIANT": "ssh",
        },
    )
    try:
        while piece := await process.stderr.read(4096):
            log.feed(piece)
        return await process.wait()
    except asyncio.CancelledError:
        # With ssh, and whatever else it has started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
