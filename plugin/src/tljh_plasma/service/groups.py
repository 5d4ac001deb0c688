"""UNIX groups that an environment can be given to."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from .errors import Refused
from .requests import shown


@dataclass(frozen=True)
class Group:
    """A group.

    Attributes:
        name: its name.
        exists: whether this server has it.
        members: how many accounts are in it; those whose primary group it is count.
        configured: whether it is in the hub's settings. Others were once, and can only be taken away.
    """

    name: str
    exists: bool
    members: int
    configured: bool

    @property
    def grantable(self) -> bool:
        """Whether environments can be given to it."""
        return self.exists and self.configured

    def as_json(self) -> dict[str, Any]:
        """Return it as the API does."""
        return asdict(self)


def look_up(configured: Iterable[str], granted: Iterable[str] = ()) -> dict[str, Group]:
    """Return groups by name, as the account database has them at this moment.

    Args:
        configured: names of the hub's settings.
        granted: names that environments were given to before.
    """
    configured = set(configured)
    primary: dict[int, set[str]] = {}
    for account in pwd.getpwall():
        primary.setdefault(account.pw_gid, set()).add(account.pw_name)
    found = {}
    for name in sorted(configured.union(granted)):
        try:
            group = grp.getgrnam(name)
        except (KeyError, ValueError, UnicodeError):
            found[name] = Group(name, False, 0, name in configured)
        else:
            members = primary.get(group.gr_gid, set()).union(group.gr_mem)
            found[name] = Group(name, True, len(members), name in configured)
    return found


def check(chosen: Iterable[str], before: Iterable[str], groups: dict[str, Group]) -> tuple[str, ...]:
    """Check the groups that an environment is to be given to.

    Args:
        chosen: what somebody chose.
        before: what it is given to now. These can stay, whatever became of them.
        groups: see ``look_up``.

    Returns:
        The groups, each once.

    Raises:
        Refused: a group is not configured or does not exist.
    """
    before = set(before)
    for name in chosen:
        group = groups.get(name)
        if name in before or (group and group.grantable):
            continue
        if group and group.configured:
            raise Refused(
                400, f"The group '{shown(name)}' does not exist on this server: make it first, or leave it out."
            )
        raise Refused(
            400, f"The group '{shown(name)}' is not among the hub's groups: add it to plasma.groups, or leave it out."
        )
    return tuple(sorted(set(chosen)))
