"""
Sections about disk quotas, and what each user's limits are when all of them are laid over each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .base import Found, Section, option
from .rules import DiskSize, pattern, size_bytes

Device = pattern(
    r"/dev/[A-Za-z0-9._/+:-]+|(?:UUID|PARTUUID)=[A-Fa-f0-9-]+|(?:LABEL|PARTLABEL)=[A-Za-z0-9._+-]+",
    "is not the name of a device",
    "a device as fstab names it: /dev/NAME, UUID=..., PARTUUID=..., LABEL=... or PARTLABEL=...",
)


def _grace(description: str) -> Any:
    return option(None, ge=60, le=31_536_000, unit="seconds", example=604800, description=description)


class Inodes(Section):
    soft: int | None = option(None, ge=0, le=10**12, unit="files", example=200000)
    """Soft limit; 0 is no limit."""
    hard: int | None = option(None, ge=0, le=10**12, unit="files", example=250000)
    """Hard limit; 0 is no limit."""

    def found(self) -> Iterable[Found]:
        if self.soft and self.hard and self.soft > self.hard:
            yield Found(("soft",), f"is more than the hard limit {self.hard}")


class Quota(Section):
    soft: DiskSize | None = option(None, unit="bytes", example="10G")
    """Disk space that may be exceeded for the time of `grace`; `0K` is no limit, null sets none here."""
    hard: DiskSize | None = option(None, unit="bytes", example="12G")
    """Disk space that can never be exceeded; `0K` is no limit, null sets none here."""
    inodes: Inodes = option(Inodes, example={"soft": 200000, "hard": 250000})
    """Limits of the number of files."""

    def found(self) -> Iterable[Found]:
        if self.soft and self.hard and 0 < size_bytes(self.hard) < size_bytes(self.soft):
            yield Found(("soft",), f"is more than the hard limit {self.hard}")


class DefaultInodes(Inodes):
    grace: int | None = _grace("How long the soft limit may be exceeded; null is `plasma.quota.grace`.")


class DefaultQuota(Quota):
    inodes: DefaultInodes = option(  # ty: ignore[incompatible-mutable-override] # sections are not written to
        DefaultInodes, example={"soft": 200000, "hard": 250000}
    )
    """Limits of the number of files."""
    grace: int | None = _grace("How long a soft limit may be exceeded; null keeps the system's seven days.")


class Quotas(Section):
    enabled: bool | None = option(None, shown_default="true when a quota is set anywhere", example=True)
    """Whether disk quotas are switched on on the server."""
    device: Device | None = option(None, example="LABEL=cloudimg-rootfs")
    """The file system that holds the homes; null finds it."""
    unmanaged: bool = option(False, example=True)
    """Whether `plasma.quota` also limits people who have an account on the server but are not named in pillar. Never
    root, an account of the system or the SSH user."""


# A limit by its name in the completed pillar, and its place below a quota.
KEYS: dict[str, tuple[str, ...]] = {
    "soft": ("soft",),
    "hard": ("hard",),
    "inodes_soft": ("inodes", "soft"),
    "inodes_hard": ("inodes", "hard"),
}
_PAIRS = (("soft", "hard"), ("inodes_soft", "inodes_hard"))
# From the general to the special: what a later one sets counts.
DEFAULT, GROUP, USER = range(3)


class Limit(NamedTuple):
    """One limit, and who says so."""

    # Bytes or files; 0 is no limit.
    value: int
    # As it is written.
    written: str | int
    level: int
    # Which quota of that level: the index of a group.
    index: int = 0


Limits = dict[str, Limit]


def limits(quota: Quota | None, level: int, index: int = 0) -> Limits:
    """What one quota sets, by the names of KEYS."""
    if quota is None:
        return {}
    found: Limits = {}
    for key, written in (
        ("soft", quota.soft),
        ("hard", quota.hard),
        ("inodes_soft", quota.inodes.soft),
        ("inodes_hard", quota.inodes.hard),
    ):
        if written is not None:
            value = size_bytes(written) if isinstance(written, str) else written
            found[key] = Limit(value, written, level, index)
    return found


def numbers(found: Limits) -> dict[str, int]:
    """The bare numbers, for the completed pillar."""
    return {key: limit.value for key, limit in found.items()}


def largest(several: Iterable[Limits]) -> Limits:
    """The most generous limit of each kind: membership in one more group never takes anything away."""
    most: Limits = {}
    for one in several:
        for key, limit in one.items():
            known = most.get(key)
            if known is None or (known.value and (not limit.value or limit.value > known.value)):
                most[key] = limit
    return most


def contradictions(effective: Limits) -> Iterator[tuple[str, str, str, str]]:
    """
    Soft limits above hard ones.

    Those of one and the same quota have been found before.

    Returns (key at fault, "is more than the hard limit" or "is less than the soft limit", the other's value, other key)
    for each; the key at fault is the one of the more special quota.
    """
    for soft_key, hard_key in _PAIRS:
        soft, hard = effective.get(soft_key), effective.get(hard_key)
        if soft is None or hard is None or not hard.value or soft.value <= hard.value:
            continue
        if soft.level >= hard.level:
            yield soft_key, "is more than the hard limit", str(hard.written), hard_key
        else:
            yield hard_key, "is less than the soft limit", str(soft.written), soft_key
