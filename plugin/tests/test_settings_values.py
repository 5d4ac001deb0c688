"""The keys of config.yaml's section plasma, each with values at and beyond the edge of what is allowed."""

from __future__ import annotations

import json

import pytest
from tljh_plasma import settings
from tljh_plasma.config_schema import problems
from tljh_plasma.settings import SettingsError


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    (tmp_path / "config").mkdir()
    monkeypatch.setenv("TLJH_INSTALL_PREFIX", str(tmp_path))
    return lambda text: (tmp_path / "config" / "config.yaml").write_text(text)


DIGEST = "@sha256:" + "0123456789abcdef" * 4
# Key below plasma, attribute of Settings, values that are taken, values that are refused.
RULES = [
    ("permissions.default", "permissions_default", ["open", "closed"], ["Open", "", True, None, ["open"], {}]),
    ("builder.parallel", "builder_parallel", [1, 16], [0, 17, -1, 2.0, "2", True, None, [2]]),
    ("builder.timeout", "builder_timeout", [60, 86400], [59, 86401, 7200.5, "7200", False, None]),
    ("builder.trial", "builder_trial", [True, False], ["true", 1, None, []]),
    ("gpu.reserved", "gpu_reserved", [], [0, "0", True, {}]),
    ("service_port", "service_port", [1, settings.INNER_PORT[1]], [0, 65536, "302", True, None, 302.0]),
    (
        "builder.image",
        "builder_image",
        [
            "repo2docker:1",
            "quay.io/jupyterhub/repo2docker:2025.12.0-3.g1234567",
            "localhost:5000/a/b__c/d-e.f:v_1.2-3",
            "Registry.Example.org/a:LATEST",
            f"quay.io/jupyterhub/repo2docker{DIGEST}",
            f"quay.io/jupyterhub/repo2docker:latest{DIGEST}",
            "a:latest1",
        ],
        [
            "quay.io/jupyterhub/repo2docker",
            "quay.io/jupyterhub/repo2docker:latest",
            "localhost:5000/repo2docker",
            "a:b:c",
            "a:",
            ":a",
            "a@sha256:" + "0" * 63,
            "a@sha256:" + "0" * 65,
            "a@md5:" + "0" * 64,
            "Upper:1",
            "-a:1",
            "a/-b:1",
            "a//b:1",
            "/a:1",
            "../a:1",
            "a b:1",
            "a:1\n",
            "\na:1",
            "a:1 --privileged",
            "$(id):1",
            "a:1;id",
            "https://a/b:1",
            "user@a/b:1",
            "ä:1",
            "a:٣",
            "a:" + "1" * 129,
            "a" * 255 + ":1",
            "",
            None,
            7,
            ["a:1"],
        ],
    ),
    (
        "network.name",
        "network_name",
        ["plasma", "plasma-2", "0_a", "hosts", "a" * 32],
        ["", "Plasma", "-a", "_a", "a.b", "a b", "a\n", "a" * 33, "bridge", "host", "none", "default", None, 7],
    ),
    (
        "monitoring_url",
        "monitoring_url",
        [
            "",
            "/",
            "/cockpit/",
            "/services/x?y=1#z",
            "https://grafana.example.org",
            "http://10.0.0.1:3000/d/%20?a=b&c=d#e",
            "https://[::1]:9090/",
        ],
        [
            "cockpit",
            "//evil.example.org",
            "///evil.example.org",
            "/\\evil.example.org",
            "\\\\evil.example.org",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            " https://a.example.org",
            "https://a.example.org ",
            "https://a.example.org/\n",
            "/a\n",
            "/a\tb",
            "https://",
            "https:///a",
            "https://:80/",
            "https://user:hunter2@a.example.org/",
            'https://a.example.org/"onclick=alert(1)',
            "https://a.example.org/'",
            "https://a.example.org/<script>",
            "ftp://a.example.org/",
            "/" + "a" * 2000,
            None,
            7,
            False,
        ],
    ),
]


def with_key(key, value):
    """The configuration that has this one key below plasma."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return {"plasma": value}


@pytest.mark.parametrize(("key", "attribute", "taken", "refused"), RULES, ids=[rule[0] for rule in RULES])
def test_values_that_are_taken_and_refused(prefix, key, attribute, taken, refused):
    """By the hub, and by what writes the file: what the one writes, the other reads."""
    for value in taken:
        prefix(json.dumps(with_key(key, value)))
        assert problems(with_key(key, value)) == []
        assert getattr(settings.load(), attribute) == value, value
    for value in refused:
        prefix(json.dumps(with_key(key, value)))
        with pytest.raises(SettingsError) as refusal:
            settings.load()
        said = str(refusal.value)
        assert said.startswith(f"config.yaml: plasma.{key} must be "), value
        # A link may have a password in it.
        assert said.endswith(" for no link." if key == "monitoring_url" else f", not {value!r}."), value
        assert "hunter2" not in said
        (phrase,) = problems(with_key(key, value))
        assert phrase.startswith(f"plasma.{key} must be "), value


def test_groups_keep_their_order_and_are_named_once(prefix):
    prefix("plasma: {groups: [biology, 'on', no, Chemistry.2, biology, 'corp\\\\anna', Students of Maths]}\n")
    assert settings.load().groups == ("biology", "on", "no", "Chemistry.2", "corp\\\\anna", "Students of Maths")
    prefix("plasma: {groups: }\n")
    assert settings.load().groups == ()


@pytest.mark.parametrize(
    "name",
    ["", " a", "a ", "a,b", "a:b", "a/b", "%a", "a\n", "-a", "a\0", "a\u202eb", "a" * 256, 7, True, None, ["a"], {}],
    ids=repr,
)
def test_groups_that_are_refused(prefix, name):
    config = {"plasma": {"groups": ["biology", name]}}
    prefix(json.dumps(config))
    with pytest.raises(SettingsError, match=r"plasma\.groups\.1 must be the name of a group") as refusal:
        settings.load()
    assert str(refusal.value).endswith(f", not {name!r}.")
    (phrase,) = problems(config)
    assert phrase.startswith("plasma.groups.1 must be ")
