"""What administrators of the hub may do to other people's servers: enter them where pillar lets them, and never those
of accounts that may become root.

JupyterHub has scopes for some people or for everybody, and none for "everybody but". It asks for scopes in a hundred
places. So what a request holds is narrowed here, once, before any handler sees it: for pages, the API, OAuth and the
answers that people's servers get about visitors alike, handlers of other plugins and of later releases included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import privileged
from .accounts import canonical, group_names
from .settings import ADMINISTRATORS

# On somebody else these are as good as a login: to start their server, to enter it, to act as them, to let others in,
# and to read what the hub keeps secret about them.
GUARDED = frozenset(
    {"servers", "access:servers", "tokens", "shares", "admin:servers", "admin:server_state", "admin:auth_state"}
)
# For people at all: services and the proxy are what root configures. With the first one adds a service that gets tokens
# of its visitors without a question, or a route to the host's inner ports; with the second one moves the proxy.
NEVER = frozenset({"admin:services", "proxy"})
ENTER = "access:servers"
# At the end of the note of every token that somebody else made: nobody can change a note.
MADE_BY = re.compile(r".*(?:\A|[ (])[Rr]equested(?: via api)? by (user|service) (.+)\Z", re.DOTALL)


@dataclass(frozen=True)
class Entering:
    """Who of the administrators may enter other people's servers.

    Attributes:
        everybody: all of them.
        names: these, where not all may.
        groups: and members of these UNIX groups.
    """

    everybody: bool = True
    names: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    @classmethod
    def of(cls, entries: Iterable[str]) -> Entering:
        """Return it for the entries of the setting ``plasma.enter_servers``."""
        entries = list(entries)
        return cls(
            ADMINISTRATORS in entries,
            frozenset(entry for entry in entries if not entry.startswith("%")),
            frozenset(entry[1:] for entry in entries if entry.startswith("%")),
        )

    def ask(self, name: str) -> bool:
        """Tell whether an administrator may; it may block."""
        if self.everybody or name in self.names:
            return True
        # A directory may have another spelling than whoever wrote the settings.
        return name in map(canonical, self.names) or not self.groups.isdisjoint(group_names(name, self.groups))


class AllBut:
    """The names of everybody but those who may become root, as a set that knows only ``in``.

    Args:
        own: the name of whoever asks, who may do everything to themselves.
    """

    def __init__(self, own: str) -> None:
        self._key = (own, privileged.accounts.generation)
        self._own = own

    def __contains__(self, name: object) -> bool:
        return name == self._own or not privileged.accounts.answer(str(name))

    # JupyterHub keeps conclusions by these: they must not outlive what is known about accounts.
    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AllBut) and self._key == other._key

    def __iter__(self) -> Any:
        raise TypeError("everybody but some cannot be listed")


def maker_of(note: str | None) -> tuple[str, str] | None:
    """Return who made a token for somebody else: "user" or "service", and the name; None when nobody else did.

    Args:
        note: the token's note.
    """
    found = MADE_BY.match(note or "")
    return (found[1], found[2].removesuffix(")")) if found else None


def _target(scope: str) -> str:
    """The name that a scope is limited to, or an empty text."""
    _, _, limit = scope.partition("!")
    kind, _, value = limit.partition("=")
    return value.partition("/")[0] if kind in ("user", "server") else ""


class Gate:
    """Narrows what requests hold.

    Args:
        entering: who of the administrators may enter other people's servers.
    """

    def __init__(self, entering: Entering) -> None:
        self.entering = privileged.Remembered(entering.ask, False)

    async def look(self, handler: Any) -> None:
        """Find out about everybody whom a request may be about, before it is decided.

        Args:
            handler: the request's handler, which knows who sent it.
        """
        from jupyterhub import scopes

        user, token = handler.current_user, handler.get_token()
        held = scopes.get_scopes_for(token or user)
        own = user.name if user.kind == "user" else ""
        guarded = {scope for scope in held if scope.partition("!")[0] in GUARDED}
        names = {_target(scope) for scope in guarded} - {own}
        makers = []
        if any("!" not in scope or "!group=" in scope for scope in guarded):
            names |= {*self._of_path(handler), *self._of_client(handler), *self._active(handler)}
            makers.append(own)
        maker = maker_of(token.note) if token is not None else None
        if maker:
            names.add(own)
            makers.append(maker[1])
        await privileged.accounts.look(name for name in names if name)
        await self.entering.look(name for name in makers if name)

    @staticmethod
    def _of_path(handler: Any) -> set[str]:
        """Whatever in a request's path could be a name."""
        return {part for part in (*handler.path_args, *handler.path_kwargs.values()) if isinstance(part, str) and part}

    @staticmethod
    def _of_client(handler: Any) -> set[str]:
        """The owner of the server whose visitor is asked to let it know them."""
        from jupyterhub import orm

        name = handler.get_argument("client_id", "")
        client = handler.db.query(orm.OAuthClient).filter_by(identifier=name).first() if name else None
        return {client.spawner.user.name} if client is not None and client.spawner is not None else set()

    @staticmethod
    def _active(handler: Any) -> set[str]:
        """Everybody with a server, where a server may be asking about a visitor; nobody elsewhere."""
        from jupyterhub.apihandlers.users import SelfAPIHandler

        if not isinstance(handler, SelfAPIHandler):
            return set()
        return {user.name for user in handler.users.values() if user.active}

    def narrow(self, handler: Any) -> tuple[set[str], dict[str, Any]]:
        """Return the scopes of a request, as JupyterHub's expanded set and as its parsed form.

        Args:
            handler: the request's handler, after ``look``.
        """
        from jupyterhub import orm, scopes

        user, token = handler.current_user, handler.get_token()
        if user is None:
            return set(), scopes.parse_scopes(frozenset())
        owner = user if isinstance(user, orm.Base) else user.orm_user
        own = owner.name if owner.kind == "user" else ""
        kept, wide = self._split(handler, scopes.get_scopes_for(owner), own)
        if token is not None:
            if own and self._is_foreign(token, own):
                handler.log.warning("A token of %s opens nothing: somebody else made it (%s)", own, token.note)
                return set(), scopes.parse_scopes(frozenset())
            allowed = self._parsed(kept, wide, own)
            mine, wide_mine = self._split(handler, scopes.get_scopes_for(token), own)
            # What a token was given when its owner had more is no more than they have now.
            kept = {
                scope
                for scope in mine
                if scope.partition("!")[0] not in GUARDED or scopes.has_scope(scope, allowed, db=handler.db)
            }
            wide &= wide_mine
        parsed = self._parsed(kept, wide, own)
        # A server that asks about its visitor decides by these: no word in them for everybody's.
        shown = kept | (wide - {ENTER})
        if ENTER in wide:
            names = parsed[ENTER]["user"]
            shown |= {f"{ENTER}!user={name}" for name in {own, *self._active(handler)} if name and name in names}
        return shown, parsed

    def _is_foreign(self, token: Any, own: str) -> bool:
        """Whether somebody else made a token who may not act as its owner."""
        maker = maker_of(token.note)
        if maker is None or maker == ("user", own):
            return False
        return bool(privileged.accounts.answer(own)) or (maker[0] == "user" and not self.entering.answer(maker[1]))

    def _split(self, handler: Any, held: Iterable[str], own: str) -> tuple[set[str], set[str]]:
        """Return the scopes that hold as they are, and those for everybody but accounts that may become root."""
        from jupyterhub import orm

        kept, wide = set(), set()
        everybody = AllBut(own)
        for scope in held:
            base, _, limit = scope.partition("!")
            if own and base in NEVER:
                continue
            if base not in GUARDED or limit.startswith("service="):
                kept.add(scope)
            elif not limit:
                wide.add(base)
            elif limit.startswith("group="):
                group = orm.Group.find(handler.db, limit.removeprefix("group="))
                members = {member.name for member in group.users} if group else set()
                kept |= {f"{base}!user={name}" for name in members if name in everybody}
            elif _target(scope) in everybody:
                kept.add(scope)
        if own:
            kept |= {f"{base}!user={own}" for base in wide}
            if not self.entering.answer(own):
                wide = set()
        return kept, wide

    @staticmethod
    def _parsed(kept: set[str], wide: set[str], own: str) -> dict[str, Any]:
        from jupyterhub import scopes
        from jupyterhub._memoize import FrozenDict

        parsed = dict(scopes.parse_scopes(frozenset(kept)))
        for base in wide:
            parsed[base] = {**(parsed.get(base) or {}), "user": AllBut(own)}
        return FrozenDict(parsed)


_gate: Gate | None = None


def install(entering: Entering) -> None:
    """Put the gate before every handler of JupyterHub's.

    Args:
        entering: who of the administrators may enter other people's servers.

    Raises:
        RuntimeError: this release of JupyterHub finds out about requests in another way.
    """
    from jupyterhub.handlers.base import BaseHandler

    global _gate
    first = _gate is None
    _gate = Gate(entering)
    if not first:
        return
    find = getattr(BaseHandler, "get_current_user", None)
    if find is None or not hasattr(BaseHandler, "_resolve_roles_and_scopes"):
        # Without the gate an administrator is root: better no hub.
        raise RuntimeError("JupyterHub has no place for the plugin's gate: install the release that belongs to it.")

    async def get_current_user(self: Any) -> Any:
        known = hasattr(self, "_jupyterhub_user")
        user = await find(self)
        if user is not None and not known:
            await _gate.look(self)
        return user

    def _resolve_roles_and_scopes(self: Any) -> None:
        self.expanded_scopes = set()
        self.expanded_scopes, self.parsed_scopes = _gate.narrow(self)

    BaseHandler.get_current_user = get_current_user
    BaseHandler._resolve_roles_and_scopes = _resolve_roles_and_scopes
