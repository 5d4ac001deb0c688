"""``/hub/api/plasma/people``: somebody's new name, when their account got one.

JupyterHub's own address would let every administrator make one person another. This one asks for a scope that the
operator alone has, so root on this machine (see ``operators``), and can do nothing else.
"""

from __future__ import annotations

import json
from typing import Any

from jupyterhub import orm
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.scopes import needs_scope
from tornado import web

from . import sessions, settings
from .access import Store
from .operators import PEOPLE_SCOPE

PATH = r"/api/plasma/people"


class RenamesHandler(APIHandler):
    """Renames at once, with no restart of the hub."""

    @needs_scope(PEOPLE_SCOPE)
    def patch(self) -> None:
        """Answer ``{"name": new}``, after the change.

        The body is ``{"old": name, "new": name, "group": bool}``; the last one says whether a group of the old name
        has the new one, too. Rights, groups and tokens of programs go along; sessions end, and so does what is known of
        servers that have stopped. A group is renamed for somebody whom the hub does not know, too: they may never have
        been there, or an earlier request got half-way.

        Raises:
            web.HTTPError: 400 for another body, 404 for somebody whom the hub does not know where no group is renamed,
                409 where it knows the new name already, or where servers of the old one run. Nothing is changed then.
        """
        body = self.get_json_body() or {}
        old, new, group = body.get("old"), body.get("new"), body.get("group", False)
        names = isinstance(old, str) and isinstance(new, str) and old != new
        if set(body) - {"old", "new", "group"} or not names or not isinstance(group, bool):
            raise web.HTTPError(400, "The body must be an object with the names old and new, and with group.")
        if not self.authenticator.validate_username(new):
            raise web.HTTPError(400, f"{new!r} cannot be the name of a user.")
        user = self.find_user(old)
        if user is None and not group:
            raise web.HTTPError(404, f"The hub knows nobody of the name {old!r}.")
        if user and orm.User.find(self.db, new) is not None:
            raise web.HTTPError(409, f"The hub knows somebody of the name {new!r} already.")
        if user and any(spawner.active or spawner.pending for spawner in user.spawners.values()):
            raise web.HTTPError(409, f"Servers of {old!r} run.")
        # Before the person: what fails in between is done again, and this can be done twice.
        if group:
            Store(settings.load().database).rename_group(old, new)
        if user:
            Store(settings.load().database).rename_user(old, new)
            self._rename(user, new)
        self.log.info("%s is now %s", old, new)
        self.finish(json.dumps({"name": new}))

    def _rename(self, user: Any, new: str) -> None:
        row, old = user.orm_user, user.name
        # What names them in the configuration that this hub was started with.
        for listed in ("admin_users", "allowed_users", "blocked_users"):
            names = getattr(self.authenticator, listed)
            if old in names:
                names.discard(old)
                names.add(new)
        for spawner in row.orm_spawners.values():
            # These have the old name in them; the next start makes others.
            if spawner.oauth_client is not None:
                self.db.delete(spawner.oauth_client)
            spawner.state = {}
        row.name = new
        sessions.end(self.db, user, None)
        # What is kept in memory of them is made anew.
        dict.pop(self.users, row.id, None)


HANDLERS = [(PATH, RenamesHandler)]
