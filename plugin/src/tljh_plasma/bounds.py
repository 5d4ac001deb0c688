"""How much the hub's database keeps of what people send.

SQLite stores a text of any length in a column that says 255, and JupyterHub stores what it is given: names and notes,
the options of a start before anybody has looked at them, a row for every token and every step of a login. Lengths are
held to here whichever way a value comes, and of rows that anybody can make there are so many for each person.
"""

from __future__ import annotations

import json
from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.users import UserTokenListAPIHandler
from sqlalchemy import Unicode, event, func, text
from sqlalchemy.orm import Session
from tornado import web

from .planning import http_error

# Characters of what a person writes about a token. The column says 1023. So many are kept where something is added.
NOTE = 500
NOTE_BESIDE = 400
# Texts of JSON columns that requests fill, and what a refused one is called.
LISTED = 500
# Tokens that somebody may have asked for and that have not expired. Servers have one each, besides.
TOKENS = 100
# Logins at servers and services, each of which has a token, and logins that are under way; the oldest make way. Those
# are asked for again by the next page, without a question.
SESSIONS = 200
CODES = 20
SHARE_CODES = 100
# Characters of an environment's name among the options of a start, which hold nothing else.
IMAGE = 512

TOO_MANY_TOKENS = f"There are {TOKENS} tokens already, which is as many as there can be. Revoke one that is not used."
# The client of tokens that were asked for.
HUB = "jupyterhub"
# Rows that a person has many of: their kind, the attribute and the column of whose they are, and how many are kept.
OLDEST_GO = (
    (orm.APIToken, "user", orm.APIToken.user_id, SESSIONS),
    (orm.OAuthCode, "user", orm.OAuthCode.user_id, CODES),
    (orm.ShareCode, "owner", orm.ShareCode.owner_id, SHARE_CODES),
)


def start_options(options: Any) -> dict[str, str]:
    """Return what is kept of the options of a start: the environment, which is all that is ever read.

    Args:
        options: what was sent, of any type and size.
    """
    image = options.get("image") if isinstance(options, dict) else None
    return {"image": image} if isinstance(image, str) and len(image) <= IMAGE else {}


class TokensHandler(UserTokenListAPIHandler):
    """JupyterHub's address for tokens, with an end to how many there are, and with who asked for one in its note."""

    def get_json_body(self) -> dict[str, Any] | None:
        """Return the body of a request, in which the note is made once it is known who asks.

        Raises:
            web.HTTPError: 400, with a sentence.
        """
        body = super().get_json_body()
        if self.request.method != "POST":
            return body
        # Never empty, which JupyterHub would replace by another object.
        self._asked = {"note": None, **(body or {})}
        note = self._asked["note"]
        if note is not None and not isinstance(note, str):
            raise http_error(400, "note must be a text.")
        return self._asked

    def get_scope_filter(self, scope: str) -> Any:  # ty: ignore[incompatible-attribute-override] # cached there
        """Return what tells whether the visitor may; where they may make one more, there must be room for it."""
        allows = super().get_scope_filter(scope)

        def check(resource: Any, kind: str) -> bool:
            allowed = allows(resource, kind)
            if allowed and scope == "tokens" and self.request.method == "POST":
                self._check_number(resource)
                self._name_maker(resource)
            return allowed

        return check

    def _check_number(self, user: Any) -> None:
        token = orm.APIToken
        live = (token.expires_at.is_(None)) | (token.expires_at > orm.utcnow())
        asked_for = self.db.query(token).filter(token.user == user.orm_user, token.client_id == HUB, live)
        if asked_for.count() >= TOKENS + sum(one.active for one in user.spawners.values()):
            raise web.HTTPError(400, TOO_MANY_TOKENS)

    def _name_maker(self, user: Any) -> None:
        """Say in the note who asks, for somebody else: whoever the request has authenticated, not what it says."""
        maker = self.current_user
        kind = "service" if isinstance(maker, orm.Service) else "user"
        if (kind, maker.name) != ("user", user.name):
            note = (self._asked["note"] or "Token")[:NOTE_BESIDE]
            self._asked["note"] = f"{note} (requested by {kind} {maker.name})"


HANDLERS = [(r"/api/users/([^/]+)/tokens", TokensHandler)]


def hold() -> None:
    """Hold this process's database to these bounds; calling it again changes nothing."""
    if event.contains(Session, "before_flush", _before_flush):
        return
    event.listen(Session, "before_flush", _before_flush)
    for mapper in orm.Base.registry.mappers:
        for column in mapper.columns:
            if isinstance(column.type, Unicode) and column.type.length:
                _hold_text(mapper.class_, column)
    event.listen(orm.Spawner.user_options, "set", lambda _, value, *rest: start_options(value), retval=True)
    for attribute in (orm.APIToken.scopes, orm.OAuthCode.scopes):
        event.listen(attribute, "set", _hold_list, retval=True)


def tidy(db: Session) -> None:
    """Cut what is in the database from before there were these bounds.

    Args:
        db: the hub's database.
    """
    for token in db.query(orm.APIToken).filter(func.length(orm.APIToken.note) > NOTE):
        token.note = token.note[:NOTE]  # ty: ignore[invalid-assignment] # a column of the old kind
    # Their size is that of the text in the file; the last choice of an environment is all that is lost.
    large = text("UPDATE spawners SET user_options = '{}' WHERE length(user_options) > :most")
    db.execute(large, {"most": 2 * IMAGE})
    db.commit()


def _hold_text(owner: type, column: Any) -> None:
    longest = NOTE if (owner, column.key) == (orm.APIToken, "note") else column.type.length

    def check(target: Any, value: Any, *rest: Any) -> Any:
        if isinstance(value, str) and len(value) > longest:
            raise web.HTTPError(400, f"{column.key} has {len(value)} characters, and may have {longest}.")
        return value

    event.listen(getattr(owner, column.key), "set", check, retval=True)


def _hold_list(target: Any, value: Any, *rest: Any) -> Any:
    if value and (len(value) > LISTED or len(json.dumps(list(value))) > 64 * LISTED):
        raise web.HTTPError(400, f"There may be {LISTED} scopes, and not {len(value)}.")
    return value


def _before_flush(session: Session, *rest: Any) -> None:
    """Remove the oldest rows of somebody who has more than they may."""
    for made in list(session.new):
        token = isinstance(made, orm.APIToken)
        for kind, owner, column, most in OLDEST_GO:
            if isinstance(made, kind) and getattr(made, owner) is not None and not (token and made.client_id == HUB):
                others = session.query(kind).filter(column == getattr(made, owner).id).order_by(kind.id)
                _keep(session, others.filter(kind.client_id != HUB) if token else others, most)


def _keep(session: Session, query: Any, most: int) -> None:
    with session.no_autoflush:
        there = query.all()
    # One more is being made.
    for row in there[: max(0, len(there) - most + 1)]:
        session.delete(row)
