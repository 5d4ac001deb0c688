"""What the hub keeps for Traefik in a file, rules.toml, made fit for the hub that is about to start.

Routes are kept there so that user servers can be reached while the hub restarts. JupyterHub adds what is missing and
leaves the rest as it is, which goes wrong in these cases:

- The hub moves from HTTP to HTTPS or back. Each route names the entry point of Traefik that it belongs to: it would go
  on answering at the old port, and nothing at the new one.
- The password of Traefik's API is another one than it was, as after the loss of its file.
- The hub or a service has moved to another port. Until JupyterHub has seen that, the proxy would take logins and tokens
  to the old one, where by then anybody may listen.
- The file is no TOML.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .replace import replace
from .settings import INNER_PORT

# The names of TLJH, and so ours. Traefik's own API has another one.
ENTRY_POINTS = ("http", "https")
# What the proxy's class makes anew at each start, from the password that it has then.
API_ROUTER, API_MIDDLEWARE = "route_api", "auth_api"


def prepare(path: Path, entry_point: str) -> bool:
    """Make the routes of a file fit; to be called before the hub reads it.

    Args:
        path: the file, rules.toml. A missing or empty one is left alone, what is no list of routes is removed: the hub
            makes it anew.
        entry_point: "http" or "https".

    Returns:
        Whether there was anything to do.
    """
    import toml

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return _remove(path)
    try:
        rules = toml.loads(text)
        before = toml.dumps(rules)
        _move(rules, entry_point)
        _forget_api(rules)
        _forget_open_ports(rules)
        after = toml.dumps(rules)
    # The parser lets some of its own errors through.
    except (toml.TomlDecodeError, AttributeError, KeyError, TypeError, ValueError, IndexError):
        return _remove(path)
    if after == before:
        return False
    # Traefik watches the directory, and takes whatever ends in .toml.
    replace(path, after)
    return True


def hub_port(path: Path) -> int | None:
    """Return the port at which the hub was that wrote a file of routes; None when that cannot be told."""
    import toml

    try:
        for route in toml.loads(path.read_text(encoding="utf-8"))["jupyterhub"]["routes"].values():
            if route["data"].get("hub"):
                return urlsplit(route["target"]).port
    except (OSError, UnicodeDecodeError, toml.TomlDecodeError, AttributeError, KeyError, TypeError, ValueError):
        pass
    return None


def _remove(path: Path) -> bool:
    if path.is_dir():
        os.rename(path, path.with_name(f".{path.name}.aside"))
    else:
        path.unlink()
    return True


def _move(rules: dict[str, Any], entry_point: str) -> None:
    if entry_point not in ENTRY_POINTS:
        return
    for router in rules.get("http", {}).get("routers", {}).values():
        if len(router["entryPoints"]) == 1 and router["entryPoints"][0] in ENTRY_POINTS:
            router["entryPoints"] = [entry_point]


def _forget_api(rules: dict[str, Any]) -> None:
    http = rules.get("http", {})
    http.get("routers", {}).pop(API_ROUTER, None)
    http.get("middlewares", {}).pop(API_MIDDLEWARE, None)
    _drop_empty(rules)


def _forget_open_ports(rules: dict[str, Any]) -> None:
    """Forget routes of hub and services to ports that are not root's; the hub adds those that are still right."""
    http, routes = rules.get("http", {}), rules.get("jupyterhub", {}).get("routes", {})
    for name, route in list(routes.items()):
        # Those of people's servers lead to containers.
        if "user" in route["data"] or (urlsplit(route["target"]).port or 0) <= INNER_PORT[1]:
            continue
        del routes[name]
        http.get("routers", {}).pop(route["router"], None)
        http.get("services", {}).pop(route["service"], None)
    _drop_empty(rules)


def _drop_empty(rules: dict[str, Any]) -> None:
    """Traefik refuses a file with empty sections."""
    http = rules.get("http", {})
    for name in [name for name, section in http.items() if section == {}]:
        del http[name]
    if rules.get("http") == {}:
        del rules["http"]
