"""
The ports inside this machine through which passwords and tokens pass: of the hub, of its services and of the proxy's
API. They belong to programs of root's, and only root can take them while they are free.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_listeners

_SYSCTL = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
# From here on the kernel hands out ports below 1024 to whoever asks (bindresvport(3)).
_OPEN = 512
_NAMES = {"hub": "the hub", "api": "the proxy's API"}


def anybodys() -> int:
    """
    Return the first port that every user of this server may listen on; 1024 unless somebody changed it.
    """
    try:
        return int(pathlib.Path(_SYSCTL).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 1024  # a kernel before 4.11


def backends(prefix: str = "/opt/tljh") -> dict[str, list]:
    """
    Return where the proxy leads requests to the hub and to its services, ``{"hub": [address, port], name of a service:
    [address, port]}``, as the file says that the hub keeps for it. What leads to servers of people is left out.

    prefix
        Where the hub is installed.
    """
    urls: dict[str, urllib.parse.SplitResult] = {}
    routes: dict[str, dict[str, Any]] = {}
    for section, key, value in _lines(pathlib.Path(prefix) / "state" / "rules" / "rules.toml"):
        if (server := re.fullmatch(r"http\.services\.service_(.*)\.loadBalancer\.servers", section)) and key == "url":
            urls[server[1]] = urllib.parse.urlsplit(value)
        elif route := re.fullmatch(r"jupyterhub\.routes\.router_(.*)\.data", section):
            routes.setdefault(route[1], {})[key] = value
    return {
        "hub" if (data := routes.get(alias, {})).get("hub") else data.get("service") or alias: [
            url.hostname,
            url.port or 80,
        ]
        for alias, url in urls.items()
        if "user" not in routes.get(alias, {})
    }


def _lines(path: pathlib.Path) -> Iterator[tuple[str, str, Any]]:
    """(section, key, value) of a file that the package toml has written; Ubuntu 22.04 has no parser of its own."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[] ")
            continue
        key, _, value = line.partition(" = ")
        try:
            yield section, key, json.loads(value)
        except ValueError:
            continue


def _foreign(address: str, port: int) -> tuple[list[int], list[int]]:
    """Uids of those who listen there, and of those among them who are not root."""
    uids = plasma_listeners.listeners(address, port)
    return uids, [uid for uid in uids if uid != os.geteuid()]


def check(prefix: str = "/opt/tljh") -> None:
    """
    Raise CommandExecutionError unless what listens where the proxy leads requests to hub and services is root's.

    A port of root's that is free is no fault: the proxy says that nobody answers. One that anybody could take is.

    prefix
        Where the hub is installed.
    """
    for name, (address, port) in backends(prefix).items():
        uids, foreign = _foreign(address, port)
        if foreign:
            raise CommandExecutionError(
                f"Port {port} of {address} is to be that of {_named(name)} but belongs to uid {foreign[0]}, so nothing "
                "was sent there: end that program, then restart the hub with: systemctl restart jupyterhub."
            )
        if not uids and port >= anybodys():
            raise CommandExecutionError(
                f"Nobody listens on port {port} of {address}, where {_named(name)} is to be and anybody could be, so "
                "nothing was sent there: restart the hub with: systemctl restart jupyterhub."
            )


def health(prefix: str = "/opt/tljh") -> dict[str, str | None]:
    """
    Return whether anybody but root has, or could take, one of these ports: ``{"problem": sentence with its mend or
    None}``.

    prefix
        Where the hub is installed.
    """
    return {"problem": _problem(prefix)}


def _problem(prefix: str) -> str | None:
    start = anybodys()
    if start < _OPEN:
        return (
            f"Anybody may take ports from {start} on, the hub's among them, and so get logins and tokens "
            "(see /etc/sysctl.d): `sysctl -w net.ipv4.ip_unprivileged_port_start=1024`"
        )
    ports = backends(prefix)
    for section, key, value in _lines(pathlib.Path(prefix) / "state" / "traefik.toml"):
        if (section, key) == ("entryPoints.auth_api", "address"):
            address, _, port = value.rpartition(":")
            ports["api"] = [address.strip("[]") or "127.0.0.1", int(port)]
    for name, (address, port) in ports.items():
        if foreign := _foreign(address, port)[1]:
            return (
                f"Port {port} of {address} is to be that of {_named(name)} but belongs to uid {foreign[0]}, "
                "who gets logins and tokens; end that program, then restart: `systemctl restart traefik jupyterhub`"
            )
        if port >= _OPEN:
            return f"Whoever has a shell can take port {port}, of {_named(name)}, while it restarts: `state.apply tljh`"
    return None


def _named(name: str) -> str:
    return _NAMES.get(name) or f"the service {name}"
