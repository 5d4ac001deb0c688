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
from .access import Entry, may_start
from .accounts import Account, AccountError, find_account, group_names, resolve_trusted
from .environments import Environment, UnknownEnvironment
from .settings import DEFAULT_CPU, DEFAULT_MEMORY

SHARED_DATA_TARGET = "/srv/data"
# Where the entrypoint script goes in a container.
ENTRYPOINT = "/opt/plasma/entrypoint"
# In memory, so that a server still starts when the quota of its owner is used up.
RUNTIME_DIR = "/run/plasma"
# What a container is labelled with, whichever engine runs it.
LABEL_USER = "org.plasma.user"
LABEL_SERVER = "org.plasma.server"
LABEL_ENVIRONMENT = "org.plasma.environment"


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
class Mount:
    """A directory of the host that the container sees."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class Limits:
    """Limits of one server: memory in bytes (no swap on top), CPUs, number of processes."""

    memory: int
    cpu: float
    pids: int


@dataclass(frozen=True)
class ServerPlan:
    """Everything that is decided about a server before an engine is asked to run it."""

    account: Account
    environment: Environment
    limits: Limits
    mounts: tuple[Mount, ...]
    variables: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def user(self) -> str:
        """Identity of every process of the container, "uid:gid"."""
        return f"{self.account.uid}:{self.account.group.gid}"


def default_limits(memory: Any, cpu: Any, pids: int) -> Limits:
    """Return the limits of servers whose environment sets none.

    A missing or nonsensical value becomes the default of this project, never "no limit".

    Args:
        memory: configured limit, in bytes or as in "2G".
        cpu: configured limit in CPUs.
        pids: configured number of processes.
    """
    return Limits(
        memory=envs.parse_memory(memory) or envs.parse_memory(DEFAULT_MEMORY) or 0,
        cpu=envs.parse_cpu(cpu) or float(DEFAULT_CPU),
        pids=pids,
    )


def limits_of(environment: Environment, defaults: Limits) -> Limits:
    """Return an environment's limits, with the defaults where it sets none."""
    return Limits(
        memory=environment.memory or defaults.memory,
        cpu=environment.cpu or defaults.cpu,
        pids=defaults.pids,
    )


@dataclass(frozen=True)
class Permissions:
    """What decides about the environments somebody may start.

    Attributes:
        entries: what administrators said, by image (see ``access.Store.all``).
        open_by_default: whether environments without groups are open to everybody.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    open_by_default: bool = True


def permitted(
    environments: Iterable[Environment], permissions: Permissions, groups: Iterable[str], admin: bool
) -> list[Environment]:
    """Return the environments that somebody may start, each with its description.

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
            found.append(replace(environment, description=entry.description))
    return found


def choose(
    environments: Iterable[Environment],
    image: Any,
    permissions: Permissions,
    groups: Iterable[str],
    admin: bool,
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
    environments = list(environments)
    open_ones = permitted(environments, permissions, groups, admin)
    for environment in environments:
        if environment.image == image and environment.image not in {one.image for one in open_ones}:
            raise Refusal(
                403,
                f"The environment {environment.name!r} is not open to you. "
                "Please choose another one, or ask your teacher to add you to one of its groups.",
                f"{image!r} is open to the groups {', '.join(permissions.entries[image].groups) or 'none'}"
                if image in permissions.entries
                else f"{image!r} has no groups, and environments without groups are closed",
            )
    try:
        return envs.find(open_ones, image)
    except UnknownEnvironment as error:
        raise Refusal(400, str(error)) from error


def mounts_of(account: Account, shared_data: str) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """Return the mounts of an account's servers, and what to log about those left out.

    The home is mounted where the host has it. Shared data is mounted only when it belongs to root and
    nobody else can redirect it; a missing directory is left out, never created.
    """
    mounts = [Mount(account.real_home, account.home, read_only=False)]
    notes = []
    if shared_data:
        try:
            source = resolve_trusted(shared_data)
            if os.lstat(source).st_uid != 0:
                raise AccountError(f"{shared_data} does not belong to root.")
            mounts.append(Mount(source, SHARED_DATA_TARGET, read_only=True))
        except AccountError as error:
            notes.append(f"Shared data is not mounted: {error.reason}")
    return tuple(mounts), tuple(notes)


def variables_of(environment: Environment) -> dict[str, str]:
    """Return the variables that tell the entrypoint what to prepare."""
    return {
        "PLASMA_ENVIRONMENT": environment.name,
        "PLASMA_DIR": environment.directory,
        "PLASMA_IMAGE_ID": environment.files_id or environment.image_id,
    }


def plan_server(
    name: str,
    options: Any,
    environments: Iterable[Environment],
    permissions: Permissions,
    admin: bool,
    defaults: Limits,
    shared_data: str,
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

    Raises:
        Refusal: the server may not start.
    """
    try:
        account = find_account(name)
    except AccountError as error:
        raise Refusal(403, error.message, error.reason) from error
    image = options.get("image") if isinstance(options, dict) else None
    environment = choose(environments, image, permissions, group_names(name), admin)
    mounts, notes = mounts_of(account, shared_data)
    return ServerPlan(
        account=account,
        environment=environment,
        limits=limits_of(environment, defaults),
        mounts=mounts,
        variables=variables_of(environment),
        notes=notes,
    )
