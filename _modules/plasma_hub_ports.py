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

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_hub_ports"

_SYSCTL = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
# From here on the kernel hands out ports below 1024 to whoever asks (bindresvport(3)).
_OPEN = 512
_NAMES = {"hub": "the hub", "api": "the proxy's API"}


def __virtual__():
    return __virtualname__


def anybodys():
    """
    Return the first port that every user of this server may listen on; 1024 unless somebody changed it.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_ports.anybodys
    """
    try:
        return int(pathlib.Path(_SYSCTL).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 1024  # a kernel before 4.11


def backends(prefix="/opt/tljh"):
    """
    Return where the proxy leads requests to the hub and to its services, ``{"hub": [address, port], name of a service:
    [address, port]}``, as the file says that the hub keeps for it. What leads to servers of people is left out.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_ports.backends
    """
    urls, data = {}, {}
    for section, key, value in _lines(pathlib.Path(prefix) / "state" / "rules" / "rules.toml"):
        server = re.fullmatch(r"http\.services\.service_(.*)\.loadBalancer\.servers", section)
        route = re.fullmatch(r"jupyterhub\.routes\.router_(.*)\.data", section)
        if server and key == "url":
            urls[server.group(1)] = urllib.parse.urlsplit(value)
        elif route:
            data.setdefault(route.group(1), {})[key] = value
    found = {}
    for alias, url in urls.items():
        of = data.get(alias, {})
        if "user" not in of:
            name = "hub" if of.get("hub") else of.get("service") or alias
            found[name] = [url.hostname, url.port or 80]
    return found


def _lines(path):
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


def check(prefix="/opt/tljh"):
    """
    Raise CommandExecutionError unless what listens where the proxy leads requests to hub and services is root's.

    A port of root's that is free is no fault: the proxy says that nobody answers. One that anybody could take is.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_ports.check
    """
    start = anybodys()
    for name, (address, port) in backends(prefix).items():
        uids = __salt__["plasma_hub_sockets.listeners"](address, port)
        foreign = [uid for uid in uids if uid != os.geteuid()]
        if foreign:
            raise CommandExecutionError(
                f"Port {port} of {address} is to be that of {_named(name)} but belongs to uid {foreign[0]}, so nothing "
                "was sent there: end that program, then restart the hub with: systemctl restart jupyterhub."
            )
        if not uids and port >= start:
            raise CommandExecutionError(
                f"Nobody listens on port {port} of {address}, where {_named(name)} is to be and anybody could be, so "
                "nothing was sent there: restart the hub with: systemctl restart jupyterhub."
            )


def health(prefix="/opt/tljh"):
    """
    Return whether anybody but root has, or could take, one of these ports: ``{"problem": sentence with its mend or
    None}``.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_ports.health
    """
    start = anybodys()
    if start < _OPEN:
        return {
            "problem": f"Anybody may take ports from {start} on, the hub's among them, and so get logins and tokens "
            "(see /etc/sysctl.d): `sysctl -w net.ipv4.ip_unprivileged_port_start=1024`"
        }
    for name, (address, port) in {**backends(prefix), **_api(prefix)}.items():
        foreign = [uid for uid in __salt__["plasma_hub_sockets.listeners"](address, port) if uid != os.geteuid()]
        if foreign:
            return {
                "problem": f"Port {port} of {address} is to be that of {_named(name)} but belongs to uid {foreign[0]}, "
                "who gets logins and tokens; end that program, then restart: `systemctl restart traefik jupyterhub`"
            }
        if port >= _OPEN:
            return {
                "problem": f"Whoever has a shell can take port {port}, of {_named(name)}, while it restarts: "
                "`state.apply tljh`"
            }
    return {"problem": None}


def _api(prefix):
    for section, key, value in _lines(pathlib.Path(prefix) / "state" / "traefik.toml"):
        if (section, key) == ("entryPoints.auth_api", "address"):
            address, _, port = value.rpartition(":")
            return {"api": [address.strip("[]") or "127.0.0.1", int(port)]}
    return {}


def _named(name):
    return _NAMES.get(name) or f"the service {name}"
