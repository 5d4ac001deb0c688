"""The state upgrade: what is prepared before anything of the tree reaches the server, and what comes last."""

from __future__ import annotations

import pytest

from tests.render.compiler import low_state

REQUISITES = ("require", "require_any", "watch", "onchanges", "onfail", "onfail_any", "prereq", "onlyif", "unless")


@pytest.fixture
def chunks(system, architecture, pillar):
    return low_state(system, architecture, pillar, "upgrade")


def _by_id(chunks, id_):
    (found,) = {chunk["__id__"]: chunk for chunk in chunks if chunk["__id__"] == id_}.values()
    return found


def test_the_way_back_is_there_before_the_tree_is_copied(chunks):
    order = {}
    for place, chunk in enumerate(chunks):
        order.setdefault(chunk["__id__"], place)
    assert order["preflight-server-is-fit"] == 1
    assert order["upgrade-prepared"] < order["hub-prefix"] < order["hub-plugin-source"] < order["hub-installed"]
    for id_ in ("hub-prefix", "hub-plugin-source"):
        # It fails with it: no way back, no upgrade.
        assert {"plasma_upgrade": "upgrade-prepared"} in _by_id(chunks, id_)["require"]


def test_it_is_settled_at_the_end_whatever_has_failed(chunks):
    assert chunks[-1]["__id__"] == "upgrade-settled"
    assert not [name for name in REQUISITES if name in chunks[-1]]


def test_both_compare_what_is_installed(chunks):
    installed = _by_id(chunks, "hub-installed")
    for id_ in ("upgrade-prepared", "upgrade-settled"):
        chunk = _by_id(chunks, id_)
        assert chunk["name"] == installed["name"]
        for key in ("hub_provider", "version", "source"):
            assert chunk.get(key) == installed.get(key), (id_, key)
        assert chunk["tree"] == _by_id(chunks, "hub-plugin-source")["source"]


def test_the_hub_alone_settles_too(system, architecture, pillar):
    found = low_state(system, architecture, pillar, "tljh")
    assert found[-1]["__id__"] == "upgrade-settled"
    assert "upgrade-prepared" not in {chunk["__id__"] for chunk in found}


def test_undoing_is_a_state_of_its_own(system, architecture, pillar):
    _, chunk = low_state(system, architecture, pillar, "upgrade.rolled_back")
    assert (chunk["state"], chunk["fun"]) == ("plasma_upgrade", "rolled_back")
