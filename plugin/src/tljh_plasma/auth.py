"""PAM authentication for real people."""

from __future__ import annotations

import asyncio
import pwd
import uuid
from typing import Any

from jupyterhub.auth import PAMAuthenticator
from jupyterhub.handlers.login import LoginHandler
from jupyterhub.utils import maybe_future
from tornado import web
from traitlets import default

from . import limits, logins, operators, pam_delay, sessions
from .accounts import AccountError, find_account, find_entry
from .logins import Logins, TooMany

# Characters of a name, which is at most 32 on Linux, and bytes of a password: PAM itself takes 512.
LONGEST_NAME = 64
LONGEST_PASSWORD = 1024


class PlasmaPAMAuthenticator(PAMAuthenticator):
    """Log in with the password of a system account that belongs to a person.

    The account is checked when somebody logs in, whatever the allow rules say, again while they are logged in (their
    account may be gone by then), and once more by the spawner when a server starts.
    """

    # The hub's secret for its cookies, once there is a hub.
    _cookie_secret: bytes | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        pam_delay.leave_out()
        self._logins = Logins()

    @default("executor_threads")
    def _default_executor_threads(self) -> int:
        # As many as may be at work, and some for what else PAM is asked.
        return logins.AT_ONCE + 4

    @default("auth_refresh_strict")
    def _default_auth_refresh_strict(self) -> bool:
        # JupyterHub 6.1 would go on with the tokens of somebody whose account is gone; earlier ones never do.
        return True

    @default("refresh_pre_spawn")
    def _default_refresh_pre_spawn(self) -> bool:
        # Before a server counts as starting: whoever is being removed would hold that up with one start after another.
        return True

    @default("auth_refresh_age")
    def _default_auth_refresh_age(self) -> int:
        # Seconds after which an account is looked at again: whether it is there, and has the password of its sessions.
        return 30

    def get_handlers(self, app: Any) -> list[tuple[str, Any]]:
        """Return the hub's handlers that have to do with who somebody is, with the one that names administrators.

        Args:
            app: the hub. Its database and its services are there by now.
        """
        # Not before the hub has read its configuration: until then it knows no scope of ours.
        from . import bounds, handlers
        from .administrators import PATH, AdministratorsHandler

        limits.protect_hub()
        bounds.hold()
        bounds.tidy(app.db)
        operators.forget_old_tokens(app)
        handlers.check_bodies()
        self._cookie_secret = app.cookie_secret
        return [*super().get_handlers(app), (PATH, AdministratorsHandler), *bounds.HANDLERS, *handlers.HANDLERS]

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """Check name and password through PAM.

        PAM is asked about the normalised name, which is the one JupyterHub goes on with. Otherwise the password of
        an account "Upper" would open the hub as "upper".

        Args:
            handler: the login handler.
            data: the form, with ``username`` and ``password``.

        Returns:
            The name, or None when the password is wrong or there is no such account.

        Raises:
            web.HTTPError: 429, with a sentence for the person, when too many wrong ones came before.
        """
        name, secrets = data.get("username"), [data.get(key, "") for key in ("password", "otp")]
        if "password" not in data or not all(isinstance(text, str) for text in (name, *secrets)):
            return None
        if len(name) > LONGEST_NAME or any(len(text.encode(errors="replace")) > LONGEST_PASSWORD for text in secrets):
            return None
        name = self.normalize_username(name)
        # No such name is no reason for another answer than a wrong password.
        if not name or "\0" in name:
            return None
        begun = asyncio.get_running_loop().time()
        address = handler.request.remote_ip if handler is not None else ""
        try:
            answer = await self._logins.check(name, address, lambda: self._ask(handler, {**data, "username": name}))
        except TooMany as error:
            self.log.warning("Login of %r from %s is not looked at: %s", name, address, error)
            refused = web.HTTPError(429, str(error))
            refused.headers = {"Retry-After": str(error.seconds)}
            raise refused from error
        if answer is None:
            await asyncio.sleep(begun + pam_delay.DELAY - asyncio.get_running_loop().time())
        return answer

    async def _ask(self, handler: Any, data: dict[str, str]) -> str | None:
        """Ask PAM, about accounts that there are: a made-up name costs nothing."""
        if not await asyncio.wrap_future(self.executor.submit(_exists, data["username"])):
            return None
        return await super().authenticate(handler, data)

    async def get_authenticated_user(self, handler: Any, data: dict[str, str]) -> dict[str, Any] | None:
        """Let somebody in, with a new session.

        Args:
            handler: the login handler, or the one that makes a token for a password.
            data: the form.
        """
        found = await super().get_authenticated_user(handler, data)
        if not found or handler is None:
            return found
        known = handler.find_user(found["name"])
        if known is None:
            # Their cookie is made a moment later, and then with what is known now.
            known = handler.user_from_username(found["name"])
            await maybe_future(self.add_user(known))
        await self.match_sessions(known, handler.db, login=True)
        if isinstance(handler, LoginHandler):
            # Not the id that the browser came with: somebody else may have put it there.
            handler._session_id = uuid.uuid4().hex
            handler.set_session_cookie()
        return found

    async def match_sessions(self, user: Any, db: Any, *, login: bool = False) -> bool:
        """End a person's sessions when their password is another one than these began with.

        Args:
            user: the hub's user.
            db: the hub's database session.
            login: whether they are logging in.

        Returns:
            Whether they go on.
        """
        if self._cookie_secret is None:
            return True
        now = await asyncio.to_thread(sessions.digest, user.name, self._cookie_secret)
        if sessions.agrees(user, now, login=login):
            return True
        ended = sessions.end(db, user, now)
        self.log.info("Password of %s is a new one to the hub: their sessions end (%d tokens)", user.name, ended)
        return False

    async def check_blocked_users(self, username: str, authentication: dict[str, Any] | None = None) -> bool:
        """Refuse names that are blocked and accounts that are not a person's.

        This is the one check that JupyterHub makes at every login: with ``allow_all`` set it never calls
        ``check_allowed``.

        Raises:
            web.HTTPError: 403, with a sentence for the person.
        """
        if not super().check_blocked_users(username, authentication):
            return False
        await self.check_account_of(username)
        return True

    async def check_account_of(self, username: str) -> None:
        """Check that a name is exactly a real person's account.

        Raises:
            web.HTTPError: 403, with a sentence for the person; the reason goes to the log.
        """
        try:
            # In a thread: the account database may be a directory service on the network.
            await asyncio.to_thread(find_account, username)
        except AccountError as error:
            self.log.warning("Login of %r refused: %s", username, error.reason)
            raise web.HTTPError(403, error.message) from error

    async def refresh_user(self, user: Any, handler: Any = None) -> bool:
        """Tell whether a logged-in person's account still allows them in.

        Args:
            user: the hub's user.
            handler: the current request.

        Returns:
            False when it does not: JupyterHub then asks them to log in again.

        Raises:
            web.HTTPError: 403, with a sentence for the person, when it is about a start.
        """
        try:
            # Without the home: a file server that is slow for a moment must not log everybody out.
            await asyncio.to_thread(find_entry, user.name)
        except AccountError as error:
            # A request that has been let in has scopes; one whose sender is being looked at has none yet.
            if getattr(handler, "expanded_scopes", None):
                self.log.warning("Start for %r refused: %s", user.name, error.reason)
                raise web.HTTPError(403, error.message) from error
            self.log.warning("User %r logged out: %s", user.name, error.reason)
            return False
        if handler is None or await self.match_sessions(user, getattr(handler, "db", None)):
            return True
        sender = getattr(handler, "_jupyterhub_user", None)
        if sender is not None and (sender.kind, sender.name) != ("user", user.name):
            # It is about a start for somebody else.
            return True
        # Tokens of programs go on; the cookie or the token of a session that came with this request is gone.
        token = handler.get_token()
        return token is not None and token.session_id is None


def _exists(name: str) -> bool:
    """Whether there is an account of this name."""
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        return False
    return True
