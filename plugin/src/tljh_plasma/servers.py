"""What servers are like beside image, limits and home: ``plasma.servers``, for all, for groups and for environments."""

from __future__ import annotations

import os
import re
import zoneinfo
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from . import hub_rules, server_rules
from .accounts import AccountError, resolve_trusted
from .reach import Entry, entry

# Of the server itself; the hub's address joins them.
ALWAYS_DIRECT = ("localhost", "127.0.0.1")
# What files of time zones end with (RFC 8536).
_FOOTER = re.compile(rb"\n([^\n\x00]{1,100})\n\Z")


@dataclass(frozen=True)
class Volume:
    """A directory of the host, and where servers have it."""

    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Extras:
    """What one server gets.

    Attributes:
        timezone: name of a time zone; empty for what the image has.
        umask: four octal digits.
        environment: variables.
        proxy: of "http", "https" and "no_proxy" those that are set.
        volumes: directories, in the order of the settings.
    """

    timezone: str = ""
    umask: str = "0022"
    environment: Mapping[str, str] = field(default_factory=dict)
    proxy: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()

    def variables(self, hub: str) -> dict[str, str]:
        """Return the variables for all programs of the server, and those for the entrypoint.

        Args:
            hub: the hub's address for servers, which no proxy knows.
        """
        found = {**self.environment, "PLASMA_UMASK": self.umask}
        if self.timezone:
            found |= {"TZ": self.timezone, "PLASMA_TZ": unnamed(self.timezone)}
        named = {name: self.proxy[name] for name in ("http", "https") if name in self.proxy}
        for name, url in named.items():
            found |= {f"{name}_proxy": url, f"{name.upper()}_PROXY": url}
        if named:
            direct = ",".join([*ALWAYS_DIRECT, hub, *filter(None, [self.proxy.get("no_proxy")])])
            found |= {"no_proxy": direct, "NO_PROXY": direct}
        return found


@dataclass(frozen=True)
class Servers:
    """The settings of all servers.

    Attributes:
        common: for all.
        overrides: mappings as in config.yaml, in their order.
        closed: directories of the host that hold secrets or other people's files.
    """

    common: Extras = Extras()
    overrides: tuple[Mapping[str, Any], ...] = ()
    closed: tuple[str, ...] = ()

    @property
    def groups(self) -> frozenset[str]:
        """Names of all groups that something holds for."""
        return frozenset(name for override in self.overrides for name in override.get("groups") or ())

    def of(self, groups: frozenset[str], environment: str) -> Extras:
        """Return what one server gets.

        Args:
            groups: names of the person's groups.
            environment: name of the environment.
        """
        found = self.common
        for override in self.overrides:
            wanted, named = override.get("groups") or (), override.get("environments") or ()
            if (not wanted or groups & set(wanted)) and (not named or environment in named):
                found = _over(found, override)
        return found

    def proxies(self) -> Iterator[Entry]:
        """Return where the proxies are: servers have to reach them."""
        for proxy in (self.common.proxy, *(override.get("proxy") or {} for override in self.overrides)):
            for name in ("http", "https"):
                parts = urlsplit(proxy.get(name) or "")
                # A server has no IPv6.
                if parts.hostname and ":" not in parts.hostname:
                    port = parts.port or (443 if parts.scheme == "https" else 80)
                    yield entry(f"{parts.hostname}:{port}", names=True)


PLAIN = Servers()


def _over(base: Extras, settings: Mapping[str, Any]) -> Extras:
    """Return what is there with other settings laid over it; those are checked."""
    return replace(
        base,
        timezone=settings.get("timezone") or base.timezone,
        umask=settings.get("umask") or base.umask,
        environment={**base.environment, **(settings.get("environment") or {})},
        proxy={**base.proxy, **{name: one for name, one in dict(settings.get("proxy") or {}).items() if one}},
        volumes=(*base.volumes, *map(_volume, settings.get("volumes") or ())),
    )


def _volume(settings: Mapping[str, Any]) -> Volume:
    return Volume(settings["source"], settings.get("target") or settings["source"], bool(settings.get("writable")))


def read(settings: Mapping[str, Any], overrides: Iterable[Mapping[str, Any]], closed: Iterable[str]) -> Servers:
    """Return the settings of all servers.

    Args:
        settings: the common ones, by the keys that overrides have, too.
        overrides: those of groups and environments.
        closed: directories of the host that none of them may see.
    """
    return Servers(_over(Extras(), settings), tuple(overrides), tuple(closed))


def unnamed(zone: str) -> str:
    """Return the rules of a time zone without a name, which every C library knows: ``CET-1CEST,M3.5.0,M10.5.0/3``.

    Args:
        zone: its name; where this machine does not know it, the text is empty.
    """
    for directory in zoneinfo.TZPATH:
        try:
            found = _FOOTER.search(Path(directory, zone).read_bytes())
        except OSError:
            continue
        return found[1].decode("ascii", "ignore") if found else ""
    return ""


def mounts(volumes: Iterable[Volume], home: str, closed: Iterable[str]) -> tuple[list[Volume], list[str]]:
    """Return what is mounted, with sources that nobody but root can redirect; and a sentence for each that is not.

    Args:
        volumes: what the settings name. A later one takes the place of an earlier one with the same target.
        home: where the home is mounted.
        closed: directories of the host that servers do not see.
    """
    chosen = {volume.target: volume for volume in volumes}
    found: list[Volume] = []
    missing: list[str] = []
    for volume in chosen.values():
        try:
            taken = [home, server_rules.SHARED_DATA, server_rules.OURS, *(one.target for one in found)]
            found.append(replace(volume, source=_source(volume, taken, closed)))
        except (AccountError, hub_rules.NotAllowed) as error:
            reason = getattr(error, "reason", None) or f"{volume.source} {error}."
            missing.append(f"{volume.target} is not mounted: {reason}")
    return found, missing


def _source(volume: Volume, taken: Iterable[str], closed: Iterable[str]) -> str:
    """Return where a directory really is."""
    if other := next((other for other in taken if _overlap(volume.target, other)), None):
        raise AccountError(f"{other} is mounted there.")
    source = resolve_trusted(volume.source)
    # Root's own link may lead to what no setting may name.
    hub_rules.check_directory(source)
    if other := next((other for other in closed if _overlap(source, os.path.realpath(other))), None):
        raise AccountError(f"{source} overlaps {other}.")
    status = os.lstat(source)
    if status.st_uid != 0:
        raise AccountError(f"{source} does not belong to root.")
    return source


def _overlap(one: str, other: str) -> bool:
    first, second = PurePosixPath(one), PurePosixPath(other)
    return first.is_relative_to(second) or second.is_relative_to(first)
