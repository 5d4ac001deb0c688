"""Builds an image without the engine: buildah in a user namespace of the builder (``plasma.builder.image: local``).

Runs inside the builder, where nothing of the plugin can be imported. repo2docker itself is root there without any
capability over files, and alone reads the secrets. Everything that a repository brings runs in a user namespace whose
root is nobody outside of it; that one reads and writes PLACE, and reads the images of the engine that it asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import string
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, NoReturn

from repo2docker.app import Repo2Docker
from repo2docker.engine import ContainerEngine

# Ids of the host that nobody has (systemd calls them unassigned), as in salt/builder/files/builder/Dockerfile.
FIRST_ID, IDS = 1_900_000_000, 65_536
PLACE, IMAGES, SECRETS = "/build", "/images", "/plasma"
CONTEXT, OUTPUT, STORAGE = f"{PLACE}/context", f"{PLACE}/output", f"{PLACE}/storage"
# What is asked of the service, and its answer (builds/rootless.py).
NEEDS, GIVEN = f"{SECRETS}/needs.json", f"{SECRETS}/given.json"
RESULT = "localhost/result:latest"
# Read by builds/cause.py.
TOO_LARGE = "the build needs more than {} MB of disk space (plasma.builder.disk)"
TOO_MANY = "the build makes more than {} files (plasma.builder.disk)"
FULL = "the disk of the server is nearly full"
# What is left to everybody else, in bytes and in files.
FREE, FREE_FILES = 1024**3, 50_000
# An empty file takes no space that is counted.
FILES_PER_MB = 100
# Seconds.
LOOK, PATIENCE = 0.1, 1200
# Images that a recipe can name.
MOST_IMAGES = 20
# The program that looks how much space is used takes some time itself.
MEASURE, MEASURING = 5, 120
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", re.IGNORECASE | re.MULTILINE)
_COPY = re.compile(r"^\s*COPY\s.*--from=(\S+)", re.IGNORECASE | re.MULTILINE)
_ARG = re.compile(r"^\s*ARG\s+(\w+)=[\"']?([^\s\"']*)", re.IGNORECASE | re.MULTILINE)


def inside(work: Callable[[], int]) -> int:
    """Begin work in a process of its own, as root of a new user namespace, and return its id."""
    ready, go = os.pipe(), os.pipe()
    process = os.fork()
    if not process:
        status = 1
        try:
            os.setpgid(0, 0)
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
                raise OSError(ctypes.get_errno(), "no user namespace can be made")
            os.write(ready[1], b"1")
            os.read(go[0], 1)
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            status = work()
        except Exception as error:
            print(f"Error: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    os.close(ready[1])
    if os.read(ready[0], 1):
        for kind in ("uid_map", "gid_map"):
            with open(f"/proc/{process}/{kind}", "w") as table:
                table.write(f"0 {FIRST_ID} {IDS}")
        os.write(go[1], b"1")
    for end in (ready[0], *go):
        os.close(end)
    return process


def ended(process: int) -> int:
    """Wait for a process, and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def storage(*words: str, program: str = "buildah") -> list[str]:
    """Return a command about the images here."""
    names = ("--root", "--runroot") if program == "buildah" else ("--graph", "--run")
    places = [f"{names[0]}={STORAGE}", f"{names[1]}=/tmp/run"]
    return [program, *places, "--storage-driver=overlay", f"--storage-opt=overlay.imagestore={IMAGES}/storage", *words]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of the programs in the user namespace: nothing of ours but where programs are."""
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": PLACE,
        "TMPDIR": f"{PLACE}/tmp",
        "_CONTAINERS_USERNS_CONFIGURED": "1",
        **more,
    }


class Buildah(ContainerEngine):
    """What repo2docker builds with in place of the engine."""

    string_output = True

    def images(self) -> list[Any]:
        """None: the service looks for what is there already."""
        return []

    def build(self, *, buildargs=None, custom_context=False, dockerfile="", fileobj=None, path="", labels=None, **_):
        """Build an image, and leave it in OUTPUT for the service."""
        arguments = {key: str(value) for key, value in (buildargs or {}).items()}
        with tempfile.TemporaryFile() as context:
            if custom_context and fileobj:
                shutil.copyfileobj(fileobj, context)
            else:
                with tarfile.open(fileobj=context, mode="w") as archive:
                    archive.add(path, arcname=".")
            context.seek(0)
            recipe = _member(context, dockerfile or "Dockerfile")
            given = _given(sorted(_names(recipe, arguments))[:MOST_IMAGES])
            words = [f"--file={CONTEXT}/{dockerfile or 'Dockerfile'}"]
            words += [f"--label={key}={value}" for key, value in (labels or {}).items()]
            words += [f"--build-arg={key}={value}" for key, value in arguments.items()]
            files, variables = _outside()
            process = inside(lambda: _build(context, words, given["layers"], files, variables))
            _watch(process, given["disk"])
        yield from ()


def use() -> None:
    """Have repo2docker build with it."""
    Repo2Docker.get_engine = _buildah
    Repo2Docker.fetch = _fetch


_fetch_of_repo2docker = Repo2Docker.fetch


def _fetch(self: Repo2Docker, url: str, ref: str, checkout_path: str) -> None:
    """Fetch the repository. Its credentials go then: a link in it could lead to them."""
    _fetch_of_repo2docker(self, url, ref, checkout_path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{SECRETS}/credentials")


def _buildah(self: Repo2Docker) -> Buildah:
    return Buildah(parent=self)


def _member(context: IO[bytes], name: str) -> str:
    """The text of a file in a context, which is rewound."""
    with tarfile.open(fileobj=context) as archive:
        found = {os.path.normpath(member.name): member for member in archive.getmembers()}
        member = found.get(os.path.normpath(name))
        file = archive.extractfile(member) if member and member.isreg() else None
        content = file.read() if file else b""
    context.seek(0)
    return content.decode("utf-8", "replace")


def _names(recipe: str, arguments: dict[str, str]) -> set[str]:
    """The images that a recipe begins with or copies from, as far as they can be read from it."""
    values = {**dict(_ARG.findall(recipe)), **arguments}
    found = {string.Template(name).safe_substitute(values) for name in _FROM.findall(recipe) + _COPY.findall(recipe)}
    return {name for name in found if re.fullmatch(r"[\w.:/@-]{1,300}", name) and name != "scratch"}


def _given(names: list[str]) -> dict[str, Any]:
    """Ask the service for images of the engine, and return the layers that it has, and the MB that this may use."""
    if not os.path.exists(NEEDS):
        with open(f"{NEEDS}.new", "w") as file:
            json.dump(names, file)
        os.replace(f"{NEEDS}.new", NEEDS)
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(GIVEN):
        if time.monotonic() > deadline:
            _give_up("the images that this begins with were not there in time")
        time.sleep(LOOK)
    with open(GIVEN) as file:
        return json.load(file)


def _outside() -> tuple[dict[str, bytes], dict[str, str]]:
    """What programs in the user namespace need to reach the outside: files for them, and variables."""
    files, variables = {}, {}
    if bundle := os.environ.get("SSL_CERT_FILE"):
        with open(bundle, "rb") as file:
            files["trust.pem"] = file.read()
        variables["SSL_CERT_FILE"] = f"{PLACE}/trust.pem"
    client = os.environ.get("DOCKER_CONFIG")
    if client:
        with open(f"{client}/config.json") as file:
            proxies = json.load(file)["proxies"]["default"]
        for key, name in (("httpProxy", "http_proxy"), ("httpsProxy", "https_proxy"), ("noProxy", "no_proxy")):
            if proxies.get(key):
                variables |= {name: proxies[key], name.upper(): proxies[key]}
    return files, variables


def _watch(process: int, most: int) -> None:
    """Wait for the build, and end it when it uses more MB than it may."""
    meter = Meter(most)
    while True:
        # Everything that was left behind becomes a child of this first process of the builder.
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == process:
                if code := os.waitstatus_to_exitcode(found[1]):
                    sys.exit(code)  # buildah has said why
                return
        disk = os.statvfs(PLACE)
        # Some file systems do not count files, and say 0 of 0.
        if disk.f_bavail * disk.f_frsize < FREE or (disk.f_files and disk.f_favail < FREE_FILES):
            _give_up(FULL)
        meter.look()
        time.sleep(LOOK)


class Meter:
    """Measures what the build uses, again and again. It waits for nothing: a build can stop the program that measures.

    Args:
        most: MB that it may use.
    """

    def __init__(self, most: int):
        self._most = most
        self._reading = -1
        self._text = b""
        self._next = time.monotonic() + MEASURE

    def look(self) -> None:
        """Begin to measure when it is time, and give up the build that uses too much, or that cannot be measured."""
        if time.monotonic() < self._next and self._reading < 0:
            return
        if self._reading < 0:
            self._begin()
        with contextlib.suppress(BlockingIOError):
            self._text += os.read(self._reading, 1000)
        if self._text.count(b"\n") == 2:
            size, files = (int(line.split()[0]) for line in self._text.splitlines())
            if size > self._most:
                _give_up(TOO_LARGE.format(self._most))
            if files > self._most * FILES_PER_MB:
                _give_up(TOO_MANY.format(self._most * FILES_PER_MB))
            os.close(self._reading)
            self._reading, self._next = -1, time.monotonic() + MEASURE
        elif time.monotonic() > self._next + MEASURING:
            _give_up("what the build uses cannot be measured: its memory or its processes are all taken")

    def _begin(self) -> None:
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._text, self._next = b"", time.monotonic()

        def measure() -> int:
            for of in ("--block-size=1M", "--inodes"):
                words = ["du", "--summarize", "--one-file-system", of, PLACE]
                subprocess.call(words, stdout=writing, stderr=subprocess.DEVNULL, env=environment())
            return 0

        inside(measure)
        os.close(writing)


def _give_up(why: str) -> NoReturn:
    print(f"Error: {why}", file=sys.stderr, flush=True)
    sys.exit(1)


# In the user namespace.


def _build(
    context: IO[bytes], words: list[str], known: list[list[str]], files: dict[str, bytes], variables: dict[str, str]
) -> int:
    os.umask(0o022)
    for directory in (CONTEXT, OUTPUT, f"{PLACE}/tmp"):
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
    for name, content in files.items():
        with open(f"{PLACE}/{name}", "wb") as file:
            file.write(content)
    subprocess.run(["tar", "--extract", "--no-same-owner", f"--directory={CONTEXT}"], stdin=context, check=True)
    # What a build that was ended left, or images that are gone.
    if subprocess.run(storage("rm", "--all"), env=environment(), capture_output=True).returncode:
        shutil.rmtree(STORAGE)
    build = storage("build", "--isolation=chroot", "--network=host", "--layers", "--format=docker", "--force-rm")
    built = subprocess.run([*build, f"--tag={RESULT}", *words, CONTEXT], env=environment(**variables))
    if built.returncode:
        return built.returncode
    _export(known)
    # Of the image before. Steps of this one stay, for the next build.
    subprocess.run(storage("rmi", "--prune"), env=environment(), capture_output=True)
    shutil.rmtree(CONTEXT)
    return 0


def _export(known: list[list[str]]) -> None:
    """Write the image's configuration, and those of its layers that the engine does not have yet."""
    asked = subprocess.run(
        storage("inspect", "--type=image", RESULT), env=environment(), stdout=subprocess.PIPE, check=True
    )
    image = json.loads(asked.stdout)
    config = image["Config"] if isinstance(image["Config"], dict) else json.loads(image["Config"])
    digests = config["rootfs"]["diff_ids"]
    there = max((_common(digests, layers) for layers in known), default=0)
    for digest, layer in list(zip(digests, _layers(image["FromImageID"]), strict=True))[there:]:
        target = f"{OUTPUT}/{digest.removeprefix('sha256:')}.tar"
        if not os.path.exists(target):
            diff = storage("diff", "--uncompressed", f"--file={target}", layer, program="containers-storage")
            subprocess.run(diff, env=environment(), check=True)
    with open(f"{OUTPUT}/image.json", "w") as file:
        json.dump(config, file)


def _common(one: list[str], other: list[str]) -> int:
    """How many layers two images begin with together."""
    return len(os.path.commonprefix([one, other]))


def _layers(image: str) -> list[str]:
    """The ids of an image's layers in the storage, the lowest one first."""
    parents: dict[str, str] = {}
    tops: dict[str, str] = {}
    for place in (f"{IMAGES}/storage", STORAGE):
        with open(f"{place}/overlay-layers/layers.json") as file:
            parents |= {entry["id"]: entry.get("parent", "") for entry in json.load(file)}
        with open(f"{place}/overlay-images/images.json") as file:
            tops |= {entry["id"]: entry.get("layer", "") for entry in json.load(file)}
    return list(_upwards(tops[image], parents))[::-1]


def _upwards(layer: str, parents: dict[str, str]) -> Iterator[str]:
    while layer:
        yield layer
        layer = parents[layer]


def seed() -> int:
    """Take an image that the service has put into PLACE into the shared images. Runs in a builder of its own."""

    def take() -> int:
        os.makedirs(f"{IMAGES}/storage", exist_ok=True)
        packed = f"{PLACE}/image.tar"
        subprocess.run(["tar", "--create", f"--file={packed}", "--directory=/given", "."], check=True)
        places = [f"--root={IMAGES}/storage", "--runroot=/tmp/run", "--storage-driver=overlay"]
        os.makedirs(f"{PLACE}/tmp", exist_ok=True)
        return subprocess.call(["buildah", *places, "pull", "--quiet", f"docker-archive:{packed}"], env=environment())

    return ended(inside(take))


if __name__ == "__main__":
    sys.exit(seed())
