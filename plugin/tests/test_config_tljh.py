"""The helper and TLJH's own ``tljh-config`` mean the same. Needs TLJH's source, named by PLASMA_TLJH_SOURCE."""

from __future__ import annotations

import os
import sys

import pytest
from support_config import HANDWRITTEN
from test_config_schema import PROBLEMS
from tljh_plasma.config_file import ConfigError, load, update


@pytest.fixture
def tljh(monkeypatch):
    source = os.environ.get("PLASMA_TLJH_SOURCE")
    if not source:
        pytest.skip("PLASMA_TLJH_SOURCE names no directory of TLJH's source")
    monkeypatch.syspath_prepend(source)
    yield pytest.importorskip("tljh.config", reason="TLJH's source cannot be imported here")
    for name in [name for name in sys.modules if name.partition(".")[0] == "tljh"]:
        del sys.modules[name]


def test_keys_are_set_and_unset_as_tljh_does(tljh, handwritten):
    config = tljh.get_current_config(handwritten)
    for key, value in [("limits.cpu", 2), ("auth.A.b", {"c": [1]}), ("users.admin", ["bob"]), ("http", {"port": 81})]:
        config = tljh.set_item_in_config(config, key, value)
        update(handwritten, {key: value})
        assert load(handwritten) == config
    for key in ("limits.memory", "auth.A.b", "http.port", "base_url"):
        config = tljh.unset_item_from_config(config, key)
        update(handwritten, unset=[key])
        assert load(handwritten) == config
    config = tljh.add_item_to_config(config, "users.admin", "007")
    update(handwritten, {"users.admin": ["bob", "007"]})
    assert tljh.get_current_config(handwritten) == load(handwritten) == config


def test_tljh_takes_over_what_was_written_and_the_other_way_round(tljh, handwritten):
    update(handwritten, {"users.allowed": ["12:30", "yes"], "limits.cpu": 0.5})
    ours = load(handwritten)
    # The schema of 2.0.0 knows no half CPUs.
    tljh.set_config_value(str(handwritten), "https.enabled", False, validate=False)
    assert load(handwritten) == {**ours, "https": {"enabled": False}}
    assert "# teacher" in handwritten.read_text()
    assert not update(handwritten, {"users.allowed": ["12:30", "yes"], "limits.cpu": 0.5})["changed"]


def test_the_lock_is_the_one_of_tljh(tljh, handwritten):
    with tljh.config_file_lock(str(handwritten)), pytest.raises(ConfigError, match="lock"):
        update(handwritten, {"limits.cpu": 1}, lock_timeout=0.2)
    assert handwritten.read_text() == HANDWRITTEN


@pytest.mark.parametrize("schema", ["ours", "theirs"])
def test_both_schemas_agree(tljh, monkeypatch, path, schema):
    if schema == "ours":
        monkeypatch.setitem(sys.modules, "tljh.config_schema", None)  # importing it fails
    for wanted, problem in PROBLEMS:
        with pytest.raises(ConfigError) as refusal:
            update(path, wanted, dry_run=True)
        assert problem in str(refusal.value)


def test_every_key_of_tljh_has_the_same_type_in_our_schema(tljh):
    from tljh.config_schema import config_schema
    from tljh_plasma.config_schema import HUB_SCHEMA

    def leaves(schema, root, name=""):
        schema = root["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        parts = schema.get("anyOf", [schema])
        kinds = {kind for part in parts for kind in ([part["type"]] if isinstance(part["type"], str) else part["type"])}
        found = {name: (kinds, schema.get("additionalProperties"))}
        for key, below in schema.get("properties", {}).items():
            if isinstance(below, dict):
                found |= leaves(below, root, f"{name}.{key}")
        return found

    ours, theirs = leaves(HUB_SCHEMA, {}), leaves({"type": "object", **config_schema}, config_schema)
    # Ours whatever TLJH says: 2.0.0 wants whole CPUs.
    for name in (".limits.memory", ".limits.cpu"):
        assert ours[name][0] >= theirs[name][0] - {"integer"}
        theirs[name] = ours[name]
    assert ours == theirs
