"""Who is protected from being removed."""

from __future__ import annotations

import _modules.plasma_users_removal as removal


def test_who_applies_is_protected(monkeypatch):
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setattr(removal, "_first_line", lambda path: "1235")
    found = removal.protected()
    assert {1234, 1235} <= set(found)
    assert 0 not in found
    monkeypatch.setattr(removal, "_first_line", lambda path: str(2**32 - 1))  # nobody logged in
    monkeypatch.delenv("SUDO_UID")
    assert not {1234, 1235, 2**32 - 1} & set(removal.protected())
