"""Every key of config.yaml that is ours: its place there and in pillar, its default and its rule.

The plugin reads config.yaml by this table and checks what is written to it. The schema of the pillar, on the
controller, takes defaults and rules from it through a link, so nothing but the standard library is imported; what a key
is for is described there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from . import hub_rules as rules
from . import server_rules as servers
from .hub_rules import ADMINISTRATORS, Rule, list_of, number

API_PORT = 304


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        rule: what it may be; None for a key of TLJH's, which TLJH's schema checks and null leaves at the default.
        config: its place in config.yaml.
        pillar: its place below `plasma` in pillar; empty for a key that is not set there.
        written: whether the hub's settings always get the default of a key that is not set in pillar.
    """

    rule: Rule | None
    config: str
    pillar: str = ""
    written: bool = False

    @property
    def sections(self) -> list[str]:
        """The sections of config.yaml around it, from the outermost one on."""
        return self.config.split(".")[:-1]

    @property
    def name(self) -> str:
        """Its name in the innermost of them."""
        return self.config.rpartition(".")[2]

    def problems(self, value: Any) -> Iterator[tuple[str, Rule, Any]]:
        """Return what is wrong with its value in config.yaml: each time the place, the rule, and what is there."""
        for below, rule, wrong in self.rule.problems(value) if self.rule else ():
            yield f"{self.config}.{below}".rstrip("."), rule, wrong


def _key(default: Any, rule: Rule | None, config: str, pillar: str = "", written: bool = False) -> Any:
    return field(default=default, metadata={"key": Key(rule, config, pillar, written)})


@dataclass(frozen=True)
class HubKeys:
    """The keys, by the names that the plugin has for them, with their defaults."""

    memory: Any = _key("2G", None, "limits.memory", "limits.memory")
    cpu: Any = _key(2, None, "limits.cpu", "limits.cpu")
    named_server_limit: int = _key(2, number(0, 1000), "plasma.named_servers.limit", "named_servers.limit")
    # Empty for none.
    shared_data: str = _key("/srv/data", rules.SHARED_DIRECTORY, "plasma.shared_data", "shared_data")
    # What servers of users are like beside that. Nothing is what the image says; for the mask, what it always was.
    servers_timezone: str = _key("", servers.TIMEZONE, "plasma.servers.timezone", "servers.timezone")
    servers_umask: str = _key("0022", servers.UMASK, "plasma.servers.umask", "servers.umask")
    servers_environment: Any = _key((), servers.VARIABLES, "plasma.servers.environment", "servers.environment")
    servers_proxy: Any = _key((), servers.PROXY, "plasma.servers.proxy", "servers.proxy")
    servers_volumes: tuple[Any, ...] = _key((), servers.VOLUMES, "plasma.servers.volumes", "servers.volumes")
    servers_overrides: tuple[Any, ...] = _key((), servers.OVERRIDES, "plasma.servers.overrides", "servers.overrides")
    gpu_reserved: tuple[int, ...] = _key((), list_of(servers.GPU_NUMBER), "plasma.gpu.reserved", "gpu.reserved")
    # Those that the permissions page offers, in the order of the file.
    groups: tuple[str, ...] = _key((), list_of(rules.GROUP), "plasma.groups")
    # Whose members administer the hub, beside users.admin.
    admin_groups: tuple[str, ...] = _key((), list_of(rules.GROUP), "plasma.admin_groups")
    permissions_default: str = _key("open", rules.POLICY, "plasma.permissions.default", "permissions.default")
    enter_servers: tuple[str, ...] = _key(
        (ADMINISTRATORS,), list_of(rules.ENTERING), "plasma.enter_servers", "enter_servers"
    )
    # Pinned, so that a course built today and one built next term come out of the same builder.
    builder_image: str = _key(
        "quay.io/jupyterhub/repo2docker:2025.12.0", rules.BUILDER_IMAGE, "plasma.builder.image", "builder.image"
    )
    builder_parallel: int = _key(2, number(1, 16), "plasma.builder.parallel", "builder.parallel")
    builder_timeout: int = _key(7200, number(60, 86400), "plasma.builder.timeout", "builder.timeout")
    builder_memory: str = _key("4G", rules.BUILD_SIZE, "plasma.builder.memory", "builder.memory")
    builder_cpu: int = _key(2, number(1, 1024), "plasma.builder.cpu", "builder.cpu")
    builder_disk: str = _key("20G", rules.BUILD_SIZE, "plasma.builder.disk", "builder.disk")
    # Whether a server of a new image has to start before people get it.
    builder_trial: bool = _key(True, rules.FLAG, "plasma.builder.trial", "builder.trial")
    network_name: str = _key("plasma", rules.NETWORK, "plasma.network.name")
    network_allow: tuple[str, ...] = _key((), list_of(rules.NETWORK_ENTRY), "plasma.network.allow", "network.allow")
    network_host_ports: tuple[int, ...] = _key(
        (), list_of(rules.PORT), "plasma.network.host_ports", "network.host_ports"
    )
    network_builds: tuple[str, ...] = _key((), list_of(rules.BUILD_ENTRY), "plasma.network.builds", "network.builds")
    # Proxies in front of ours, which say for whom they ask.
    behind: tuple[str, ...] = _key((), list_of(rules.FRONT), "plasma.behind", "http.behind")
    service_port: int = _key(302, rules.OWN_PORT, "plasma.service_port", written=True)
    monitoring_url: str = _key("", rules.LINK, "plasma.monitoring_url", "monitoring_url")
    disk_warn_at: int = _key(85, number(1, 100), "plasma.disk.warn_at", "docker.prune.warn_at")
    homes: str = _key("/home", rules.DIRECTORY, "plasma.disk.homes", "home_path")
    # Never without HTTPS: passwords of the system would travel in plain text.
    cockpit: bool = _key(False, rules.FLAG, "plasma.cockpit.enabled")
    cockpit_port: int = _key(301, rules.OWN_PORT, "plasma.cockpit.port")
    # Where Cockpit itself listens. In a directory of root's, for root alone.
    cockpit_socket: str = _key("/run/plasma-cockpit.sock", rules.SOCKET, "plasma.cockpit.socket")
    # The hub's host, below which each person's servers have one of their own; empty where all share the hub's. Never
    # without HTTPS: browsers would not keep the cookies that this needs.
    user_domains: str = _key("", rules.HOST, "plasma.user_domains")


# Keys of TLJH's that pillar need not have: what stands in config.yaml stays then. By place there, the place in pillar.
LEFT_ALONE = {"http.address": "http.address", "http.port": "http.port", "base_url": "hub.base_url"}
KEYS: dict[str, Key] = {item.name: item.metadata["key"] for item in fields(HubKeys)}


def value_at(mapping: Any, place: str | list[str]) -> Any:
    """Return what is at a place of nested mappings, a dotted one or the names on the way; None for nothing."""
    for name in place.split(".") if isinstance(place, str) else place:
        mapping = mapping.get(name) if isinstance(mapping, Mapping) else None
    return mapping


def config_of(pillar: Mapping[str, Any]) -> dict[str, Any]:
    """Return what config.yaml gets from a pillar that was checked and completed.

    Args:
        pillar: the mapping below ``plasma``.
    """
    values = {
        key.config: value_at(pillar, key.pillar) if key.pillar else getattr(HubKeys, attribute)
        for attribute, key in KEYS.items()
        if key.pillar or key.written
    }
    # All of them, each time: a group that left pillar must leave the permissions page.
    own = [group["name"] for group in pillar["groups"] if not group["absent"]]
    values[KEYS["groups"].config] = [*own, *pillar["external_groups"]]
    values[KEYS["admin_groups"].config] = pillar["admin_groups"]
    values |= {"services.cull": pillar["cull"], "traefik_api.port": API_PORT}
    given = {place: value_at(pillar, name) for place, name in LEFT_ALONE.items()}
    values |= {place: value for place, value in given.items() if value is not None}
    if pillar["admins"]:
        values["users.admin"] = pillar["admins"]
    config: dict[str, Any] = {}
    for place, value in values.items():
        *sections, name = place.split(".")
        section = config
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return config
