"""When Cockpit is offered, and who sees the link."""

from __future__ import annotations

import pytest
from jinja2 import Environment, FileSystemLoader
from tljh_plasma import config_hook, config_schema, settings, theme
from tljh_plasma.settings import Settings, SettingsError
from traitlets.config import Config

HTTPS = "https: {enabled: true}\n"
COCKPIT = "plasma: {cockpit: {enabled: true}}\n"


def load(tmp_path, text):
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config" / "config.yaml").write_text(text)
    return settings.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", ""),
        (HTTPS, ""),
        (COCKPIT, ""),
        (f"https: {{enabled: false}}\n{COCKPIT}", ""),
        (f"{HTTPS}plasma: {{cockpit: {{enabled: false}}}}\n", ""),
        (HTTPS + COCKPIT, "/services/cockpit/"),
        (f"base_url: /some/where/\n{HTTPS}{COCKPIT}", "/some/where/services/cockpit/"),
        (f"base_url: where\n{HTTPS}{COCKPIT}", "/where/services/cockpit/"),
    ],
)
def test_it_is_offered_with_https_alone(tmp_path, text, url):
    values = load(tmp_path, text)
    assert values.cockpit_url == url
    c = Config()
    c.JupyterHub.services, c.JupyterHub.load_roles, c.JupyterHub.custom_scopes = [], [], {}
    config_hook.add_services(c, values)
    _, *cockpit = c.JupyterHub.services
    assert [service["name"] for service in cockpit] == (["cockpit"] if url else [])
    # Nobody is given access: JupyterHub's administrators have it.
    assert "cockpit" not in str(c.JupyterHub.load_roles)
    if url:
        assert cockpit[0]["url"] == "http://127.0.0.1:301"
        assert cockpit[0]["display"] is False


@pytest.mark.parametrize("value", ["{enabled: 1}", "{enabled: 'yes'}", "{port: 0}", "{port: 65536}", "{socket: here}"])
def test_wrong_values_are_named(tmp_path, value):
    with pytest.raises(SettingsError, match=r"plasma\.cockpit\."):
        load(tmp_path, f"{HTTPS}plasma: {{cockpit: {value}}}\n")


def test_the_schema_knows_the_keys():
    good = {"enabled": True, "port": 301, "socket": "/run/x.sock"}
    assert config_schema.problems({"plasma": {"cockpit": good}}) == []
    for bad in ({"enabled": "yes"}, {"port": 0}, {"socket": "x"}, {"other": 1}):
        (problem,) = config_schema.problems({"plasma": {"cockpit": bad}})
        assert problem.startswith("plasma.cockpit")


def links(**values):
    nav = Environment(loader=FileSystemLoader(str(theme.TEMPLATES)), autoescape=True).get_template("shared/nav.html")
    page = nav.module.navigation("home", "/hub/", "/services/plasma/", user="x", **values)
    return [name for name in ("Monitoring", "Cockpit") if f">{name}</a>" in page], page


def test_the_link_is_for_administrators_of_the_hub():
    cockpit = "/services/cockpit/"
    assert links(cockpit=cockpit)[0] == []
    # Managers of environments are no administrators of the hub.
    assert links(cockpit=cockpit, administrator=True)[0] == []
    names, page = links(cockpit=cockpit, administrator=True, admin_page=True)
    assert names == ["Monitoring"]
    assert f'href="{cockpit}"' in page
    both = links(cockpit=cockpit, monitoring="https://other/", administrator=True, admin_page=True)[0]
    assert both == ["Monitoring", "Cockpit"]
    assert links(administrator=True, admin_page=True)[0] == []


def test_hub_pages_know_where_it_is():
    c = Config()
    c.JupyterHub.template_vars = {}
    theme.apply(c, Settings(cockpit=True))
    assert c.JupyterHub.template_vars["plasma_cockpit_url"] == "/services/cockpit/"
