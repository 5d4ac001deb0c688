"""
People from all places: what contradicts what, and everybody's limits.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .names import system_group
from .people import Group, User
from .quotas import DEFAULT, GROUP, KEYS, USER, Limit, Limits, contradictions, largest, limits, numbers
from .report import path, show
from .site import Plasma, overlap, within

# The columns of a CSV file, by the key of a user they stand for.
COLUMNS: dict[tuple[str, ...], str] = {
    ("name",): "username",
    ("password",): "password",
    ("password_hash",): "password_hash",
    ("groups",): "group",
    ("quota", "soft"): "quota_soft",
    ("quota", "hard"): "quota_hard",
    ("quota",): "quota_soft",
    ("fullname",): "fullname",
    ("password_policy",): "password_policy",
    ("was",): "was",
    ("uid",): "uid",
    ("home",): "home",
    ("shell",): "shell",
    ("admin",): "admin",
}

# The directory in which plasma_users keeps the homes of people who were removed.
REMOVED = ".plasma-removed"


class Person(NamedTuple):
    """A user, and where the entry stands: a place of the list in pillar, or a line of a CSV file."""

    user: User
    number: int
    file: str | None = None

    def place(self, *key: str | int) -> str:
        """A key of this user, for a message: `plasma.users[3].name` or `students.csv:4: username`."""
        if self.file is None:
            return path(("users", self.number, *key))
        return cell(self.file, self.number, key)

    def line(self, key: tuple[str | int, ...], value: Any, reason: str) -> str:
        """A message. What stands in a CSV file is never shown: columns may have been mixed up."""
        return f"{self.place(*key)}{'' if self.file else f': {show(value)}'} {reason}."


def cell(file: str, line: int, key: tuple[str | int, ...] = ()) -> str:
    """A place in a CSV file, for a message."""
    names = tuple(map(str, key))
    while names and names not in COLUMNS:
        names = names[:-1]
    return f"{file}:{line}: {COLUMNS[names]}" if names else f"{file}:{line}:"


class Everyone:
    """
    All people of a server.

    plasma
        Its pillar, valid by itself.
    rows
        The people of its CSV files.
    """

    def __init__(self, plasma: Plasma, rows: Iterable[Person] = ()) -> None:
        self.plasma = plasma
        self.people = [*(Person(user, index) for index, user in enumerate(plasma.users)), *rows]
        self._default = limits(plasma.quota, DEFAULT)
        self._by_group = {
            group.name: limits(group.quota, GROUP, index)
            for index, group in enumerate(plasma.groups)
            if group.quota and not group.absent
        }
        self._removed = {group.name for group in plasma.groups if group.absent}
        self._external = {group.name for group in plasma.groups if group.external}
        self._shared: dict[tuple[str, ...], Limits] = {}

    def problems(self) -> Iterator[str]:
        """One line for each contradiction."""
        yield from self._repeated()
        yield from self._groups()
        yield from self._homes()
        yield from self._limits()
        yield from self._absent()

    def _absent(self) -> Iterator[str]:
        """Lists that name people or groups who go."""
        gone = {person.user.name: person for person in self.people if person.user.absent}
        open_to = self.plasma.ssh.open_to
        for where, names in ((("admins",), self.plasma.admins), (("ssh", "open_to", "users"), open_to.users)):
            for index, name in enumerate(names):
                if name in gone:
                    place = gone[name].place("name" if gone[name].file else "absent")
                    yield f"{path((*where, index))}: {show(name)} is a user who is absent: {place}."
        for index, name in enumerate(open_to.groups):
            if name in self._removed:
                where = path(("ssh", "open_to", "groups", index))
                yield f"{where}: {show(name)} is a group that is absent in {path(('groups',))}."

    def _repeated(self) -> Iterator[str]:
        known: dict[tuple[str, str | int], Person] = {}
        for person in self.people:
            for key, value in (("name", person.user.name), ("uid", person.user.uid)):
                if value is None:
                    continue
                first = known.setdefault((key, value), person)
                if first is not person:
                    yield person.line((key,), value, f"is already the value of {first.place(key)}")
        former: dict[str, Person] = {}
        groups = {group.name: index for index, group in enumerate(self.plasma.groups)}
        for person in self.people:
            was = person.user.was
            if was is None or was == person.user.name:
                continue
            if ("name", was) in known:
                yield person.line(("was",), was, f"is the name of a user: {known['name', was].place('name')}")
            elif was in groups:
                yield person.line(("was",), was, f"is the name of a group: {path(('groups', groups[was], 'name'))}")
            elif former.setdefault(was, person) is not person:
                yield person.line(("was",), was, f"is already the value of {former[was].place('was')}")

    def _groups(self) -> Iterator[str]:
        # Each user has a group of the same name, with nobody else in it.
        own = {person.user.name: person for person in self.people if not person.user.absent}
        for index, group in enumerate(self.plasma.groups):
            if group.name in own and not group.absent:
                place = own[group.name].place("name")
                yield f"{path(('groups', index, 'name'))}: {show(group.name)} is the name of a user too: {place}."
        for person in self.people:
            for index, name in enumerate(() if person.user.absent else person.user.groups):
                if name in self._removed:
                    yield person.line(("groups", index), name, f"is a group that is absent in {path(('groups',))}")
                elif name in self._external:
                    yield person.line(("groups", index), name, "is a group of a directory, which has its members there")
                elif name in own:
                    yield person.line(
                        ("groups", index), name, f"is the group of one user alone: {own[name].place('name')}"
                    )
            if person.user.name in self._removed and not person.user.absent:
                yield person.line(
                    ("name",), person.user.name, f"has a group of that name too, which is absent in {path(('groups',))}"
                )

    def home(self, user: User) -> str:
        return user.home or f"{self.plasma.home_path}/{user.name}"

    def _homes(self) -> Iterator[str]:
        home_path, prefix, shared = self.plasma.home_path, self.plasma.hub.prefix, self.plasma.shared_data
        # Homes below home_path by default are apart from each other, as names are.
        explicit: dict[str, Person] = {}
        for person in self.people:
            home = person.user.home
            if home is None:
                continue
            if REMOVED in home.split("/"):
                yield person.line(("home",), home, "is where the homes of people who were removed are kept")
            elif within(home_path, home):
                yield person.line(("home",), home, f"holds plasma.home_path ({home_path}), the homes of others")
            elif home in explicit:
                yield person.line(("home",), home, f"is already the value of {explicit[home].place('home')}")
            else:
                explicit[home] = person
        for person in self.people:
            home, own = self.home(person.user), person.user.home is not None
            key, value = (("home",), home) if own else (("name",), person.user.name)
            gets = "" if own else f"gets the home {home}, which "
            for other in (prefix, shared):
                if overlap(home, other):
                    yield person.line(key, value, f"{gets}overlaps {other}, which is not one person's")
            above = home
            while explicit and len(above) > 1:
                owner = explicit.get(above)
                # Two times the same home has been said above.
                if owner is not None and owner is not person and not (own and above == home):
                    yield person.line(key, value, f"{gets}is in the home of another user: {owner.place('home')}")
                above = posixpath.dirname(above)

    def effective(self, user: User) -> Limits:
        """The limits of one user: its own over those of its groups over the default, key by key."""
        groups = tuple(user.groups)
        shared = self._shared.get(groups)
        if shared is None:
            shared = {**self._default, **largest(self._by_group.get(name, {}) for name in groups)}
            self._shared[groups] = shared
        return {**shared, **limits(user.quota, USER)} if user.quota else shared

    def _limits(self) -> Iterator[str]:
        said: set[tuple[str, str]] = set()
        seen: set[tuple[str, ...]] = set()
        for person in self.people:
            user = person.user
            if user.absent or (user.quota is None and tuple(user.groups) in seen):
                continue
            if user.quota is None:
                seen.add(tuple(user.groups))
            found = self.effective(user)
            for key, reason, number, other in contradictions(found):
                at, against = self._at(person, found[key], key), self._at(person, found[other], other)
                reason = f"{reason} {number} of {against}"
                if found[key].level == USER:
                    line = person.line(("quota", *KEYS[key]), found[key].written, reason)
                else:
                    # Two quotas that do not go together are one problem, however many people it hits.
                    line = f"{at}: {show(found[key].written)} {reason}, and both count for {person.place('name')}."
                    if (at, against) in said:
                        continue
                    said.add((at, against))
                yield line

    @staticmethod
    def _at(person: Person, limit: Limit, key: str) -> str:
        """Where a limit is written."""
        if limit.level == USER:
            return person.place("quota", *KEYS[key])
        return path((*(("groups", limit.index) if limit.level == GROUP else ()), "quota", *KEYS[key]))

    def users(self) -> list[dict[str, Any]]:
        """What states get of each user, without passwords."""
        return [_record(person.user) for person in self.people]

    def passwords(self) -> list[tuple[str, str]]:
        """Names and passwords of those who have one in plain text: for the hashing, and nothing else."""
        return [
            (person.user.name, person.user.password)
            for person in self.people
            if person.user.password is not None and not person.user.absent
        ]

    def groups(self) -> list[dict[str, Any]]:
        """The declared groups, and every other one that a user is to be in and that no package brings."""
        made = [_group(group) for group in self.plasma.groups if not group.external]
        known = {group.name for group in self.plasma.groups}
        for person in self.people:
            for name in () if person.user.absent else person.user.groups:
                if name not in known and not system_group(name):
                    known.add(name)
                    made.append({"name": name, "absent": False})
        return made

    def external_groups(self) -> list[str]:
        """The groups that the server has to know from elsewhere: declared so, or named by an environment alone."""
        made = {group["name"] for group in self.groups()}
        granted = (name for one in self.plasma.environments if not one.absent for name in one.groups or ())
        return [name for name in dict.fromkeys([*sorted(self._external), *granted]) if name not in made]

    def admins(self) -> list[str]:
        """The administrators of the hub who are named, each once."""
        named = (name for name in self.plasma.admins if not name.startswith("%"))
        marked = (person.user.name for person in self.people if person.user.admin)
        return list(dict.fromkeys([*named, *marked]))

    def admin_groups(self) -> list[str]:
        """The groups whose members administer the hub."""
        return [name[1:] for name in self.plasma.admins if name.startswith("%")]

    def quotas(self) -> dict[str, Any]:
        """Everything about disk quotas, in bytes and files."""
        assigned: dict[tuple[tuple[str, int], ...], list[str]] = {}
        for person in self.people:
            found = {} if person.user.absent else self.effective(person.user)
            if numbers_of := tuple((name, found[name].value) for name in KEYS if name in found):
                assigned.setdefault(numbers_of, []).append(person.user.name)
        totals = [
            {"name": group.name, "limits": numbers(total)}
            for group in self.plasma.groups
            if not group.absent and (total := limits(group.total, GROUP))
        ]
        given, quota = self.plasma.quotas, self.plasma.quota
        anywhere = bool(assigned or totals or self._default or any(self._by_group.values()))
        return {
            "enabled": anywhere if given.enabled is None else given.enabled,
            "device": given.device,
            "unmanaged": given.unmanaged,
            "grace": {"block": quota.grace, "inode": quota.grace if quota.inodes.grace is None else quota.inodes.grace},
            "default": numbers(self._default),
            "assigned": [{"limits": dict(key), "users": names} for key, names in assigned.items()],
            "groups": totals,
            # Who is in them is known on the server alone.
            "members": [
                {"group": group.name, "limits": numbers({**self._default, **self._by_group[group.name]})}
                for group in self.plasma.groups
                if group.external and group.name in self._by_group
            ],
        }


def _group(group: Group) -> dict[str, Any]:
    return group.model_dump(include={"name", "gid", "absent"}, exclude_none=True)


def _record(user: User) -> dict[str, Any]:
    if user.absent:
        return {"name": user.name, "absent": True, **({"remove_home": True} if user.remove_home else {})}
    keys = ("name", "was", "groups", "shell", "password_hash", "password_policy", "uid", "fullname", "home")
    return user.model_dump(include=set(keys), exclude_none=True)
