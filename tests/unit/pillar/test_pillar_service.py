"""The sections about the hub's own pages; what they allow, the plugin has to take from config.yaml."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import types
from typing import Any

import pytest

from tests.unit.pillar.conftest import MARKER, REPOSITORY
from tests.unit.pillar.test_pillar_hostile import INJECTIONS

DIGEST = "@sha256:" + "0123456789abcdef" * 4
IMAGES = [
    "repo2docker:1",
    "quay.io/jupyterhub/repo2docker:2025.12.0-3.g1234567",
    "localhost:5000/a/b__c/d-e.f:v_1.2-3",
    "Registry.Example.org/a:LATEST",
    f"quay.io/jupyterhub/repo2docker{DIGEST}",
    f"quay.io/jupyterhub/repo2docker:latest{DIGEST}",
    f"a/b:1{DIGEST}",
    "a:latest1",
    "a:" + "1" * 128,
    "a" * 253 + ":1",
]
LINKS = [
    "",
    "/",
    "/cockpit/",
    "/services/x?y=1#z",
    "/a//b/../c",
    "https://grafana.example.org",
    "http://10.0.0.1:3000/d/%20?a=b&c=d#e",
    "https://[::1]:9090/",
    "https://a_b.example.org?x",
    "https://a.example.org/@b",
]


@pytest.fixture(scope="module")
def settings() -> Any:
    """What reads config.yaml on the server, by its path: the plugin is not installed here."""
    package = types.ModuleType("plugin_by_path")
    package.__path__ = [str(REPOSITORY / "plugin" / "src" / "tljh_plasma")]
    sys.modules[package.__name__] = package
    yield importlib.import_module(f"{package.__name__}.settings")
    for name in [name for name in sys.modules if name.partition(".")[0] == package.__name__]:
        del sys.modules[name]


def test_the_hub_gets_the_defaults_of_the_plugin(complete, settings, tmp_path):
    """What the states write of an empty pillar is what the plugin has without any file."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(json.dumps(complete({})["hub_config"]), encoding="utf-8")
    read = settings.load(tmp_path)
    ours = dataclasses.replace(settings.Settings(), prefix=tmp_path, config=read.config)
    assert read == ours
    assert settings.HubKeys.disk_warn_at == complete({})["docker"]["prune"]["warn_at"]


@pytest.mark.parametrize("image", IMAGES)
def test_images(complete, settings, image):
    assert complete({"builder": {"image": image}})["builder"]["image"] == image
    assert settings.rules.IMAGE.allows(image)


def test_the_server_may_make_the_builder_itself(complete, problem, settings):
    assert complete({"builder": {"image": "local"}})["builder"]["image"] == "local"
    assert settings.rules.BUILDER_IMAGE.allows("local") and not settings.rules.BUILDER_IMAGE.allows("local2")
    # That is nothing an environment could be made from.
    assert problem({"environments": [{"name": "a", "image": "local"}]}).startswith("plasma.environments[0].image: ")


def test_the_index_of_builds(complete, problem):
    """That of the hub, unless it has a login: images keep it."""
    index = "https://10.1.2.3:8443/simple"
    assert complete({})["builder"]["index"] is None
    assert complete({"hub": {"sources": {"pip_index_url": index}}})["builder"]["index"] == index
    own = "http://mirror.example.org/simple"
    plasma = complete(
        {"hub": {"sources": {"pip_index_url": "https://u:p@h.example.org/simple"}}, "builder": {"index": own}}
    )
    assert plasma["builder"]["index"] == own and "mirror.example.org:80" in plasma["network"]["builds"]
    plasma = complete({"hub": {"sources": {"pip_index_url": "https://u:p@h.example.org/simple"}}})
    assert plasma["builder"]["index"] is None
    line = problem({"builder": {"index": "https://u:p@h.example.org/simple"}})
    assert line.startswith("plasma.builder.index: ") and "without a login" in line


@pytest.mark.parametrize("link", LINKS)
def test_links(complete, settings, link):
    assert complete({"monitoring_url": link})["monitoring_url"] == link
    assert settings.rules.LINK.allows(link)


@pytest.mark.parametrize("group", ["a", "joe.doe", "a_b-c", "a" * 32])
def test_groups(complete, settings, group):
    assert complete({"groups": [group]})["groups"][0]["name"] == group
    assert settings.rules.GROUP.allows(group)


@pytest.mark.parametrize("key", ["parallel", "timeout"])
def test_numbers_have_the_limits_of_the_plugin(complete, problem, settings, key):
    least, most = settings.KEYS[f"builder_{key}"].rule.bounds
    for number in (least, most):
        assert complete({"builder": {key: number}})["builder"][key] == number
    for number in (least - 1, most + 1, float(least), str(least), True, None, -1, 10**400):
        line = problem({"builder": {key: number}})
        assert line.startswith(f"plasma.builder.{key}: ") and f"a whole number from {least} to {most}." in line


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("quay.io/jupyterhub/repo2docker", "names neither a tag nor a digest"),
        ("localhost:5000/repo2docker", "names neither a tag nor a digest"),
        ("quay.io/jupyterhub/repo2docker:latest", "names the tag `latest`"),
        ("a:b:c", "is not the name of a Docker image"),
        ("a:", "is not the name of a Docker image"),
        (":a", "is not the name of a Docker image"),
        ("@sha256:" + "0" * 64, "is not the name of a Docker image"),
        ("a@sha256:" + "0" * 63, "is not the name of a Docker image"),
        ("a@sha256:" + "0" * 65, "is not the name of a Docker image"),
        ("a@sha256:" + "A" * 64, "is not the name of a Docker image"),
        ("a@md5:" + "0" * 32, "is not the name of a Docker image"),
        ("Upper:1", "is not the name of a Docker image"),
        ("--privileged:1", "is not the name of a Docker image"),
        ("a/-b:1", "is not the name of a Docker image"),
        ("a/../b:1", "is not the name of a Docker image"),
        ("a//b:1", "is not the name of a Docker image"),
        ("/a:1", "is not the name of a Docker image"),
        ("https://a/b:1", "is not the name of a Docker image"),
        (f"user:{MARKER}@a/b:1", "is not the name of a Docker image"),
        ("a:" + "1" * 129, "is not the name of a Docker image"),
        ("a" * 254 + ":1", "is longer than 255 characters"),
        ("a:1;id", "has a character that no image's name has"),
        ("a:$(id)", "has a character that no image's name has"),
        ("a:1 --network=host", "has a character that no image's name has"),
        ("a:1\n", "has a character that no image's name has"),
        ("\u0430:1", "has a character that no image's name has"),
        ("a:\u0663", "has a character that no image's name has"),
    ],
)
def test_images_that_are_refused(problem, settings, image, reason):
    line = problem({"builder": {"image": image}})
    assert line.startswith("plasma.builder.image: ")
    assert reason in line
    assert "Allowed: a Docker image with a tag other than `latest` or with a digest" in line
    assert not settings.rules.IMAGE.allows(image)


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("cockpit", "does not start with https:// or http://"),
        ("javascript:alert(1)", "does not start with https:// or http://"),
        ("JavaScript:alert(1)", "does not start with https:// or http://"),
        ("data:text/html,x", "does not start with https:// or http://"),
        ("ftp://a.example.org/", "does not start with https:// or http://"),
        (" https://a.example.org", "does not start with https:// or http://"),
        ("//evil.example.org", "starts with //, which browsers read as the address of another server"),
        ("///evil.example.org", "starts with //"),
        ("/\\evil.example.org", "has a character that is not allowed in a URL"),
        ("/a\n", "has a character that is not allowed in a URL"),
        ("/\ta", "has a character that is not allowed in a URL"),
        ("/'onclick='x", "has a character that is not allowed in a URL"),
        ('/"><script>', "has a character that is not allowed in a URL"),
        ("/{{ 7*7 }}", "has a character that is not allowed in a URL"),
        ("/\u202ea", "has a character that is not allowed in a URL"),
        ("https://a.example.org/<script>", "has a character that is not allowed in a URL"),
        ("https://", "is not a complete URL"),
        ("https:///a", "is not a complete URL"),
        ("https://:80/", "is not a complete URL"),
        ("https://a:99999/", "is not a complete URL"),
        (f"https://user:{MARKER}@a.example.org/", "has a user name or password in it"),
        ("/" + "a" * 2000, "is longer than 2000 characters"),
    ],
)
def test_links_that_are_refused(problem, settings, link, reason):
    line = problem({"monitoring_url": link})
    assert line.startswith("plasma.monitoring_url: ")
    assert reason in line
    assert line.endswith(
        "Allowed: an https:// or http:// URL, a path on this server that starts with one /, or '' for no link."
    )
    assert not settings.rules.LINK.allows(link)


def test_images_that_mean_something_to_a_shell_or_a_terminal(problem):
    for text in set(INJECTIONS) - {"a:b"}:
        assert problem({"builder": {"image": text}}).startswith("plasma.builder.image: "), text


def test_links_that_mean_something_to_a_shell_or_a_terminal(problem):
    for text in set(INJECTIONS) - {"", "/"}:
        assert problem({"monitoring_url": text}).startswith("plasma.monitoring_url: "), text


@pytest.mark.parametrize("value", [True, None, 1, "Open", "yes", [], {}, ["open"]])
def test_policies_that_are_refused(problem, value):
    line = problem({"permissions": {"default": value}})
    assert line.startswith("plasma.permissions.default: ") and line.endswith("Allowed: open or closed.")


def test_who_may_enter_servers(complete, problem, settings):
    for entries in ([], ["administrators"], ["anna", "%teachers"], ["anna.b@x"], ["%students of maths"]):
        assert complete({"enter_servers": entries})["enter_servers"] == entries
        assert all(settings.rules.ENTERING.allows(entry) for entry in entries)
    for entry in ("", "%", " a", "a:b", "%%x", "-x", "a\n", "a,b", 5, None):
        assert problem({"enter_servers": [entry]}).startswith("plasma.enter_servers[0]: "), entry
        assert not settings.rules.ENTERING.allows(entry)
    assert problem({"enter_servers": "nobody"}).startswith("plasma.enter_servers: ")


@pytest.mark.parametrize(
    ("plasma", "start"),
    [
        ({"permissions": {"defualt": "open"}}, "plasma.permissions.defualt: unknown key; did you mean 'default'?"),
        ({"permissions": "open"}, 'plasma.permissions: "open" is not a mapping.'),
        ({"builder": {"images": "a:1"}}, "plasma.builder.images: unknown key; did you mean 'image'?"),
        # It has addresses of proxies below, which may hold a login.
        ({"builder": "a:1"}, "plasma.builder: ******** is not a mapping."),
        ({"builder": {"image": 2025.12}}, "plasma.builder.image: 2025.12 is not text"),
        ({"monitoring": "/x"}, "plasma.monitoring: unknown key; did you mean 'monitoring_url'?"),
        ({"monitoring_url": None}, "plasma.monitoring_url: null is not allowed here"),
        ({"monitoring_url": {"url": "/x"}}, "plasma.monitoring_url: a mapping is not text."),
    ],
)
def test_mistakes_in_keys_and_shapes(problem, plasma, start):
    assert problem(plasma).startswith(start)


def test_the_result_is_plain_data(complete):
    plasma = complete({"permissions": {"default": "closed"}, "builder": {"parallel": 1}, "monitoring_url": "/x"})
    for key in ("permissions", "builder", "monitoring_url"):
        assert json.loads(json.dumps(plasma[key])) == plasma[key]
        assert type(plasma[key]) in (dict, str)


@pytest.mark.parametrize(
    ("network", "key", "reason"),
    [
        ({"allow": ["10.1.2.3/24"]}, "allow[0]", "has host bits set (the network is 10.1.2.0/24)"),
        ({"allow": ["db.example.org:5432"]}, "allow[0]", "is no IPv4 address and no network"),
        ({"allow": ["10.0.0.1:0"]}, "allow[0]", "has no port from 1 to 65535 after the colon"),
        ({"allow": ["fd00::1"]}, "allow[0]", "is an IPv6 address"),
        ({"builds": ["-x"]}, "builds[0]", "is no IPv4 address and no network"),
        ({"host_ports": [0]}, "host_ports[0]", "a port from 1 to 65535"),
    ],
)
def test_what_no_rule_of_the_network_can_be(problem, network, key, reason):
    line = problem({"network": network})
    assert line.startswith(f"plasma.network.{key}: ") and reason in line, line


def test_the_plugin_reads_every_place_that_the_pillar_takes(complete, settings):
    network = {
        "allow": ["10.1.2.0/24:5432", "10.1.2.3"],
        "host_ports": [5432],
        "builds": ["git.example.org:443", "git"],
    }
    sources = {"pip_index_url": "http://10.9.9.9:8080/simple", "https_proxy": "https://u:p@proxy.example.org"}
    found = complete({"network": network, "hub": {"sources": sources}})["network"]
    # What builds fetch through is named already.
    assert found == {**network, "builds": [*network["builds"], "10.9.9.9:8080", "proxy.example.org:443"]}
    read = [settings.entry(place, names=True) for place in found["builds"]]
    assert [(one.host, one.port) for one in read][-2:] == [("10.9.9.9/32", 8080), ("proxy.example.org", 443)]
