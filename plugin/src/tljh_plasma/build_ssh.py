"""Fetches a repository over ssh, for a builder that cannot: repo2docker's image has no ssh.

Git and ssh are those of this server. They run as "nobody" with a group that nothing else has, so that neither people
nor other programs of that account can read the key, which is on the server only while it is needed, and in memory: no
container gets it. What comes of it goes to the builder as one file, a bundle.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from typing import IO, Any

from .build_container import LARGE_FILES, BuildFailed
from .build_log import BuildLog
from .build_request import BuildRequest

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
SSH_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "GlobalKnownHostsFile": "/dev/null",
    "UpdateHostKeys": "no",
    "IdentitiesOnly": "yes",
    "IdentityAgent": "none",
    "PreferredAuthentications": "publickey",
    "ClearAllForwardings": "yes",
    "ConnectTimeout": "30",
}


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
    try:
        with _directories() as (keys, work, group):
            for name, text in (("key", request.deploy_key), ("known_hosts", request.known_hosts)):
                _write(keys / name, text, group)
            git = _Git(work, group, _ssh(keys), log)
            log.say(f"Fetching {request.repo} over ssh.")
            if await git("clone", "--quiet", "--bare", "--", request.repo, CLONE):
                raise BuildFailed("The repository could not be fetched over ssh: the lines above say why.")
            commit = await _resolve(git, request)
            if await git(f"--git-dir={CLONE}", "bundle", "create", "--quiet", "-", "--all", output=output):
                raise BuildFailed("Git could not pack the repository: the lines above say why.")
            return commit
    except OSError as error:
        raise BuildFailed(f"The repository could not be fetched over ssh: {error.strerror or error}.") from error


async def _resolve(git: _Git, request: BuildRequest) -> str:
    wanted = request.commit or request.ref
    with tempfile.TemporaryFile() as answer:
        failed = await git(
            f"--git-dir={CLONE}", "rev-parse", "--quiet", "--verify", f"{wanted}^{{commit}}", output=answer
        )
        answer.seek(0)
        found = answer.read(100).decode("ascii", errors="replace").strip()
    if failed or not re.fullmatch(r"[0-9a-f]{40}", found):
        raise BuildFailed(f"The repository has no branch, tag or commit {wanted}, or no branch or tag leads to it.")
    return found


def _ssh(keys: Path) -> str:
    """Return the command that Git runs in place of ssh. All of it can be read by everybody."""
    options = {**SSH_OPTIONS, "UserKnownHostsFile": f"{keys}/known_hosts"}
    words = ["ssh", "-F", "/dev/null", "-i", f"{keys}/key"]
    return shlex.join([*words, *(f"-o{name}={value}" for name, value in options.items())])


@contextlib.contextmanager
def _directories() -> Iterator[tuple[Path, Path, int]]:
    """Make a directory for keys and one to work in, and remove them at the end; with the group that may enter them."""
    group = _unused_group()
    sweep()
    with contextlib.ExitStack() as stack:
        made = []
        # Of the first nothing can be changed, of the second everything.
        for place, mode in ((KEYS, 0o750), (LARGE_FILES, 0o770)):
            path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=place))
            stack.callback(shutil.rmtree, path, ignore_errors=True)
            os.chown(path, -1, group)
            path.chmod(mode)
            made.append(path)
        yield made[0], made[1], group


def sweep() -> None:
    """Remove what a service left that was killed while it fetched something: keys among it."""
    for place in (KEYS, LARGE_FILES):
        for path in Path(place).glob(f"{PREFIX}[0-9]*-*"):
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            # Anybody may make such a name in the second.
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            number = path.name.removeprefix(PREFIX).partition("-")[0]
            if ours and not Path("/proc", number).exists():
                shutil.rmtree(path, ignore_errors=True)


def _unused_group() -> int:
    while True:
        number = GROUPS.start + secrets.randbelow(len(GROUPS))
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


class _Git:
    """Runs Git in a directory, without anybody's settings."""

    def __init__(self, directory: Path, group: int, ssh: str, log: BuildLog):
        self._log = log
        self._options: dict[str, Any] = {
            "cwd": directory,
            "user": pwd.getpwnam(ACCOUNT).pw_uid,
            "group": group,
            "extra_groups": [],
            "umask": 0o027,
            "start_new_session": True,
            "stdin": asyncio.subprocess.DEVNULL,
            "env": {
                "PATH": PROGRAMS,
                "HOME": str(directory),
                "LC_ALL": "C.UTF-8",
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": os.devnull,
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_ALLOW_PROTOCOL": "ssh",
                "GIT_SSH_COMMAND": ssh,
                "GIT_SSH_VARIANT": "ssh",
            },
        }

    async def __call__(self, *arguments: str, output: IO[bytes] | None = None) -> int:
        """Run a command of Git, whose messages go to the log, and return its exit code.

        Args:
            arguments: the command and its arguments.
            output: file for what it prints.
        """
        process = await asyncio.create_subprocess_exec(
            "git",
            *arguments,
            stdout=output or asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            **self._options,
        )
        assert process.stderr
        try:
            while piece := await process.stderr.read(4096):
                self._log.feed(piece)
            return await process.wait()
        except asyncio.CancelledError:
            # With ssh, and whatever else it has started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise
