"""How much the hub's database keeps."""

from __future__ import annotations

import asyncio
import json
import pwd
from types import SimpleNamespace

import pytest
from jupyterhub import orm
from jupyterhub.apihandlers.users import UserTokenListAPIHandler
from sqlalchemy import JSON, Unicode, text
from tljh_plasma import bounds, handlers
from tornado import web


@pytest.fixture
def db():
    """A database as the hub makes it, with a person and two clients."""
    bounds.hold()
    session = orm.new_session_factory("sqlite:///:memory:")()
    session.add_all([orm.User(name="ada"), orm.OAuthClient(identifier="jupyterhub")])
    session.add(orm.OAuthClient(identifier="service-plasma", redirect_uri="/services/plasma/oauth_callback"))
    session.commit()
    yield session
    session.close()


@pytest.fixture
def ada(db):
    return orm.User.find(db, "ada")


def test_every_column_that_takes_text_has_an_end(db):
    """Tables that a later JupyterHub adds are among them."""
    columns = [
        (mapper.class_, column)
        for mapper in orm.Base.registry.mappers
        for column in mapper.columns
        if isinstance(column.type, Unicode)
    ]
    assert len(columns) > 30
    for owner, column in columns:
        assert column.type.length, column
        with pytest.raises(web.HTTPError, match=f"{column.key} has {column.type.length + 1} characters"):
            setattr(owner(), column.key, "x" * (column.type.length + 1))
    # What of these people fill, beside the options of a start and the scopes of tokens, is the operator's.
    others = {
        f"{mapper.class_.__name__}.{column.key}"
        for mapper in orm.Base.registry.mappers
        for column in mapper.columns
        if isinstance(column.type, (orm.JSONDict, JSON))
    }
    assert others == {
        "APIToken.scopes",
        "Group.properties",
        "OAuthClient.allowed_scopes",
        "OAuthCode.scopes",
        "Role.scopes",
        "Service.command",
        "Service.environment",
        "Service.info",
        "Service.oauth_client_allowed_scopes",
        "Share.scopes",
        "ShareCode.scopes",
        "Spawner.state",
        "Spawner.user_options",
        "User.state",
    }


def test_of_the_options_of_a_start_the_environment_is_kept(db, ada):
    spawner = orm.Spawner(user=ada, name="")
    db.add(spawner)
    for sent, kept in (
        ({"image": "course:1"}, {"image": "course:1"}),
        ({"image": "course:1", "more": "x" * 40_000_000}, {"image": "course:1"}),
        ({"image": "x" * 513}, {}),
        ({"image": ["course:1"]}, {}),
        (["course:1"], {}),
        (None, {}),
    ):
        spawner.user_options = sent
        db.commit()
        assert db.query(orm.Spawner).one().user_options == kept


def test_long_notes_and_lists_are_refused_before_anything_is_stored(db, ada):
    for values in ({"note": "x" * 501}, {"scopes": ["inherit"] * 501}):
        with pytest.raises(web.HTTPError):
            orm.APIToken.new(user=ada, **values)
        db.commit()
    assert db.query(orm.APIToken).count() == 0


def test_the_oldest_logins_make_way(db, ada):
    """Those at servers and services, and those under way; tokens that somebody asked for stay."""
    orm.APIToken.new(user=ada, note="asked for")
    client = db.query(orm.OAuthClient).filter_by(identifier="service-plasma").one()
    for number in range(bounds.CODES + 10):
        db.add(orm.OAuthCode(client=client, user=ada, code=str(number), expires_at=2_000_000_000))
        db.commit()
    for _ in range(bounds.SESSIONS + 10):
        db.add(orm.APIToken(user=ada, client_id="service-plasma", prefix="x", hashed=orm.new_token()))
        db.commit()
    kept = [int(code.code) for code in db.query(orm.OAuthCode)]
    assert kept == list(range(10, bounds.CODES + 10))
    assert db.query(orm.APIToken).filter_by(client_id="service-plasma").count() == bounds.SESSIONS
    assert db.query(orm.APIToken).filter_by(note="asked for").count() == 1


def test_what_was_kept_before_is_cut(db, ada):
    """By a hub without these bounds."""
    orm.APIToken.new(user=ada, note="one")
    db.add(orm.Spawner(user=ada, name="large"))
    db.add(orm.Spawner(user=ada, name="small", user_options={"image": "course:1"}))
    db.commit()
    db.execute(text("UPDATE api_tokens SET note = :note"), {"note": "x" * 100_000})
    db.execute(
        text("UPDATE spawners SET user_options = :more WHERE name = 'large'"), {"more": f'{{"x": "{"x" * 9000}"}}'}
    )
    db.commit()
    bounds.tidy(db)
    assert db.query(orm.APIToken).one().note == "x" * bounds.NOTE
    assert {one.name: one.user_options for one in db.query(orm.Spawner)} == {
        "large": {},
        "small": {"image": "course:1"},
    }


# Who asks for a token.


class Asking(bounds.TokensHandler):
    """A request for a token, as JupyterHub answers it; what it needs of a hub is this."""

    current_user = None
    settings = {"token_expires_in_max_seconds": 0}
    check_xsrf_cookie = _resolve_roles_and_scopes = lambda self: None

    def __init__(self, body, authenticated) -> None:
        self.request = SimpleNamespace(method="POST", body=json.dumps(body).encode() if body is not None else b"")
        # By name and password, or by a token.
        self.given = isinstance(body, dict) and "auth" in body
        self.maker = authenticated
        if not self.given:
            self.current_user = authenticated

    def __setattr__(self, name, value):
        super().__setattr__("current_user" if name == "_jupyterhub_user" else name, value)

    async def authenticate(self, data):
        return self.maker.name

    def find_user(self, name):
        return self.maker if name == self.maker.name else SimpleNamespace(name=name, new_api_token=self.made)

    def made(self, note, **rest):
        self.noted = note
        # Enough is known.
        raise ValueError

    def _check_number(self, user) -> None:
        pass


@pytest.fixture
def noted(monkeypatch):
    """A function that asks for a token for ada and returns its note.

    Asking for a name is an error: anybody may send such a request, and it would hold up the hub.
    """

    def look_up(name):
        raise AssertionError(name)

    handlers.check_bodies()
    monkeypatch.setattr(pwd, "getpwnam", look_up)
    monkeypatch.setattr(UserTokenListAPIHandler, "get_scope_filter", lambda self, scope: lambda whose, kind: True)

    def ask(maker, body):
        request = Asking(body, maker)
        maker.new_api_token = request.made
        with pytest.raises(web.HTTPError):
            asyncio.run(request.post("ada"))
        return request.noted

    return ask


def test_a_token_for_somebody_else_names_who_was_authenticated(noted):
    """And not whom the request names: that may be made up, or nobody at all."""
    bob, service = SimpleNamespace(name="bob"), orm.Service(name="grades")
    claimed = {"auth": {"username": "ada", "password": "x"}, "note": "mine"}
    assert noted(bob, claimed) == "mine (requested by user bob)"
    assert noted(bob, {"auth": {"dialogue": "key"}, "note": "mine"}) == "mine (requested by user bob)"
    assert noted(service, None) == "Token (requested by service grades)"
    assert noted(bob, {}) == "Token (requested by user bob)"
    assert noted(bob, {"note": "a" * 450}).endswith("a (requested by user bob)")
    # For oneself it is what was written.
    ada = SimpleNamespace(name="ada")
    assert noted(ada, claimed) == noted(ada, {"note": "mine"}) == "mine"
    assert noted(ada, None) == "Requested via api"


def test_a_note_that_is_no_text_is_refused(noted):
    request = Asking({"note": 5}, SimpleNamespace(name="ada"))
    with pytest.raises(web.HTTPError, match="400"):
        asyncio.run(request.post("ada"))
