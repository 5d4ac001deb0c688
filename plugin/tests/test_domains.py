"""Host names of people's servers, and the routes that lead to them."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import toml
from jupyterhub.handlers import base
from test_proxy import make_proxy
from tljh_plasma import domains, proxy, settings
from tljh_plasma.config_schema import problems
from tljh_plasma.settings import Settings
from traitlets.config import Config

HUB = "hub.example.org"
NAMES = (
    *("ada", "ada-l", "ada.l", "ada_l", "ada--l", "Ada", "ADA", "adal", "Àda", "ada@example.org", "ada@example.com"),
    *("20231234", "-x", "x-", "xn--da-kia", "u-ada--0", "www", "hub", "services", "a" * 63, "a" * 64, "a" * 200),
    *("..", "*", "%", "a.b.c", "ädä", "用户", "ada\\corp", "corp\\ada"),
)


def test_no_two_people_share_a_host_and_one_wildcard_covers_them_all():
    labels = [domains.label(name) for name in NAMES]
    assert len(set(labels)) == len(NAMES)
    for label in labels:
        assert re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", label), label
        # RFC 5891: such a label is of an international name.
        assert not label.startswith("xn--")
        assert label[2:4] != "--"
    assert domains.subdomain("ada", HUB, "user") == "ada.hub.example.org"


def test_services_are_on_the_hubs_own_host():
    assert domains.subdomain("plasma", HUB, "service") == HUB


@pytest.mark.parametrize(
    "name", ["", "localhost", "Hub.example.org", "hub.example.org/x", "*.example.org", "10.0.0.1", 5]
)
def test_a_host_in_config_yaml_is_a_full_name(name, tmp_path):
    said = problems({"plasma": {"user_domains": name}})
    assert bool(said) is (name != "")


@pytest.mark.parametrize(("enabled", "found"), [(True, HUB), (False, "")])
def test_without_https_nobody_gets_a_host(tmp_path, enabled, found):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(
        f"https: {{enabled: {str(enabled).lower()}}}\nplasma: {{user_domains: {HUB}}}\n"
    )
    assert settings.load(tmp_path).user_domains == found


@pytest.mark.parametrize(("port", "url"), [(None, "https://hub.example.org"), (8443, "https://hub.example.org:8443")])
def test_what_the_hub_is_told(monkeypatch, port, url):
    monkeypatch.setattr(domains, "keep_session_cookie", lambda: None)
    c = Config()
    domains.apply(c, Settings(config={"https": {"enabled": True, "port": port}}, user_domains=HUB))
    assert c.JupyterHub.subdomain_host == c.PlasmaProxy.hub_url == url
    # Any other host is led there.
    assert c.JupyterHub.hub_routespec == "hub.example.org/"
    assert c.JupyterHub.cookie_host_prefix_enabled is True


def test_the_cookie_of_the_session_is_for_no_other_host(monkeypatch):
    """JupyterHub's own methods set and clear it for all hosts below the hub's: seen first, then with ours."""
    calls = []

    def record(self, name, *arguments, **options):
        calls.append((name, options.get("domain")))

    for method in ("_set_cookie", "clear_cookie"):
        monkeypatch.setattr(base.BaseHandler, method, record)
    monkeypatch.setattr(base, "SESSION_COOKIE_NAME", base.SESSION_COOKIE_NAME)

    class Visit(base.BaseHandler):
        subdomain_host, domain, base_url, settings = f"https://{HUB}", HUB, "/", {}
        hub = SimpleNamespace(cookie_name="__Host-jupyterhub-hub-login", base_url="/hub/")

        def __init__(self):
            pass

        def get_current_user_cookie(self):
            return None

    def visit():
        calls.clear()
        Visit().set_session_cookie()
        leaving = Visit()
        leaving._session_id = "1"
        leaving.clear_login_cookie()
        return [(name, domain) for name, domain in calls if "session" in name]

    assert visit() == [("jupyterhub-session-id", HUB)] * 2
    domains.keep_session_cookie()
    domains.keep_session_cookie()
    assert visit() == [(domains.SESSION_COOKIE, None)] * 2


ROUTES = {
    "/user/ada/": {"user": "ada", "server_name": ""},
    "/user/ada/second/": {"user": "ada", "server_name": "second"},
    "/user/ada.l/": {"user": "ada.l", "server_name": ""},
    "/": {"hub": True},
    "/services/plasma/": {"service": "plasma"},
}


@pytest.fixture
def rules(tmp_path):
    """The routes of a hub with one origin."""
    path = tmp_path / "rules.toml"
    before = make_proxy(path)
    config = before.dynamic_config
    for routespec, data in ROUTES.items():
        traefik, jupyterhub = before._dynamic_config_for_route(routespec, "http://127.0.0.1:9", data)
        for key in ("routers", "services"):
            config["http"][key].update(traefik["http"][key])
        config["jupyterhub"]["routes"].update(jupyterhub["routes"])
    before._persist_dynamic_config()
    return path


def written(path, url):
    """The file after a hub with this URL has loaded and written it."""
    hub = make_proxy(path)
    hub.hub_url = url
    hub.dynamic_config  # noqa: B018 (loads it)
    hub._persist_dynamic_config()
    return toml.loads(path.read_text())


def test_routes_of_servers_move_with_the_switch_and_back(rules):
    before = toml.loads(rules.read_text())
    on = written(rules, f"https://{HUB}")
    assert {route["routespec"] for route in on["jupyterhub"]["routes"].values()} == {
        "ada.hub.example.org/user/ada/",
        "ada.hub.example.org/user/ada/second/",
        f"{domains.label('ada.l')}.hub.example.org/user/ada.l/",
    }
    for name, router in on["http"]["routers"].items():
        if name != proxy.ELSEWHERE:
            assert router["rule"].startswith("Host(`")
            assert router["service"] in on["http"]["services"]
            assert router["middlewares"] == ["plasma-own-path"]
    elsewhere = on["http"]["routers"][proxy.ELSEWHERE]
    assert elsewhere["priority"] == 1
    assert elsewhere["middlewares"] == [proxy.ELSEWHERE]
    assert on["http"]["middlewares"][proxy.ELSEWHERE]["redirectRegex"]["replacement"] == "https://hub.example.org/${1}"
    assert written(rules, f"https://{HUB}") == on
    off = written(rules, "")
    assert {name for name, route in before["jupyterhub"]["routes"].items() if "user" in route["data"]} == set(
        off["jupyterhub"]["routes"]
    )
    assert proxy.ELSEWHERE not in off["http"]["routers"]
    assert proxy.ELSEWHERE not in off["http"]["middlewares"]


def test_routes_follow_another_name_of_the_hub(rules):
    written(rules, f"https://{HUB}")
    moved = written(rules, "https://other.example.org")
    assert {route["routespec"].partition("/")[0] for route in moved["jupyterhub"]["routes"].values()} == {
        "ada.other.example.org",
        f"{domains.label('ada.l')}.other.example.org",
    }
