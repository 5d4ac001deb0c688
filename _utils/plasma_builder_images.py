"""
The images that builds of environments begin with, made on this server (``plasma.builder.image: local``): a root of the
server's own distribution, from its own mirrors; the builder; and the base that the build pack puts environments on.

No registry is asked. Their names begin with a registry that does not exist, so nobody else can provide them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from salt.exceptions import CommandExecutionError

import plasma_engine
import plasma_files
import plasma_run

# As in the plugin's builds/local.py. Each is made of those before it.
ROOT, TOOLS, BUILDER, BASE = (f"localhost/plasma-{name}:local" for name in ("root", "tools", "builder", "base"))
# Says what an image was made of. Environments inherit that of their base.
LABEL = "org.plasma.builder.key"
# Of volumes with what builds keep (plugin/src/tljh_plasma/builds/rootless.py).
VOLUME = "org.plasma.build.volume"
# Of the stages that downloaded.
STAGE = "org.plasma.builder.stage"
# Roots of the distribution, with the packages of a list, and what is built on them.
_ROOTS = {ROOT: "packages.txt", TOOLS: "builder.txt"}
_FOLDERS = {BUILDER: "builder", BASE: "base"}
_ON = {BUILDER: {"ROOT": TOOLS}, BASE: {"ROOT": ROOT, "BUILDER": BUILDER}}
# Limits of the kernel, and of Debian's and Ubuntu's older ones, with what is usual.
_NAMESPACES = {"user/max_user_namespaces": 10000, "kernel/unprivileged_userns_clone": 1}
_SYSCTL = Path("/proc/sys")
_AUTHORITIES = Path("/usr/local/share/ca-certificates")
_PROXIES = {"http_proxy": "httpProxy", "https_proxy": "httpsProxy", "no_proxy": "noProxy"}
_TIMEOUT = 3600
_WORK = "/var/tmp"
_BOOTSTRAP = 'set -o pipefail; label=$1 tag=$2; shift 2; mmdebstrap "$@" - - | docker import --change "$label" - "$tag"'
_TARGET = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
_APT_PROXIES = ("http_proxy", "Acquire::http::Proxy", "https_proxy", "Acquire::https::Proxy")
_WHY = re.compile(r"^\s*(?:ERROR|error|cause|E|fatal)\b: ")


def sources() -> tuple[str, str]:
    """
    Return this server's release and the lines of a sources.list with its distribution's own repositories.

    Raises CommandExecutionError where apt names none.
    """
    release = platform.freedesktop_os_release()
    suite, origin = release.get("VERSION_CODENAME", ""), release.get("ID", "")
    lines: dict[tuple[str, str], list[str]] = {}
    told = plasma_run.run(["apt-get", "indextargets", "--format", _TARGET, "Created-By: Packages"], timeout=60)
    for line in told.check().stdout.splitlines():
        address, name, component, *theirs = line.split()
        address = _mirror(address).rstrip("/")
        known = not theirs or theirs[0].lower() == origin
        if known and name.partition("-")[0] == suite and address.startswith(("http://", "https://")):
            components = lines.setdefault((address, name), [])
            if component not in components:
                components.append(component)
    if not any(name == suite and "main" in components for (_, name), components in lines.items()):
        raise CommandExecutionError(f"apt has no http:// or https:// address of {suite} main: name one in its sources.")
    return suite, "".join(f"deb {address} {name} {' '.join(c)}\n" for (address, name), c in lines.items())


def _mirror(address: str) -> str:
    """An address as it is, or the first one of the list that it names, as images of clouds have it."""
    if address.startswith("mirror+file:"):
        with contextlib.suppress(OSError):
            text = Path("/", address.removeprefix("mirror+file:").lstrip("/")).read_text(encoding="utf-8")
            return next((line.split()[0] for line in text.splitlines() if line.startswith("http")), address)
    return address


def keys(recipe: Mapping[str, bytes], suite: str, listed: str) -> dict[str, str]:
    """
    Return for each image a text that says what it is made of, in the order in which they are made.

    recipe
        The files of ``salt/builder/files``, by name.
    suite, listed
        As ``sources`` has them.
    """
    found = {image: _digest(suite, listed, recipe[name]) for image, name in _ROOTS.items()}
    for image, folder in _FOLDERS.items():
        found[image] = _digest(*found.values(), *(part for item in _files(recipe, folder).items() for part in item))
    return found


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]


def _files(recipe: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    return {name.removeprefix(f"{folder}/"): recipe[name] for name in sorted(recipe) if name.startswith(f"{folder}/")}


def compare(recipe: Mapping[str, bytes]) -> dict[str, dict[str, str | None]]:
    """
    Return ``{image: {"old", "new"}}``, keys of those that are to be made; ``old`` is None for one that is not here.

    Raises CommandExecutionError.
    """
    return _changes(recipe, *sources())


def _changes(recipe: Mapping[str, bytes], suite: str, listed: str) -> dict[str, dict[str, str | None]]:
    _check_namespaces()
    engine = plasma_engine.engine() is not None
    wanted = keys(recipe, suite, listed)
    current = {image: _key(image) if engine else None for image in wanted}
    return {image: {"old": current[image], "new": key} for image, key in wanted.items() if current[image] != key}


def _check_namespaces() -> None:
    """Builds run in user namespaces, which a kernel can be told to make none of."""
    for name in _NAMESPACES:
        with contextlib.suppress(FileNotFoundError):
            if (_SYSCTL / name).read_text().strip() == "0":
                raise CommandExecutionError(
                    f"{name.replace('/', '.')} is 0, so builds cannot have user namespaces: set it to "
                    f"{_NAMESPACES[name]} in a file of /etc/sysctl.d, run 'sysctl --system', and apply again."
                )


def _inspect(image: str) -> dict | None:
    return plasma_engine.request("GET", f"/images/{urllib.parse.quote(image, safe='/:')}/json")


def _key(image: str) -> str | None:
    found = _inspect(image)
    return ((found["Config"] or {}).get("Labels") or {}).get(LABEL, "") if found else None


def make(recipe: Mapping[str, bytes], proxy: Mapping[str, str], index: str | None) -> dict[str, dict[str, str | None]]:
    """
    Make the images that are not here or were made of something else, and return what ``compare`` did.

    recipe
        The files of ``salt/builder/files``, by name.
    proxy
        ``http_proxy``, ``https_proxy`` and ``no_proxy``, those that there are, for the package index. apt has its own.
    index
        A package index in place of PyPI.

    Raises CommandExecutionError with the line of a log that says why.
    """
    suite, listed = sources()
    changes = _changes(recipe, suite, listed)
    before = [found["Id"] for image in changes if (found := _inspect(image))]
    for image, change in changes.items():
        label = f"{LABEL}={change['new']}"
        if image in _ROOTS:
            _bootstrap(image, label, suite, listed, recipe[_ROOTS[image]].decode().split())
        else:
            _build(image, label, _files(recipe, _FOLDERS[image]), proxy, index)
    if changes:
        _forget(before)
    return changes


def _bootstrap(image: str, label: str, suite: str, listed: str, packages: list[str]) -> None:
    distribution = platform.freedesktop_os_release().get("ID", "")
    keyring = Path(f"/usr/share/keyrings/{distribution}-archive-keyring.gpg")
    options = ["--variant=minbase", "--mode=root", f"--include={','.join(packages)}"]
    options += [f"--keyring={keyring}"] if keyring.exists() else []
    told = plasma_run.run(["apt-config", "shell", *_APT_PROXIES])
    proxies = dict(re.findall(r"^(\w+)='(.*)'$", told.stdout, re.MULTILINE))
    command = ["bash", "-c", _BOOTSTRAP, "bash", f"LABEL {label}", image, *options, suite]
    done = plasma_run.run(command, stdin=listed, timeout=_TIMEOUT, env=proxies)
    if done.returncode:
        raise CommandExecutionError(f"The root of {suite} for builds cannot be made: {_why(done)[0]}.")


def _build(image: str, label: str, files: Mapping[str, bytes], proxy: Mapping[str, str], index: str | None) -> None:
    with tempfile.TemporaryDirectory(prefix="plasma-builder-", dir=_WORK) as scratch:
        context, client = Path(scratch, "context"), Path(scratch, "client")
        for directory in (context / "ca", client):
            plasma_files.directory(directory)
        (context / "ca" / ".keep").touch()
        for path in sorted(_AUTHORITIES.glob("**/*.crt")):
            shutil.copy(path, context / "ca")
        for name, content in files.items():
            (context / name).write_bytes(content)
            (context / name).chmod(0o644)  # whatever the umask: users of environments read some of them
        # Both may have logins: no argument of a program, and nothing that the image keeps.
        names = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX") if index else ()
        (context / "index.sh").write_text("".join(f"export {name}='{index}'\n" for name in names))
        told = {_PROXIES[name]: value for name, value in proxy.items()}
        (client / "config.json").write_text(json.dumps({"proxies": {"default": told}} if told else {}))
        # The older builder: Debian's engine has no other.
        command = [
            "docker",
            "build",
            "--network=host",
            "--force-rm",
            "--no-cache",
            f"--tag={image}",
            f"--label={label}",
        ]
        command += [f"--build-arg={name}={value}" for name, value in _ON[image].items()]
        env = {"DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": str(client)}
        done = plasma_run.run([*command, str(context)], timeout=_TIMEOUT, env=env)
    if done.returncode:
        raise CommandExecutionError(f"The image {image} cannot be made: {_why(done)[-1]}.")


def _why(done: plasma_run.Result) -> list[str]:
    """The lines that say why: mmdebstrap's first one is the cause, and the last one of pip and uv."""
    lines = [line.strip().rstrip(".") for line in f"{done.stdout}\n{done.stderr}".splitlines() if _WHY.search(line)]
    return lines or [done.last_line]


def _forget(ids: list[str]) -> None:
    """Remove the stages that downloaded, and images that others have replaced unless something is made of them."""
    for identity in ids:
        plasma_engine.request("DELETE", f"/images/{identity}", missing=(404, 409))
    plasma_engine.request("POST", f"/images/prune?{plasma_engine.filters(dangling=['true'], label=[STAGE])}")


def present() -> list[str]:
    """Return those of the images that are here; none where no engine is installed."""
    if plasma_engine.engine() is None:
        return []
    return [image for image in (BASE, BUILDER, TOOLS, ROOT) if _inspect(image)]


def remove() -> None:
    """Remove the names of the images, with what no environment is made of, and what builds kept for the next one."""
    for image in present():
        plasma_engine.request("DELETE", f"/images/{urllib.parse.quote(image, safe='/:')}", missing=(404, 409))
    kept = plasma_engine.request("GET", f"/volumes?{plasma_engine.filters(label=[VOLUME])}") or {}
    for volume in kept.get("Volumes") or []:
        plasma_engine.request("DELETE", f"/volumes/{volume['Name']}", missing=(404, 409))
