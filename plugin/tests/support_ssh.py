"""A server with ssh and Git in a container, as a forge is: deploy keys open its repositories."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support_hub import wait_until

from tests.support import images

PACKAGES = ("openssh-server", "git")
START = """
set -eu
mkdir -p /run/sshd
useradd --create-home --shell /usr/bin/git-shell --password '*' git
install -d -o git -g git -m 700 /home/git/.ssh
install -o git -g git -m 600 /keys/authorized_keys /home/git/.ssh/authorized_keys
git config --system safe.directory '*'
ln -s /srv/git /home/git/repositories
ssh-keygen -A
exec /usr/sbin/sshd -D -e -o PasswordAuthentication=no
"""


@dataclass
class Forge:
    """A server of repositories.

    Attributes:
        address: its IP address.
        key: text of the private key that it accepts.
        known_hosts: its host key, as known_hosts has it.
    """

    address: str
    key: str
    known_hosts: str


def make_key(path: Path, passphrase: str = "") -> str:
    """Make a key; returns the private one. The public one is ``path`` with ".pub"."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", str(path)], check=True)
    return path.read_text()


@contextmanager
def forge(client: Any, repositories: Path, directory: Path) -> Iterator[Forge]:
    """Serve the repositories of a directory as /srv/git, and as ~/repositories of the user git.

    Args:
        client: the engine.
        repositories: directory with the repositories.
        directory: an empty one, for keys.
    """
    # Pytest lets nobody else into its directories.
    repositories.chmod(0o755)
    image = images.root_image("bookworm", PACKAGES, slim=True)
    key = make_key(directory / "key")
    (directory / "authorized_keys").write_text((directory / "key.pub").read_text())
    volumes = [f"{repositories}:/srv/git:ro", f"{directory}:/keys:ro"]
    container = client.containers.run(image, ["sh", "-c", START], volumes=volumes, detach=True)
    try:

        def listens() -> bool:
            assert container.status != "exited", container.logs()
            container.reload()
            return b"Server listening" in container.logs()

        wait_until(listens, 60, "sshd")
        address = container.attrs["NetworkSettings"]["IPAddress"]
        public = container.exec_run(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).output.decode().split()
        yield Forge(address, key, f"{address} {public[0]} {public[1]}\n")
    finally:
        container.remove(force=True)
