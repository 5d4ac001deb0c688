"""Where the throwaway targets keep their state, keys and caches."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tests.support.shell import SupportError, ensure_packages, run

REPOSITORY = Path(__file__).resolve().parents[2]
# Says of a directory that it was made here: without it nothing is removed that somebody named by mistake.
MARKER = ".plasma-throwaway"
DEFAULT_ENGINE_DIR = Path("/var/lib/plasma-throwaway")
DEFAULT_STATE_DIR = REPOSITORY / ".plasma"


def _directory(path: Path, mode: int = 0o755) -> Path:
    path.mkdir(parents=True, exist_ok=True, mode=mode)
    return path


def _marked(path: Path, mode: int) -> Path:
    """Make the directory, marked as ours; one that was there with something in it stays without the mark."""
    _directory(path, mode)
    with contextlib.suppress(PermissionError):  # root's, and asked for by another user
        if not any(path.iterdir()):
            (path / MARKER).touch()
    return path


def require_ours(path: Path) -> None:
    """Raise SupportError unless ``path`` is a directory that was made here, and this user's."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise SupportError(f"{path} is not a directory: it is left alone")
    if status.st_uid != os.geteuid():
        raise SupportError(f"{path} belongs to another user (id {status.st_uid}): only that one can remove it")
    if path not in (DEFAULT_ENGINE_DIR, DEFAULT_STATE_DIR) and not (path / MARKER).exists():
        raise SupportError(f"{path} was not made here (there is no {MARKER} in it): it is left alone")


def state_path() -> Path:
    """Where state_dir() is, or will be."""
    return Path(os.environ.get("PLASMA_STATE_DIR") or DEFAULT_STATE_DIR).absolute()


def engine_path() -> Path:
    """Where engine_dir() is, or will be."""
    return Path(os.environ.get("PLASMA_ENGINE_DIR") or DEFAULT_ENGINE_DIR).absolute()


def state_dir() -> Path:
    """``.plasma`` in the repository (git-ignored), or PLASMA_STATE_DIR."""
    return _marked(state_path(), 0o700)


def engine_dir() -> Path:
    """Everything of the Docker engine that is started here, or PLASMA_ENGINE_DIR: it may grow to several GB."""
    return _marked(engine_path(), 0o711)


def state_id() -> str:
    """A short name for this state directory: keeps the targets of two clones on one engine apart."""
    return hashlib.sha256(str(state_dir()).encode()).hexdigest()[:6]


def targets_dir() -> Path:
    """One JSON file for each target that was brought up."""
    return _directory(state_dir() / "targets")


def cache_dir() -> Path:
    """Things that take minutes to make and are kept between runs."""
    return _directory(state_dir() / "cache")


def log_dir() -> Path:
    """Output of the long jobs."""
    return _directory(state_dir() / "log")


def control_dir() -> Path:
    """Directory of the SSH control sockets: short, because the path of a Unix socket ends at 108 characters."""
    if os.geteuid() == 0:
        path = Path("/run/plasma-ssh")
    else:
        path = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp") / f"plasma-ssh-{os.geteuid()}"
    _directory(path, 0o700)
    status = path.lstat()
    if path.is_symlink() or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise SupportError(f"{path} must be a directory of yours with mode 0700: remove it")
    return path


def ssh_key() -> Path:
    """The private key (ed25519, 0600) that opens every target; made once. The public one lies beside it (.pub)."""
    key = _directory(state_dir() / "ssh", 0o700) / "id_ed25519"
    with lock("ssh-key"):
        if not key.exists() or not public_key_file(key).exists():
            ensure_packages(["openssh-client"])
            key.unlink(missing_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "plasma-throwaway", "-f", key])
    key.chmod(0o600)
    return key


def public_key_file(key: Path) -> Path:
    """The file of the public key that belongs to ``key``."""
    return key.with_name(key.name + ".pub")


@contextlib.contextmanager
def lock(name: str, directory: Path | None = None) -> Iterator[None]:
    """Hold the lock ``name`` against other processes; the kernel releases it when this process dies."""
    path = _directory(directory or state_dir() / "lock") / f"{name}.lock"
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
