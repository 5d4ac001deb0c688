"""What servers of users may be like: rules as in ``hub_rules``, and like those a part of the schema of the pillar."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .hub_rules import (
    FLAG,
    GROUP,
    NotAllowed,
    Rule,
    check_directory,
    check_url,
    list_of,
    matching,
    number,
    of_type,
    text,
)

# Where servers have the shared data and the hub's own files: no directory goes there.
SHARED_DATA, OURS = "/srv/data", "/opt/plasma"


@dataclass(frozen=True)
class Record(Rule):
    """What a mapping may be.

    Attributes:
        fields: the rule of each key that there may be; null is the same as no key.
        needed: keys that there have to be.
    """

    fields: Mapping[str, Rule] = field(default_factory=dict)
    needed: tuple[str, ...] = ()

    def problems(self, value: Any) -> list[tuple[str, Rule, Any]]:
        """Return what is wrong, with the place below the mapping."""
        if not isinstance(value, Mapping) or set(value) - set(self.fields) or set(self.needed) - set(value):
            return [("", self, value)]
        return [
            (f"{key}.{place}".rstrip("."), rule, wrong)
            for key, item in value.items()
            if item is not None
            for place, rule, wrong in self.fields[key].problems(item)
        ]


@dataclass(frozen=True)
class Table(Rule):
    """What a mapping with keys of any name may be; the place of a problem is that of the whole, as it may be secret.

    Attributes:
        name: the rule of the keys.
        value: the rule of what they stand for.
    """

    name: Rule = FLAG
    value: Rule = FLAG

    def problems(self, value: Any) -> list[tuple[str, Rule, Any]]:
        """Return what is wrong."""
        if isinstance(value, Mapping) and all(
            self.name.allows(key) and self.value.allows(item) for key, item in value.items()
        ):
            return []
        return [("", self, value)]


def record(fields: Mapping[str, Rule], *needed: str) -> Record:
    """Return the rule of a mapping."""
    return Record(
        f"a mapping with the keys {', '.join(fields)}", of_type(dict), False, None, None, True, fields, needed
    )


_ZONE = matching(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+){0,2}", "is not the name of a time zone", 64)


def _check_zone(name: str) -> None:
    if not name:
        return
    _ZONE(name)
    try:
        zoneinfo.ZoneInfo("Europe/London")
    except zoneinfo.ZoneInfoNotFoundError:
        # This machine knows none by name.
        return
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise NotAllowed("is no time zone that there is") from None


# What the hub or the entrypoint sets, and what has a key of its own.
RESERVED = frozenset(
    (
        *("CPU_GUARANTEE", "CPU_LIMIT", "MEM_GUARANTEE", "MEM_LIMIT", "NB_GID", "NB_UID", "NB_USER"),
        *("HOME", "LD_LIBRARY_PATH", "LD_PRELOAD", "LOGNAME", "PATH", "TZ", "USER", "USER_ID"),
        *("JUPYTER_CONFIG_DIR", "JUPYTER_CONFIG_PATH", "JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "JUPYTER_IMAGE_SPEC"),
    )
)
_OURS = re.compile(r"(?:JUPYTERHUB|JPY|PLASMA)_|(?:(?:HTTPS?|NO|ALL|FTP)_PROXY\Z)", re.IGNORECASE)


def _check_variable(name: str) -> None:
    matching(r"[A-Za-z_][A-Za-z0-9_]*", "is not the name of a variable", 100)(name)
    if name in RESERVED or _OURS.match(name):
        raise NotAllowed("is set by the hub, or by another key of plasma.servers")


def _check_volume(name: str) -> None:
    check_directory(name)
    if name.startswith("/home/"):
        raise NotAllowed("is below /home, where people's homes are")


GPUS = number(0, 16)
GPU_NUMBER = number(0, 63, "the number of a GPU, as `nvidia-smi` prints it,")
TIMEZONE = text("the name of a time zone such as Europe/Berlin, or empty", _check_zone, empty=True)
UMASK = text(
    "four octal digits such as 0002 in quotes, which leave the owner everything and let others write nothing",
    matching("00[0-7][2367]", "is not such a mask"),
)
VARIABLE = text(
    "the name of a variable (letters, digits and _) that neither the hub nor another key of plasma.servers sets",
    _check_variable,
)
# Tabs are no harm; a line break would be one in files that programs make of their environment.
VALUE = text(
    "one line of text of at most 2000 characters",
    matching(r"[^\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]*", "has a line break or another control character", 2000),
    shown=False,
)
VARIABLES = Table(
    f"a mapping; each key: {VARIABLE.words}; each value: {VALUE.words}",
    of_type(dict), False, None, None, True, VARIABLE, VALUE,
)  # fmt: skip
# Everybody in a server reads it, so there is no place for a login.
PROXY_URL = text(
    "an http:// or https:// URL without a login",
    lambda url: check_url(url, ("http", "https")),
    shown=False,
)
NO_PROXY = text(
    "host names, domains and addresses, separated by commas without spaces",
    matching(r"[A-Za-z0-9.*:/_\[\]-]+(?:,[A-Za-z0-9.*:/_\[\]-]+)*", "is not such a list", 2000),
)
PROXY = record({"http": PROXY_URL, "https": PROXY_URL, "no_proxy": NO_PROXY})
VOLUME_PATH = text(
    "an absolute path without spaces, neither a directory of the system nor below /home, such as /srv/biology",
    _check_volume,
)
VOLUME = record({"source": VOLUME_PATH, "target": VOLUME_PATH, "writable": FLAG}, "source")
VOLUMES = list_of(VOLUME)
ENVIRONMENT = text(
    "the name of an environment, as pages show it",
    matching(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]+", "is empty or has a line break or another control character", 200),
)
COMMON = {"timezone": TIMEZONE, "umask": UMASK, "environment": VARIABLES, "proxy": PROXY, "volumes": VOLUMES}
OVERRIDE = record({"groups": list_of(GROUP), "environments": list_of(ENVIRONMENT), **COMMON})
OVERRIDES = list_of(OVERRIDE)
