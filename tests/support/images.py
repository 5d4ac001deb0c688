"""Images of a bare Debian server, from debootstrap: no registry is needed."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from tests.support import debian, paths
from tests.support.engine import docker
from tests.support.shell import SupportError, ensure_packages, run

# A server somebody has just rented: nothing that the site under test installs.
BASE_PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "sudo",
    "python3",
    "ca-certificates",
    "iproute2",
)
UNREAD = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")
REPOSITORY = "plasma-throwaway"
USER = "ubuntu"
FILES = Path(__file__).with_name("files")


def cache_key(*parts: object) -> str:
    """A short hash of ``parts``: the same contents give the same key, in any process."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else repr(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:12]


def image_id(tag: str) -> str | None:
    """Id of the image ``tag`` in the engine, or None."""
    asked = docker("image", "inspect", "--format", "{{.Id}}", tag, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else None


def root_image(suite: str, packages: tuple[str, ...], *, slim: bool = False) -> str:
    """
    Tag of an image with the Debian release ``suite`` and ``packages`` and nothing else; cached in the engine.

    ``slim``: without documentation and translations, for images that are copied around.
    """
    sources = debian.sources(suite)
    tag = f"{REPOSITORY}-root:{suite}-{cache_key(suite, sorted(packages), sources, slim)}"
    with paths.lock(f"root-{suite}"):
        if image_id(tag):
            return tag
        ensure_packages(["debootstrap"])
        # The state directory may lie on a file system without device nodes or with another user's checkout.
        with tempfile.TemporaryDirectory(prefix="debootstrap-", dir=paths.engine_dir()) as scratch:
            root, archive = Path(scratch, "root"), Path(scratch, "root.tar")
            debian.bootstrap(suite, root, packages, log=paths.log_dir() / f"debootstrap-{suite}.log")
            (root / "etc/apt/sources.list").write_text(sources)
            for forgotten in ["var/lib/apt/lists", "var/cache/apt", *(UNREAD if slim else ())]:
                shutil.rmtree(root / forgotten)
                (root / forgotten).mkdir()
            run(["tar", "-C", root, "--numeric-owner", "-cf", archive, "."], timeout=600)
            docker("import", archive, tag, timeout=600)
    return tag


def base_image(suite: str = "bookworm") -> str:
    """
    Tag of an image that boots systemd and sshd and knows one user, ``ubuntu``, with sudo and the SSH key.

    ``suite``: a Debian release ("bookworm", "trixie"). The first call takes about a minute, later ones are instant.
    """
    root = root_image(suite, BASE_PACKAGES)
    public_key = paths.public_key_file(paths.ssh_key()).read_text()
    authorities = debian.extra_authorities()
    files = {path.name: path.read_bytes() for path in sorted(FILES.glob("base/*"))}
    contents = [root, public_key, sorted(files.items()), [(path.name, path.read_bytes()) for path in authorities]]
    tag = f"{REPOSITORY}-base:{suite}-{cache_key(*contents)}"
    with paths.lock(f"base-{suite}"):
        if image_id(tag):
            return tag
        with tempfile.TemporaryDirectory(prefix="plasma-build-") as scratch:
            context = Path(scratch)
            for name, data in files.items():
                (context / name).write_bytes(data)
            (context / "authorized_keys").write_text(public_key)
            add_authorities(context, authorities)
            build(context, tag, {"ROOT": root, "USER": USER}, log_name=f"base-{suite}")
    return tag


def add_authorities(context: Path, authorities: list[Path]) -> None:
    """Put the machine's own CA files into a build context, as ``ca/`` (which always exists, for COPY)."""
    (context / "ca").mkdir()
    (context / "ca" / ".keep").touch()
    for path in authorities:
        shutil.copy(path, context / "ca")


def build(context: Path, tag: str, arguments: dict[str, str], *, log_name: str, timeout: float = 1800) -> None:
    """
    ``docker build`` with the classic builder: Debian's docker.io has no buildx.

    The build uses the machine's network, so that it reaches what the machine reaches.
    """
    command = ["build", "--network", "host", "--force-rm", "-t", tag]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    log = paths.log_dir() / f"build-{log_name}.log"
    docker(*command, str(context), env={"DOCKER_BUILDKIT": "0"}, log=log, timeout=timeout)
    if not image_id(tag):
        raise SupportError(f"docker build ended well but there is no image {tag}: see {log}")
