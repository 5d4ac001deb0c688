"""Removes what the throwaway targets left on this machine: the engine started here, images, caches, keys."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.support import container, engine, paths
from tests.support.builder_image import BASE_LABEL
from tests.support.environment_image import KEY_LABEL
from tests.support.images import REPOSITORY
from tests.support.shell import SupportError, run


def purge() -> list[str]:
    """
    Remove the images, the pip cache, the engine started here and both directories; returns what was removed.

    The targets of this checkout must be down. An engine that was not started here only loses what was made in it here,
    and Debian packages that were installed for all this stay. Raises SupportError, with nothing removed, when a
    directory is not one of ours or our engine still has targets of another checkout.
    """
    directories = [path for path in (paths.engine_path(), paths.state_path()) if os.path.lexists(path)]
    for directory in directories:
        paths.require_ours(directory)
    own, host = engine.own_host(), engine.running_host()
    if engine.answers(own):
        _refuse_targets_of_others(own)
        _remove_containers(own)
    done = _remove_images(host) + _remove_pip_cache(host) if host not in (None, own) else []
    if engine.stop_engine():
        done.append("the Docker engine that was started here")
    for directory in directories:
        _remove_directory(directory)
        done.append(str(directory))
    return done


def _lines(host: str, *args: str) -> list[str]:
    return run(["docker", "-H", host, *args]).stdout.split()


def _removed(host: str, kind: str, name: str) -> bool:
    """Whether it could be removed; what somebody's container uses stays."""
    return run(["docker", "-H", host, kind, "rm", name], check=False, timeout=300).returncode == 0


def _refuse_targets_of_others(host: str) -> None:
    names = _lines(host, "ps", "--all", "--filter", f"label={container.LABEL}", "--format", "{{.Names}}")
    if names:
        raise SupportError(
            f"The engine still has targets of another checkout ({', '.join(names)}): take them down there first"
        )


def _remove_containers(host: str) -> None:
    """Of the engine that is about to go: containers that are killed with it leave mounts behind."""
    left = _lines(host, "ps", "--all", "--quiet")
    if left:
        run(["docker", "-H", host, "rm", "--force", *left], timeout=300)


def _remove_images(host: str) -> list[str]:
    listed = ("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    tags = {tag for tag in _lines(host, *listed) if tag.startswith(f"{REPOSITORY}-")}
    for label in (KEY_LABEL, BASE_LABEL):
        tags |= {tag for tag in _lines(host, *listed, "--filter", f"label={label}") if "<none>" not in tag}
    return [f"the image {tag}" for tag in sorted(tags) if _removed(host, "image", tag)]


def _remove_pip_cache(host: str) -> list[str]:
    name = container.PIP_CACHE_VOLUME
    made = name in _lines(host, "volume", "ls", "--quiet")
    return [f"the volume {name}"] if made and _removed(host, "volume", name) else []


def mounts_below(directory: Path) -> list[str]:
    """What is mounted below ``directory``, the innermost first."""
    # Field 5 of mountinfo is the mount point, with \ooo for what would break the line (proc(5)).
    fields = [line.split()[4] for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]
    points = [os.fsdecode(field.decode("unicode_escape").encode("latin-1")) for field in fields]
    return sorted((point for point in points if point.startswith(f"{directory.resolve()}/")), key=len, reverse=True)


def _remove_directory(directory: Path) -> None:
    """Remove ``directory``, with what a dead container left mounted in it taken off first and never followed."""
    for point in mounts_below(directory):
        run(["umount", "--lazy", point], check=False)
    left = mounts_below(directory)
    if left:
        raise SupportError(f"{left[0]} is still mounted: unmount it, then try again")
    if not directory.is_mount():
        shutil.rmtree(directory)
        return
    # Somebody gave it a disk of its own: the mount point is theirs.
    for entry in directory.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
