"""
Ready images of environments: which one the engine has, and bringing one from an archive of ``docker save``.

An archive can hold any number of images under any names. It is taken only when it holds the one that pillar names, so
that loading it never puts another image in the place of somebody's environment.
"""

from __future__ import annotations

import json
import os
import tarfile
import urllib.parse
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_engine
import plasma_files

LOAD = 3600  # seconds for an archive of many gigabytes
LARGEST = 4 * 1024**2  # bytes of a list of contents
_LISTS = ("manifest.json", "index.json")


def inspect(image: str) -> dict[str, Any] | None:
    """
    Return what the engine knows of an image, or None when it has none of that name.

    image
        Name with a tag or a digest.

    Raises CommandExecutionError when the engine does not answer.
    """
    return plasma_engine.request("GET", f"/images/{urllib.parse.quote(image, safe='/:@')}/json")


def engine_id(image: str) -> str | None:
    """Return the id of an image that the engine has, ``sha256:...``, or None; the errors are those of ``inspect``."""
    description = inspect(image)
    return description["Id"] if description else None


def archive_ids(file: str, image: str) -> list[str]:
    """
    Return the ids that the image of an archive may have once it is loaded, sorted: which of them depends on the engine.

    file
        The archive, as ``docker save`` makes it, compressed or not. It and all directories above are root's.

    image
        The name that the image has in there, and that nothing else has.

    Raises CommandExecutionError when the file is not safe to read for root, is no such archive, or holds other images.
    """
    with _opened(file) as opened:
        return _ids(opened, file, image)


def load(file: str, image: str) -> str:
    """
    Give the engine the image of an archive, and return its id.

    file, image
        As for ``archive_ids``.

    Raises CommandExecutionError for what ``archive_ids`` does, and when the engine does not take it.
    """
    with _opened(file) as opened:
        _ids(opened, file, image)
        opened.seek(0)
        headers = {"Content-Type": "application/x-tar", "Content-Length": str(os.fstat(opened.fileno()).st_size)}
        status, content = plasma_engine.ask("POST", "/images/load?quiet=1", opened, headers, timeout=LOAD)
    if status != 200 or b'"error"' in content:
        answer = " ".join(content.decode("utf-8", "replace").split())[:300]
        raise CommandExecutionError(f"Docker does not take {file} (HTTP status {status}: {answer}).")
    loaded = engine_id(image)
    if loaded is None:
        raise CommandExecutionError(f"Docker has loaded {file}, and yet has no image {image}.")
    return loaded


def _opened(file):
    """The archive, opened for reading, if nobody but root can have put it there."""
    plasma_files.check(file)
    return open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def _ids(opened, file, image):
    lists = {}
    try:
        with tarfile.open(fileobj=opened, mode="r:*") as archive:
            for member in archive:
                if member.name not in _LISTS or not member.isfile() or member.size > LARGEST:
                    continue
                if content := archive.extractfile(member):
                    lists[member.name] = json.loads(content.read())
        names = {name for entry in lists["manifest.json"] for name in entry["RepoTags"] or ()}
        ids = {_digest(entry["Config"]) for entry in lists["manifest.json"]}
        ids |= {entry["digest"] for entry in lists.get("index.json", {}).get("manifests", ())}
    except (OSError, EOFError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CommandExecutionError(f"{file} is no archive of `docker save`.") from exc
    if {_short(name) for name in names} != {_short(image)}:
        inside = ", ".join(sorted(names)) or "images without a name"
        raise CommandExecutionError(
            f"{file} has to hold {image} and no other image, but holds {inside}: make it with `docker save {image}`."
        )
    return sorted(ids)


def _digest(config):
    """``sha256:...`` of what an archive calls abc.json or blobs/sha256/abc."""
    return f"sha256:{config.rpartition('/')[2].removesuffix('.json')}"


def _short(name):
    """A name without what Docker leaves out of it."""
    return name.removeprefix("docker.io/").removeprefix("library/")
