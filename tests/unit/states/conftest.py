"""What the tests of states share."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[False, True], ids=["apply", "test"])
def test_mode(request):
    """Salt's `test=True`."""
    return request.param
