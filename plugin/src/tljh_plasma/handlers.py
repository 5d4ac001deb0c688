"""Handlers of the hub in the place of JupyterHub's: they let fewer things through, and are these handlers otherwise."""

from __future__ import annotations

import re
from typing import Any

from jupyterhub.apihandlers.auth import OAuthTokenHandler, TokenAPIHandler
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.apihandlers.groups import GroupPropertiesAPIHandler
from jupyterhub.apihandlers.hub import ShutdownAPIHandler
from jupyterhub.apihandlers.proxy import ProxyAPIHandler
from jupyterhub.apihandlers.shares import ServerShareAPIHandler, ServerShareCodeAPIHandler
from jupyterhub.apihandlers.users import (
    ActivityAPIHandler,
    UserAPIHandler,
    UserServerAPIHandler,
    UserTokenListAPIHandler,
)
from jupyterhub.handlers.login import LogoutHandler
from jupyterhub.handlers.pages import SpawnHandler
from jupyterhub.scopes import ScopeNotFound, _check_scopes_exist, needs_scope
from tornado import web

from . import bodies, sessions
from .links import FIELDS, Link, NoLink
from .planning import NEVER_STARTED, http_error

# What works in addresses, in names of containers and on all pages.
SERVER_NAME = re.compile(r"[^\W_](?:[\w .-]{0,62}[^\W])?")
SERVER_NAME_WORDS = (
    "A server's name may have up to 64 letters, digits, spaces, dots, hyphens and underscores, and begins and ends "
    "with a letter or a digit. Please choose another name."
)
NO_RENAMING = "People are accounts of this server, so they are not renamed here: the hub's name is the account's."
OTHERS_LINK = "A link opens something in one's own server: leave out the name of somebody else."
ONLY_ADMIN = "Of a person, only whether they administer the hub can be changed here (admin)."


# Sessions.


class Logout(LogoutHandler):
    """Ends all sessions of whoever logs out, on the server as well."""

    async def default_handle_logout(self) -> None:
        """Forget the sessions; JupyterHub alone would forget the cookie in this one browser."""
        user = self.current_user
        await super().default_handle_logout()
        if user:
            sessions.end(self.db, user, None)


# People.


class Person(UserAPIHandler):
    """JupyterHub's address for a person, without what would make one person another."""

    @needs_scope("admin:users")
    async def patch(self, user_name: str) -> None:
        """Say whether somebody administers the hub.

        A session goes by the hub's name, and a server by the account of that name: whoever could rename people could
        act as anybody.

        Raises:
            web.HTTPError: 400, with a sentence, for anything else.
        """
        body = self.get_json_body()
        if body is None:
            raise web.HTTPError(400, ONLY_ADMIN)
        if body.get("name", user_name) != user_name:
            raise web.HTTPError(400, NO_RENAMING)
        if set(body) - {"name", "admin"}:
            raise web.HTTPError(400, ONLY_ADMIN)
        await super().patch(user_name)


class Activity(ActivityAPIHandler):
    """JupyterHub's address for when somebody was there, which fails at times before the year 1."""

    def post(self, user_name: str) -> None:
        """Note it."""
        try:
            super().post(user_name)
        except OverflowError as error:
            raise web.HTTPError(400, "There is no such time.") from error


# Others that fail where something else comes than they expect.


class Proxy(ProxyAPIHandler):
    """JupyterHub's address for the proxy, which reads its bodies itself."""

    @needs_scope("proxy")
    async def patch(self) -> None:
        """Say where the proxy is, in texts."""
        if not all(isinstance(value, str) for value in (self.get_json_body() or {}).values()):
            raise http_error(400, "Of the proxy, api_url and auth_token are texts.")
        await super().patch()


class FormerToken(TokenAPIHandler):
    """An address of former releases of JupyterHub, which was only ever asked."""

    async def post(self, token: str = "") -> None:
        """Refuse."""
        await super().post()


class OAuthToken(OAuthTokenHandler):
    """Where services and servers get their tokens, for a form."""

    def post(self) -> None:
        """Answer with a token."""
        try:
            super().post()
        except ValueError as error:
            raise http_error(400, "The request's body must be a form.") from error


# Names of servers.


def check_server_name(user: Any, name: str) -> None:
    """Check the name of a server that is to be started; those that there are keep theirs.

    Raises:
        web.HTTPError: 400, with a sentence.
    """
    if name and name not in user.orm_spawners and not SERVER_NAME.fullmatch(name):
        raise http_error(400, SERVER_NAME_WORDS)


def forget_never_started(user: Any, db: Any) -> None:
    """Remove what is kept of somebody's named servers that never started: it would count as a server.

    Args:
        user: the hub's user.
        db: the hub's database session.
    """
    for name, row in list(user.orm_spawners.items()):
        spawner = user.spawners.get(name)
        if not name or (spawner is not None and (spawner.active or spawner.pending)) or row.server is not None:
            continue
        if (user.name, name) in NEVER_STARTED or (row.started is None and row.last_activity is None):
            NEVER_STARTED.discard((user.name, name))
            user.spawners.pop(name, None)
            db.delete(row)
    db.commit()


async def check_place(handler: Any, user: Any, name: str) -> None:
    """Make sure that a server of a new name has a place, before anything of it is kept.

    Raises:
        web.HTTPError: 400, with a sentence.
    """
    check_server_name(user, name)
    forget_never_started(user, handler.db)
    if not name or name in user.orm_spawners:
        return
    limit = await handler.get_current_user_named_server_limit()
    if 0 < limit <= sum(1 for other in user.orm_spawners if other):
        raise http_error(
            400, f"{user.name} has {limit} named servers already, which is as many as there can be. Delete one first."
        )
    NEVER_STARTED.add((user.name, name))


class Server(UserServerAPIHandler):
    """JupyterHub's address for a server."""

    @needs_scope("servers")
    async def post(self, user_name: str, server_name: str = "") -> None:
        """Start it."""
        user = self.find_user(user_name)
        if user is None:
            raise web.HTTPError(404)
        await check_place(self, user, server_name)
        try:
            await super().post(user_name, server_name)
        except BaseException:
            forget_never_started(user, self.db)
            raise


class Spawn(SpawnHandler):
    """JupyterHub's page that starts servers."""

    async def get(self, user_name: str | None = None, server_name: str | None = "") -> None:
        """Show the form, and keep nothing of a server that is not started."""
        await self._with_place(super().get, user_name, server_name)

    async def post(self, user_name: str | None = None, server_name: str | None = "") -> None:
        """Start what the form says."""
        await self._with_place(super().post, user_name, server_name)

    def _follow_link(self, user: Any, name: str) -> None:
        """Lead somebody who came by a link (see ``links``) on to what it opens, when their server runs.

        Raises:
            web.HTTPError: 400, with a sentence: it cannot be followed, or leads to another environment than the one
                that runs.
        """
        link = Link(**{field: self.get_query_argument(field, "") for field in ("image", *FIELDS)})
        spawner = user.spawners.get(name)
        if link.image and spawner is not None and spawner.active and spawner.user_options.get("image") != link.image:
            running = spawner.summary.get("name") or spawner.user_options.get("image")
            words = f"The server runs the environment {running!r}, and this link is for {link.image[:80]!r}."
            raise http_error(400, f"{words} Stop the server at Home, and then follow the link again.")
        try:
            target = link.checked().target
        except NoLink as error:
            raise http_error(400, str(error)) from error
        if not target:
            return
        if user.name != self.current_user.name:
            raise http_error(400, OTHERS_LINK)
        # Where JupyterHub goes when the server runs, now or after the start.
        self.request.arguments["next"] = [f"{user.server_url(name).rstrip('/')}{target}".encode()]

    async def _with_place(self, answer: Any, user_name: str | None, server_name: str | None) -> None:
        name = server_name or ""
        user = self.current_user and self.find_user(user_name or self.current_user.name)
        if user and self.has_scope(f"servers!server={user.name}/{name}"):
            await check_place(self, user, name)
            self._follow_link(user, name)
        answering = answer(user_name, server_name)
        try:
            if answering is not None:
                await answering
        finally:
            spawner = user.spawners.get(name) if user else None
            # The page of a start that failed later on shows why, and needs it for that.
            if user and name and (spawner is None or not spawner._failed or self.request.method == "POST"):
                forget_never_started(user, self.db)


# Bodies.


def check_bodies() -> None:
    """Look at bodies where all handlers of the API read them; calling it again changes nothing."""
    APIHandler.get_json_body = _get_json_body


def _get_json_body(self: APIHandler) -> dict[str, Any] | None:
    """Return the body of a request, an object of JSON; None when there is none.

    Raises:
        web.HTTPError: 400, with a sentence.
    """
    body = None
    if self.request.body:
        try:
            body = bodies.read_object(self.request.body)
            if isinstance(self, ShutdownAPIHandler):
                bodies.check_flags(body)
            elif not isinstance(self, (GroupPropertiesAPIHandler, UserServerAPIHandler)):
                bodies.check_names(body)
            if isinstance(self, UserTokenListAPIHandler) and self.request.method == "POST":
                bodies.check_expiry(body)
            if isinstance(self, (ServerShareAPIHandler, ServerShareCodeAPIHandler)):
                _check_scopes_exist(body.get("scopes") or ())
        except bodies.Unusable as error:
            raise http_error(400, str(error)) from error
        except ScopeNotFound as error:
            raise http_error(400, "There is no such scope.") from error
    return body


HANDLERS = [
    (r"/logout", Logout),
    (r"/api/proxy", Proxy),
    (r"/api/authorizations/token", FormerToken),
    (r"/api/authorizations/token/([^/]+)", FormerToken),
    (r"/api/oauth2/token", OAuthToken),
    (r"/api/users/([^/]+)", Person),
    (r"/api/users/([^/]+)/activity", Activity),
    (r"/api/users/([^/]+)/server", Server),
    (r"/api/users/([^/]+)/servers/([^/]*)", Server),
    (r"/spawn", Spawn),
    (r"/spawn/([^/]+)", Spawn),
    (r"/spawn/([^/]+)/([^/]+)", Spawn),
]
