"""
What a hub leaves in the Docker engine: servers of people, builds, a network, images. For ``plasma_uninstall``.

The engine itself goes only when pillar asks for it by name.
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import subprocess
import urllib.parse

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_uninstall_engine"

# Labels of the plugin: build_container.py, network.py, environments.py.
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


def __virtual__():
    return __virtualname__


def found():
    """
    Return what is in the engine of the hub's: ``{"servers": [user/server], "builds": [id], "networks": [name],
    "images": [name]}``; all empty where no engine is installed.

    Raises CommandExecutionError when an engine is installed and does not answer.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_engine.found
    """
    servers = __salt__["plasma_hub_containers.owned"]()
    images = _ask("GET", _with_filters("/images/json", label=list(LABELS_IMAGE))) or []
    return {
        "servers": sorted(f"{each['user']}/{each['server']}".rstrip("/") for each in servers),
        "builds": [each["Id"] for each in _builds()],
        "networks": [each["Name"] for each in _networks()],
        "images": sorted(_names_of(each) for each in images),
    }


def remove_containers():
    """
    Stop and remove people's servers and the builds. Raises CommandExecutionError when one stays.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_engine.remove_containers
    """
    people = {each["user"] for each in __salt__["plasma_hub_containers.owned"]()}
    if people:
        __salt__["plasma_hub_containers.remove"](sorted(people), timeout=300)
    for each in _builds():
        _ask("DELETE", f"/containers/{each['Id']}?force=1&v=1")


def remove_networks():
    """
    Remove the hub's networks. Returns the names of those that containers of others still use, which stay.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_engine.remove_networks
    """
    left = []
    for each in _networks():
        try:
            _ask("DELETE", f"/networks/{each['Id']}")
        except CommandExecutionError:
            left.append(each["Name"])
    return left


def remove_images():
    """
    Remove the images of environments. Returns the names of those that containers of others use, which stay.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_engine.remove_images
    """
    for each in _ask("GET", _with_filters("/images/json", label=list(LABELS_IMAGE))) or []:
        for name in each.get("RepoTags") or [each["Id"]]:
            try:
                _ask("DELETE", f"/images/{urllib.parse.quote(each['Id'] if '<none>' in name else name, safe='/:')}")
            except CommandExecutionError:
                pass  # in use: told by what is found afterwards
    return found()["images"]


def packages(source):
    """
    Return the packages of the engine that the state docker installs from ``source`` and that are here; empty where
    there is another engine or none.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_engine.packages distro
    """
    if __salt__["plasma_docker.engine"]() != source:
        return []
    return [name for name in _PACKAGES[source] if __salt__["pkg.version"](name)]


def purge(source, place):
    """
    Remove the engine with its containers, images and volumes, its package source and its configuration, which is put
    aside in ``place``. Raises CommandExecutionError when the packages stay.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_uninstall_engine.purge distro /var/backups/plasma/uninstalled
    """
    names = packages(source)
    for each in _ask("GET", "/containers/json?all=1") or []:
        # The engine leaves them running when it ends (live-restore).
        _ask("DELETE", f"/containers/{each['Id']}?force=1&v=1")
    for unit in ("docker.socket", "docker.service", "containerd.service"):
        subprocess.run(["systemctl", "stop", unit], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if os.path.isfile(_CONFIGURATION):
        configuration = pathlib.Path(place, "daemon.json")
        configuration.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        configuration.write_bytes(pathlib.Path(_CONFIGURATION).read_bytes())
        configuration.chmod(0o600)
        os.unlink(_CONFIGURATION)
    __salt__["pkg.purge"](pkgs=names)
    if __salt__["plasma_docker.engine"]() == source:
        raise CommandExecutionError("The packages of Docker cannot be removed: see /var/log/apt/term.log.")
    for directory in _DATA:
        # What is mounted there stays as an empty directory.
        for entry in os.scandir(directory) if os.path.isdir(directory) else ():
            __salt__["plasma_uninstall_host.delete"](entry.path)
        if os.path.isdir(directory) and not os.path.ismount(directory):
            os.rmdir(directory)
    for path in _REPOSITORY if source == "docker-ce" else ():
        pathlib.Path(path).unlink(missing_ok=True)


def _names_of(image):
    names = [name for name in image.get("RepoTags") or [] if "<none>" not in name]
    return ", ".join(sorted(names)) or image["Id"][:19]


def _builds():
    return _ask("GET", _with_filters("/containers/json?all=1", label=[LABEL_BUILD])) or []


def _networks():
    return _ask("GET", _with_filters("/networks", label=[LABEL_NETWORK])) or []


def _with_filters(target, **filters):
    return f"{target}{'&' if '?' in target else '?'}filters={urllib.parse.quote(json.dumps(filters))}"


def _ask(method, target):
    """The engine's answer; None where there is no engine, or the thing is gone."""
    connection = __salt__["plasma_docker.connection"](timeout=120)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as exc:
        if __salt__["plasma_docker.engine"]() is None:
            return None
        raise CommandExecutionError(
            "Docker is installed and does not answer: start it with `systemctl start docker`, then apply again."
        ) from exc
    finally:
        connection.close()
    if answer.status == 404:
        return None
    if answer.status >= 400:
        raise CommandExecutionError(f"Docker did not do what it was asked for (HTTP status {answer.status}).")
    return json.loads(content) if content else None
