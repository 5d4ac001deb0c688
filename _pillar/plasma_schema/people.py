"""
Sections about people: users, groups, admins, quotas.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from .base import Found, Rule, Section, option, refuse
from .names import GroupName, Membership, UserName
from .rules import DataDirectory, DiskSize, FullName, ServerPath, pattern, size_bytes


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
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise refuse("has a line break or another control character")
    return text


Password = Annotated[str, AfterValidator(_password), Rule("one line of text of at most 256 characters")]
PasswordHash = pattern(
    r"\$(?:y|gy|7|2[aby]|6|5)\$[A-Za-z0-9./$=,+-]{10,}",
    "a hash in crypt(3) format: yescrypt ($y$), bcrypt ($2b$), SHA-512 ($6$) or SHA-256 ($5$)",
    hint="is not a hash of an accepted kind",
)
Device = pattern(
    r"/dev/[A-Za-z0-9._/+:-]+|(?:UUID|PARTUUID)=[A-Fa-f0-9-]+|(?:LABEL|PARTLABEL)=[A-Za-z0-9._+-]+",
    "a device as fstab names it: /dev/NAME, UUID=..., PARTUUID=..., LABEL=... or PARTLABEL=...",
    hint="is not the name of a device",
)


class Inodes(Section):
    soft: int | None = option(
        None, ge=0, le=10**12, unit="files", example=200000, description="Soft limit; 0 is no limit."
    )
    hard: int | None = option(
        None, ge=0, le=10**12, unit="files", example=250000, description="Hard limit; 0 is no limit."
    )

    def found(self) -> Iterable[Found]:
        if self.soft and self.hard and self.soft > self.hard:
            yield Found(("soft",), f"is more than the hard limit {self.hard}")


class Quota(Section):
    soft: DiskSize | None = option(
        None,
        unit="bytes",
        example="10G",
        description="Disk space a user may exceed for the time of `grace`; `0K` is no limit, null leaves it alone.",
    )
    hard: DiskSize | None = option(
        None,
        unit="bytes",
        example="12G",
        description="Disk space a user can never exceed; `0K` is no limit, null leaves it alone.",
    )
    inodes: Inodes = option(
        Inodes, example={"soft": 200000, "hard": 250000}, description="Limits of the number of files."
    )

    def found(self) -> Iterable[Found]:
        if self.soft and self.hard and 0 < size_bytes(self.hard) < size_bytes(self.soft):
            yield Found(("soft",), f"is more than the hard limit {self.hard}")


class DefaultQuota(Quota):
    grace: int | None = option(
        None,
        ge=60,
        le=31_536_000,
        unit="seconds",
        example=604800,
        description="How long a soft limit may be exceeded; null keeps the system's seven days.",
    )


class Quotas(Section):
    enabled: bool = option(False, example=True, description="Whether disk quotas are switched on on the server.")
    device: Device | None = option(
        None,
        example="LABEL=cloudimg-rootfs",
        description="The file system that holds the homes; null finds it.",
    )


class Group(Section):
    name: GroupName = option(example="biology", description="Name of the group.")
    gid: int | None = option(
        None, ge=1000, le=60000, example=2000, description="Group id; null lets the system choose one."
    )
    quota: Quota | None = option(
        None, example={"hard": "20G"}, description="Quota of each member, over `plasma.quota`."
    )
    absent: bool = option(False, example=True, description="Remove the group.")


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


GroupEntry = Annotated[Group, BeforeValidator(_named)]


class User(Section):
    name: UserName = option(example="anna", description="Login name.")
    password: Password | None = option(
        None,
        secret=True,
        example="correct horse battery",
        description="Password in plain text. It never leaves the controller.",
    )
    password_hash: PasswordHash | None = option(
        None,
        secret=True,
        example="$y$j9T$ZkZ3ZkZ3ZkZ3ZkZ3ZkZ3Z.$0123456789abcdefghijklmnopqrstuvwxyzABCDEFG",
        description="The password as a ready hash, in place of `password` (`mkpasswd -m yescrypt` makes one).",
    )
    groups: list[Membership] = option(list, example=["biology"], description="Supplementary groups.")
    admin: bool = option(False, example=True, description="Administrator of the hub, with sudo on the server.")
    quota: Quota | None = option(None, example={"soft": "512M", "hard": "1G"}, description="Quota, over all others.")
    shell: ServerPath = option("/bin/bash", example="/bin/zsh", description="Login shell.")
    uid: int | None = option(
        None, ge=1000, le=60000, example=1500, description="User id; null lets the system choose one."
    )
    fullname: FullName | None = option(None, example="Anna Example", description="Name of the person.")
    home: DataDirectory | None = option(
        None, example="/srv/homes/anna", description="Home directory; null is the name below the system's /home."
    )
    absent: bool = option(False, example=True, description="Remove the account; its home is kept.")
    remove_home: bool = option(False, example=True, description="With `absent`: remove the home too, for good.")

    def found(self) -> Iterable[Found]:
        if self.password is not None and self.password_hash is not None:
            yield Found(("password",), "is set beside password_hash: keep one of them")
        if self.absent and self.admin:
            yield Found(("admin",), "contradicts `absent: true`")
        yield from repeated(self.groups, "groups")
