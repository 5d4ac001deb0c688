"""
Sections about what the hub's own pages offer: who may start what, building environments, what containers reach.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from . import hub_rules
from .base import HubKeys, Rule, Section, hub_option, option, ruled
from .rules import BuildIndexUrl, NoProxy, ProxyUrl

PinnedImage = ruled(hub_rules.IMAGE)
BuilderImage = ruled(hub_rules.BUILDER_IMAGE)
BuildSize = ruled(hub_rules.BUILD_SIZE)
MonitoringLink = ruled(hub_rules.LINK)
Entering = ruled(hub_rules.ENTERING)
NetworkEntry = ruled(hub_rules.NETWORK_ENTRY)
BuildEntry = ruled(hub_rules.BUILD_ENTRY)
Port = Annotated[int, Field(ge=1, le=65535), Rule(hub_rules.PORT.words)]


class Permissions(Section):
    default: Literal["open", "closed"] = hub_option("permissions_default", example="closed")
    """Who may start an environment that has no groups on the permissions page: everybody (`open`), or administrators
    alone (`closed`)."""


class Builder(Section):
    image: BuilderImage | None = option(
        None,
        shown_default=f"`{HubKeys.builder_image}`; with the provider `pypi`, `{hub_rules.LOCAL}`",
        example="registry.example.org/jupyterhub/repo2docker:2025.12.0",
    )
    """Image of repo2docker, which builds the environments. It works as root with the server's Docker engine: name only
    an image you trust, and build only repositories you trust. With `local` the server makes it itself, from packages of
    its distribution and of the index, and with it a base with JupyterLab on which environments of Python are built in
    seconds: no registry is needed, and builds do not hold the engine."""
    parallel: int = hub_option("builder_parallel", unit="builds", example=1)
    """Builds at a time; further ones wait for their turn."""
    timeout: int = hub_option("builder_timeout", unit="seconds", example=3600)
    """Time after which a build is ended as failed."""
    memory: BuildSize = hub_option("builder_memory", unit="bytes", example="8G")
    """Memory of each build, without swap, with the image `local`."""
    cpu: int = hub_option("builder_cpu", unit="CPUs", example=4)
    """CPUs of each build, with the image `local`. Servers of people come first where both want them."""
    disk: BuildSize = hub_option("builder_disk", unit="bytes", example="40G")
    """Disk space of each build, with what is kept for the next one of the same environment, with the image `local`."""
    trial: bool = hub_option("builder_trial", example=False)
    """Start a server of each new image before people get it; where none starts, the build fails and the former image
    stays in use. Without it every image is used that can be built: for a hub whose own configuration starts servers by
    another command than `jupyterhub-singleuser`."""
    index: BuildIndexUrl | None = option(
        None,
        shown_default="`plasma.hub.sources.pip_index_url`, where it has no login",
        example="https://pypi.example.org/simple",
    )
    """Package index for pip and uv in builds, in place of PyPI. Environments keep it: in servers of users `pip install`
    asks it, too."""
    http_proxy: ProxyUrl | None = option(None, secret=True, example="http://proxy.example.org:3128")
    """Proxy for http:// of builds. What a build runs can read it, with its login; neither logs nor images keep it."""
    https_proxy: ProxyUrl | None = option(None, secret=True, example="http://proxy.example.org:3128")
    """Proxy for https:// of builds, and for fetching their repositories."""
    no_proxy: NoProxy | None = option(None, example="localhost,.example.org")
    """What builds reach without the proxy."""


class Network(Section):
    allow: list[NetworkEntry] = hub_option("network_allow", example=["10.1.2.0/24:5432", "10.1.2.3"])
    """Addresses of private networks, beside the internet, that user servers and builds reach: all other private,
    link-local and shared addresses are closed to them. With a port TCP and UDP of that one, without one everything.
    Name servers of the server work without being named; metadata services of clouds never do. A single address may be
    one of the server's own; a network does not open the server that is in it."""
    host_ports: list[Port] = hub_option("network_host_ports", example=[5432])
    """TCP ports of the server itself that user servers and builds reach, beside the hub's own."""
    builds: list[BuildEntry] = hub_option("network_builds", example=["gitlab.example.org:443", "10.1.2.3:3128"])
    """What builds reach beside that, by address or name: a Git server, a registry or a mirror in a private network. The
    proxies and the package index of `plasma.hub.sources`, and the proxies of `plasma.builder`, are added."""


def reached(url: str) -> str | None:
    """Return the place that a URL leads to, or None where it cannot be one: an IPv6 address."""
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    return None if ":" in (parts.hostname or ":") else place
