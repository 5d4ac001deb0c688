"""What the plugin reads from TLJH's ``config.yaml``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import hub_rules as rules
from . import servers as of_servers
from .hub_keys import KEYS, HubKeys, Key, value_at
from .hub_rules import ADMINISTRATORS, INNER_PORT
from .reach import Entry, Reach, entry

__all__ = ["ADMINISTRATORS", "INNER_PORT", "Settings", "SettingsError", "install_prefix", "load", "section"]

DEFAULT_PREFIX = "/opt/tljh"
DEFAULT_MEMORY = HubKeys.memory
DEFAULT_CPU = HubKeys.cpu
DEFAULT_NETWORK_NAME = HubKeys.network_name
HUB_PORT = 303


class SettingsError(Exception):
    """``config.yaml`` cannot be used; the text is one sentence that says why."""


@dataclass(frozen=True)
class Settings(HubKeys):
    """Settings of the hub, with defaults filled in: those of the table of keys, and some of TLJH's.

    Attributes:
        prefix: installation prefix (``TLJH_INSTALL_PREFIX``).
        config: the whole of config.yaml as plain dicts and lists.
        allowed_users: ``users.allowed``; empty means everybody with an account.
    """

    prefix: Path = Path(DEFAULT_PREFIX)
    config: dict[str, Any] = field(default_factory=dict)
    allowed_users: tuple[str, ...] = ()

    @property
    def open_by_default(self) -> bool:
        """Whether everybody may start environments that no group was given to."""
        return self.permissions_default == "open"

    @property
    def https(self) -> bool:
        """Whether HTTPS is on."""
        return value_at(self.config, "https.enabled") is True

    @property
    def cockpit_url(self) -> str:
        """Path at which people open Cockpit, empty where it is not offered."""
        base = str(self.config.get("base_url") or "/").strip("/")
        return f"/{base}/services/cockpit/".replace("//", "/") if self.cockpit else ""

    @property
    def server_reach(self) -> Reach:
        """What the users' servers reach beside the internet: also the hub under its public name."""
        public = [("http", 80), ("https", 443)] if self.https else [("http", 80)]
        ports = [section(self.config, name).get("port", port) for name, port in public]
        allow = dict.fromkeys([*_entries(self.network_allow), *self.servers.proxies()])
        return Reach(tuple(allow), tuple(dict.fromkeys([*ports, *self.network_host_ports])))

    @property
    def servers(self) -> of_servers.Servers:
        """What servers of users are like."""
        names = ("timezone", "umask", "environment", "proxy", "volumes")
        common = {name: getattr(self, f"servers_{name}") for name in names}
        return of_servers.read(common, self.servers_overrides, (self.homes, str(self.prefix)))

    @property
    def activity_interval(self) -> int:
        """Seconds between two reports of a server that it is in use: several of them before it would be stopped."""
        timeout = value_at(self.config, "services.cull.timeout")
        # TLJH's own default, where the file says nothing.
        return max(5, min(300, (timeout if isinstance(timeout, int) else 600) // 4))

    @property
    def build_reach(self) -> Reach:
        """What builds reach beside the internet."""
        return Reach(_entries((*self.network_allow, *self.network_builds)), self.network_host_ports)

    @property
    def config_dir(self) -> Path:
        return self.prefix / "config"

    @property
    def config_file(self) -> Path:
        return self.config_dir / "config.yaml"

    @property
    def state_dir(self) -> Path:
        return self.prefix / "state"

    @property
    def database(self) -> Path:
        """SQLite file of the permissions and descriptions of environments."""
        return self.state_dir / "plasma.sqlite"

    @property
    def environments_database(self) -> Path:
        """SQLite file of tljh-repo2docker: which environments there are, and how they were built."""
        return self.state_dir / "tljh_repo2docker.sqlite"


def install_prefix() -> Path:
    """Return the installation prefix: ``TLJH_INSTALL_PREFIX``, or /opt/tljh."""
    return Path(os.environ.get("TLJH_INSTALL_PREFIX") or DEFAULT_PREFIX)


def load_config(path: Path) -> dict[str, Any]:
    """Read a config.yaml into plain dicts and lists.

    Args:
        path: the file. A missing or empty one counts as empty.

    Raises:
        SettingsError: the file is not YAML, or not a mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}.") from error
    try:
        # The pure loader reads YAML 1.2, as TLJH does (the C loader would turn "on" into True).
        config = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise SettingsError(f"{path} must hold a mapping of settings, not a {type(config).__name__}.")
    return config


def section(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Return the mapping under ``keys``; an absent or empty one is ``{}``.

    Raises:
        SettingsError: something else than a mapping is there.
    """
    value: Any = config
    for depth, key in enumerate(keys, 1):
        value = value.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise SettingsError(f"config.yaml: {'.'.join(keys[:depth])} must be a mapping, not {value!r}.")
    return value


def _entries(places: tuple[str, ...]) -> tuple[Entry, ...]:
    return tuple(entry(place, names=True) for place in places)


def _wrong(place: str, rule: rules.Rule, value: Any) -> SettingsError:
    return SettingsError(f"config.yaml: {place} must be {rule.words}{f', not {value!r}' if rule.shown else ''}.")


def inner_port(place: str, port: Any, default: int) -> int:
    """Return a port of config.yaml, or ``default`` for one that anybody could take.

    Those were allowed once: a hub that would not start with them could not be upgraded.

    Raises:
        SettingsError: it is no port.
    """
    if not rules.PORT.allows(port):
        raise _wrong(place, rules.PORT, port)
    return port if rules.OWN_PORT.allows(port) else default


def _read(key: Key, value: Any, default: Any) -> Any:
    """Return the value of a key that config.yaml has, in the form of ``Settings``."""
    if key.rule is None:
        # null or 0 would mean "no limit" to the spawner: never here.
        return value or default
    if key.rule is rules.OWN_PORT:
        return inner_port(key.config, value, default)
    if value is None and key.rule.empty:
        return type(default)()
    for place, rule, wrong in key.problems(value):
        raise _wrong(place, rule, wrong)
    if isinstance(value, dict):
        return {name: one for name, one in value.items() if one is not None} or default
    if not key.rule.entry:
        return value
    # Each once, in the order of the file; mappings stay as they are.
    return tuple(value) if any(isinstance(one, dict) for one in value) else tuple(dict.fromkeys(value))


def load(prefix: Path | None = None) -> Settings:
    """Read ``<prefix>/config/config.yaml`` and fill in the defaults.

    Args:
        prefix: installation prefix; by default the one of the environment.

    Raises:
        SettingsError: the file or one of our values in it is wrong.
    """
    from . import kept

    prefix = prefix or install_prefix()
    path = prefix / "config" / "config.yaml"
    config = load_config(path)
    if not config and kept.copy_of(path).exists():
        # Without it everybody with an account would get in, and into every environment.
        raise SettingsError(f"{path} is missing or empty, so nobody is let in: `state.apply tljh` brings it back.")
    values = {
        attribute: _read(key, holder[key.name], getattr(HubKeys, attribute))
        for attribute, key in KEYS.items()
        if key.name in (holder := section(config, *key.sections))
    }
    if section(config, "https").get("enabled") is not True:
        values |= {"cockpit": False, "user_domains": ""}
    allowed = section(config, "users").get("allowed") or []
    if not isinstance(allowed, list):
        raise SettingsError(f"config.yaml: users.allowed must be a list, not {allowed!r}.")
    return Settings(prefix=prefix, config=config, allowed_users=tuple(map(str, allowed)), **values)
