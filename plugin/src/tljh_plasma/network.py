"""The private Docker network of the user servers.

One bridge for all of them, on which they reach the hub and the internet but not one another (``enable_icc=false``).
The hub listens on the bridge's gateway address, so it is not reachable from outside the server except by the proxy.
"""

from __future__ import annotations

import ipaddress
import time
from typing import Any

NETWORK_NAME = "plasma"
ICC_OPTION = "com.docker.network.bridge.enable_icc"
MTU_OPTION = "com.docker.network.driver.mtu"
LABEL = "org.plasma.network"


class NetworkError(Exception):
    """The network cannot be used; the text is one sentence that says what to do."""


def connect(timeout: float = 60, interval: float = 1) -> Any:
    """Return a docker-py API client, once the engine answers.

    At boot the hub may come up before Docker: wait for it rather than die in a restart loop.

    Args:
        timeout: seconds to wait for an answer.
        interval: seconds between two tries.

    Raises:
        NetworkError: no answer in time.
    """
    import docker
    import requests
    from docker.utils import kwargs_from_env

    end = time.monotonic() + timeout
    while True:
        try:
            return docker.APIClient(version="auto", **kwargs_from_env())
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
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
        # Some engines write the gateway with a prefix length.
        gateway = (config.get("Gateway") or "").partition("/")[0]
        if gateway:
            if ipaddress.ip_address(gateway).version == 4:
                return gateway
        elif config.get("Subnet") and ipaddress.ip_network(config["Subnet"]).version == 4:
            # No gateway asked for: Docker takes the first address.
            return str(next(ipaddress.ip_network(config["Subnet"]).hosts()))
    raise NetworkError(
        f"The Docker network {network.get('Name')!r} has no IPv4 subnet: remove it with "
        f"'docker network rm {network.get('Name')}' and restart the hub, which makes it again."
    )


def _find(client: Any, name: str) -> list[dict[str, Any]]:
    # The filter matches parts of names. Oldest first, so that two hubs racing agree on which one stays.
    found = [network for network in client.networks(names=[name]) if network["Name"] == name]
    return sorted(found, key=lambda network: (network.get("Created", ""), network["Id"]))


def _options(client: Any) -> dict[str, str]:
    """Options of the network. Docker gives a configured MTU to its default bridge only: take it over from there, or
    downloads would hang where the uplink takes smaller packets than usual."""
    options = {ICC_OPTION: "false"}
    for default in _find(client, "bridge"):
        mtu = (default.get("Options") or {}).get(MTU_OPTION)
        if mtu:
            options[MTU_OPTION] = mtu
    return options


def ensure_network(client: Any, name: str = NETWORK_NAME) -> str:
    """Make the network when it is not there, check it when it is, and return the host's address on it.

    Args:
        client: a docker-py API client (see ``connect``).
        name: the network's name.

    Returns:
        The gateway address of the bridge, an IPv4 address of the host.

    Raises:
        NetworkError: a network of that name exists which would let user servers reach one another.
    """
    import docker

    found = _find(client, name)
    if not found:
        try:
            client.create_network(
                name,
                driver="bridge",
                options=_options(client),
                labels={LABEL: name},
                check_duplicate=True,
            )
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise NetworkError(
                    f"Docker could not create the network {name!r}: {error.explanation or error}."
                ) from error
            # Somebody else made it in between: take theirs.
        found = _find(client, name)
        # Old engines accept two networks of one name. Both makers keep the oldest.
        for duplicate in found[1:]:
            try:
                client.remove_network(duplicate["Id"])
            except docker.errors.APIError:
                pass
    if not found:
        raise NetworkError(f"Docker reported the network {name!r} as created, but does not list it: restart Docker.")
    network = client.inspect_network(found[0]["Id"])
    if network.get("Driver") != "bridge" or (network.get("Options") or {}).get(ICC_OPTION) != "false":
        raise NetworkError(
            f"The Docker network {name!r} exists but was not made for Plasma (it lets containers reach one another): "
            f"stop the user servers, remove it with 'docker network rm {name}', then restart the hub, "
            "which makes it again."
        )
    return gateway_address(network)
