"""
The whole of `plasma`, and the sections that are small.
"""

from __future__ import annotations

from collections.abc import Iterable

from .base import Found, HubKeys, Section, hub_option, option
from .csv_file import CsvItem
from .directory import Directory
from .doors import Ssh
from .environments import Environment
from .gpu import Gpu
from .https import Http, Https
from .hub import Docker, Hub, Preflight, Utils
from .hub_rules import LOCAL
from .keeping import Backup, Uninstall, Upgrade
from .names import Administrator
from .people import GroupEntry, PasswordPolicy, User, repeated
from .quotas import DefaultQuota, Quotas, limits
from .rules import CpuShare, DataDirectory, HomePath, MemorySize
from .server_rules import OURS, SHARED_DATA
from .servers import Servers
from .service import Builder, Entering, MonitoringLink, Network, Permissions, reached
from .trust import Authority

# What Debian and Ubuntu make of the system's authorities and of further ones.
SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


class Limits(Section):
    memory: MemorySize = hub_option("memory", example="4G", unit="bytes")
    """Memory of each user server."""
    cpu: CpuShare = hub_option("cpu", example=1.5, unit="CPUs")
    """Processor time of each user server."""


class Cull(Section):
    enabled: bool = option(True, example=False)
    """Whether idle servers are stopped."""
    timeout: int = option(3600, ge=1, le=31536000, unit="seconds", example=7200)
    """Idle time after which one is stopped."""
    every: int = option(60, ge=1, le=86400, unit="seconds", example=300)
    """Time between two looks."""
    concurrency: int = option(5, ge=1, le=1000, unit="requests", example=10)
    """Requests to the hub at a time."""
    users: bool = option(False, example=True)
    """Whether idle users are removed from the hub's database too."""
    max_age: int = option(0, ge=0, le=31536000, unit="seconds", example=86400)
    """Age after which a server is stopped even when it is in use; 0 is never."""
    remove_named_servers: bool = option(False, example=True)
    """Whether named servers are removed when they are stopped."""


class NamedServers(Section):
    limit: int = hub_option("named_server_limit", unit="servers", example=5)
    """Named servers each user may have; 0 is no limit."""


class Cockpit(Section):
    enabled: bool = option(False, example=True)
    """Whether Cockpit runs, behind the hub and for administrators only. Needs HTTPS."""


class Plasma(Section):
    """The root of the schema."""

    hub: Hub = option(Hub, example={"provider": "pypi"})
    """The hub and how it is installed."""
    docker: Docker = option(Docker, example={"source": "distro"})
    """The Docker engine."""
    limits: Limits = option(Limits, example={"memory": "4G", "cpu": 1.5})
    """Limits of each user server."""
    cull: Cull = option(Cull, example={"timeout": 7200})
    """Stopping idle servers."""
    named_servers: NamedServers = option(NamedServers, example={"limit": 5})
    """Servers a user may have beside the default one."""
    shared_data: DataDirectory = hub_option("shared_data", example="/srv/data")
    """Directory that every user server sees, read-only."""
    servers: Servers = option(Servers, example={"timezone": "Europe/Berlin", "umask": "0002"})
    """Time zone, variables, proxy and further directories of user servers, for all, for groups and for environments."""
    users: list[User] = option(list, example=[{"name": "anna", "groups": ["biology"]}])
    """People with an account on the server. Accounts that are not named here stay as they are: to remove one, name it
    with `absent: true`."""
    users_csv: list[CsvItem] = option(list, example=["students.csv"])
    """More people, from files of the controller in CSV format with the columns `username`, `password` (or
    `password_hash`) and `group` (several with spaces between), and where wanted `quota_soft`, `quota_hard`, `fullname`,
    `password_policy`, `uid`, `home`, `shell` and `admin`. A plain name is short for a mapping with `file` alone."""
    home_path: HomePath = hub_option("homes", example="/srv/homes")
    """Directory that holds the homes. Where it is changed, homes that exist stay where they are."""
    password_policy: PasswordPolicy = option("on_create", example="enforce")
    """When a password is set: with the new account only, so that what people chose for themselves stays, or at every
    apply."""
    groups: list[GroupEntry] = option(list, example=["biology"])
    """Groups of people; a plain name is short for a mapping with `name` alone. The hub's permissions page offers these
    groups, those with `absent: true` left out, to say whose members may start an environment."""
    directory: Directory | None = option(
        None,
        example={
            "kind": "ldap",
            "domain": "example.org",
            "servers": ["ldaps://ldap.example.org"],
            "base": "dc=example",
        },
    )
    """A directory of people that the server is joined to with sssd. Without it, whatever other source of accounts the
    server asks (`nsswitch.conf`) works the same."""
    quota: DefaultQuota = option(DefaultQuota, example={"soft": "10G", "hard": "12G"})
    """Disk quota of each user. Quotas of groups and of users come over it, key by key."""
    quotas: Quotas = option(Quotas, example={"enabled": True})
    """Disk quotas of the server."""
    admins: list[Administrator] = option(list, example=["teacher", "%teachers"])
    """Administrators of the hub, beside the users with `admin: true`: accounts, and groups with % before them, whose
    members are administrators while they are in it, from their login on. Both may be of a directory. When there is any,
    the list is the whole truth: who administers the hub and is not in it loses the rights at the next apply, in the
    hub's database too. An empty list leaves the hub's administrators as they are. It gives no rights on the server:
    that is `groups: [sudo]` of a user."""
    http: Http = option(Http, example={"address": "127.0.0.1", "port": 81, "behind": ["127.0.0.1"]})
    """Where the hub's proxy listens, and which proxies are in front of it."""
    https: Https = option(Https, example={"name_server": "hub.example.org", "letsencrypt_email": "admin@example.org"})
    """Certificates. Without any of its keys the hub answers on http:// only."""
    cockpit: Cockpit = option(Cockpit, example={"enabled": True})
    """The monitoring tool Cockpit."""
    network: Network = option(Network, example={"allow": ["10.1.2.0/24:5432"]})
    """What user servers and builds reach beside the internet."""
    ssh: Ssh = option(Ssh, example={"open_to": {"users": ["anna"]}})
    """SSH and the other doors of the host itself: closed to people of the hub, whose place is in containers, unless it
    is opened here."""
    monitoring_url: MonitoringLink = hub_option("monitoring_url", example="/cockpit/")
    """Where the monitoring link in the hub's pages leads. The hub does not guard what is behind it: that place needs a
    login of its own."""
    environments: list[Environment] = option(
        list, example=[{"name": "python-course", "repository": "https://github.com/plasmabio/template-python"}]
    )
    """Environments that users can start, beside those that administrators made in the browser: what is not named here
    stays as it is. To remove one, name it with `absent: true`."""
    permissions: Permissions = option(Permissions, example={"default": "closed"})
    """Who may start environments."""
    enter_servers: list[Entering] = hub_option("enter_servers", example=["anna", "%teachers"])
    """Which of the hub's administrators may enter other people's servers, to help them: start and open them, with the
    owner's home, and make tokens that act as them. `administrators` is all of them, and `[]` nobody. Servers of
    accounts that may use sudo, docker or the like are for nobody but themselves."""
    builder: Builder = option(Builder, example={"parallel": 1})
    """Building environments."""
    trust: list[Authority] = option(list, example=["own-ca.pem"])
    """Authorities beside those of the system whose certificates are good: for the server itself, the hub, Git, builds
    and servers of users. Files of the controller, or their text. Never a key."""
    gpu: Gpu = option(Gpu, example={"enabled": True})
    """GPUs of NVIDIA for servers."""
    utils: Utils = option(Utils, example={"monitor": "none"})
    """Tools for debugging on the server."""
    backup: Backup = option(Backup, example={"enabled": True})
    """Backups of the hub."""
    upgrade: Upgrade = option(Upgrade, example={"wait": 300})
    """What `state.apply upgrade` does first."""
    uninstall: Uninstall = option(Uninstall, example={"quotas": True})
    """What `state.apply uninstall` removes beside the hub. Each needs to be asked for by name."""
    preflight: Preflight = option(Preflight, example={"min_disk": "20G"})
    """What the server must have before anything is changed."""

    def complete(self) -> None:
        # What builds fetch from may be in a private network, and is named already.
        sources = self.hub.sources
        index = sources.pip_index_url
        # One with a login is not for builds, whose images keep it.
        self.builder.index = self.builder.index or (None if index and "@" in index else index)
        builds = (self.builder.index, self.builder.http_proxy, self.builder.https_proxy)
        if self.trust and not sources.ca_bundle:
            sources.ca_bundle = SYSTEM_BUNDLE
        for url in (index, sources.http_proxy, sources.https_proxy, *builds):
            place = reached(url) if url else None
            if place and place not in self.network.builds:
                self.network.builds = [*self.network.builds, place]
        # In a closed network nothing else can be reached.
        closed = self.hub.provider == "pypi"
        self.docker.source = self.docker.source or ("distro" if closed else "docker-ce")
        self.utils.monitor = self.utils.monitor or ("none" if closed else "ctop")
        self.builder.image = self.builder.image or (LOCAL if closed else HubKeys.builder_image)
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
            if environment.gpus and not environment.absent and not self.gpu.enabled:
                yield Found(("environments", index, "gpus"), "needs `plasma.gpu.enabled: true`")
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
        yield from self._volumes()
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
        if self.https.wanted and (self.http.port or 80) == (self.https.port or 443):
            yield Found(("https", "port"), "is plasma.http.port, too: each needs one of its own")
        if self.cockpit.enabled and not self.https.wanted:
            yield Found(("cockpit", "enabled"), "needs plasma.https: passwords would travel in plain text without it")

    def _volumes(self) -> Iterable[Found]:
        """What no directory of user servers may be, or hold."""
        closed = {"hub.prefix": self.hub.prefix, "home_path": self.home_path, "backup.directory": self.backup.directory}
        removed = {group.name for group in self.groups if group.absent}
        homes = {user.home for user in self.users if user.home}
        for place, volume, groups in self.servers.mounted():
            at = ("servers", *place)
            target = volume.target or volume.source
            reason = next(
                (f"plasma.{name} ({path})" for name, path in closed.items() if overlap(volume.source, path)), ""
            )
            if reason or any(overlap(volume.source, home) for home in homes):
                yield Found((*at, "source"), f"overlaps {reason or 'the home of somebody in plasma.users'}")
            elif any(overlap(target, other) for other in (SHARED_DATA, OURS, self.home_path)):
                yield Found((*at, "target"), f"overlaps {SHARED_DATA}, {OURS} or the homes, which are mounted there")
            if removed & set(groups):
                yield Found(at, "is for a group that is absent in plasma.groups")


def within(path: str, other: str) -> bool:
    """Whether a path is another one or below it."""
    return f"{path}/".startswith(f"{other}/")


def overlap(one: str, other: str) -> bool:
    return within(one, other) or within(other, one)
