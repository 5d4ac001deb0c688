"""
Section about the servers of users: what their programs find there beside the image and the home.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from . import server_rules as rules
from .base import Found, Section, hub_option, option, ruled
from .names import Membership
from .people import repeated
from .rules import NoProxy

TimeZone = ruled(rules.TIMEZONE)
Umask = ruled(rules.UMASK)
Variable = ruled(rules.VARIABLE)
VariableValue = ruled(rules.VALUE)
ServerProxyUrl = ruled(rules.PROXY_URL)
VolumePath = ruled(rules.VOLUME_PATH)
# Of those that were made in the browser, too.
ShownName = ruled(rules.ENVIRONMENT)


class Proxy(Section):
    http: ServerProxyUrl | None = option(None, example="http://10.1.2.3:3128")
    """Proxy for http://, as HTTP_PROXY and http_proxy."""
    https: ServerProxyUrl | None = option(None, example="http://10.1.2.3:3128")
    """Proxy for https://, as HTTPS_PROXY and https_proxy."""
    no_proxy: NoProxy | None = option(None, example=".example.org,10.1.2.0/24")
    """What is reached without the proxy. The hub and the server itself are, always."""


class Volume(Section):
    source: VolumePath = option(example="/srv/biology")
    """Directory of the server. It and all directories above it have to be root's, writable for nobody else above it.
    Where it is missing, the apply makes it: for the group of the override, where there is one and it is writable."""
    target: VolumePath | None = option(None, shown_default="`source`", example="/srv/biology")
    """Where it is in user servers."""
    writable: bool = option(False, example=True)
    """Whether programs may write there, as far as the owner and the mode of files let them."""

    def complete(self) -> None:
        self.target = self.target or self.source


class Override(Section):
    groups: list[Membership] = option(list, example=["biology"])
    """Groups of people; whose member somebody is, gets what stands here. None is everybody."""
    environments: list[ShownName] = option(list, example=["python-course"])
    """Environments whose servers get it. None is all of them."""
    timezone: TimeZone | None = option(None, example="Europe/Paris")
    """In place of `plasma.servers.timezone`."""
    umask: Umask | None = option(None, example="0002")
    """In place of `plasma.servers.umask`."""
    environment: dict[Variable, VariableValue] = option(dict, example={"COURSE": "biology"})
    """More variables, and other values of those above."""
    proxy: Proxy | None = option(None, example={"http": "http://10.1.2.3:3128"})
    """In place of the keys of `plasma.servers.proxy` that are set here."""
    volumes: list[Volume] = option(list, example=[{"source": "/srv/biology", "writable": True}])
    """More directories."""

    def found(self) -> Iterable[Found]:
        if not (self.groups or self.environments):
            yield Found(("groups",), "or environments is required: what is for all stands in plasma.servers itself")
        yield from repeated(self.groups, "groups")
        yield from repeated(self.environments, "environments")


class Servers(Section):
    timezone: TimeZone = hub_option("servers_timezone", example="Europe/Berlin")
    """Time zone of user servers; empty is what the image has, mostly UTC."""
    umask: Umask = hub_option("servers_umask", example="0002")
    """Rights that new files do not get: with `0022` others may read, with `0002` the group may write. In quotes."""
    environment: dict[Variable, VariableValue] = hub_option("servers_environment", example={"OMP_NUM_THREADS": "2"})
    """Variables for all programs of user servers. Everybody reads them there: no place for passwords."""
    proxy: Proxy = option(Proxy, example={"http": "http://10.1.2.3:3128", "https": "http://10.1.2.3:3128"})
    """The web proxy that programs of user servers are told to use. Servers reach it, also in a private network."""
    volumes: list[Volume] = hub_option("servers_volumes", example=[{"source": "/srv/models"}])
    """Directories of the server that user servers see, beside the home and `plasma.shared_data`."""
    overrides: list[Override] = hub_option(
        "servers_overrides",
        example=[{"groups": ["biology"], "umask": "0002", "volumes": [{"source": "/srv/biology", "writable": True}]}],
    )
    """What is different for groups or environments. All that apply are taken, in the order of the list."""

    def mounted(self) -> Iterator[tuple[tuple[str | int, ...], Volume, list[str]]]:
        """Each directory, with its place below this section and the groups that get it."""
        for at, volume in enumerate(self.volumes):
            yield ("volumes", at), volume, []
        for number, override in enumerate(self.overrides):
            for at, volume in enumerate(override.volumes):
                yield ("overrides", number, "volumes", at), volume, override.groups


def directories(servers: Servers) -> list[dict[str, str]]:
    """What the apply makes where it is missing: path, group and mode."""
    found = {}
    for _, volume, groups in servers.mounted():
        theirs = volume.writable and len(groups) == 1
        made = {"name": volume.source, "group": groups[0] if theirs else "root", "mode": "2770" if theirs else "0755"}
        # Two overrides may name one directory: the group's is the narrower one.
        if theirs or volume.source not in found:
            found[volume.source] = made
    return list(found.values())
