"""
Sections about people: users and groups.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from .base import Found, Section, checked, option
from .hub_rules import NotAllowed
from .names import GroupDeclared, Membership, UserName, group_anywhere, group_made
from .quotas import Quota
from .rules import DataDirectory, FullName, ServerPath, pattern


def repeated(values: Iterable[Any], where: str, *rest: str) -> Iterable[Found]:
    """One problem for each value that stands in the list `where` a second time; None does not count."""
    first: dict[Any, int] = {}
    for index, value in enumerate(values):
        if value is None:
            continue
        if value in first:
            yield Found((where, index, *rest), "is already the value of", (where, first[value], *rest))
        else:
            first[value] = index


def _password(text: str) -> str:
    if not text:
        raise NotAllowed("is empty")
    if len(text) > 256:
        raise NotAllowed("is longer than 256 characters")
    try:
        # PAM and crypt(3) end at 511 bytes.
        if len(text.encode()) > 500:
            raise NotAllowed("is longer than 500 bytes in UTF-8")
    except UnicodeEncodeError:
        raise NotAllowed("has half a character, which UTF-8 cannot hold") from None
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise NotAllowed("has a line break or another control character")
    return text


Password = checked(_password, "one line of text of at most 256 characters")
PasswordHash = pattern(
    r"\$(?:y|gy|7|2[aby]|6|5)\$[A-Za-z0-9./$=,+-]{10,}",
    "is not a hash of an accepted kind",
    "a hash in crypt(3) format: yescrypt ($y$), bcrypt ($2b$), SHA-512 ($6$) or SHA-256 ($5$)",
)


class Group(Section):
    name: GroupDeclared = option(example="biology")
    """Name of the group: lower-case letters, digits and . _ -, starting with a letter or a digit, at most 32, and no
    name of a system group. With `external`, as the directory has it."""
    external: bool = option(False, example=True)
    """The group is one of a directory, or of another source of accounts that the server asks (`getent group NAME` on
    the server shows it). It is not made here, and its members are kept there."""
    gid: int | None = option(None, ge=1000, le=60000, example=2000)
    """Group id; null lets the system choose one."""
    quota: Quota | None = option(None, example={"hard": "20G"})
    """Quota of each member, over `plasma.quota`; of several groups of a user the largest counts."""
    total: Quota | None = option(None, example={"hard": "500G"})
    """Quota of the group as a whole: of all files together that belong to this group."""
    absent: bool = option(False, example=True)
    """Remove the group. No user and no environment may name it any more."""

    def found(self) -> Iterable[Found]:
        if self.external:
            for name in ("gid", "absent"):
                if getattr(self, name):
                    yield Found((name,), "is set beside `external: true`: such a group is not made or removed here")
        try:
            (group_anywhere if self.external else group_made)(self.name)
        except NotAllowed as problem:
            hint = "" if self.external else " (one of a directory needs `external: true` beside it)"
            yield Found(("name",), f"{problem}{hint}")


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


GroupEntry = Annotated[Group, BeforeValidator(_named)]


PasswordPolicy = Literal["on_create", "enforce"]


class User(Section):
    name: UserName = option(example="anna")
    """Login name."""
    was: UserName | None = option(None, example="annette")
    """Former login name. The account of that name gets this one: with its password, home, groups, quota, and its rights
    and tokens at the hub. Where there is none, `was` does nothing, so it may stay."""
    password: Password | None = option(None, secret=True, example="correct horse battery")
    """Password in plain text. It never leaves the controller, which makes a hash of it. Without a password nobody can
    log in to the account with one."""
    password_hash: PasswordHash | None = option(
        None, secret=True, example="$y$j9T$ZkZ3ZkZ3ZkZ3ZkZ3ZkZ3Z.$0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
    )
    """The password as a ready hash, in place of `password` (`mkpasswd -m yescrypt` makes one)."""
    password_policy: PasswordPolicy | None = option(None, shown_default="`plasma.password_policy`", example="enforce")
    """The policy for this user alone. `enforce` for one apply resets a password that was forgotten."""
    groups: list[Membership] = option(list, example=["biology"])
    """Supplementary groups. One that nobody declared in `plasma.groups` is made; one of the system, such as `video`, or
    `sudo` for administrators of the server, must exist there."""
    admin: bool = option(False, example=True)
    """Administrator of the hub, as if named in `plasma.admins`. It gives no rights on the server: that is `groups:
    [sudo]`."""
    quota: Quota | None = option(None, example={"soft": "512M", "hard": "1G"})
    """Quota, over that of groups and `plasma.quota`, key by key."""
    shell: ServerPath = option("/bin/bash", example="/bin/zsh")
    """Login shell."""
    uid: int | None = option(None, ge=1000, le=60000, example=1500)
    """User id; null chooses one from 20000 on, which no image uses for its own files. Accounts that exist keep
    theirs."""
    fullname: FullName | None = option(None, example="Anna Example")
    """Name of the person."""
    home: DataDirectory | None = option(None, shown_default="`plasma.home_path`/NAME", example="/srv/homes/anna")
    """Home directory. It may not be in, or around, that of another user."""
    absent: bool = option(False, example=True)
    """Remove the account; its home is kept in an archive. The entry's other keys may stay as they are."""
    remove_home: bool = option(False, example=True)
    """With `absent`: remove the home too, for good."""

    def found(self) -> Iterable[Found]:
        if self.password is not None and self.password_hash is not None:
            yield Found(("password",), "is set beside password_hash: keep one of them")
        if self.absent and self.admin:
            yield Found(("admin",), "contradicts `absent: true`")
        if self.was == self.name:
            yield Found(("was",), "is the name itself")
        if self.remove_home and not self.absent:
            yield Found(("remove_home",), "needs `absent: true` beside it: only accounts that are removed lose a home")
        if self.password_policy and not self.absent and self.password is None and self.password_hash is None:
            yield Found(("password_policy",), "needs `password` or `password_hash` beside it: there is none to set")
        yield from repeated(self.groups, "groups")
