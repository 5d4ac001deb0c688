"""
The section about the host's own doors.
"""

from __future__ import annotations

from collections.abc import Iterable

from .base import Found, Section, option
from .names import GroupName, UserName
from .people import repeated
from .rules import CpuShare, MemorySize


class OpenTo(Section):
    users: list[UserName] = option(list, example=["anna"])
    """Login names: of people in pillar, or of accounts that the server has."""
    groups: list[GroupName] = option(list, example=["assistants"])
    """Groups whose members it is open to: of pillar, or of the server."""

    def found(self) -> Iterable[Found]:
        yield from repeated(self.users, "users")
        yield from repeated(self.groups, "groups")


class ShellLimits(Section):
    memory: MemorySize | None = option(None, shown_default="`plasma.limits.memory`", unit="bytes", example="4G")
    """Memory, without swap."""
    cpu: CpuShare | None = option(None, shown_default="`plasma.limits.cpu`", unit="CPUs", example=1.5)
    """Processor time."""
    tasks: int = option(1024, ge=64, le=100000, unit="processes", example=256)
    """Processes and threads, as in a user server."""


class Ssh(Section):
    enabled: bool = option(True, example=False)
    """Whether SSH is looked after. `false` leaves it as it is; `state.apply ssh.disabled` takes back."""
    open_to: OpenTo = option(OpenTo, example={"users": ["anna"], "groups": ["assistants"]})
    """Who may log in to the host itself, beside root, system accounts and those who could become root anyway (rules of
    sudo, groups such as `docker`)."""
    limits: ShellLimits = option(ShellLimits, example={"memory": "4G", "tasks": 256})
    """What each account may use on the host, in all its sessions together; those who could become root have no
    limits."""
