"""A signed package repository and a file server on this machine, in the place of those of Docker and others."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import pathlib
import threading

from tests.support.shell import ensure_packages, run

# Of what Docker's repository holds, only docker-ce has files here: the distribution's engine under that name.
EMPTY = ("docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")
# Run on a throwaway server: makes docker-ce of its distribution's docker.io, which may not be installed beside it.
REPACK = """
set -e
cd "$(mktemp -d)"
apt-get update -q >&2
apt-get download -q docker.io >&2
dpkg-deb --raw-extract docker.io_*.deb tree
sed -i -e 's/^Package: .*/Package: docker-ce/' -e 's/^Version: .*/Version: 1:99/' \
    -e '/^Conflicts:/d' -e '/^Replaces:/d' -e '/^Breaks:/d' -e '/^Provides:/d' tree/DEBIAN/control
dpkg-deb --build --root-owner-group -Znone tree docker-ce.deb >&2
base64 docker-ce.deb
"""


class Mirror:
    """Serves ``directory`` over HTTP on an address that the throwaway servers reach, until close()."""

    def __init__(self, directory: pathlib.Path, address: str):
        self.directory = directory
        handler = functools.partial(_QuietHandler, directory=str(directory))
        self.server = http.server.ThreadingHTTPServer((address, 0), handler)
        self.url = f"http://{address}:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()

    def add(self, name: str, content: bytes) -> str:
        """Serve ``content`` under ``name``; returns its SHA-256."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    def add_docker_repository(self, target, system: str, codename: str) -> str:
        """Serve a signed repository laid out as Docker's own, for this server; returns the SHA-256 of its key."""
        ensure_packages(["gnupg", "dpkg-dev"])
        architecture = target.ssh("dpkg --print-architecture").stdout.strip()
        root = self.directory / "linux" / system
        pool = root / "dists" / codename / "pool"
        index = root / "dists" / codename / "stable" / f"binary-{architecture}"
        pool.mkdir(parents=True)
        index.mkdir(parents=True)
        for name in EMPTY:
            _build(pool, name)
        (pool / "docker-ce.deb").write_bytes(base64.b64decode(target.sudo(REPACK, timeout=300).stdout))
        packages = run(["dpkg-scanpackages", "--multiversion", f"dists/{codename}/pool"], cwd=root).stdout
        (index / "Packages").write_text(packages, encoding="utf-8")
        digest = hashlib.sha256(packages.encode()).hexdigest()
        release = (
            f"Origin: Docker\nLabel: Docker CE\nSuite: {codename}\nCodename: {codename}\n"
            f"Date: {_now()}\n"
            f"Architectures: {architecture}\nComponents: stable\nSHA256:\n"
            f" {digest} {len(packages.encode())} stable/binary-{architecture}/Packages\n"
        )
        return self.add(f"linux/{system}/gpg", self._signed(release, root / "dists" / codename / "InRelease"))

    def add_flat_repository(self, name: str, architecture: str, package: str, programs: dict[str, str]) -> str:
        """Serve a signed repository of one package, laid out as NVIDIA's; returns the SHA-256 of its key.

        Args:
            name: its directory.
            architecture: of the server, as dpkg calls it.
            package: name of the package.
            programs: texts by name in /usr/bin.
        """
        ensure_packages(["gnupg", "dpkg-dev"])
        root = self.directory / name / architecture
        root.mkdir(parents=True)
        _build(root, package, programs)
        packages = run(["dpkg-scanpackages", "--multiversion", "."], cwd=root).stdout
        (root / "Packages").write_text(packages, encoding="utf-8")
        digest = hashlib.sha256(packages.encode()).hexdigest()
        release = f"Date: {_now()}\nSHA256:\n {digest} {len(packages.encode())} Packages\n"
        return self.add(f"{name}/gpgkey", self._signed(release, root / "InRelease"))

    def _signed(self, release: str, place: pathlib.Path) -> bytes:
        """Write an index that a new key signs, which is returned."""
        home = self.directory.parent / "gnupg"
        home.mkdir(mode=0o700)
        gpg = ["gpg", "--homedir", str(home), "--batch", "--yes", "--passphrase", ""]
        run([*gpg, "--quick-generate-key", "throwaway <nobody@example.org>", "ed25519", "sign", "1d"])
        place.write_text(run([*gpg, "--clearsign"], input=release).stdout)
        key = run([*gpg, "--armor", "--export"]).stdout.encode()
        run(["gpgconf", "--homedir", str(home), "--kill", "all"])
        return key


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def _now() -> str:
    return run(["date", "-Ru"]).stdout.strip().replace("+0000", "UTC")


def _build(pool: pathlib.Path, name: str, programs: dict[str, str] | None = None) -> None:
    control = pool / name / "DEBIAN" / "control"
    control.parent.mkdir(parents=True)
    control.write_text(
        f"Package: {name}\nVersion: 1:99\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n"
        "Description: stands in for the package of this name in tests\n"
    )
    for program, text in (programs or {}).items():
        path = pool / name / "usr" / "bin" / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    run(["dpkg-deb", "--build", "--root-owner-group", str(pool / name), str(pool)])
