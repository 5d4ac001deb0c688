"""The hub's side of Traefik: routes that name the middlewares of what they lead to.

Routes and middlewares are in one file, which is replaced as a whole: Traefik drops a route that names a middleware it
does not know, and so never meets one. That holds while the proxy runs on through an upgrade of the hub, too.
"""

from __future__ import annotations

from typing import Any

from jupyterhub_traefik_proxy.fileprovider import TraefikFileProviderProxy
from traitlets import Dict, default

from . import middlewares


class PlasmaProxy(TraefikFileProviderProxy):
    """The file provider's proxy, with middlewares on its routes."""

    middlewares = Dict(help="Definitions by name, as in Traefik's dynamic configuration.", config=True)
    chains = Dict(help="Names of the middlewares of each kind of route: user, hub, service.", config=True)

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
        self._set_middlewares(config)
        return config

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
