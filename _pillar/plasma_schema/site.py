"""
The whole of `plasma`, and the sections that are small.
"""

from __future__ import annotations

from collections.abc import Iterable

from .base import Found, Section, option
from .csv_file import CsvItem
from .doors import Ssh
from .environments import Environment
from .https import Https
from .hub import Docker, Hub, Preflight, Utils
from .keeping import Backup, Uninstall, Upgrade
from .names import UserName
from .people import GroupEntry, PasswordPolicy, User, repeated
from .quotas import DefaultQuota, Quotas, limits
from .reach import reached
from .rules import CpuShare, DataDirectory, HomePath, MemorySize
from .service import Builder, Entering, MonitoringLink, Network, Permissions


class Limits(Section):
    memory: MemorySize = option("2G", example="4G", unit="bytes", description="Memory of each user server.")
    cpu: CpuShare = option(2, example=1.5, unit="CPUs", description="Processor time of each user server.")


class Cull(Section):
    enabled: bool = option(True, example=False, description="Whether idle servers are stopped.")
    timeout: int = option(
        3600, ge=1, le=31_536_000, unit="seconds", example=7200, description="Idle time after which one is stopped."
    )
    every: int = option(60, ge=1, le=86400, unit="seconds", example=300, description="Time between two looks.")
    concurrency: int = option(
        5, ge=1, le=1000, unit="requests", example=10, description="Requests to the hub at a time."
    )
    users: bool = option(False, example=True, description="Whether idle users are removed from the hub's database too.")
    max_age: int = option(
        0,
        ge=0,
        le=31_536_000,
        unit="seconds",
        example=86400,
        description="Age after which a server is stopped even when it is in use; 0 is never.",
    )
    remove_named_servers: bool = option(
        False, example=True, description="Whether named servers are removed when they are stopped."
    )


class NamedServers(Section):
    limit: int = option(
        2, ge=0, le=1000, unit="servers", example=5, description="Named servers each user may have; 0 is no limit."
    )


class Cockpit(Section):
    enabled: bool = option(
        False,
        example=True,
        description="Whether Cockpit runs, behind the hub and for administrators only. Needs HTTPS.",
    )


class Plasma(Section):
    """The root of the schema."""

    hub: Hub = option(Hub, example={"provider": "pypi"}, description="The hub and how it is installed.")
    docker: Docker = option(Docker, example={"source": "distro"}, description="The Docker engine.")
    limits: Limits = option(Limits, example={"memory": "4G", "cpu": 1.5}, description="Limits of each user server.")
    cull: Cull = option(Cull, example={"timeout": 7200}, description="Stopping idle servers.")
    named_servers: NamedServers = option(
        NamedServers, example={"limit": 5}, description="Servers a user may have beside the default one."
    )
    shared_data: DataDirectory = option(
        "/srv/data", example="/srv/data", description="Directory that every user server sees, read-only."
    )
    users: list[User] = option(
        list,
        example=[{"name": "anna", "groups": ["biology"]}],
        description="People with an account on the server. Accounts that are not named here stay as they are: to "
        "remove one, name it with `absent: true`.",
    )
    users_csv: list[CsvItem] = option(
        list,
        example=["students.csv"],
        description="More people, from files of the controller in CSV format with the columns `username`, `password` "
        "(or `password_hash`) and `group` (several with spaces between), and where wanted `quota_soft`, `quota_hard`, "
        "`fullname` and `password_policy`. A plain name is short for a mapping with `file` alone.",
    )
    home_path: HomePath = option(
        "/home",
        example="/srv/homes",
        description="Directory that holds the homes. Where it is changed, homes that exist stay where they are.",
    )
    password_policy: PasswordPolicy = option(
        "on_create",
        example="enforce",
        description="When a password is set: with the new account only, so that what people chose for themselves "
        "stays, or at every apply.",
    )
    groups: list[GroupEntry] = option(
        list,
        example=["biology"],
        description="Groups of people; a plain name is short for a mapping with `name` alone. The hub's permissions "
        "page offers these groups, those with `absent: true` left out, to say whose members may start an environment.",
    )
    quota: DefaultQuota = option(
        DefaultQuota,
        example={"soft": "10G", "hard": "12G"},
        description="Disk quota of each user. Quotas of groups and of users come over it, key by key.",
    )
    quotas: Quotas = option(Quotas, example={"enabled": True}, description="Disk quotas of the server.")
    admins: list[UserName] = option(
        list,
        example=["teacher"],
        description="Administrators of the hub, beside the users with `admin: true`. When there is any, the list is "
        "the whole truth: who administers the hub and is not in it loses the rights at the next apply, in the hub's "
        "database too. An empty list leaves the hub's administrators as they are. It gives no rights on the server: "
        "that is `groups: [sudo]` of a user.",
    )
    https: Https = option(
        Https,
        example={"name_server": "hub.example.org", "letsencrypt_email": "admin@example.org"},
        description="Certificates. Without any of its keys the hub answers on http:// only.",
    )
    cockpit: Cockpit = option(Cockpit, example={"enabled": True}, description="The monitoring tool Cockpit.")
    network: Network = option(
        Network,
        example={"allow": ["10.1.2.0/24:5432"]},
        description="What user servers and builds reach beside the internet.",
    )
    ssh: Ssh = option(
        Ssh,
        example={"open_to": {"users": ["anna"]}},
        description="SSH and the other doors of the host itself: closed to people of the hub, whose place is in "
        "containers, unless it is opened here.",
    )
    monitoring_url: MonitoringLink = option(
        "",
        example="/cockpit/",
        description="Where the monitoring link in the hub's pages leads. The hub does not guard what is behind it: "
        "that place needs a login of its own.",
    )
    environments: list[Environment] = option(
        list,
        example=[{"name": "python-course", "repository": "https://github.com/plasmabio/template-python"}],
        description="Environments that users can start, beside those that administrators made in the browser: what is "
        "not named here stays as it is. To remove one, name it with `absent: true`.",
    )
    permissions: Permissions = option(
        Permissions, example={"default": "closed"}, description="Who may start environments."
    )
    enter_servers: list[Entering] = option(
        lambda: ["administrators"],
        example=["anna", "%teachers"],
        description="Which of the hub's administrators may enter other people's servers, to help them: start and open "
        "them, with the owner's home, and make tokens that act as them. `administrators` is all of them, and `[]` "
        "nobody. Servers of accounts that may use sudo, docker or the like are for nobody but themselves.",
    )
    builder: Builder = option(Builder, example={"parallel": 1}, description="Building environments.")
    utils: Utils = option(Utils, example={"monitor": "none"}, description="Tools for debugging on the server.")
    backup: Backup = option(Backup, example={"enabled": True}, description="Backups of the hub.")
    upgrade: Upgrade = option(Upgrade, example={"wait": 300}, description="What `state.apply upgrade` does first.")
    uninstall: Uninstall = option(
        Uninstall,
        example={"quotas": True},
        description="What `state.apply uninstall` removes beside the hub. Each needs to be asked for by name.",
    )
    preflight: Preflight = option(
        Preflight, example={"min_disk": "20G"}, description="What the server must have before anything is changed."
    )

    def complete(self) -> None:
        # What builds fetch from may be in a private network, and is named already.
        sources = self.hub.sources
        for url in (sources.pip_index_url, sources.http_proxy, sources.https_proxy):
            place = reached(url) if url else None
            if place and place not in self.network.builds:
                self.network.builds = [*self.network.builds, place]
        shell = self.ssh.limits
        shell.memory = shell.memory or self.limits.memory
        shell.cpu = shell.cpu or self.limits.cpu

    def found(self) -> Iterable[Found]:
        # What concerns people of CSV files too is in everyone.py.
        for field in ("name", "gid"):
            yield from repeated([getattr(item, field) for item in self.groups], "groups", field)
        yield from repeated([item.name for item in self.environments], "environments", "name")
        yield from repeated(self.admins, "admins")
        yield from repeated([item.file for item in self.users_csv], "users_csv", "file")
        removed = {group.name for group in self.groups if group.absent}
        for index, environment in enumerate(self.environments):
            for place, name in enumerate(environment.groups or ()):
                if name in removed and not environment.absent:
                    yield Found(("environments", index, "groups", place), "is a group that is absent in plasma.groups")
        if overlap(self.shared_data, self.hub.prefix):
            yield Found(
                ("shared_data",), f"overlaps plasma.hub.prefix ({self.hub.prefix}), whose secrets users would see"
            )
        if overlap(self.home_path, self.hub.prefix):
            yield Found(("home_path",), f"overlaps plasma.hub.prefix ({self.hub.prefix})")
        if within(self.home_path, self.shared_data):
            yield Found(("home_path",), f"is in plasma.shared_data ({self.shared_data}), which every user would see")
        if self.quotas.unmanaged and not limits(self.quota, 0):
            yield Found(("quotas", "unmanaged"), "needs plasma.quota: there is nothing to limit people with")
        for name, needed in (("homes", "users"), ("docker", "environments")):
            if getattr(self.uninstall, name) and not getattr(self.uninstall, needed):
                yield Found(("uninstall", name), f"needs plasma.uninstall.{needed}")
        for name in ("shared_data", "home_path"):
            if within(self.backup.directory, getattr(self, name)):
                yield Found(
                    ("backup", "directory"), f"is in plasma.{name} ({getattr(self, name)}), where users have access"
                )
        if overlap(self.backup.directory, self.hub.prefix):
            yield Found(("backup", "directory"), f"overlaps plasma.hub.prefix ({self.hub.prefix})")
        if self.cockpit.enabled and not self.https.wanted:
            yield Found(("cockpit", "enabled"), "needs plasma.https: passwords would travel in plain text without it")


def within(path: str, other: str) -> bool:
    """Whether a path is another one or below it."""
    return f"{path}/".startswith(f"{other}/")


def overlap(one: str, other: str) -> bool:
    return within(one, other) or within(other, one)
