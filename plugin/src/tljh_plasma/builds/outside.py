"""How builds reach the outside: the proxy they go through, the authorities they trust, the index of their packages.

The builder gets both as files that root alone can read in it. The proxy reaches the steps of a build as the build
arguments that Docker knows, which neither an image nor a log keeps; authorities and the index as steps at the beginning
of the recipe that repo2docker writes. A repository with a Dockerfile of its own brings them itself.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .. import trust
from .images import BuildFailed

# In the builder, below its directory of secrets.
BUNDLE = "trust.pem"
CONFIG = "repo2docker_config.py"
CLIENT = "docker/config.json"
GIT = "gitconfig"
_CLIENT_KEYS = {"http_proxy": "httpProxy", "https_proxy": "httpsProxy", "no_proxy": "noProxy"}
_SYSTEM = "/etc/ssl/certs/ca-certificates.crt"
# Read by repo2docker, in place of a file of its image that it goes on to read.
_CONFIG = """import os

if os.path.exists("repo2docker_config.py"):
    with open("repo2docker_config.py") as file:
        exec(compile(file.read(), "repo2docker_config.py", "exec"))

from repo2docker.buildpacks.base import BuildPack

STEPS = {steps!r}
_render = BuildPack.render


def render(self, *arguments, **options):
    lines = _render(self, *arguments, **options).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("FROM "))
    return "\\n".join([*lines[: first + 1], *STEPS, *lines[first + 1 :]]) + "\\n"


BuildPack.render = render
"""
# Goes on with that, where modules of ours are there (``local``).
_MODULES = """
import sys

sys.path.insert(0, {secrets!r})
import plasma_rootless
from plasma_buildpacks.packs import packs

c.Repo2Docker.buildpacks = packs()
plasma_rootless.use()
"""
_INDEX = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX")


@dataclass(frozen=True)
class Outside:
    """What a build is given to reach the outside.

    Attributes:
        proxy: "http_proxy", "https_proxy" and "no_proxy", those that there are.
        own: certificates of the operator's authorities, in PEM.
        bundle: all that is trusted, in PEM; empty where the builder's own list will do.
        index: package index in place of PyPI, without a login; empty for none.
        modules: modules of ours by name; none where repo2docker's own ways are taken alone.
    """

    proxy: Mapping[str, str]
    own: tuple[bytes, ...] = ()
    bundle: bytes = b""
    index: str = ""
    modules: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def configures(self) -> bool:
        """Whether repo2docker has a configuration to read."""
        return bool(self.bundle or self.index or self.modules)

    @property
    def logins(self) -> list[tuple[str, str]]:
        """User names and passwords of the proxies, which no log may show."""
        parts = [urlsplit(url) for key, url in self.proxy.items() if key != "no_proxy"]
        return [(unquote(part.username or ""), unquote(part.password or "")) for part in parts if part.username]

    def files(self, secrets: str, repo: str) -> dict[str, bytes]:
        """Return the files of the builder, by their names below its directory of secrets.

        Args:
            secrets: that directory.
            repo: what is fetched.
        """
        found = {**({BUNDLE: self.bundle} if self.bundle else {}), **self.modules}
        if self.configures:
            config = _CONFIG.format(steps=steps(self.own, self.index))
            found[CONFIG] = (config + (_MODULES.format(secrets=secrets) if self.modules else "")).encode()
        if self.proxy:
            proxies = {_CLIENT_KEYS[key]: value for key, value in self.proxy.items()}
            found[CLIENT] = json.dumps({"proxies": {"default": proxies}}).encode()
        proxy = self.proxy.get("https_proxy" if repo.startswith("https://") else "http_proxy")
        lines = [f"sslCAInfo = {secrets}/{BUNDLE}"] if self.bundle else []
        # Quoted as Git reads it; no URL that pillar takes has a character that would end that.
        lines += [f'proxy = "{proxy}"'] if proxy else []
        if self.bundle or self.proxy:
            found[GIT] = "\n\t".join(["[http]", *lines, ""]).rstrip("\t").encode()
        return found

    def variables(self, secrets: str) -> list[str]:
        """Return the builder's variables that lead to the files. Nothing secret is in them."""
        found = []
        if self.bundle:
            found += [f"{name}={value}" for name, value in trust.variables(f"{secrets}/{BUNDLE}").items()]
        if self.proxy:
            found.append(f"DOCKER_CONFIG={secrets}/{Path(CLIENT).parent}")
        if self.proxy.get("no_proxy"):
            found.append(f"no_proxy={self.proxy['no_proxy']}")
        if self.bundle or self.proxy:
            found.append(f"GIT_CONFIG_GLOBAL={secrets}/{GIT}")
        return found


NOTHING = Outside({})


def outside(prefix: Path, modules: Mapping[str, bytes] | None = None) -> Outside:
    """Return what builds of this hub are given now.

    Args:
        prefix: where the hub is installed.
        modules: modules of ours by name.

    Raises:
        BuildFailed: the file with proxy and index cannot be read.
    """
    path = prefix / "plasma" / "builds.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        proxy = {key: str(found[key]) for key in _CLIENT_KEYS if found.get(key)}
        index = str(found.get("index") or "")
    except FileNotFoundError:
        proxy, index = {}, ""
    except (OSError, ValueError, AttributeError) as error:
        raise BuildFailed(f"{path} is damaged: remove it, and apply the state tljh.") from error
    bundle = trust.bundle()
    return Outside(proxy, tuple(trust.own()) if bundle else (), bundle or b"", index, modules or {})


def steps(own: tuple[bytes, ...], index: str = "") -> list[str]:
    """Return the lines of a Dockerfile that have an image trust these certificates, and take packages from an index."""
    lines = [f"ENV {' '.join(f'{name}={index}' for name in _INDEX)}"] if index else []
    if not own:
        return lines
    folder = trust.FOLDER
    put = [
        f"echo {base64.b64encode(pem).decode()} | base64 -d > {folder}/plasma-{number}.crt"
        for number, pem in enumerate(own)
    ]
    # Without the program there is just one list, which the variables lead to.
    update = "{ ! command -v update-ca-certificates || update-ca-certificates; }"
    append = f"{{ command -v update-ca-certificates || cat {folder}/plasma-*.crt >> {_SYSTEM}; }}"
    run = " && ".join([f"mkdir -p {folder} /etc/ssl/certs", *put, update, append])
    variables = " ".join(f"{name}={value}" for name, value in trust.variables(_SYSTEM).items())
    return [f"RUN {run}", f"ENV {variables}", *lines]
