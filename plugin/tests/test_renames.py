"""Somebody's new name at the hub, as far as it can be seen without one: ``test_operators.py`` has the rest."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from jupyterhub import orm
from jupyterhub.scopes import define_custom_scopes
from tljh_plasma.access import AccessError, Entry, Store
from tljh_plasma.operators import PEOPLE_SCOPE
from tornado import web

# As the hub does it, before it looks at its handlers.
define_custom_scopes({PEOPLE_SCOPE: {"description": "Know people by another name"}})

from tljh_plasma import renames  # noqa: E402

PATCH = renames.RenamesHandler.patch.__wrapped__


class Request:
    """What the handler has of a hub."""

    def __init__(self, body, person=None):
        self.body, self.person = body, person
        self.authenticator = SimpleNamespace(validate_username=lambda name: True)
        self.renamed, self.answer = [], None

    db = None
    log = SimpleNamespace(info=lambda *arguments: None)

    def get_json_body(self):
        return self.body

    def find_user(self, name):
        return self.person

    def _rename(self, user, new):
        self.renamed.append(new)

    def finish(self, answer):
        self.answer = answer


@pytest.fixture
def store(tmp_path, monkeypatch):
    made = Store(tmp_path / "plasma.sqlite")
    made.upgrade()
    made.set_groups({"course:1": ["anna"]})
    monkeypatch.setattr(renames.settings, "load", lambda: SimpleNamespace(database=made.path))
    monkeypatch.setattr(orm.User, "find", lambda db, name: None)
    return made


def body(**keys):
    return {"old": "anna", "new": "hanna", "group": True, **keys}


def test_the_group_is_renamed_without_the_person_and_twice(store):
    """Whoever was never at the hub has permissions, too, and so has somebody whose rename got half-way."""
    for _ in range(2):
        request = Request(body())
        PATCH(request)
        assert (request.answer, request.renamed) == ('{"name": "hanna"}', [])
        assert store.get("course:1") == Entry(("hanna",))
    with pytest.raises(web.HTTPError) as caught:
        PATCH(Request(body(group=False)))
    assert caught.value.status_code == 404


def test_the_person_is_renamed_when_the_group_is(store, monkeypatch):
    """Where the file cannot be written, the next attempt finds the person by the old name."""
    person = SimpleNamespace(spawners={})
    rename_group = Store.rename_group

    def full(self, old, new):
        raise AccessError("The disk is full.")

    monkeypatch.setattr(Store, "rename_group", full)
    request = Request(body(), person)
    with pytest.raises(AccessError):
        PATCH(request)
    assert request.renamed == []
    monkeypatch.setattr(Store, "rename_group", rename_group)
    PATCH(request)
    assert request.renamed == ["hanna"] and store.get("course:1") == Entry(("hanna",))
