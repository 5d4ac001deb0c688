"""What the plugin reads from TLJH's ``config.yaml``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from .reach import ENTRY_WORDS, HOST_WORDS, Entry, Reach, entry

DEFAULT_PREFIX = "/opt/tljh"
DEFAULT_NAMED_SERVER_LIMIT = 2
DEFAULT_SHARED_DATA = "/srv/data"
DEFAULT_MEMORY = "2G"
DEFAULT_CPU = 2
# Pinned, so that a course built today and one built next term come out of the same builder.
DEFAULT_BUILDER_IMAGE = "quay.io/jupyterhub/repo2docker:2025.12.0"
DEFAULT_BUILDER_PARALLEL = 2
DEFAULT_BUILDER_TIMEOUT = 7200
DEFAULT_NETWORK_NAME = "plasma"
# Passwords, logins and tokens pass through the hub's ports. Only root can listen on a port below 1024, so nobody else
# can stand in for what belongs there while it restarts; and above 511 the kernel hands out ports below 1024 to whoever
# asks for one.
DEFAULT_SERVICE_PORT = 302
HUB_PORT = 303
DEFAULT_API_PORT = 304
DEFAULT_DISK_WARN_AT = 85
DEFAULT_HOMES = "/home"
DEFAULT_COCKPIT_PORT = 301
# Where Cockpit itself listens. In a directory of root's, for root alone.
DEFAULT_COCKPIT_SOCKET = "/run/plasma-cockpit.sock"

# Least and most of the numbers; `config_schema` holds the file to the same ones.
NAMED_SERVER_LIMIT = (0, None)
BUILDER_PARALLEL = (1, 16)
BUILDER_TIMEOUT = (60, 86400)
# Of ports that are not the public's, see above. Who is not root, as on a developer's machine, has no choice.
INNER_PORT = (1, 511) if os.geteuid() == 0 else (1, 65535)
PORT = (1, 65535)
DISK_WARN_AT = (1, 100)

POLICIES = ("open", "closed")
# All of them, in the list of the administrators who may enter other people's servers.
ADMINISTRATORS = "administrators"


class TextRule(NamedTuple):
    """What a text of config.yaml may be.

    Attributes:
        words: what is allowed, as the end of "must be ...".
        pattern: expression that matches all of an allowed text; no anchors needed.
        longest: most characters.
        shown: whether a wrong value may be repeated in an error; not where people put passwords.
    """

    words: str
    pattern: str
    longest: int = 255
    shown: bool = True

    def allows(self, value: Any) -> bool:
        """Whether a value of any type is an allowed text."""
        return isinstance(value, str) and len(value) <= self.longest and re.fullmatch(self.pattern, value) is not None


_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = r"[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9][A-Za-z0-9-]*)*(?::[0-9]{1,5})?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"@sha256:[0-9a-f]{64}"
_LINK_TEXT = r"[A-Za-z0-9._~:/?#\[\]@!*+,=&%-]"

GROUP = TextRule(
    "the name of a group, without spaces, colons and commas", r"[^\s:,\x00-\x1f\x7f-][^\s:,\x00-\x1f\x7f]*"
)
ENTERING = TextRule(
    "the name of a person, or of a group with % before it", r"%?[^\s:,%\x00-\x1f\x7f-][^\s:,\x00-\x1f\x7f]*"
)
# Without a tag Docker takes `latest`, which is another builder every month.
IMAGE = TextRule(
    "a Docker image with a tag other than latest or with a digest, such as " + DEFAULT_BUILDER_IMAGE,
    rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::(?!latest\Z){_TAG}(?:{_DIGEST})?|{_DIGEST})",
)
# Docker has networks of the first three names; the fourth is its word for one of them.
NETWORK = TextRule(
    "lower-case letters, digits, _ and -, at most 32, and no network of Docker's own",
    r"(?!(?:bridge|host|none|default)\Z)[a-z0-9][a-z0-9_-]*",
    32,
)
# It becomes a link in pages of administrators: no `javascript:`, and no `//elsewhere` that looks like a path.
LINK = TextRule(
    "an https:// or http:// URL without a password, or a path that starts with one /, or empty",
    rf"(?:https?://(?!:)[A-Za-z0-9._~:\[\]!*+,=&%-]+(?:[/?#]{_LINK_TEXT}*)?|/(?:(?!/){_LINK_TEXT}+)?)?",
    2000,
    shown=False,
)
SOCKET = TextRule("an absolute path of at most 100 characters", r"/[^\x00-\x1f\x7f]+", 100)
DIRECTORY = TextRule("an absolute path", r"/[^\x00-\x1f]*", 4000)
HOST = TextRule(
    "a full domain name such as hub.example.org, or empty",
    r"(?:(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]*[a-z][a-z0-9-]*)?",
    # A person's part and its dot come before it.
    189,
)


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
        groups: groups that the permissions page offers, in the order of the file.
        open_by_default: whether everybody may start environments that no group was given to.
        enter_servers: who of the administrators may enter other people's servers: names of people and, with % before
            them, of groups; "administrators" is all of them, and an empty list nobody.
        builder_image: image of repo2docker that builds environments, with a tag or a digest.
        builder_parallel: builds that run at a time.
        builder_timeout: seconds after which a build is ended.
        network_name: Docker network of the user servers.
        service_port: port of the service "plasma" on 127.0.0.1.
        monitoring_url: where the monitoring link leads, a URL or a path of this server; empty for no link.
        disk_warn_at: how full a disk may be before administrators are told, in percent.
        homes: directory of people's homes, whose disk is one of them.
        cockpit: whether Cockpit is offered at /services/cockpit/. Never without HTTPS.
        cockpit_port: port of the service "cockpit" on 127.0.0.1.
        cockpit_socket: Unix socket of Cockpit's own web service.
        user_domains: the hub's host, below which each person's servers have one of their own; empty where all share
            the hub's. Never without HTTPS.
    """

    prefix: Path = Path(DEFAULT_PREFIX)
    config: dict[str, Any] = field(default_factory=dict)
    named_server_limit: int = DEFAULT_NAMED_SERVER_LIMIT
    shared_data: str = DEFAULT_SHARED_DATA
    allowed_users: tuple[str, ...] = ()
    memory: Any = DEFAULT_MEMORY
    cpu: Any = DEFAULT_CPU
    groups: tuple[str, ...] = ()
    open_by_default: bool = True
    enter_servers: tuple[str, ...] = (ADMINISTRATORS,)
    builder_image: str = DEFAULT_BUILDER_IMAGE
    builder_parallel: int = DEFAULT_BUILDER_PARALLEL
    builder_timeout: int = DEFAULT_BUILDER_TIMEOUT
    network_name: str = DEFAULT_NETWORK_NAME
    network_allow: tuple[Entry, ...] = ()
    network_host_ports: tuple[int, ...] = ()
    network_builds: tuple[Entry, ...] = ()
    service_port: int = DEFAULT_SERVICE_PORT
    monitoring_url: str = ""
    disk_warn_at: int = DEFAULT_DISK_WARN_AT
    homes: str = DEFAULT_HOMES
    cockpit: bool = False
    cockpit_port: int = DEFAULT_COCKPIT_PORT
    cockpit_socket: str = DEFAULT_COCKPIT_SOCKET
    user_domains: str = ""

    @property
    def cockpit_url(self) -> str:
        """Path at which people open Cockpit, empty where it is not offered."""
        base = str(self.config.get("base_url") or "/").strip("/")
        return f"/{base}/services/cockpit/".replace("//", "/") if self.cockpit else ""

    @property
    def server_reach(self) -> Reach:
        """What the users' servers reach beside the internet: also the hub under its public name."""
        ports = [section(self.config, name).get("port", port) for name, port in (("http", 80), ("https", 443))]
        if section(self.config, "https").get("enabled") is not True:
            ports.pop()
        return Reach(self.network_allow, tuple(dict.fromkeys([*ports, *self.network_host_ports])))

    @property
    def build_reach(self) -> Reach:
        """What builds reach beside the internet."""
        return Reach(self.network_allow + self.network_builds, self.network_host_ports)

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


def _wrong(keys: tuple[str, ...], allowed: str, value: Any) -> SettingsError:
    return SettingsError(f"config.yaml: {'.'.join(keys)} must be {allowed}, not {value!r}.")


def _number(config: dict[str, Any], *keys: str, default: int, within: tuple[int, int | None]) -> int:
    """Return the whole number at ``keys``, or ``default``; ``within`` is its least and its most (None for none)."""
    value = section(config, *keys[:-1]).get(keys[-1], default)
    least, most = within
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        raise _wrong(
            keys,
            f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}",
            value,
        )
    return value


def inner_port(config: dict[str, Any], *keys: str, default: int) -> int:
    """Return the port at ``keys``, or ``default`` for none and for one that anybody could take.

    Those were allowed once: a hub that would not start with them could not be upgraded.

    Raises:
        SettingsError: it is no port.
    """
    port = _number(config, *keys, default=default, within=(1, 65535))
    return port if port <= INNER_PORT[1] else default


def _text(config: dict[str, Any], *keys: str, default: str, rule: TextRule) -> str:
    """Return the text at ``keys``, or ``default``."""
    value = section(config, *keys[:-1]).get(keys[-1], default)
    if rule.allows(value):
        return value
    if rule.shown:
        raise _wrong(keys, rule.words, value)
    raise SettingsError(f"config.yaml: {'.'.join(keys)} must be {rule.words}.")


def _list(config: dict[str, Any], *keys: str) -> list[Any]:
    """Return the list at ``keys``; an absent or empty one is ``[]``."""
    value = section(config, *keys[:-1]).get(keys[-1])
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(keys, "a list of names", value)
    return value


def _entries(config: dict[str, Any], key: str, *, names: bool = False) -> tuple[Entry, ...]:
    found = []
    for index, value in enumerate(_list(config, "plasma", "network", key)):
        try:
            found.append(entry(value, names=names))
        except ValueError:
            raise _wrong(("plasma", "network", key, str(index)), HOST_WORDS if names else ENTRY_WORDS, value) from None
    return tuple(found)


def _host_ports(config: dict[str, Any]) -> tuple[int, ...]:
    ports = _list(config, "plasma", "network", "host_ports")
    for index, port in enumerate(ports):
        if not isinstance(port, int) or isinstance(port, bool) or not PORT[0] <= port <= PORT[1]:
            raise _wrong(("plasma", "network", "host_ports", str(index)), f"a port from {PORT[0]} to {PORT[1]}", port)
    return tuple(ports)


def _groups(config: dict[str, Any]) -> tuple[str, ...]:
    names = _list(config, "plasma", "groups")
    for index, name in enumerate(names):
        if not GROUP.allows(name):
            raise _wrong(("plasma", "groups", str(index)), GROUP.words, name)
    return tuple(dict.fromkeys(names))


def _open_by_default(config: dict[str, Any]) -> bool:
    policy = section(config, "plasma", "permissions").get("default", POLICIES[0])
    if policy not in POLICIES:
        raise _wrong(("plasma", "permissions", "default"), " or ".join(POLICIES), policy)
    return policy == "open"


def _enter_servers(config: dict[str, Any]) -> tuple[str, ...]:
    if "enter_servers" not in section(config, "plasma"):
        return (ADMINISTRATORS,)
    names = _list(config, "plasma", "enter_servers")
    for index, name in enumerate(names):
        if not ENTERING.allows(name):
            raise _wrong(("plasma", "enter_servers", str(index)), ENTERING.words, name)
    return tuple(dict.fromkeys(names))


def _cockpit(config: dict[str, Any]) -> bool:
    """Whether Cockpit is wanted and can be had: passwords of the system never travel in plain text."""
    enabled = section(config, "plasma", "cockpit").get("enabled", False)
    if not isinstance(enabled, bool):
        raise _wrong(("plasma", "cockpit", "enabled"), "true or false", enabled)
    return enabled and section(config, "https").get("enabled") is True


def _user_domains(config: dict[str, Any]) -> str:
    """The hub's host, or nothing: without HTTPS, browsers would not keep the cookies that this needs."""
    host = _text(config, "plasma", "user_domains", default="", rule=HOST)
    return host if section(config, "https").get("enabled") is True else ""


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

    shared = section(config, "plasma").get("shared_data", DEFAULT_SHARED_DATA) or ""
    if not isinstance(shared, str) or (shared and not shared.startswith("/")):
        raise _wrong(("plasma", "shared_data"), "an absolute path", shared)

    limits = section(config, "limits")
    return Settings(
        prefix=prefix,
        config=config,
        named_server_limit=_number(
            config,
            "plasma",
            "named_servers",
            "limit",
            default=DEFAULT_NAMED_SERVER_LIMIT,
            within=NAMED_SERVER_LIMIT,
        ),
        shared_data=shared,
        allowed_users=tuple(str(name) for name in _list(config, "users", "allowed")),
        # null or 0 would mean "no limit" to the spawner: never here.
        memory=limits.get("memory") or DEFAULT_MEMORY,
        cpu=limits.get("cpu") or DEFAULT_CPU,
        groups=_groups(config),
        open_by_default=_open_by_default(config),
        enter_servers=_enter_servers(config),
        builder_image=_text(config, "plasma", "builder", "image", default=DEFAULT_BUILDER_IMAGE, rule=IMAGE),
        builder_parallel=_number(
            config, "plasma", "builder", "parallel", default=DEFAULT_BUILDER_PARALLEL, within=BUILDER_PARALLEL
        ),
        builder_timeout=_number(
            config, "plasma", "builder", "timeout", default=DEFAULT_BUILDER_TIMEOUT, within=BUILDER_TIMEOUT
        ),
        network_name=_text(config, "plasma", "network", "name", default=DEFAULT_NETWORK_NAME, rule=NETWORK),
        service_port=inner_port(config, "plasma", "service_port", default=DEFAULT_SERVICE_PORT),
        network_allow=_entries(config, "allow"),
        network_host_ports=_host_ports(config),
        network_builds=_entries(config, "builds", names=True),
        monitoring_url=_text(config, "plasma", "monitoring_url", default="", rule=LINK),
        disk_warn_at=_number(config, "plasma", "disk", "warn_at", default=DEFAULT_DISK_WARN_AT, within=DISK_WARN_AT),
        homes=_text(config, "plasma", "disk", "homes", default=DEFAULT_HOMES, rule=DIRECTORY),
        cockpit=_cockpit(config),
        cockpit_port=inner_port(config, "plasma", "cockpit", "port", default=DEFAULT_COCKPIT_PORT),
        cockpit_socket=_text(config, "plasma", "cockpit", "socket", default=DEFAULT_COCKPIT_SOCKET, rule=SOCKET),
        user_domains=_user_domains(config),
    )
