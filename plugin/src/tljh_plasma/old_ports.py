"""The ports at which hubs of older releases listened, for the servers that were started by one.

Such a server knows the hub by an address with the old port until it is stopped. Nobody listens there any more, and
anybody could: so the kernel leads every connection to it to the new port, by rules that only root can write, before any
listener is looked for.

``python -m tljh_plasma.old_ports`` is run before a hub of an older release is restarted into this one. From then on a
note in the state directory says that the rules are needed; hubs keep them until the last such server is gone.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

from . import routes, settings
from .firewall import VARIANTS
from .iptables import Tables, ToolError
from .settings import Settings

HUB_PORT = 15001
SERVICE_PORT = 15002
CHAIN = "PLASMA-OLD-PORTS"
NOTE = "plasma-old-ports"
LABEL_USER = "org.plasma.user"
# Seconds between two looks at the rules.
EVERY = 30

log = logging.getLogger("tornado.application")  # JupyterHub's own log follows it

_kept: list[str] = []
_checked = 0.0


def _rules(gateway: str, values: Settings) -> list[str]:
    service = settings.section(values.config, "plasma").get("service_port")
    if not isinstance(service, int) or service <= settings.INNER_PORT[1]:
        service = SERVICE_PORT
    moved = ((gateway, HUB_PORT, settings.HUB_PORT), ("127.0.0.1", service, values.service_port))
    return [
        f"-A {CHAIN} -d {address}/32 -p tcp -m tcp --dport {old} -j DNAT --to-destination {address}:{new}"
        for address, old, new in moved
    ]


def _put(rules: list[str]) -> None:
    """Write the rules where they are not, by whichever tools this kernel can work with.

    Raises:
        ToolError: none of them works.
    """
    failures = []
    for variant in VARIANTS:
        table = Tables("iptables", variant, "nat")
        try:
            found = table.rules()
            jumps = [
                chain for chain in ("PREROUTING", "OUTPUT") if f"-A {chain} -j {CHAIN}" not in found.get(chain, [])
            ]
            if jumps or found.get(CHAIN) != rules:
                table.commit([f":{CHAIN} - [0:0]", *rules, *(f"-I {chain} 1 -j {CHAIN}" for chain in jumps)])
            return
        except ToolError as error:
            failures.append(error)
    raise failures[0]


def _remove() -> None:
    for variant in VARIANTS:
        table = Tables("iptables", variant, "nat")
        try:
            found = table.rules()
            if CHAIN in found:
                jumps = [
                    f"-D {chain} -j {CHAIN}" for chain in found for rule in found[chain] if rule.endswith(f" {CHAIN}")
                ]
                table.commit([*jumps, f"-F {CHAIN}", f"-X {CHAIN}"])
        except ToolError as error:
            log.debug("%s: %s", table.prefix, error)


def begin(values: Settings, gateway: str) -> bool:
    """Lead the old ports to the new ones, where the hub that was here last was at an old one.

    Args:
        values: the settings.
        gateway: the host's address on the users' network.

    Returns:
        Whether that was so.

    Raises:
        ToolError: the rules cannot be written.
    """
    if routes.hub_port(values.state_dir / "rules" / "rules.toml") != HUB_PORT:
        return False
    (values.state_dir / NOTE).touch(mode=0o600)
    _put(_rules(gateway, values))
    return True


def _in_use(client: Any) -> bool:
    """Whether a server runs that knows the hub by its old port."""
    for container in client.containers(filters={"label": [LABEL_USER]}):
        known = client.inspect_container(container["Id"])["Config"].get("Env") or []
        if any(variable.startswith("JUPYTERHUB_API_URL=") and f":{HUB_PORT}/" in variable for variable in known):
            return True
    return False


def follow(client: Any, values: Settings, gateway: str) -> None:
    """Begin where that was not done, and end it when nobody needs it any more: once, when the hub starts.

    Args:
        client: a docker-py API client.
        values: the settings.
        gateway: the host's address on the users' network.
    """
    from docker.errors import DockerException

    note = values.state_dir / NOTE
    try:
        begin(values, gateway)
        if not note.exists():
            return
        try:
            used = _in_use(client)
        except DockerException:
            used = True  # one that was removed meanwhile
        if used:
            _kept[:] = _rules(gateway, values)
            _put(_kept)
        else:
            _remove()
            note.unlink()
    except (OSError, ToolError) as error:
        log.error(
            "Servers that were started by an older release cannot reach the hub until they are stopped: %s", error
        )


def ensure() -> None:
    """Put the rules back that a reload of the host's firewall dropped, where they are needed."""
    global _checked
    if not _kept or time.monotonic() - _checked < EVERY:
        return
    _checked = time.monotonic()
    try:
        _put(_kept)
    except ToolError as error:
        log.error("Servers that were started by an older release cannot reach the hub: %s", error)


def main() -> int:
    """Command line: ``python -m tljh_plasma.old_ports``."""
    from . import network

    values = settings.load()
    if not Path(values.state_dir / "rules" / "rules.toml").exists():
        return 0
    try:
        begin(values, network.ensure_network(network.connect(), values.network_name))
    except (ToolError, network.NetworkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
