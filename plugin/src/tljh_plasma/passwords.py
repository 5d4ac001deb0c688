"""Pages that ask for passwords: the login, with as many questions as PAM has, and the change of one's own."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.login import LoginHandler
from tornado import web

from . import pam, pam_words, sessions
from .logins import TooMany
from .pending import Unfinished

# What JupyterHub says in its own words.
_INVALID = "Invalid username or password"


class Login(LoginHandler):
    """JupyterHub's page, with the questions of PAM and with its reasons."""

    async def post(self) -> None:
        """Log in, or ask for what is missing."""
        try:
            await super().post()
        except Unfinished as unfinished:
            waiting = unfinished.waiting
            if unfinished.problem:
                self.set_status(400)
            self.finish(
                await self._render(
                    login_error=unfinished.problem or None,
                    username=waiting.written,
                    plasma_login=unfinished.key,
                    plasma_prompts=waiting.prompts,
                    plasma_said=waiting.said,
                    plasma_change=waiting.talk is None,
                )
            )

    def _render(self, login_error: str | None = None, username: str | None = None, **values: Any) -> Any:
        if login_error == _INVALID:
            login_error = pam_words.closed() or pam_words.INVALID
        return super()._render(login_error=login_error, username=username, **values)


class Password(BaseHandler):
    """The page on which people change their own password, with the cookie of their browser: no token opens it."""

    @web.authenticated
    async def get(self) -> None:
        """Show the form."""
        await self._show()

    @web.authenticated
    async def post(self) -> None:
        """Change it, and end all sessions but this one."""
        user = self.current_user
        current, new, again = (
            self.get_body_argument(name, "", strip=False) for name in ("password", "new_password", "new_password_again")
        )
        try:
            if new != again:
                raise pam.NotChanged(pam_words.NOT_THE_SAME)
            await self.authenticator.change_password(user, self.request.remote_ip, current, new)
        except pam.NotChanged as error:
            self.log.warning("Password of %r is not changed: %s", user.name, error)
            self.set_status(400)
            await self._show(problem=str(error))
            return
        except TooMany as error:
            self.set_status(429)
            self.set_header("Retry-After", str(error.seconds))
            await self._show(problem=str(error))
            return
        now = await asyncio.to_thread(sessions.digest, user.name, self.authenticator._cookie_secret or b"")
        sessions.end(self.db, user, now, programs=True)
        # This browser goes on, with a session that nobody else has.
        self._session_id = uuid.uuid4().hex
        self.set_session_cookie()
        self.set_login_cookie(user)
        await self._show(changed=True)

    async def _show(self, problem: str = "", changed: bool = False) -> None:
        self.finish(await self.render_template("password.html", problem=problem, changed=changed))


HANDLERS = [(r"/login", Login), (r"/password", Password)]
