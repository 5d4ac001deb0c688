"""Every combination of system, architecture and pillar that the tree is rendered for."""

from __future__ import annotations

import logging

import pytest

from tests.render.compiler import ARCHITECTURES, SYSTEMS
from tests.render.pillars import GIVEN

# Salt logs every template it rendered, which pytest would keep for thousands of them.
logging.getLogger("salt").setLevel(logging.WARNING)


@pytest.fixture(params=SYSTEMS)
def system(request):
    return request.param


@pytest.fixture(params=ARCHITECTURES)
def architecture(request):
    return request.param


@pytest.fixture(params=GIVEN)
def pillar(request):
    return request.param
