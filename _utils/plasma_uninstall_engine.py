"""
What a hub leaves in the Docker engine: servers of people, builds, a network, images. For ``plasma_uninstall``.

The engine itself goes only when pillar asks for it by name.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_engine
import plasma_files
import plasma_hub_containers
import plasma_systemd
import plasma_uninstall_host
from plasma_engine import filters
from plasma_hub_containers import request

# Labels of the plugin: builds/container.py, network.py, environments.py.
LABEL_BUILD = "org.plasma.build.uid"
LABEL_NETWORK = "org.plasma.network"
LABELS_IMAGE = ("tljh_repo2docker.image_name", "repo2docker.ref")
_PACKAGES = {
    "docker-ce": (
        "docker-ce",
        "docker-ce-cli",
        "docker-ce-rootless-extras",
        "containerd.io",
        "docker-buildx-plugin",
        "docker-compose-plugin",
    ),
    "distro": ("docker.io", "docker-cli", "containerd", "runc"),
}
_REPOSITORY = ("/etc/apt/sources.list.d/docker.list", "/etc/apt/keyrings/docker.asc")
_DATA = ("/var/lib/docker", "/var/lib/containerd")
_CONFIGURATION = "/etc/docker/daemon.json"


def found() -> dict[str, list[str]]:
    """
    Return what is in the engine of the hub's: ``{"servers": [user/server], "builds": [id], "networks": [name],
    "images": [name]}``; all empty where no engine is installed.

    Raises CommandExecutionError when an engine is installed and does not answer.
    """
    return {
        "servers": sorted(f"{each['user']}/{each['server']}".rstrip("/") for each in plasma_hub_containers.owned()),
        "builds": [each["Id"] for each in _builds()],
        "networks": [each["Name"] for each in _networks()],
        "images": sorted(_names_of(each) for each in _images()),
    }


def remove_containers() -> None:
    """
    Stop and remove people's servers and the builds. Raises CommandExecutionError when one stays.
    """
    plasma_hub_containers.remove({each["user"] for each in plasma_hub_containers.owned()}, timeout=300)
    for each in _builds():
        request("DELETE", f"/containers/{each['Id']}?force=1&v=1")


def remove_networks() -> list[str]:
    """
    Remove the hub's networks. Returns the names of those that containers of others still use, which stay.
    """
    for each in _networks():
        with contextlib.suppress(CommandExecutionError):
            request("DELETE", f"/networks/{each['Id']}")
    return [each["Name"] for each in _networks()]


def remove_images() -> list[str]:
    """
    Remove the images of environments. Returns the names of those that containers of others use, which stay.
    """
    for each in _images():
        for name in each.get("RepoTags") or [each["Id"]]:
            with contextlib.suppress(CommandExecutionError):
                request("DELETE", f"/images/{urllib.parse.quote(each['Id'] if '<none>' in name else name, safe='/:')}")
    return found()["images"]


def packages(salt: Mapping[str, Callable[..., Any]], source: str) -> list[str]:
    """
    Return the packages of the engine that the state docker installs from ``source`` and that are here; empty where
    there is another engine or none.

    salt
        Salt's functions.
    """
    return [name for name in _PACKAGES[source] if salt["pkg.version"](name)] if plasma_engine.engine() == source else []


def purge(salt: Mapping[str, Callable[..., Any]], source: str, place: str) -> None:
    """
    Remove the engine with its containers, images and volumes, its package source and its configuration, which is put
    aside in ``place``. Raises CommandExecutionError when the packages stay.
    """
    names = packages(salt, source)
    for each in request("GET", "/containers/json?all=1") or []:
        # The engine leaves them running when it ends (live-restore).
        request("DELETE", f"/containers/{each['Id']}?force=1&v=1")
    plasma_systemd.run("stop", "docker.socket", "docker.service", "containerd.service")
    configuration = pathlib.Path(_CONFIGURATION)
    if configuration.is_file():
        plasma_files.directory(place, 0o700)
        plasma_files.write(pathlib.Path(place, "daemon.json"), configuration.read_bytes())
        configuration.unlink()
    salt["pkg.purge"](pkgs=names)
    if plasma_engine.engine() == source:
        raise CommandExecutionError("The packages of Docker cannot be removed: see /var/log/apt/term.log.")
    for directory in filter(os.path.isdir, _DATA):
        # What is mounted there stays as an empty directory.
        for entry in os.scandir(directory):
            plasma_uninstall_host.delete(entry.path)
        if not os.path.ismount(directory):
            os.rmdir(directory)
    for path in _REPOSITORY if source == "docker-ce" else ():
        pathlib.Path(path).unlink(missing_ok=True)


def _names_of(image: dict[str, Any]) -> str:
    names = [name for name in image.get("RepoTags") or [] if "<none>" not in name]
    return ", ".join(sorted(names)) or image["Id"][:19]


def _builds() -> list[dict[str, Any]]:
    return request("GET", f"/containers/json?all=1&{filters(label=[LABEL_BUILD])}") or []


def _networks() -> list[dict[str, Any]]:
    return request("GET", f"/networks?{filters(label=[LABEL_NETWORK])}") or []


def _images() -> list[dict[str, Any]]:
    return request("GET", f"/images/json?{filters(label=list(LABELS_IMAGE))}") or []
