"""The hub's side of Traefik: routes that name the middlewares of what they lead to.

Routes and middlewares are in one file, which is replaced as a whole: Traefik drops a route that names a middleware it
does not know, and so never meets one. That holds while the proxy runs on through an upgrade of the hub, too.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from jupyterhub_traefik_proxy.fileprovider import TraefikFileProviderProxy
from traitlets import Dict, Unicode, default

from . import domains, middlewares

# What leads from all other hosts to the hub's: a router and its middleware.
ELSEWHERE = "plasma-elsewhere"


class PlasmaProxy(TraefikFileProviderProxy):
    """The file provider's proxy, with middlewares on its routes."""

    middlewares = Dict(help="Definitions by name, as in Traefik's dynamic configuration.", config=True)
    chains = Dict(help="Names of the middlewares of each kind of route: user, hub, service.", config=True)

    hub_url = Unicode(
        help="Scheme, host and port of the hub, where each person's servers have a host of their own.", config=True
    )

    @default("middlewares")
    def _default_middlewares(self) -> dict[str, Any]:
        return {**(middlewares.HTTPS if self._https else {}), **middlewares.MIDDLEWARES}

    @default("chains")
    def _default_chains(self) -> dict[str, Any]:
        first = middlewares.HTTPS if self._https else ()
        return {kind: (*first, *names) for kind, names in middlewares.CHAINS.items()}

    @property
    def _https(self) -> bool:
        # The name of TLJH, and so ours.
        return self.traefik_entrypoint == "https"

    @default("dynamic_config")
    def _load_dynamic_config(self) -> dict[str, Any]:
        """Return the file's content, with the middlewares of this release on the routes that are there."""
        config = super()._load_dynamic_config()
        self._move_routes(config)
        self._set_middlewares(config)
        self._set_slash(config)
        self._set_elsewhere(config)
        return config

    def _move_routes(self, config: dict[str, Any]) -> None:
        """Move routes of servers to the hosts that they have now; others go, and the hub makes them anew.

        JupyterHub would make routes at the new hosts while it starts, and remove the old ones; nobody would reach
        their server until then.
        """
        http, routes = config["http"], config["jupyterhub"]["routes"]
        host = urlsplit(self.hub_url).hostname or ""
        for name, route in list(routes.items()):
            old, data = route["routespec"], route.get("data") or {}
            path = old[old.index("/") :]
            if middlewares.kind(data) == middlewares.USER:
                new = f"{domains.subdomain(data['user'], host, 'user')}{path}" if host else path
            else:
                new = old if old.partition("/")[0] == host else None
            if new == old:
                continue
            del routes[name]
            http["routers"].pop(route.get("router", name), None)
            http["services"].pop(route.get("service", name), None)
            if new:
                traefik, jupyterhub = self._dynamic_config_for_route(new, route["target"], data)
                routes.update(jupyterhub["routes"])
                for key in ("routers", "services"):
                    http[key].update(traefik["http"][key])

    def _set_slash(self, config: dict[str, Any]) -> None:
        """Let no server answer at the path that has the paths of all servers beside it, unless each has a host."""
        routers = config["http"]["routers"]
        if self.hub_url or middlewares.SLASH not in self.middlewares:
            routers.pop(middlewares.SLASH, None)
            return
        base_url = getattr(self.app, "base_url", "/")
        routers[middlewares.SLASH] = {
            "rule": f"PathRegexp(`^{re.escape(base_url)}user/[^/]+$`)",
            # Traefik's own are the lengths of rules.
            "priority": 1_000_000,
            "entryPoints": [self.traefik_entrypoint],
            "middlewares": [*(middlewares.HTTPS if self._https else ()), middlewares.SLASH],
            "service": "noop@internal",
        }

    def _set_elsewhere(self, config: dict[str, Any]) -> None:
        """Lead what no server answers for to the hub's host: the hub's pages are nowhere else.

        That is how people come to the page that starts their server, and how servers from before the change, which
        know of one host only, find the hub.
        """
        routers = config["http"]["routers"]
        if not self.hub_url:
            routers.pop(ELSEWHERE, None)
            return
        config["http"]["middlewares"][ELSEWHERE] = {
            "redirectRegex": {"regex": "^https?://[^/]+/(.*)$", "replacement": f"{self.hub_url}/${{1}}"}
        }
        routers[ELSEWHERE] = {
            "rule": "Method(`GET`) || Method(`HEAD`)",
            "priority": 1,
            "entryPoints": [self.traefik_entrypoint],
            "middlewares": [ELSEWHERE],
            "service": "noop@internal",
        }

    def _set_middlewares(self, config: dict[str, Any]) -> None:
        """Give the routes of a configuration their middlewares, and the configuration the definitions."""
        routers = config["http"]["routers"]
        for name, route in config["jupyterhub"]["routes"].items():
            if name in routers:
                self._attach(routers[name], route.get("data") or {})
        # Whatever an earlier release called one of ours goes; the password of Traefik's API is made anew anyway.
        config["http"]["middlewares"] = dict(self.middlewares)

    def _attach(self, router: dict[str, Any], data: dict[str, Any]) -> None:
        names = list(self.chains[middlewares.kind(data)])
        router.pop("middlewares", None)
        if names:
            router["middlewares"] = names

    def _dynamic_config_for_route(self, routespec: str, target: str, data: dict[str, Any]) -> Any:
        """Return a route as the parent class does, with its middlewares."""
        traefik, jupyterhub = super()._dynamic_config_for_route(routespec, target, data)
        for router in traefik["http"]["routers"].values():
            self._attach(router, data)
        return traefik, jupyterhub
