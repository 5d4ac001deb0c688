"""
Sections about people: users and groups.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from .base import Found, Rule, Section, option, refuse
from .names import GroupName, Membership, UserName
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
        raise refuse("is empty")
    if len(text) > 256:
        raise refuse("is longer than 256 characters")
    try:
        # PAM and crypt(3) end at 511 bytes.
        if len(text.encode()) > 500:
            raise refuse("is longer than 500 bytes in UTF-8")
    except UnicodeEncodeError:
        raise refuse("has half a character, which UTF-8 cannot hold") from None
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise refuse("has a line break or another control character")
    return text


Password = Annotated[str, AfterValidator(_password), Rule("one line of text of at most 256 characters")]
PasswordHash = pattern(
    r"\$(?:y|gy|7|2[aby]|6|5)\$[A-Za-z0-9./$=,+-]{10,}",
    "a hash in crypt(3) format: yescrypt ($y$), bcrypt ($2b$), SHA-512 ($6$) or SHA-256 ($5$)",
    hint="is not a hash of an accepted kind",
)


class Group(Section):
    name: GroupName = option(example="biology", description="Name of the group.")
    gid: int | None = option(
        None, ge=1000, le=60000, example=2000, description="Group id; null lets the system choose one."
    )
    quota: Quota | None = option(
        None,
        example={"hard": "20G"},
        description="Quota of each member, over `plasma.quota`; of several groups of a user the largest counts.",
    )
    total: Quota | None = option(
        None,
        example={"hard": "500G"},
        description="Quota of the group as a whole: of all files together that belong to this group.",
    )
    absent: bool = option(
        False, example=True, description="Remove the group. No user and no environment may name it any more."
    )


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


GroupEntry = Annotated[Group, BeforeValidator(_named)]


PasswordPolicy = Literal["on_create", "enforce"]


class User(Section):
    name: UserName = option(example="anna", description="Login name.")
    password: Password | None = option(
        None,
        secret=True,
        example="correct horse battery",
        description="Password in plain text. It never leaves the controller, which makes a hash of it. Without a "
        "password nobody can log in to the account with one.",
    )
    password_hash: PasswordHash | None = option(
        None,
        secret=True,
        example="$y$j9T$ZkZ3ZkZ3ZkZ3ZkZ3ZkZ3Z.$0123456789abcdefghijklmnopqrstuvwxyzABCDEFG",
        description="The password as a ready hash, in place of `password` (`mkpasswd -m yescrypt` makes one).",
    )
    password_policy: PasswordPolicy | None = option(
        None,
        shown_default="`plasma.password_policy`",
        example="enforce",
        description="The policy for this user alone. `enforce` for one apply resets a password that was forgotten.",
    )
    groups: list[Membership] = option(
        list,
        example=["biology"],
        description="Supplementary groups. One that nobody declared in `plasma.groups` is made; one of the system, "
        "such as `video`, or `sudo` for administrators of the server, must exist there.",
    )
    admin: bool = option(
        False,
        example=True,
        description="Administrator of the hub, as if named in `plasma.admins`. It gives no rights on the server: "
        "that is `groups: [sudo]`.",
    )
    quota: Quota | None = option(
        None,
        example={"soft": "512M", "hard": "1G"},
        description="Quota, over that of groups and `plasma.quota`, key by key.",
    )
    shell: ServerPath = option("/bin/bash", example="/bin/zsh", description="Login shell.")
    uid: int | None = option(
        None,
        ge=1000,
        le=60000,
        example=1500,
        description="User id; null chooses one from 20000 on, which no image "
        "uses for its own files. Accounts that exist keep theirs.",
    )
    fullname: FullName | None = option(None, example="Anna Example", description="Name of the person.")
    home: DataDirectory | None = option(
        None,
        shown_default="`plasma.home_path`/NAME",
        example="/srv/homes/anna",
        description="Home directory. It may not be in, or around, that of another user.",
    )
    absent: bool = option(
        False,
        example=True,
        description="Remove the account; its home is kept in an archive. The entry's other keys may stay as they are.",
    )
    remove_home: bool = option(False, example=True, description="With `absent`: remove the home too, for good.")

    def found(self) -> Iterable[Found]:
        if self.password is not None and self.password_hash is not None:
            yield Found(("password",), "is set beside password_hash: keep one of them")
        if self.absent and self.admin:
            yield Found(("admin",), "contradicts `absent: true`")
        if self.remove_home and not self.absent:
            yield Found(("remove_home",), "needs `absent: true` beside it: only accounts that are removed lose a home")
        if self.password_policy and not self.absent and self.password is None and self.password_hash is None:
            yield Found(("password_policy",), "needs `password` or `password_hash` beside it: there is none to set")
        yield from repeated(self.groups, "groups")
