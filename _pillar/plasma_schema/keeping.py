"""
Sections about keeping a server for years: backups, upgrades, disk care, uninstalling.
"""

from __future__ import annotations

from .base import Section, hub_option, option
from .rules import Calendar, DataDirectory, Line


class Backup(Section):
    enabled: bool = option(False, example=True)
    """Whether a timer of the server makes backups. Upgrading and uninstalling make one in any case."""
    schedule: Calendar = option("*-*-* 03:30:00", example="Mon,Thu 02:00")
    """When, as systemd's OnCalendar, in the server's time zone. What was missed while the server was off is made up
    for."""
    directory: DataDirectory = option("/var/opt/plasma/backups", example="/srv/backups")
    """Directory of the server that holds the archives, for root alone."""
    keep: int = option(7, ge=1, le=1000, unit="archives", example=30)
    """Scheduled archives to keep; the oldest go first. Those made by hand, before an upgrade or before an
    uninstallation are kept until somebody removes them."""
    homes: bool = option(False, example=True)
    """Whether the homes of people are in the archives."""
    images: bool = option(False, example=True)
    """Whether the images of environments are in the archives. The recipes, to build them again, always are."""


class Prune(Section):
    enabled: bool = option(False, example=True)
    """Whether a timer removes what builds left behind: layers without a name and build caches. Never an image with a
    name, or one that a container uses."""
    schedule: Calendar = option("Sun *-*-* 04:30:00", example="daily")
    """When, as systemd's OnCalendar."""
    min_age: int = option(72, ge=0, le=8760, unit="hours", example=24)
    """Younger leftovers stay: they speed up the next build."""
    warn_at: int = hub_option("disk_warn_at", unit="percent", example=90)
    """How full a disk of the server may be before administrators are warned, in the hub's pages and by
    `plasma.status`."""


class Upgrade(Section):
    message: Line | None = option(
        "The platform is being upgraded. Running servers go on; pages may not answer for a minute.",
        example="Upgrade from 18:00 to 18:10: running servers go on.",
    )
    """What people read on the hub's pages while `state.apply upgrade` works; null announces nothing."""
    wait: int = option(0, ge=0, le=3600, unit="seconds", example=300)
    """Time between the announcement and the upgrade itself."""


class Uninstall(Section):
    """What `state.apply uninstall` removes beside the hub: nothing, unless it is named here."""

    data: bool = option(False, example=True)
    """Delete the hub's database, configuration and secrets for good, which are otherwise put aside."""
    users: bool = option(False, example=True)
    """Remove the accounts of the people in pillar. Their homes are archived."""
    homes: bool = option(False, example=True)
    """Delete the homes of those people, too. Needs `users`."""
    environments: bool = option(False, example=True)
    """Remove the images of environments, and the servers that run in them."""
    docker: bool = option(False, example=True)
    """Remove the Docker engine with all its containers, images and volumes. Needs `environments`."""
    quotas: bool = option(False, example=True)
    """Switch disk quotas off."""
    backups: bool = option(False, example=True)
    """Delete the archives of backups, all but the last one."""
