"""``/hub/api/plasma/administrators``: who administers the running hub, by the role that decides, and saying so.

JupyterHub's own API lets only full administrators do so, and whoever is one may do everything. This address asks for
one scope instead, and can do nothing else.
"""

from __future__ import annotations

import json
from typing import Any

from jupyterhub import orm, roles
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.scopes import needs_scope
from tornado import web

from .operators import ADMINISTRATORS_SCOPE

PATH = r"/api/plasma/administrators"
KEYS = ("grant", "revoke")


class AdministratorsHandler(APIHandler):
    """Grants and revokes at once, with no restart of the hub."""

    @needs_scope(ADMINISTRATORS_SCOPE)
    def get(self) -> None:
        """Answer ``{"administrators": [names]}``, sorted."""
        self._answer()

    @needs_scope(ADMINISTRATORS_SCOPE)
    def patch(self) -> None:
        """Answer as ``GET`` does, after the change.

        The body is ``{"grant": [names], "revoke": [names]}``. Somebody whom the hub does not know is made known to
        it when they are granted, as its start does with those of its configuration. The accounts of those who are
        revoked are looked at again with their next request.

        Raises:
            web.HTTPError: 400, with nothing changed, for a body that says something else.
        """
        names = self._names(self.get_json_body())
        # Or their next login would make them one again, where the configuration still said so at the hub's start.
        self.authenticator.admin_users.difference_update(names["revoke"])
        # The role counts, and not the mark: also where the two have come apart. A thousand may leave at once, of whom
        # hardly anybody has either.
        either = orm.User.admin | orm.User.roles.any(orm.Role.name == "admin")
        leavers = set(names["revoke"])
        # Who is being removed holds that up with no request more: their account is looked at again with the next one,
        # and not minutes later, as JupyterHub's auth_refresh_age has it.
        for user in list(self.users.values()):
            if user.name in leavers:
                user._auth_refreshed = None
        for user in [found for found in self.db.query(orm.User).filter(either) if found.name in leavers]:
            self._set(user, False)
        for name in names["grant"]:
            self.authenticator.admin_users.add(name)
            self._set(self.user_from_username(name).orm_user, True)
        self._answer()

    def _answer(self) -> None:
        members = orm.Role.find(self.db, "admin").users
        self.finish(json.dumps({"administrators": sorted(user.name for user in members)}))

    def _names(self, body: Any) -> dict[str, list[str]]:
        if not isinstance(body, dict) or not set(body) <= set(KEYS):
            raise web.HTTPError(400, "The body must be an object with the keys grant and revoke.")
        names = {}
        for key in KEYS:
            listed = body.get(key, [])
            if not isinstance(listed, list) or not all(isinstance(name, str) and name for name in listed):
                raise web.HTTPError(400, f"{key} must be a list of names.")
            # Who is revoked is named exactly: "Anna", who cannot be here, is not "anna".
            names[key] = listed if key == "revoke" else [self.authenticator.normalize_username(one) for one in listed]
        for name in names["grant"]:
            if not self.authenticator.validate_username(name):
                raise web.HTTPError(400, f"{name!r} cannot be the name of a user.")
        both = set(names["grant"]) & set(names["revoke"])
        if both:
            raise web.HTTPError(400, f"{min(both)!r} is in grant and in revoke.")
        return names

    def _set(self, user: orm.User, admin: bool) -> None:
        if user.admin != admin:
            self.log.info("%s %s administrator %s", self.current_user.name, "names" if admin else "revokes", user.name)
        user.admin = admin  # ty: ignore[invalid-assignment] # a column of the old kind
        roles.assign_default_roles(self.db, entity=user)
        self.db.commit()
