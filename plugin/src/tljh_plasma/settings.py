"""What the plugin reads from TLJH's ``config.yaml``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_PREFIX = "/opt/tljh"
DEFAULT_NAMED_SERVER_LIMIT = 2
DEFAULT_SHARED_DATA = "/srv/data"
DEFAULT_MEMORY = "2G"
DEFAULT_CPU = 2


class SettingsError(Exception):
    """``config.yaml`` cannot be used; the text is one sentence that says why."""


@dataclass(frozen=True)
class Settings:
    """Settings of the hub, with defaults filled in.

    Attributes:
        prefix: installation prefix (``TLJH_INSTALL_PREFIX``).
        config: the whole of config.yaml as plain dicts and lists.
        named_server_limit: named servers per user, 0 for no limit.
        shared_data: directory of the host that servers see read-only at /srv/data; empty for none.
        allowed_users: ``users.allowed``; empty means everybody with an account.
        memory: default memory limit of a server (a number of bytes, or a string such as "2G").
        cpu: default CPU limit of a server, in CPUs.
    """

    prefix: Path = Path(DEFAULT_PREFIX)
    config: dict[str, Any] = field(default_factory=dict)
    named_server_limit: int = DEFAULT_NAMED_SERVER_LIMIT
    shared_data: str = DEFAULT_SHARED_DATA
    allowed_users: tuple[str, ...] = ()
    memory: Any = DEFAULT_MEMORY
    cpu: Any = DEFAULT_CPU

    @property
    def config_dir(self) -> Path:
        return self.prefix / "config"

    @property
    def config_file(self) -> Path:
        return self.config_dir / "config.yaml"

    @property
    def state_dir(self) -> Path:
        return self.prefix / "state"


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


def load(prefix: Path | None = None) -> Settings:
    """Read ``<prefix>/config/config.yaml`` and fill in the defaults.

    Args:
        prefix: installation prefix; by default the one of the environment.

    Raises:
        SettingsError: the file or one of our values in it is wrong.
    """
    prefix = prefix or install_prefix()
    config = load_config(prefix / "config" / "config.yaml")

    limit = section(config, "plasma", "named_servers").get("limit", DEFAULT_NAMED_SERVER_LIMIT)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise SettingsError(f"config.yaml: plasma.named_servers.limit must be 0 or a positive number, not {limit!r}.")

    shared = section(config, "plasma").get("shared_data", DEFAULT_SHARED_DATA) or ""
    if not isinstance(shared, str) or (shared and not shared.startswith("/")):
        raise SettingsError(f"config.yaml: plasma.shared_data must be an absolute path, not {shared!r}.")

    allowed = section(config, "users").get("allowed") or []
    if not isinstance(allowed, list):
        raise SettingsError(f"config.yaml: users.allowed must be a list of names, not {allowed!r}.")

    limits = section(config, "limits")
    return Settings(
        prefix=prefix,
        config=config,
        named_server_limit=limit,
        shared_data=shared,
        allowed_users=tuple(str(name) for name in allowed),
        # null or 0 would mean "no limit" to the spawner: never here.
        memory=limits.get("memory") or DEFAULT_MEMORY,
        cpu=limits.get("cpu") or DEFAULT_CPU,
    )
