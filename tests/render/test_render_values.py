"""Values of the pillar reach the states unchanged, however awkward their text is."""

from __future__ import annotations

import importlib
import json
import re

import pytest
import salt.utils.templates

from _pillar.plasma import schema
from tests.render.compiler import SYSTEMS, _directory, low_state
from tests.render.options import options
from tests.render.pillars import FULL_PYPI, FULL_TLJH, GIVEN, accepted, compiled, hostile_text, leaves, texts
from tests.support.paths import REPOSITORY

HOSTILE = ["hostile-tljh", "hostile-pypi"]
MARK = re.compile(r"zz\d+zz")


def _given(plasma, path):
    """The values at a path of the schema, such as users[].name, in what an operator wrote."""
    values = [plasma]
    for key in path.removeprefix("plasma.").split("."):
        name = key.removesuffix("[]")
        values = [value[name] for value in values if isinstance(value, dict) and name in value]
        if key.endswith("[]"):
            values = [item for value in values for item in value]
    return values


def test_the_full_pillars_have_every_key():
    missing = [path for path, _ in leaves() if not _given(FULL_TLJH, path) and not _given(FULL_PYPI, path)]
    assert missing == []


def test_the_hostile_pillars_are_hostile():
    """The free texts of the schema, at least, hold what Jinja, YAML and a shell would read."""
    marked = {
        path for path, _ in leaves() for name in HOSTILE if MARK.search(" ".join(texts(_given(GIVEN[name], path))))
    }
    assert {
        "plasma.hub.prefix",
        "plasma.hub.versions.tljh",
        "plasma.hub.sources.installer",
        "plasma.hub.sources.tljh",
        "plasma.hub.sources.miniforge",
        "plasma.hub.sources.traefik",
        "plasma.hub.sources.pip_index_url",
        "plasma.hub.sources.http_proxy",
        "plasma.hub.sources.https_proxy",
        "plasma.hub.sources.no_proxy",
        "plasma.hub.sources.ca_bundle",
        "plasma.docker.repository.url",
        "plasma.docker.repository.key_url",
        "plasma.shared_data",
        "plasma.users[].password",
        "plasma.users[].fullname",
        "plasma.environments[].description",
        "plasma.environments[].build_args",
        "plasma.utils.ctop.url",
        "plasma.builder.image",
        "plasma.monitoring_url",
    } <= marked


@pytest.mark.parametrize("end", ["\n", "\nroot: x", "\r", "\u2028x", "\x85x", "\0"], ids=repr)
def test_no_text_of_the_schema_breaks_a_line(end):
    """What would start a new key in a YAML file never gets as far as the states."""
    checked = 0
    for path, shape in leaves():
        text = hostile_text(shape, 1) if shape.wants_text else None
        # A password goes into no file as it is, only its hash does.
        if text is not None and path != "plasma.users[].password":
            checked += 1
            assert not accepted(shape, text + end), path
            assert not accepted(shape, end + text), path
    assert checked > 20


@pytest.mark.parametrize("name", HOSTILE)
def test_the_pillar_keeps_them(name):
    passwords = {user["password"] for user in GIVEN[name]["users"] if "password" in user}
    given = {text for text in texts(GIVEN[name]) if MARK.search(text)} - passwords
    assert len(given) > 15
    assert given <= set(texts(compiled(name)))


@pytest.mark.parametrize("name", HOSTILE)
def test_states_hold_them_whole_or_not_at_all(system, architecture, name):
    plasma = compiled(name)["plasma"]
    ctop = plasma["utils"]["ctop"]
    whole = {MARK.search(text)[0]: text for text in texts(plasma) if MARK.search(text)}
    # The one text that is a template by intention.
    mark = MARK.search(ctop["url"])[0]
    whole[mark] = ctop["url"].replace("{version}", ctop["version"]).replace("{arch}", architecture)
    seen = set()
    for text in texts(low_state(system, architecture, name)):
        # Hosts and ports alone of the addresses below, for the firewall.
        for mark in [] if text in plasma["network"]["builds"] else MARK.findall(text):
            # The verified copy of a source is named after the last part of its address.
            assert whole[mark] in text, text
            seen.add(mark)
    reached = {path for path, _ in leaves() if set(MARK.findall(" ".join(texts(_given(GIVEN[name], path))))) & seen}
    assert {"plasma.hub.prefix", "plasma.shared_data"} <= reached
    # They may hold a login, and Salt shows arguments: the states read them from pillar.
    assert not {f"plasma.hub.sources.{name}" for name in ("pip_index_url", "http_proxy", "https_proxy")} & reached
    assert {"plasma.builder.image", "plasma.monitoring_url"} <= reached
    assert {"plasma.users[].fullname", "plasma.users[].home", "plasma.users[].shell", "plasma.home_path"} <= reached
    if name == "hostile-tljh":
        assert {"plasma.hub.versions.tljh", "plasma.hub.sources.tljh", "plasma.docker.repository.url"} <= reached


@pytest.mark.parametrize("name", HOSTILE)
def test_states_and_arguments_are_those_of_an_ordinary_pillar(system, architecture, name):
    """Awkward text adds no state, no argument and no key."""

    def shape(value):
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items()}
        if isinstance(value, list):
            return [shape(item) for item in value]
        return type(value)

    def shapes(pillar):
        return [
            (
                chunk["__id__"],
                chunk["state"],
                chunk["fun"],
                shape({key: value for key, value in chunk.items() if key != "require"}),
            )
            for chunk in low_state(system, architecture, pillar)
        ]

    assert shapes(name) == shapes(name.replace("hostile", "full"))


@pytest.mark.parametrize("system", SYSTEMS)
def test_settings_are_the_values_of_the_pillar(system, pillar):
    plasma = compiled(pillar)["plasma"]
    states = {chunk["__id__"]: chunk for chunk in low_state(system, "amd64", pillar)}
    settings = states["hub-settings"]
    assert settings["prefix"] == plasma["hub"]["prefix"]
    assert settings["settings"]["limits"] == plasma["limits"]
    assert settings["settings"]["services"]["cull"] == plasma["cull"]
    assert settings["settings"]["traefik_api"] == {"port": 304}
    # What pillar does not say is what somebody has set by hand.
    listens = {key: plasma["http"][key] for key in ("address", "port") if plasma["http"][key] is not None}
    assert settings["settings"].get("http", {}) == listens
    assert settings["settings"].get("base_url") == plasma["hub"]["base_url"]
    assert states["trust-authorities"]["certificates"] == plasma["trust"]
    # A dry run knows which groups the real one makes first.
    for number, directory in enumerate(plasma["server_directories"], 1):
        made = states[f"server-directory-{number}"]
        assert {key: made[key] for key in directory} == directory
        assert made["coming"] == [group["name"] for group in plasma["groups"] if not group["absent"]]
        assert made["joining"] is (plasma["directory"] is not None)
    # No key more: one that config.yaml has and pillar has not is left alone.
    assert settings["settings"]["plasma"] == {
        "service_port": 302,
        "groups": [group["name"] for group in plasma["groups"] if not group["absent"]] + plasma["external_groups"],
        "admin_groups": plasma["admin_groups"],
        **{key: plasma[key] for key in ("named_servers", "shared_data", "permissions", "monitoring_url")},
        # The proxy, which may have a login, is no argument of a state.
        "builder": {
            key: plasma["builder"][key] for key in ("image", "parallel", "timeout", "memory", "cpu", "disk", "trial")
        },
        "enter_servers": plasma["enter_servers"],
        "servers": plasma["servers"],
        "network": plasma["network"],
        "behind": plasma["http"]["behind"],
        "gpu": {"reserved": plasma["gpu"]["reserved"]},
        "disk": {"warn_at": plasma["docker"]["prune"]["warn_at"], "homes": plasma["home_path"]},
    }
    installed = states["hub-installed"]
    assert installed["name"] == plasma["hub"]["prefix"]
    assert installed["timeout"] == plasma["hub"]["install_timeout"]
    assert "sources" not in installed
    if plasma["hub"]["provider"] == "tljh":
        assert installed["version"] == plasma["hub"]["versions"]["tljh"]
        assert installed["source"] == plasma["hub"]["sources"]["tljh"]
        installer = plasma["hub"]["sources"]["installer"]
        # What is on the server already may be removed again.
        either = [installer, states["hub-installer"]["name"]]
        assert states["hub-installer"]["source"] == (either if installer.startswith("/") else installer)
        assert states["hub-installer"]["source_hash"] == f"sha256={plasma['hub']['sources']['installer_sha256']}"
    fit = states["preflight-server-is-fit"]
    assert {key: fit[key] for key in ("min_disk", "min_memory")} == plasma["preflight"]
    assert fit["http"] == {key: plasma["http"][key] for key in ("address", "port")}
    assert fit["https"]["port"] == plasma["https"]["port"]
    assert fit["https"]["wanted"] is bool(plasma["https"]["tls"] or plasma["https"]["domains"])


@pytest.mark.parametrize(
    ("pillar", "groups"),
    [
        ("minimal", []),
        ("full-pypi", ["biology", "on", "true", "Students of Maths@example.org", "Maths (2026)"]),
    ],
)
def test_groups_of_the_permissions_page(pillar, groups):
    """Names stay text, an empty list is a list, and who is absent is not offered."""
    (settings,) = [chunk for chunk in low_state("debian-12", "amd64", pillar) if chunk["__id__"] == "hub-settings"]
    assert settings["settings"]["plasma"]["groups"] == groups


def test_the_hub_takes_the_settings(pillar, tmp_path, monkeypatch):
    """What the states write is what the plugin's schema allows, and its own reader gets the same values from it."""
    monkeypatch.syspath_prepend(REPOSITORY / "plugin" / "src")
    config_schema = importlib.import_module("tljh_plasma.config_schema")
    keys = importlib.import_module("tljh_plasma.hub_keys")
    reader = importlib.import_module("tljh_plasma.settings")
    plasma = compiled(pillar)["plasma"]
    (state,) = [chunk for chunk in low_state("debian-12", "amd64", pillar) if chunk["__id__"] == "hub-settings"]
    assert config_schema.problems(state["settings"]) == []
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(
        json.dumps(state["settings"], ensure_ascii=False), encoding="utf-8"
    )
    settings = reader.load(tmp_path)
    # Ports are the plugin's own defaults, written out: what an operator or an older release set is replaced.
    assert settings.service_port == keys.HubKeys.service_port
    assert settings.config["traefik_api"]["port"] == keys.API_PORT
    made = [group["name"] for group in plasma["groups"] if not group["absent"]]
    assert settings.groups == (*made, *plasma["external_groups"])
    assert settings.admin_groups == tuple(plasma["admin_groups"])
    wanted = {name: keys.value_at(plasma, key.pillar) for name, key in keys.KEYS.items() if key.pillar}
    for name, value in wanted.items():
        if isinstance(value, dict):
            value = {key: one for key, one in value.items() if one is not None} or ()
        assert getattr(settings, name) == (tuple(value) if isinstance(value, list) else value), name


@pytest.mark.parametrize("name", ["miniforge", "traefik"])
def test_sources_that_are_files_come_as_verified_copies(system, architecture, pillar, name):
    hub = compiled(pillar)["plasma"]["hub"]
    source = hub["sources"][name]
    states = {chunk["__id__"]: chunk for chunk in low_state(system, architecture, pillar)}
    copy = states.get(f"hub-source-{name}")
    if hub["provider"] == "pypi" or source in (None, "none", "pypi"):
        assert copy is None
    else:
        # plasma_hub_installer looks for it under this name.
        assert copy["name"] == f"{hub['prefix']}/plasma/source-{name}"
        assert copy["source"] == ([source, copy["name"]] if source.startswith("/") else source)
        assert copy["source_hash"] == f"sha256={hub['sources'][f'{name}_sha256']}"


@pytest.mark.parametrize("pillar", ["minimal", "full-pypi", "hostile-pypi"])
@pytest.mark.parametrize("unit", ["jupyterhub", "traefik"])
def test_units_of_the_pypi_provider(pillar, unit):
    prefix = compiled(pillar)["plasma"]["hub"]["prefix"]
    path = REPOSITORY / "salt" / "tljh" / "files" / f"{unit}.service"
    rendered = salt.utils.templates.JINJA(
        str(path),
        to_str=True,
        opts=options(_directory()),
        saltenv="base",
        grains={},
        pillar={},
        salt={},
        context={"prefix": prefix},
    )
    assert rendered["result"], rendered["data"]
    lines = rendered["data"].splitlines()
    assert f"WorkingDirectory={prefix}/state" in lines
    assert f"Environment=TLJH_INSTALL_PREFIX={prefix}" in lines
    (start,) = [line for line in lines if line.startswith("ExecStart=")]
    assert start.startswith(f"ExecStart={prefix}/hub/bin/")
    assert [line for line in lines if line.startswith("[")] == ["[Unit]", "[Service]", "[Install]"]
    assert "{{" not in rendered["data"]
    # systemd would expand these.
    assert "%" not in rendered["data"]
    assert "$" not in rendered["data"]


@pytest.mark.parametrize(
    ("ssh", "expected"),
    [
        ({}, ("closed", [], [])),
        (
            {"open_to": {"users": ["anna", "by-hand"], "groups": ["biology", "elsewhere"]}},
            ("closed", ["anna"], ["biology"]),
        ),
        ({"enabled": False}, None),
    ],
)
def test_ssh_is_closed_unless_pillar_says_otherwise(monkeypatch, ssh, expected):
    """Names of people in pillar need not be there yet; others have to."""
    given = {"users": [{"name": "anna", "groups": ["biology"]}], "ssh": ssh}
    name = f"ssh-{json.dumps(ssh)}"
    monkeypatch.setitem(GIVEN, name, given)
    chunks = [chunk for chunk in low_state("debian-13", "amd64", name) if chunk["state"] == "plasma_ssh"]
    if expected is None:
        assert chunks == []
        return
    (chunk,) = chunks
    assert (chunk["fun"], chunk["coming"]["users"], chunk["coming"]["groups"]) == expected
    assert chunk["users"] == ssh.get("open_to", {}).get("users", [])
    assert chunk["limits"] == {"memory": "2G", "cpu": 2, "tasks": 1024}


def test_the_plugin_knows_the_groups_that_pillar_gives_to_nobody(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "plugin" / "src")
    groups = importlib.import_module("tljh_plasma.privileged").GROUPS
    assert schema("names").ROOT_GROUPS | {"sudo"} <= groups
