"""What a user's server may be: identity, environment, limits, mounts and variables.

This is the policy of the spawner and knows nothing of the engine that runs the container, so that a cluster can take
the place of the local Docker later.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from . import environments as envs
from . import server_rules
from .access import Entry, may_start
from .accounts import Account, AccountError, find_account, group_names, resolve_trusted
from .environments import Environment, UnknownEnvironment
from .servers import PLAIN, Extras, Servers, Volume, mounts
from .settings import DEFAULT_CPU, DEFAULT_MEMORY

SHARED_DATA_TARGET = server_rules.SHARED_DATA
# Processes and threads that a server may have, unless the hub's configuration says something else.
PROCESSES = 1024
# Where the entrypoint script goes in a container.
ENTRYPOINT = "/opt/plasma/entrypoint"
# By its interpreter: directories like /run are often mounted so that nothing in them can be executed.
ENTRYPOINT_COMMAND = ("/bin/sh", ENTRYPOINT)
# The server, unless the hub's configuration says something else.
COMMAND = "jupyterhub-singleuser"
# Seconds for which a server remembers whom the hub lets in: five minutes after a logout are too many. The other one is
# for images with jupyter-resource-usage; others do not know the setting and ignore it.
ARGUMENTS = ("--HubAuth.cache_max_age=60", "--ResourceUseDisplay.track_cpu_percent=True")
# In memory, so that a server still starts when the quota of its owner is used up.
RUNTIME_DIR = "/run/plasma"
# What a container is labelled with, whichever engine runs it.
LABEL_USER = "org.plasma.user"
LABEL_SERVER = "org.plasma.server"
LABEL_ENVIRONMENT = "org.plasma.environment"
# Numbers of its GPUs with commas between; only of a server that has any.
LABEL_GPUS = "org.plasma.gpus"


class Refusal(Exception):
    """A server may not start.

    Attributes:
        status: HTTP status.
        message: one sentence for the person.
        reason: one sentence for the hub's log.
    """

    def __init__(self, status: int, message: str, reason: str = ""):
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason or message


@dataclass(frozen=True)
class Limits:
    """Limits of one server: memory in bytes (no swap on top), CPUs, number of processes."""

    memory: int
    cpu: float
    pids: int


@dataclass(frozen=True)
class ServerPlan:
    """Everything that is decided about a server before an engine is asked to run it.

    Attributes:
        account: whose server it is; the home is mounted where the host has it.
        environment: what is started.
        limits: its limits.
        shared_data: directory of the host that is mounted read-only; empty for none.
        note: why there is none though there should be, for the log.
        extras: time zone, variables and the like.
        volumes: directories of the host, checked.
        missing: a sentence for each further one that is not mounted.
    """

    account: Account
    environment: Environment
    limits: Limits
    shared_data: str = ""
    note: str = ""
    extras: Extras = Extras()
    volumes: tuple[Volume, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """Identity of every process of the container, "uid:gid"."""
        return f"{self.account.uid}:{self.account.group.gid}"

    @property
    def identity(self) -> dict[str, Any]:
        """Variables that say who it is, among them those that images of Jupyter's docker-stacks know."""
        account = self.account
        who = {"NB_USER": account.name, "NB_UID": account.uid, "NB_GID": account.group.gid}
        return {**who, "USER": account.name, "USER_ID": account.uid, "HOME": account.home}

    @property
    def variables(self) -> dict[str, str]:
        """Variables that tell the entrypoint what to prepare."""
        return {
            "PLASMA_ENVIRONMENT": self.environment.name,
            "PLASMA_DIR": self.environment.directory,
            "PLASMA_IMAGE_ID": self.environment.files_id or self.environment.image_id,
        }


def default_limits(memory: Any, cpu: Any, pids: int) -> Limits:
    """Return the limits of servers whose environment sets none.

    A missing or nonsensical value becomes the default of this project, never "no limit".

    Args:
        memory: configured limit, in bytes or as in "2G".
        cpu: configured limit in CPUs.
        pids: configured number of processes.
    """
    return Limits(
        envs.parse_memory(memory) or envs.parse_memory(DEFAULT_MEMORY), envs.parse_cpu(cpu) or float(DEFAULT_CPU), pids
    )


def limits_of(environment: Environment, defaults: Limits) -> Limits:
    """Return an environment's limits, with the defaults where it sets none."""
    return Limits(environment.memory or defaults.memory, environment.cpu or defaults.cpu, defaults.pids)


@dataclass(frozen=True)
class Permissions:
    """What decides about the environments somebody may start.

    Attributes:
        entries: what administrators said, by image (see ``access.Store.all``).
        open_by_default: whether environments without groups are open to everybody.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    open_by_default: bool = True

    @property
    def groups(self) -> frozenset[str]:
        """Names of all groups that something is open to."""
        return frozenset(name for entry in self.entries.values() for name in entry.groups)


def permitted(
    environments: Iterable[Environment], permissions: Permissions, groups: Iterable[str], admin: bool
) -> list[Environment]:
    """Return the environments that somebody may start, each with what administrators said of it.

    The options form, the form's answer and the start of the server all ask here.

    Args:
        environments: all that the engine has.
        permissions: what administrators said.
        groups: names of all the person's groups.
        admin: whether the person administers the hub.
    """
    groups = frozenset(groups)
    found = []
    for environment in environments:
        entry = permissions.entries.get(environment.image, Entry())
        if may_start(entry, groups, admin=admin, open_by_default=permissions.open_by_default):
            said = {name: getattr(entry, name) for name in ("description", "opens", "gpus")}
            found.append(replace(environment, **said))
    return found


def choose(
    environments: Iterable[Environment], image: Any, permissions: Permissions, groups: Iterable[str], admin: bool
) -> Environment:
    """Return the environment that was asked for, when the person may start it.

    Args:
        environments: all that the engine has.
        image: what was asked for; anything may come in by API.
        permissions: what administrators said.
        groups: names of all the person's groups.
        admin: whether the person administers the hub.

    Raises:
        Refusal: 400 without such an environment, 403 when it is not open to the person.
    """
    try:
        environment = envs.find(environments, image)
    except UnknownEnvironment as error:
        raise Refusal(400, str(error)) from error
    for found in permitted([environment], permissions, groups, admin):
        return found
    names = ", ".join(permissions.entries.get(environment.image, Entry()).groups)
    raise Refusal(
        403,
        f"The environment {environment.name!r} is not open to you. "
        "Please choose another one, or ask your teacher to add you to one of its groups.",
        f"{image!r} is open to the groups {names}" if names else f"{image!r} has no groups, so it is closed by default",
    )


def trusted_data(directory: str) -> tuple[str, str]:
    """Return the directory of shared data to mount, or why there is none: a path or "", and a sentence or "".

    It is mounted only when it belongs to root and nobody else can redirect it; a missing one is never created.
    """
    if not directory:
        return "", ""
    try:
        source = resolve_trusted(directory)
        if os.lstat(source).st_uid != 0:
            raise AccountError(f"{directory} does not belong to root.")
    except AccountError as error:
        return "", f"Shared data is not mounted: {error.reason}"
    return source, ""


def plan_server(
    name: str,
    options: Any,
    environments: Iterable[Environment],
    permissions: Permissions,
    admin: bool,
    defaults: Limits,
    shared_data: str,
    servers: Servers = PLAIN,
) -> ServerPlan:
    """Decide about one server.

    Args:
        name: the hub's user name, which must be the exact name of a person's account.
        options: what was asked for, by form or by API: ``{"image": ...}``.
        environments: all that the engine has.
        permissions: what administrators said about them.
        admin: whether the person administers the hub.
        defaults: limits of environments that set none.
        shared_data: directory of the host, or empty.
        servers: what all servers are like.

    Raises:
        Refusal: the server may not start.
    """
    try:
        account = find_account(name)
    except AccountError as error:
        raise Refusal(403, error.message, error.reason) from error
    image = options.get("image") if isinstance(options, dict) else None
    groups = group_names(name, permissions.groups | servers.groups)
    environment = choose(environments, image, permissions, groups, admin)
    extras = servers.of(groups, environment.name)
    volumes, missing = mounts(extras.volumes, account.home, (account.real_home, *servers.closed))
    limits = limits_of(environment, defaults)
    return ServerPlan(account, environment, limits, *trusted_data(shared_data), extras, tuple(volumes), tuple(missing))
