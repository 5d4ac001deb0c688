"""Whatever stands in the pillar is completed or answered in lines: nothing makes the check itself fail."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.pillar.conftest import load_external_pillar, readable
from tests.unit.pillar.test_pillar_hostile import INJECTIONS

pytestmark = pytest.mark.slow

EXTERNAL = load_external_pillar()
KEYS = sorted(
    {
        path.rpartition(".")[2].removesuffix("[]")
        for path, _, _ in EXTERNAL.schema("base").walk(EXTERNAL.schema("site").Plasma, "plasma")
    }
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=5),
    st.sampled_from(INJECTIONS),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(st.sampled_from(KEYS), st.text(max_size=8), st.integers(), st.booleans()), inner, max_size=6
        ),
    ),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(anything)
@example({"users": [{"name": "anna", True: 1, 1.5: 2, None: 3}]})
@example({"environments": [{"build_args": {True: "x", None: "y", (1, 2): "z"}}]})
def test_any_pillar_is_completed_or_answered_in_lines(plasma):
    answer = EXTERNAL.ext_pillar("server", {"plasma": plasma})
    if "_errors" not in answer:
        json.dumps(answer)
        return
    assert answer["plasma"] is None
    assert answer["_errors"]
    for line in answer["_errors"]:
        assert readable(line)
        assert line.startswith("plasma") or line.startswith("... and")


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(list(EXTERNAL.schema("site").Plasma.model_fields)), anything, max_size=4))
def test_any_section_too(plasma):
    test_any_pillar_is_completed_or_answered_in_lines.hypothesis.inner_test(plasma)
