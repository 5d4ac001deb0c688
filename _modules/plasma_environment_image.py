"""
Ready images of environments: which one the engine has, and bringing one from an archive of ``docker save``.

An archive can hold any number of images under any names. It is taken only when it holds the one that pillar names, so
that loading it never puts another image in the place of somebody's environment.
"""

from __future__ import annotations

import http.client
import json
import os
import tarfile
import urllib.parse

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_environment_image"

SOCKET = "/var/run/docker.sock"
LOAD = 3600  # seconds for an archive of many gigabytes
LARGEST = 4 * 1024**2  # bytes of a list of contents
_LISTS = ("manifest.json", "index.json")


def __virtual__():
    return __virtualname__


def inspect(image, path=SOCKET):
    """
    Return what the engine knows of an image, as a dict, or None when it has none of that name.

    image
        Name with a tag or a digest.

    path
        The engine's socket.

    Raises CommandExecutionError when the engine does not answer.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_environment_image.inspect registry.example.org/course:2026
    """
    status, content = _ask(path, "GET", f"/images/{urllib.parse.quote(image, safe='/:@')}/json")
    if status == 404:
        return None
    if status != 200:
        raise CommandExecutionError(f"Docker does not say whether it has {image} (HTTP status {status}).")
    return json.loads(content)


def engine_id(image, path=SOCKET):
    """
    Return the id of an image that the engine has, ``sha256:...``, or None when it has none of that name.

    image, path
        As for ``inspect``, and the same errors are raised.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_environment_image.engine_id registry.example.org/course:2026
    """
    found = inspect(image, path)
    return found["Id"] if found else None


def archive_ids(file, image):
    """
    Return the ids that the image of an archive may have once it is loaded, sorted: which of them depends on the engine.

    file
        The archive, as ``docker save`` makes it, compressed or not. It and all directories above are root's.

    image
        The name that the image has in there, and that nothing else has.

    Raises CommandExecutionError when the file is not safe to read for root, is no such archive, or holds other images.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_environment_image.archive_ids /srv/images/course.tar registry.example.org/course:2026
    """
    with _opened(file) as opened:
        return _ids(opened, file, image)


def load(file, image, path=SOCKET):
    """
    Give the engine the image of an archive, and return its id.

    file, image
        As for ``archive_ids``.

    path
        The engine's socket.

    Raises CommandExecutionError for what ``archive_ids`` does, and when the engine does not take it.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_environment_image.load /srv/images/course.tar registry.example.org/course:2026
    """
    with _opened(file) as opened:
        _ids(opened, file, image)
        opened.seek(0)
        headers = {"Content-Type": "application/x-tar", "Content-Length": str(os.fstat(opened.fileno()).st_size)}
        status, content = _ask(path, "POST", "/images/load?quiet=1", opened, headers, LOAD)
    if status != 200 or b'"error"' in content:
        said = " ".join(content.decode("utf-8", "replace").split())[:300]
        raise CommandExecutionError(f"Docker does not take {file} (HTTP status {status}: {said}).")
    found = engine_id(image, path)
    if found is None:
        raise CommandExecutionError(f"Docker has loaded {file}, and yet has no image {image}.")
    return found


def _opened(file):
    """The archive, opened for reading, if nobody but root can have put it there."""
    __salt__["plasma_files.check"](file)
    return open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def _ids(opened, file, image):
    found = {}
    try:
        with tarfile.open(fileobj=opened, mode="r:*") as archive:
            for member in archive:
                if member.name in _LISTS and member.isfile() and member.size <= LARGEST:
                    found[member.name] = json.loads(archive.extractfile(member).read())
        names = {name for entry in found["manifest.json"] for name in entry["RepoTags"] or ()}
        ids = {_digest(entry["Config"]) for entry in found["manifest.json"]}
        ids |= {entry["digest"] for entry in found.get("index.json", {}).get("manifests", ())}
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


def _ask(path, method, target, body=None, headers=None, timeout=60):
    connection = __salt__["plasma_docker.connection"](path, timeout)
    try:
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as exc:
        raise CommandExecutionError("Docker does not answer: start it with: systemctl start docker.") from exc
    finally:
        connection.close()
