"""
What ``plasma.status`` shows of a server, part by part. Each function only reads, and returns data for one part; what is
wrong is judged in ``plasma_status_report``.
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import urllib.parse

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_status_parts"

DOCKER_ROOT = "/var/lib/docker"
# The plugin's labels of people's servers (policy.py) and of environments (environments.py).
LABEL_USER, LABEL_SERVER = "org.plasma.user", "org.plasma.server"
LABEL_REPO, LABEL_NAME, LABEL_IMAGE = "repo2docker.repo", "tljh_repo2docker.display_name", "tljh_repo2docker.image_name"


def __virtual__():
    return __virtualname__


def engine(path, method="GET", timeout=5):
    """
    Return what the Docker engine answers to one request, as data.

    path
        The request, for example ``/version``.
    method
        ``GET``; nothing here changes anything.
    timeout
        Seconds.

    Raises CommandExecutionError when it does not answer.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_status_parts.engine /version
    """
    connection = __salt__["plasma_docker.connection"](timeout=timeout)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        content = json.loads(answer.read())
    except TimeoutError:
        raise CommandExecutionError(f"Docker does not answer within {timeout} seconds") from None
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise CommandExecutionError(f"Docker does not answer ({getattr(exc, 'strerror', None) or exc})") from exc
    finally:
        connection.close()
    if answer.status >= 400:
        raise CommandExecutionError(f"Docker answers with HTTP status {answer.status}")
    return content


def environments():
    """
    Return the environments, ``[{"name", "image", "size": str, "bytes": int}]``, largest first. Layers that two of them
    share count for both.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_status_parts.environments
    """
    filters = urllib.parse.quote(json.dumps({"label": [LABEL_IMAGE], "dangling": ["false"]}))
    found = []
    for image in engine(f"/images/json?filters={filters}"):
        labels = image.get("Labels") or {}
        tags = image.get("RepoTags") or []
        if not tags:
            continue
        name = labels.get(LABEL_IMAGE)
        found.append(
            {
                "name": labels.get(LABEL_NAME) or tags[0],
                "image": name if name in tags else tags[0],
                "size": size(image["Size"]),
                "bytes": image["Size"],
            }
        )
    return sorted(found, key=lambda one: (-one["bytes"], one["image"]))


def servers():
    """
    Return the servers of people that run, ``[{"user", "server", "image", "since": str}]``; the default server's name is
    empty.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_status_parts.servers
    """
    filters = urllib.parse.quote(json.dumps({"label": [LABEL_USER], "status": ["running", "paused", "restarting"]}))
    found = [
        {
            "user": one["Labels"][LABEL_USER],
            "server": one["Labels"].get(LABEL_SERVER, ""),
            "image": one.get("Image", ""),
            "since": one.get("Status", ""),
        }
        for one in engine(f"/containers/json?filters={filters}")
    ]
    return sorted(found, key=lambda one: (one["user"], one["server"]))


def disks(places):
    """
    Return the file systems that these places lie on, ``[{"mount", "holds": [names], "percent": int, "used", "size",
    "free": str, "bytes_free": int, "inodes_percent": int or None}]``, fullest first. Places that are not there count
    as their nearest parent. The percentages are those of df: space that is kept for root counts as used.

    places
        ``{name: path}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_status_parts.disks '{system: /, homes: /home}'
    """
    by_device = {}
    for name, path in places.items():
        path = os.path.realpath(path)
        while not os.path.exists(path):
            path = os.path.dirname(path)
        by_device.setdefault(os.stat(path).st_dev, (path, []))[1].append(name)
    found = []
    for path, names in by_device.values():
        seen = os.statvfs(path)
        used, free = seen.f_blocks - seen.f_bfree, seen.f_bavail
        inodes = seen.f_files - seen.f_ffree
        found.append(
            {
                "mount": _mount_point(path),
                "holds": sorted(names),
                "percent": _percent(used, used + free),
                "used": size(used * seen.f_frsize),
                "size": size((used + free) * seen.f_frsize),
                "free": size(free * seen.f_frsize),
                "bytes_free": free * seen.f_frsize,
                "inodes_percent": _percent(inodes, seen.f_files) if seen.f_files else None,
            }
        )
    return sorted(found, key=lambda one: (-one["percent"], one["mount"]))


def pages(prefix="/opt/tljh"):
    """
    Return why the pages of environments and permissions do not answer, None when they do. They are a service of the
    hub's, a process of its own.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_status_parts.pages
    """
    connection, path = __salt__["tljh_service.connection"](__salt__["tljh_config.show"](prefix), 5)
    try:
        connection.request("GET", f"{path.removesuffix('/hub/api')}/services/plasma/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as exc:
        return str(getattr(exc, "strerror", None) or exc or type(exc).__name__)
    finally:
        connection.close()
    return f"HTTP status {status}" if status >= 500 else None


def docker_root(path="/etc/docker/daemon.json"):
    """
    Return the directory of the Docker engine, as its configuration says: an engine that hangs could not be asked.

    path
        The engine's configuration file.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_status_parts.docker_root
    """
    try:
        with open(path, encoding="utf-8") as handle:
            return str(json.load(handle).get("data-root") or DOCKER_ROOT)
    except (OSError, ValueError, AttributeError):
        return DOCKER_ROOT


def system():
    """
    Return what the server itself is, ``{"os": str, "python": str, "docker": str}``; Docker's version comes from the
    engine's own answer, and is None where none answers.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_status_parts.system
    """
    found = {"os": f"{__grains__.get('os', '')} {__grains__.get('osrelease', '')}".strip(), "docker": None}
    found["python"] = ".".join(str(part) for part in __grains__.get("pythonversion", [])[:3])
    found["docker"] = __salt__["plasma_docker.info"](timeout=5).get("version") or None
    return found


def exceeded(home_path="/home", device=None):
    """
    Return who is over a disk limit, ``[{"kind", "name", "used", "limit": str, "hard": bool}]``, worst first.

    home_path, device
        See ``plasma_quota.discover``.

    Raises CommandExecutionError where quotas are not on.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_status_parts.exceeded
    """
    return [
        {
            "kind": row["kind"],
            "name": row["name"] or f"#{row['id']}",
            "used": size(row["used"]),
            "limit": size(row["hard"] or row["soft"]),
            "hard": row["over_hard"],
        }
        for row in __salt__["plasma_quota_report.rows"](home_path, device)
        if row["over_soft"]
    ]


def size(number):
    """
    Return a number of bytes for people, in powers of 1000 as disks are sold.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_status_parts.size 12345678
    """
    number = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit in ("B", "kB") else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _percent(part, whole):
    """Rounded up, as df does: a disk is not full at 99.4 %, and not free at 0.2 %."""
    return -(-100 * part // whole) if whole else 0


def _mount_point(path):
    device = os.stat(path).st_dev
    while path != "/" and os.stat(os.path.dirname(path)).st_dev == device:
        path = os.path.dirname(path)
    return str(pathlib.Path(path))
