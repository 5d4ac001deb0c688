"""PAM authentication for real people."""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jupyterhub.auth import PAMAuthenticator
from jupyterhub.handlers.login import LoginHandler
from jupyterhub.utils import maybe_future
from tornado import web
from traitlets import Unicode, default

from . import accounts, homes, limits, operators, pam, pam_words, sessions, settings
from .access import AccessError, Store
from .accounts import Account, AccountError, find_account, find_entry, group_names
from .logins import AT_ONCE, Logins, TooMany
from .pending import Pending, Unfinished, Waiting

# Characters of a name, as the hub's database has it (a directory's may be user@domain), and bytes of whatever else is
# entered: PAM itself takes 512.
LONGEST_NAME = 255
LONGEST = 1024


class PlasmaPAMAuthenticator(PAMAuthenticator):
    """Log in with the password of a system account that belongs to a person.

    The account is checked when somebody logs in, whatever the allow rules say, again while they are logged in (their
    account may be gone by then), and once more by the spawner when a server starts.
    """

    home_path = Unicode(
        "/home", config=True, help="Directory below which homes of a directory's people are made, beside /home."
    )

    # The hub's secret for its cookies, once there is a hub.
    _cookie_secret: bytes | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._logins = Logins()
        self._pending = Pending(lambda one: self._logins.wrong(one.written.lower(), one.name, one.address))
        # Look-ups of names that anybody may write: a directory that is slow for them must not hold up anything else.
        self._names = ThreadPoolExecutor(AT_ONCE, "names")
        # Names of accounts as they were when their people logged in.
        self._canonical: set[str] = set()
        # Whether PAM has ever asked for more than a password.
        self._asks_for_more = False

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
        from . import bounds, handlers, passwords, renames
        from .administrators import PATH, AdministratorsHandler

        limits.protect_hub()
        bounds.hold()
        bounds.tidy(app.db)
        operators.forget_old_tokens(app)
        handlers.check_bodies()
        self._cookie_secret = app.cookie_secret
        ours = [*passwords.HANDLERS, (PATH, AdministratorsHandler), *renames.HANDLERS]
        # Before JupyterHub's: theirs for logins is among them.
        return [*ours, *bounds.HANDLERS, *handlers.HANDLERS, *super().get_handlers(app)]

    def normalize_username(self, username: str) -> str:
        """Return the name of the account that is meant: as it was written where there is one of that name, or else in
        lower case.

        Accounts "hans" and "Hans" are two people. Whoever has just logged in keeps their name, also where the account
        database does not answer a moment later.

        Args:
            username: as somebody wrote it.
        """
        if username in self._canonical:
            return username
        # Also one in lower case: a directory has other spellings, such as "example\\fred".
        name = accounts.canonical(username) or username.lower()
        return self.username_map.get(name, name)

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """Check name and password through PAM, or go on with a login that it has begun.

        PAM is asked about the name that the account has, which is the one JupyterHub goes on with. Otherwise the
        password of an account "Hans" would open the hub as "hans".

        Args:
            handler: the login handler.
            data: the form, with ``username`` and ``password``; or with ``dialogue``, the key of a login that waits, and
                what was asked for.

        Returns:
            The name, or None when the password is wrong or there is no such account.

        Raises:
            web.HTTPError: 429, with a sentence for the person, when too many wrong ones came before; 403, with one,
                when the password is right and the account may not log in.
            Unfinished: the login page has to ask for more.
        """
        if not all(isinstance(text, str) and len(text.encode(errors="replace")) <= LONGEST for text in data.values()):
            return None
        address = handler.request.remote_ip if handler is not None else ""
        begun = asyncio.get_running_loop().time()
        waiting = None
        if "dialogue" in data:
            if not isinstance(handler, LoginHandler):
                # A program has no page to go on from.
                return None
            waiting = self._pending.take(data["dialogue"])
            if waiting is None:
                raise web.HTTPError(403, pam_words.TOO_LATE)
            name = waiting.written
        else:
            name = data.get("username", "")
            # No such name is no reason for another answer than a wrong password.
            if "password" not in data or not name or len(name) > LONGEST_NAME or "\0" in name:
                return None

        async def ask() -> str | None:
            nonlocal waiting
            if waiting is None:
                return await self._begin(name, data, address)
            going, waiting = waiting, None
            if going.talk is not None and self._logins.blocked(going.name, address):
                going.real = False
            answer = await self._go_on(handler, going, data)
            self._logins.also(going.name, address, bool(answer))
            return answer

        try:
            answer = await self._logins.check(name.lower(), address, ask)
        except TooMany as error:
            self.log.warning("Login of %r from %s is not looked at: %s", name, address, error)
            refused: Any = web.HTTPError(429, str(error))
            refused.headers = {"Retry-After": str(error.seconds)}
            raise refused from error
        except Unfinished as unfinished:
            if isinstance(handler, LoginHandler):
                raise
            # A program has no page for it.
            self._pending.end(unfinished.key)
            if unfinished.waiting.talk is None:
                raise web.HTTPError(403, pam_words.MUST_CHANGE) from None
            self.log.warning("PAM asks more of %r than a program can answer", name)
            answer = None
        finally:
            if waiting is not None:
                # Its turn did not come.
                self._pending.give_up(waiting)
        if answer is None:
            await asyncio.sleep(begun + pam_words.DELAY - asyncio.get_running_loop().time())
        else:
            self._canonical.add(answer)
        return answer

    async def _begin(self, written: str, data: dict[str, str], address: str) -> str | None:
        """Ask PAM, about accounts that there are: a made-up name costs a look at the database.

        Where PAM asks for more than a password it is asked about every name, so that the question tells nothing.
        """
        mapped = self.username_map.get(written.lower(), written)
        found = await asyncio.get_running_loop().run_in_executor(self._names, accounts.canonical, mapped)
        name = found or written.lower()
        real = found is not None and not self._logins.blocked(name, address)
        if found and not real:
            self.log.warning("Password of %r is not looked at: too many wrong ones, by several names", name)
        if not (real or self._asks_for_more):
            return None
        given = pam.Given(data["password"], data.get("otp", ""))
        stages = ["password", *(["account"] if self.check_account else [])]
        talk = await pam.Conversation.start(self.service, name, stages)
        known = self._logins.knows(written.lower(), address)
        answer = await self._until(Waiting(name, written, address, given, talk, real=real, known=known))
        self._logins.also(name, address, bool(answer))
        return answer

    async def _go_on(self, handler: Any, waiting: Waiting, data: dict[str, str]) -> str | None:
        """Give PAM what it asked for, or change the password."""
        if waiting.talk is not None:
            answers = [data.get(f"answer-{number}", "") for number in range(len(waiting.prompts))]
            return await self._until(waiting, waiting.complete(answers))
        new, again = data.get("new_password", ""), data.get("new_password_again", "")
        try:
            if new != again:
                raise pam.NotChanged(pam_words.NOT_THE_SAME)
            entry = await asyncio.to_thread(find_entry, waiting.name)
            await pam.change(waiting.name, entry.pw_uid, waiting.given.password, new, proved=True)
        except AccountError as error:
            raise web.HTTPError(403, error.message) from error
        except pam.NotChanged as error:
            self.log.warning("Password of %r is not changed: %s", waiting.name, error)
            raise Unfinished(self._pending.add(waiting), waiting, str(error)) from None
        self.log.info("%s changed their password at the login", waiting.name)
        # Only now have all the rules about accounts been asked: the first one that wants a new password is the last.
        talk = await pam.Conversation.start(self.service, waiting.name, ["account"])
        try:
            step, _ = await pam.go_on(talk, await talk.step(), pam.Given(new))
        finally:
            await talk.end()
        if step.code != pam_words.SUCCESS:
            self.log.warning("PAM refuses %r now: %s", waiting.name, pam_words.name_of(step.code))
            raise await asyncio.to_thread(_refusal, waiting.name, step)
        known = handler.find_user(waiting.name) if handler is not None else None
        if known is not None:
            sessions.end(handler.db, known, None, programs=True)
        return waiting.name

    async def _until(self, waiting: Waiting, answers: list[str] | None = None) -> str | None:
        """Answer PAM, first what it has asked already, until it is done or needs the person."""
        talk = waiting.talk
        assert talk is not None
        kept = False
        try:
            step, known = await pam.go_on(talk, await talk.step(answers), waiting.given)
            if step.code is None:
                self._asks_for_more = kept = True
                waiting.asked, waiting.answers, waiting.said = step.asked, known, step.said
                raise Unfinished(self._pending.add(waiting), waiting)
        finally:
            if not kept:
                await talk.end()
        if step.code == pam_words.SUCCESS and waiting.real:
            return waiting.name
        name = waiting.name if len(waiting.name) <= 32 else f"{waiting.name[:16]}..."
        self.log.warning("PAM refuses %r from %s: %s", name, waiting.address, pam_words.name_of(step.code))
        if step.stage != "account" or not waiting.real:
            return None
        if step.code == pam_words.NEW_AUTHTOK_REQD:
            change = Waiting(waiting.name, waiting.written, waiting.address, waiting.given, said=step.said)
            raise Unfinished(self._pending.add(change), change)
        raise await asyncio.to_thread(_refusal, waiting.name, step)

    async def change_password(self, user: Any, address: str, current: str, new: str) -> None:
        """Change the password of somebody who is logged in. Wrong current ones count as those at a login do.

        Args:
            user: the hub's user.
            address: from where.
            current: the password that the account has.
            new: the one that it is to have.

        Raises:
            pam.NotChanged: it is as it was.
            TooMany: nothing was tried.
        """

        async def ask() -> bool:
            nonlocal refused
            try:
                entry = await asyncio.to_thread(find_entry, user.name)
                await pam.change(user.name, entry.pw_uid, current, new)
            except AccountError as error:
                raise pam.NotChanged(error.message) from error
            except pam.NotChanged as error:
                if not error.wrong:
                    raise
                refused = error
                return False
            return True

        refused: pam.NotChanged | None = None
        begun = asyncio.get_running_loop().time()
        if not await self._logins.check(user.name.lower(), address, ask):
            await asyncio.sleep(begun + pam_words.DELAY - asyncio.get_running_loop().time())
            assert refused is not None
            raise refused
        self.log.info("%s changed their password", user.name)

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
            await asyncio.to_thread(self._account_of, username)
        except AccountError as error:
            self.log.warning("Login of %r refused: %s", username, error.reason)
            raise web.HTTPError(403, error.message) from error

    async def is_admin(self, handler: Any, authentication: dict[str, Any]) -> bool | None:
        """Tell whether somebody who logs in administers the hub: by name, or as a member of one of ``admin_groups``.

        JupyterHub's own answer takes the ids that a directory gives its people for those of this server's groups.

        Args:
            handler: the login handler.
            authentication: with the ``name``.

        Returns:
            None for what the hub knows already, where no group makes administrators.
        """
        return await asyncio.to_thread(self._administers, authentication["name"])

    def _administers(self, name: str) -> bool | None:
        if name in self.admin_users:
            return True
        if not self.admin_groups:
            return None
        return not self.admin_groups.isdisjoint(group_names(name, self.admin_groups))

    def _account_of(self, username: str) -> Account:
        """Return somebody's account, with a home; raises AccountError."""
        if homes.ensure(username, [self.home_path]):
            self.log.info("Made the home of %r, who comes for the first time", username)
        return find_account(username)

    def delete_user(self, user: Any) -> None:
        """Forget which environments somebody has used, whom the hub forgets."""
        super().delete_user(user)
        try:
            Store(settings.load().database).forget_user(user.name)
        except (AccessError, settings.SettingsError) as error:
            self.log.warning("What %s has used is not forgotten: %s", user.name, error)

    async def refresh_user(self, user: Any, handler: Any = None) -> bool | dict[str, Any]:
        """Tell whether a logged-in person's account still allows them in.

        Args:
            user: the hub's user.
            handler: the current request.

        Returns:
            False when it does not: JupyterHub then asks them to log in again. What changes about them, where their
            groups make them an administrator, or none any more.

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
            # Groups change without a login.
            admin = await asyncio.to_thread(self._administers, user.name) if self.admin_groups else None
            return True if admin is None or admin == user.admin else {"name": user.name, "admin": admin}
        sender = getattr(handler, "_jupyterhub_user", None)
        if sender is not None and (sender.kind, sender.name) != ("user", user.name):
            # It is about a start for somebody else.
            return True
        # Tokens of programs go on; the cookie or the token of a session that came with this request is gone.
        token = handler.get_token()
        return token is not None and token.session_id is None


def _refusal(name: str, step: pam.Step) -> web.HTTPError:
    """What to say to somebody whose password is right and whom PAM does not let in; it may block."""
    code = step.code
    # Debian's stack turns what pam_unix answers into that of pam_deny.
    if code == pam_words.AUTH_ERR:
        if accounts.expired(name):
            code = pam_words.ACCT_EXPIRED
        elif accounts.password_over(name):
            code = pam_words.AUTHTOK_EXPIRED
    return web.HTTPError(403, pam_words.after_password(code, step.said))
