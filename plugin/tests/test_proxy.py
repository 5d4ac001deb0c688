"""The routes that the hub writes for Traefik, and the middlewares that they name."""

from __future__ import annotations

import asyncio

import pytest
import toml
from tljh_plasma import config_hook, middlewares
from tljh_plasma.proxy import PlasmaProxy
from traitlets.config import Config

ROUTES = {
    "user": ("/user/alice/", {"user": "alice", "server_name": ""}),
    "hub": ("/", {"hub": True}),
    "service": ("/services/plasma/", {"service": "plasma"}),
}


def make_proxy(path, entry_point: str = "http") -> PlasmaProxy:
    """A proxy whose Traefik is somebody else's process."""

    class Started(PlasmaProxy):
        async def _start_external(self):
            await self._setup_traefik_dynamic_config()

    c = Config()
    c.TraefikFileProviderProxy.dynamic_config_file = str(path)
    c.TraefikProxy.should_start = False
    c.TraefikProxy.traefik_entrypoint = entry_point
    c.TraefikProxy.traefik_api_password = "x" * 64
    # It begins to start at once, which takes a loop; runs of other tests leave none.
    asyncio.set_event_loop(asyncio.new_event_loop())
    return Started(config=c, public_url="http://127.0.0.1", traefik_api_url="http://127.0.0.1:8099")


@pytest.fixture
def rules(tmp_path):
    """rules.toml as a hub of an earlier release left it."""
    config = {"http": {"routers": {}, "services": {}, "middlewares": {"gone": {}}}, "jupyterhub": {"routes": {}}}
    for name, (routespec, data) in ROUTES.items():
        service = {"loadBalancer": {"servers": [{"url": "http://127.0.0.1:9"}]}}
        config["http"]["routers"][name] = {
            "rule": f"PathPrefix(`{routespec}`)",
            "service": name,
            "entryPoints": ["http"],
            "middlewares": ["gone"],
        }
        config["http"]["services"][name] = service
        config["jupyterhub"]["routes"][name] = {
            "data": data,
            "routespec": routespec,
            "target": "http://127.0.0.1:9",
            "router": name,
            "service": name,
        }
    path = tmp_path / "rules.toml"
    path.write_text(toml.dumps(config))
    return path


def check(path, first: tuple[str, ...] = ()) -> None:
    """Every route has the middlewares of its kind, and every middleware that a route names is there."""
    written = toml.loads(path.read_text())
    routes = written["jupyterhub"]["routes"]
    for name, router in written["http"]["routers"].items():
        assert set(router.get("middlewares", [])) <= set(written["http"]["middlewares"])
        if name in routes:
            wanted = middlewares.CHAINS[middlewares.kind(routes[name]["data"])]
            assert router.get("middlewares", []) == [*first, *wanted], name


@pytest.mark.parametrize(("entry_point", "first"), [("http", ()), ("https", ("plasma-https",))])
def test_routes_of_servers_that_run_get_the_middlewares(rules, entry_point, first):
    async def start() -> None:
        await make_proxy(rules, entry_point)._start_future

    asyncio.run(start())
    check(rules, first)
    assert set(toml.loads(rules.read_text())["jupyterhub"]["routes"]) == set(ROUTES)


def test_new_routes_have_the_middlewares(tmp_path):
    path = tmp_path / "rules.toml"

    async def add() -> None:
        proxy = make_proxy(path)
        await proxy._start_future
        for routespec, data in ROUTES.values():
            await proxy._apply_dynamic_config(*proxy._dynamic_config_for_route(routespec, "http://127.0.0.1:9", data))

    asyncio.run(add())
    check(path)
    assert len(toml.loads(path.read_text())["jupyterhub"]["routes"]) == len(ROUTES)


@pytest.mark.parametrize(("theirs", "ours"), [("traefik_file", PlasmaProxy), ("traefik_etcd", "traefik_etcd")])
def test_the_proxy_of_files_becomes_ours(theirs, ours):
    c = Config()
    c.JupyterHub.proxy_class = theirs
    config_hook.use_own_proxy(c)
    assert c.JupyterHub.proxy_class == ours


def test_no_other_proxy_is_chosen():
    c = Config()
    config_hook.use_own_proxy(c)
    assert "proxy_class" not in c.JupyterHub
