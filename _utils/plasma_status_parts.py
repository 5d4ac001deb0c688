"""
What ``plasma.status`` shows of a server, part by part. Each function only reads, and returns data for one part; what is
wrong is judged in ``plasma_status_report``.
"""

from __future__ import annotations

import http.client
import os
from typing import Any

import plasma_engine
import plasma_hub_installed
import plasma_quota_report
import plasma_users_observe
import tljh_service
import tljh_settings
from plasma_hub_containers import LABEL_SERVER, LABEL_USER
from plasma_words import size

# The plugin's labels of environments (environments.py).
LABEL_NAME, LABEL_IMAGE = "tljh_repo2docker.display_name", "tljh_repo2docker.image_name"
FORMER = "plasma-former/"  # how the name of an image begins that an environment can go back to


def program(prefix: str) -> str | None:
    """
    Return what is wrong with the program of the proxy, with what mends it, or None. While it runs, nobody notices.
    """
    changes = plasma_hub_installed.traefik_changes(prefix)
    if not changes or not plasma_hub_installed.receipt(prefix).get("complete"):
        return None
    what = "not the one that was installed" if changes["traefik"]["old"] else "gone"
    return f"{plasma_hub_installed.paths(prefix)['traefik']}, the program of the proxy, is {what}: `state.apply tljh`"


def _listed(kind: str, **filters: list[str]) -> list[dict[str, Any]]:
    """The engine's list of images or containers. Raises CommandExecutionError."""
    query = plasma_engine.filters(**filters)
    return plasma_engine.request("GET", f"/{kind}/json?{query}", missing=(), timeout=5)


def environments() -> list[dict[str, Any]]:
    """
    Return the environments, ``[{"name", "image", "size": str, "bytes": int}]``, largest first. Layers that two of them
    share count for both. Raises CommandExecutionError when Docker does not answer.
    """
    found = []
    for image in _listed("images", label=[LABEL_IMAGE], dangling=["false"]):
        labels, tags = image.get("Labels") or {}, image.get("RepoTags")
        if tags:
            tag = labels.get(LABEL_IMAGE) if labels.get(LABEL_IMAGE) in tags else tags[0]
            name = labels.get(LABEL_NAME) or tags[0]
            name += " (former image)" if str(tag).startswith(FORMER) else ""
            found.append({"name": name, "image": tag, "size": size(image["Size"]), "bytes": image["Size"]})
    return sorted(found, key=lambda environment: (-environment["bytes"], environment["image"]))


def servers() -> list[dict[str, str]]:
    """
    Return the servers of people that run, ``[{"user", "server", "image", "since"}]``; the default server's name is
    empty. Raises CommandExecutionError when Docker does not answer.
    """
    found = [
        {
            "user": container["Labels"][LABEL_USER],
            "server": container["Labels"].get(LABEL_SERVER, ""),
            "image": container.get("Image", ""),
            "since": container.get("Status", ""),
        }
        for container in _listed("containers", label=[LABEL_USER], status=["running", "paused", "restarting"])
    ]
    return sorted(found, key=lambda server: (server["user"], server["server"]))


def disks(places: dict[str, str]) -> list[dict[str, Any]]:
    """
    Return the file systems that these places lie on, ``[{"mount", "holds": [names], "percent": int, "used", "size",
    "free": str, "bytes_free": int, "inodes_percent": int or None}]``, fullest first. Places that are not there count
    as their nearest parent. The percentages are those of df: space that is kept for root counts as used.

    places
        ``{name: path}``.
    """
    by_device: dict[int, tuple[str, list[str]]] = {}
    for name, path in places.items():
        path = os.path.realpath(path)
        while not os.path.exists(path):
            path = os.path.dirname(path)
        by_device.setdefault(os.stat(path).st_dev, (path, []))[1].append(name)
    found = []
    for path, names in by_device.values():
        seen = os.statvfs(path)
        used, free = seen.f_blocks - seen.f_bfree, seen.f_bavail
        while not os.path.ismount(path):
            path = os.path.dirname(path)
        found.append(
            {
                "mount": path,
                "holds": sorted(names),
                "percent": _percent(used, used + free),
                "used": size(used * seen.f_frsize),
                "size": size((used + free) * seen.f_frsize),
                "free": size(free * seen.f_frsize),
                "bytes_free": free * seen.f_frsize,
                "inodes_percent": _percent(seen.f_files - seen.f_ffree, seen.f_files) if seen.f_files else None,
            }
        )
    return sorted(found, key=lambda disk: (-disk["percent"], disk["mount"]))


def homes(home_path: str = "/home") -> dict[str, str | None]:
    """
    Return ``{"problem": why the hub lets nobody in whose home is there, or None}``.

    home_path
        Where the homes are.
    """
    return {"problem": plasma_users_observe.homes_problem(home_path)}


def pages(prefix: str = "/opt/tljh") -> str | None:
    """
    Return why the pages of environments and permissions do not answer, None when they do. They are a service of the
    hub's, a process of its own.

    prefix
        Where the hub is installed.
    """
    connection, path = tljh_service.connection(tljh_settings.show(prefix), 5)
    try:
        connection.request("GET", f"{path.removesuffix('/hub/api')}/services/plasma/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as exc:
        return str(getattr(exc, "strerror", None) or exc or type(exc).__name__)
    finally:
        connection.close()
    return f"HTTP status {status}" if status >= 500 else None


def system(grains: dict[str, Any]) -> dict[str, str | None]:
    """
    Return what the server itself is, ``{"os": str, "python": str, "docker": str}``; Docker's version comes from the
    engine's own answer, and is None where none answers.
    """
    return {
        "os": f"{grains.get('os', '')} {grains.get('osrelease', '')}".strip(),
        "docker": plasma_engine.info(timeout=5).get("version") or None,
        "python": ".".join(str(part) for part in grains.get("pythonversion", [])[:3]),
    }


def exceeded(home_path: str = "/home", device: str | None = None) -> list[dict[str, Any]]:
    """
    Return who is over a disk limit, ``[{"kind", "name", "used", "limit": str, "hard": bool}]``, worst first.

    home_path, device
        See ``plasma_quota.discover``.

    Raises CommandExecutionError where quotas are not on.
    """
    return [
        {
            "kind": row["kind"],
            "name": row["name"] or f"#{row['id']}",
            "used": size(row["used"]),
            "limit": size(row["hard"] or row["soft"]),
            "hard": row["over_hard"],
        }
        for row in plasma_quota_report.rows(home_path, device)
        if row["over_soft"]
    ]


def _percent(part: int, whole: int) -> int:
    """Rounded up, as df does: a disk is not full at 99.4 %, and not free at 0.2 %."""
    return -(-100 * part // whole) if whole else 0
