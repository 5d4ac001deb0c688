"""What all unit tests share."""

from __future__ import annotations

import pytest

from tests.unit.functions import replace


@pytest.fixture(autouse=True)
def stand_ins(request, monkeypatch):
    """The functions that a test gives its modules as ``__salt__`` replace those of ``_utils``, too."""
    if hasattr(request.module, "configure_loader_modules"):
        for settings in request.getfixturevalue("configure_loader_modules").values():
            replace(monkeypatch, settings.get("__salt__", {}))
