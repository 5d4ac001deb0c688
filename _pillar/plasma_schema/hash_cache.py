"""
Hashes of passwords, kept on the controller from run to run.

A hash costs 17 ms on purpose, and has a new salt each time. Without a memory an apply to a thousand users would take
seconds more, and would find every password changed. So each hash is made once, and kept in a directory of the operator
alone: `plasma/passwords` below Salt's cache.

What is kept tells nothing about a password by itself. A hash is found again by HMAC-SHA256(key, name NUL password)
with a random key of this machine: without the key it cannot be told from noise, and two people with the same password,
or one with it on two machines, have nothing in common. The salt in a hash is random too, and does not come from the
password. Who can read the key AND the hashes can test guesses at the speed of HMAC, which is why both belong to the
operator and nobody else may read them: they are worth what the pillar files with the passwords are worth.

Nothing in that directory is needed. When it is lost, hashes are made anew; a file that is damaged, or that somebody
else could read or write, is not believed.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import stat
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from .hashing import HASH, hash_passwords

_PARTS = ("plasma", "passwords")
_KEY, _HASHES, _LOCK = "key", "hashes.json", "lock"
_KEY_BYTES = 32
_LARGEST = 64 * 2**20
_FORMAT = 1
# A course comes back after a year.
_KEPT_DAYS = 400
# The date of an entry is written again when it is older than this, and not at every run.
_FRESH_DAYS = 30
_MOST = 200_000
# A run that is interrupted keeps what it has done up to then.
_AT_A_TIME = 500
# As long as another run may need for its hashes.
_PATIENCE = 900


class CacheError(Exception):
    """The cache cannot be used; the text says what to do. It never holds a password."""


def hashes(people: Sequence[tuple[str, str]], cachedir: str | None) -> dict[str, str]:
    """
    The hash of each person's password: the known one, or a new one.

    people
        Names and passwords; each name once.
    cachedir
        Salt's cache directory on the controller; None keeps nothing.

    Returns {name: hash}. Raises CacheError, or HashingError where passwords cannot be hashed.
    """
    if not people:
        return {}
    if cachedir is None:
        return dict(zip((name for name, _ in people), hash_passwords([one for _, one in people]), strict=True))
    try:
        with _directory(cachedir) as directory:
            found, stale = _known(directory, people)
            if stale or len(found) < len(people):
                with _locked(directory):
                    found = _learn(directory, people)
            return found
    except OSError as error:
        raise CacheError(
            f"The hashes of passwords cannot be kept in {_place(cachedir)} ({error.strerror or type(error).__name__}): "
            "make room for it, or remove it."
        ) from None


def marks(people: Sequence[tuple[str, str]], cachedir: str | None) -> dict[str, str]:
    """
    A mark of each person's password, which changes when the password does: a server is to tell that from a hash that
    another controller made. It begins with what stands for this controller.

    people, cachedir
        As for `hashes`, which comes first.

    Returns {name: mark}: without the key, which stays here, marks cannot be told from noise. Raises CacheError.
    """
    key = None
    if people and cachedir is not None:
        with _directory(cachedir) as directory:
            key = _read(directory, _KEY)
    if key is None:
        return {}
    controller = hmac.digest(key, b"mark", hashlib.sha256).hex()[:8]
    texts = {name: f"mark\0{name}\0{password}".encode() for name, password in people}
    return {name: f"{controller}.{hmac.digest(key, text, hashlib.sha256).hex()[:16]}" for name, text in texts.items()}


def _place(cachedir: str) -> str:
    return str(Path(cachedir, *_PARTS))


@contextlib.contextmanager
def _directory(cachedir: str) -> Generator[int]:
    """
    The directory, open, made where it is missing: everything in it is reached through this descriptor.

    No step follows a symbolic link, so that nobody who can write to Salt's cache can lead elsewhere.
    """
    Path(cachedir).mkdir(parents=True, exist_ok=True)
    opened = [os.open(cachedir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for part in _PARTS:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=opened[-1])
            try:
                opened.append(
                    os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened[-1])
                )
            except OSError:
                raise CacheError(
                    f"{_place(cachedir)} leads through something that is no directory: remove it."
                ) from None
            status = os.fstat(opened[-1])
            if status.st_uid != os.geteuid():
                raise CacheError(
                    f"{_place(cachedir)} belongs to the user with id {status.st_uid} and not to the one who runs Salt "
                    f"({os.geteuid()}): run Salt as that user, or remove the directory."
                )
            if status.st_mode & 0o077:
                os.fchmod(opened[-1], 0o700)
                if status.st_mode & 0o022:
                    # Others could put files here.
                    for name in (_KEY, _HASHES) if part == _PARTS[-1] else ():
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(name, dir_fd=opened[-1])
        yield opened[-1]
    finally:
        for descriptor in opened:
            os.close(descriptor)


@contextlib.contextmanager
def _locked(directory: int) -> Generator[None]:
    """One run at a time makes hashes; salt-ssh compiles the pillars of several servers at once."""
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CacheError("Another run has been hashing passwords for 15 minutes: end it.") from None
                time.sleep(0.05)
        yield
    finally:
        os.close(lock)


def _read(directory: int, name: str) -> bytes | None:
    """What is in a file that nobody but the operator could have written or read; else None."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if (
        not stat.S_ISREG(status.st_mode)
        or status.st_uid != os.geteuid()
        or status.st_mode & 0o077
        or status.st_nlink != 1
        or status.st_size > _LARGEST
    ):
        os.close(descriptor)
        return None
    with open(descriptor, "rb") as file:
        return file.read(_LARGEST)


def _write(directory: int, name: str, content: bytes) -> None:
    """Put a file in the place of another in one step. The lock is held."""
    for left in os.listdir(directory):
        # Of a run that was killed.
        if left.startswith("."):
            os.unlink(left, dir_fd=directory)
    new = f".{name}.{secrets.token_hex(8)}"
    descriptor = os.open(
        new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory
    )
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=directory)
        raise


def _today() -> int:
    return datetime.datetime.now(datetime.timezone.utc).date().toordinal()


def _entries(content: bytes | None) -> dict[str, list[Any]]:
    """The entries of a file as {id: [hash, day of the last use]}, without those that cannot be right."""
    try:
        stored = json.loads(content or b"")
        if stored["format"] != _FORMAT:
            return {}
        return {
            key: [hashed, day]
            for key, (hashed, day) in stored["hashes"].items()
            if isinstance(hashed, str) and HASH.fullmatch(hashed) and type(day) is int
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _identity(key: bytes, name: str, password: str) -> str:
    return hmac.digest(key, f"{name}\0{password}".encode(), hashlib.sha256).hex()


def _known(directory: int, people: Sequence[tuple[str, str]]) -> tuple[dict[str, str], bool]:
    """The hashes that are there, and whether the file should be written because of its dates."""
    key = _read(directory, _KEY)
    if key is None or len(key) != _KEY_BYTES:
        return {}, True
    entries, found, stale, today = _entries(_read(directory, _HASHES)), {}, False, _today()
    for name, password in people:
        entry = entries.get(_identity(key, name, password))
        if entry:
            found[name] = entry[0]
            stale = stale or abs(today - entry[1]) > _FRESH_DAYS
    return found, stale


def _learn(directory: int, people: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Make the hashes that are missing, and write the file. The lock is held."""
    today = _today()
    key, entries = _read(directory, _KEY), _entries(_read(directory, _HASHES))
    if key is None or len(key) != _KEY_BYTES:
        key, entries = secrets.token_bytes(_KEY_BYTES), {}
        _write(directory, _KEY, key)
    found, missing = {}, []
    for name, password in people:
        identity = _identity(key, name, password)
        if identity in entries:
            entries[identity][1] = today
            found[name] = entries[identity][0]
        else:
            missing.append((name, identity, password))
    for start in range(0, max(len(missing), 1), _AT_A_TIME):
        part = missing[start : start + _AT_A_TIME]
        for (name, identity, _), hashed in zip(
            part, hash_passwords([password for _, _, password in part]), strict=True
        ):
            entries[identity] = [hashed, today]
            found[name] = hashed
        _write(directory, _HASHES, _content(entries, today))
    return found


def _content(entries: dict[str, list[Any]], today: int) -> bytes:
    kept = {identity: entry for identity, entry in entries.items() if abs(today - entry[1]) <= _KEPT_DAYS}
    if len(kept) > _MOST:
        kept = dict(sorted(kept.items(), key=lambda item: item[1][1])[-_MOST:])
    return json.dumps({"format": _FORMAT, "hashes": kept}).encode()
