"""The private Docker network of the user servers.

One bridge for all of them, on which they reach the hub and the internet but not one another (``enable_icc=false``).
The hub listens on the bridge's gateway address, so it is not reachable from outside the server except by the proxy.
What containers reach of the host itself is the business of ``firewall``, which knows the bridge by its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import re
import time
from pathlib import Path
from typing import Any

import docker
import requests
from docker.utils import kwargs_from_env

from .settings import DEFAULT_NETWORK_NAME

ICC_OPTION = "com.docker.network.bridge.enable_icc"
MTU_OPTION = "com.docker.network.driver.mtu"
BRIDGE_OPTION = "com.docker.network.bridge.name"
IPV6_OPTION = "com.docker.network.enable_ipv6"
# The kernel's limit for names of interfaces.
BRIDGE_NAME_MAX = 15
# How long another hub may take to finish the network that it is making, in seconds.
MAKING = 5
LABEL = "org.plasma.network"
# The engine's own network, in which containers are that name none.
SHARED = "bridge"
LINKS = Path("/sys/class/net")
# What docker-py raises when the engine refuses or is not there.
DOCKER_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)


class NetworkError(Exception):
    """The network cannot be used; the text is one sentence that says what to do."""


def connect(timeout: float = 60, interval: float = 1) -> docker.APIClient:
    """Return a docker-py API client, once the engine answers.

    At boot the hub may come up before Docker: wait for it rather than die in a restart loop.

    Args:
        timeout: seconds to wait for an answer.
        interval: seconds between two tries.

    Raises:
        NetworkError: no answer in time.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            return docker.APIClient(version="auto", **kwargs_from_env())
        except DOCKER_ERRORS as error:
            if time.monotonic() >= end:
                raise NetworkError(
                    f"Docker does not answer ({error}): start it with 'systemctl start docker', "
                    "then restart the hub with 'systemctl restart jupyterhub'."
                ) from error
            time.sleep(interval)


def gateway_address(network: dict[str, Any]) -> str:
    """Return the host's IPv4 address on a bridge network, from its description.

    Raises:
        NetworkError: the network has no IPv4 subnet.
    """
    for config in (network.get("IPAM") or {}).get("Config") or []:
        subnet = ipaddress.ip_network(config["Subnet"])
        if subnet.version == 4:
            # No gateway asked for: Docker takes the first address. Some engines write it with a prefix length.
            return (config.get("Gateway") or str(subnet[1])).partition("/")[0]
    raise NetworkError(
        f"The Docker network {network.get('Name')!r} has no IPv4 subnet: remove it with "
        f"'docker network rm {network.get('Name')}' and restart the hub, which makes it again."
    )


def name_of_bridge(name: str) -> str:
    """Return the name that the bridge of a new network gets, from the network's name.

    A name of its own is one that administrators recognise, and that rules of a firewall survive.
    """
    bridge = f"br-{name}"
    if len(bridge) <= BRIDGE_NAME_MAX:
        return bridge
    # Both ends: a piece to recognise and a hash against two long names with the same beginning.
    return f"br-{name[:5]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def bridge_of(network: dict[str, Any]) -> str:
    """Return the name of a bridge network's interface on the host, from its description.

    Networks that were made without a name for it have the one that Docker takes from their id.
    """
    return (network.get("Options") or {}).get(BRIDGE_OPTION) or f"br-{network['Id'][:12]}"


def is_shared(network: dict[str, Any]) -> bool:
    """Whether a network, from its description, is the engine's own, with containers of anybody's."""
    return network.get("Name") == SHARED


def ports_of(client: docker.APIClient, network: dict[str, Any]) -> dict[str, str]:
    """Return the bridge's port of each running container of a network, by the container's id.

    The engine gives the address of a container that ended to the next one at once; the name of a port is never used
    again.

    Args:
        client: a docker-py API client.
        network: what Docker says of the network.
    """
    # The two ends of the link know each other's number, which containers get from the same row as the host.
    ends = {}
    for port in (LINKS / bridge_of(network) / "brif").glob("*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            ends[(LINKS / port.name / "iflink").read_text().strip()] = port.name
    ports = {}
    for container in network.get("Containers") or {}:
        # Steps of BuildKit's are listed under a name that is no container's id.
        if not re.fullmatch(r"[0-9a-f]{64}", container):
            continue
        with contextlib.suppress(OSError, docker.errors.NotFound):
            pid = client.inspect_container(container)["State"]["Pid"]
            # Lines such as "12   eth0   1  0  33330000..."; engines name what they plug in eth0, eth1, ...
            own = re.findall(r"^(\d+)\s+eth\d+\s", Path(f"/proc/{pid}/net/dev_mcast").read_text(), re.MULTILINE)
            for number in ends.keys() & own:
                ports[container] = ends[number]
    return ports


def has_shared(client: docker.APIClient) -> bool:
    """Whether the engine has that network: administrators can turn it off."""
    return _find(client, SHARED) is not None


def _find(client: docker.APIClient, name: str) -> dict[str, Any] | None:
    # The filter matches parts of names.
    return next((network for network in client.networks(names=[name]) if network["Name"] == name), None)


def _make(client: docker.APIClient, name: str) -> None:
    # IPv6 is off by default; the option says so to an engine that was told to turn it on for every network.
    options = {ICC_OPTION: "false", IPV6_OPTION: "false", BRIDGE_OPTION: name_of_bridge(name)}
    # Docker gives a configured MTU to its default bridge only: take it over from there, or downloads would hang where
    # the uplink takes smaller packets than usual.
    default = _find(client, SHARED) or {}
    if mtu := (default.get("Options") or {}).get(MTU_OPTION):
        options[MTU_OPTION] = mtu
    try:
        client.create_network(name, driver="bridge", options=options, labels={LABEL: name}, check_duplicate=True)
    except docker.errors.APIError as error:
        # Another process may be making it: its bridge is there before the engine lists it.
        end = time.monotonic() + MAKING
        while not _find(client, name):
            if time.monotonic() >= end:
                raise NetworkError(
                    f"Docker could not create the network {name!r}: {error.explanation or error}."
                ) from error
            time.sleep(0.1)


def ensure_network(client: docker.APIClient, name: str = DEFAULT_NETWORK_NAME) -> str:
    """Make the network when it is not there, check it when it is, and return the host's address on it.

    Args:
        client: a docker-py API client (see ``connect``).
        name: the network's name.

    Returns:
        The gateway address of the bridge, an IPv4 address of the host.

    Raises:
        NetworkError: a network of that name exists which would let user servers reach one another, or which has IPv6.
    """
    if not _find(client, name):
        _make(client, name)
    network = client.inspect_network(name)
    again = (
        f"stop the user servers, remove it with 'docker network rm {name}', then restart the hub, which makes it again."
    )
    if network.get("Driver") != "bridge" or (network.get("Options") or {}).get(ICC_OPTION) != "false":
        raise NetworkError(
            f"The Docker network {name!r} exists but was not made for Plasma (it lets containers reach one another): "
            + again
        )
    if network.get("EnableIPv6"):
        raise NetworkError(f"The Docker network {name!r} has IPv6, which Plasma's must not have: {again}")
    return gateway_address(network)
