"""The state plasma_hub.installed in Salt's own state compiler, with the real installer."""

from __future__ import annotations

import pytest
import salt.state

from tests.support.paths import REPOSITORY
from tests.unit.salt_options import minion_options


@pytest.mark.parametrize("changed_source", [False, True])
def test_a_failure_stays_a_failure_when_the_plugin_source_changed(tmp_path, changed_source):
    """Salt calls mod_watch of a state whose watched state changed and that changed nothing itself: as here."""
    options = minion_options(tmp_path, states_dirs=[REPOSITORY / "_states"], module_dirs=[REPOSITORY / "_modules"])
    high = {
        "plugin-source": {
            "test": ["succeed_with_changes" if changed_source else "succeed_without_changes"],
            "__sls__": "tljh",
            "__env__": "base",
        },
        "hub-installed": {
            # An unknown provider makes the real installer refuse, before it does anything.
            "plasma_hub": [
                "installed",
                {"name": str(tmp_path / "hub")},
                {"hub_provider": "conda"},
                {"watch": [{"test": "plugin-source"}]},
            ],
            "__sls__": "tljh",
            "__env__": "base",
        },
    }
    returned = salt.state.State(options, initial_pillar={}).call_high(high)
    result = next(value for value in returned.values() if value["__id__"] == "hub-installed")
    assert result["result"] is False
    assert "no hub provider 'conda'" in result["comment"]
    assert not (tmp_path / "hub").exists()
