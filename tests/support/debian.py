"""What this machine knows about Debian mirrors and certificate authorities, and debootstrap."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import paths
from tests.support.shell import SupportError, run

DEFAULT_MIRROR = "http://deb.debian.org/debian"
DEFAULT_SECURITY_MIRROR = "http://deb.debian.org/debian-security"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
BOOTSTRAP_TIMEOUT = 1800


@dataclass(frozen=True)
class Source:
    """One line of apt's sources: where a suite comes from."""

    uri: str
    suite: str
    components: tuple[str, ...] = ()


def parse_one_line(text: str) -> list[Source]:
    """The binary sources of a sources.list file in the one-line style."""
    found = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) < 3 or words[0] != "deb":
            continue
        rest = words[1:]
        if rest[0].startswith("["):
            while rest and not rest[0].endswith("]"):
                rest = rest[1:]
            rest = rest[1:]
        if len(rest) >= 2:
            found.append(Source(rest[0].rstrip("/"), rest[1], tuple(rest[2:])))
    return found


def parse_deb822(text: str) -> list[Source]:
    """The binary sources of a .sources file."""
    found = []
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in kept.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            found += [Source(uri.rstrip("/"), suite, components) for suite in fields.get("suites", "").split()]
    return found


def machine_sources(apt: Path = Path("/etc/apt")) -> list[Source]:
    """Every binary source this machine's apt uses."""
    found: list[Source] = []
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]:
        if path.is_file():
            found += parse_one_line(path.read_text())
    for path in sorted((apt / "sources.list.d").glob("*.sources")):
        found += parse_deb822(path.read_text())
    return found


def mirrors(known: Iterable[Source], codename: str | None) -> tuple[str, str]:
    """
    The (main, security) mirrors among ``known``, or Debian's own.

    ``codename``: the Debian release of this machine, None on another system (whose mirrors have no Debian). Third-party
    sources also name the release as their suite, but not with the component "main" of Debian's own mirrors.
    """
    main, security = DEFAULT_MIRROR, DEFAULT_SECURITY_MIRROR
    for source in known:
        if not codename or "main" not in source.components or not source.uri.startswith(("http://", "https://")):
            continue
        if source.suite == f"{codename}-security":
            security = source.uri
        elif source.suite == f"{codename}-updates":
            main = source.uri
    return main, security


def machine_mirrors() -> tuple[str, str]:
    """The (main, security) Debian mirrors of this machine."""
    release = platform.freedesktop_os_release()
    codename = release.get("VERSION_CODENAME") if release.get("ID") == "debian" else None
    return mirrors(machine_sources(), codename)


def sources(suite: str) -> str:
    """Text of a sources.list for the release ``suite``, on the mirrors this machine uses."""
    main, security = machine_mirrors()
    return f"deb {main} {suite} main\ndeb {main} {suite}-updates main\ndeb {security} {suite}-security main\n"


def bootstrap(suite: str, root: Path, packages: Sequence[str], *, log: Path) -> None:
    """Write the Debian release ``suite`` with ``packages`` to the new directory ``root``; output goes to ``log``."""
    if not Path("/usr/share/debootstrap/scripts", suite).exists():
        raise SupportError(f"debootstrap on this machine does not know the suite {suite!r}")
    if not KEYRING.exists():
        raise SupportError(f"{KEYRING} is missing: install debian-archive-keyring")
    root.mkdir()
    root.chmod(0o755)  # it becomes "/", whatever the umask here
    main, _ = machine_mirrors()
    packages_kept = paths.cache_dir() / "debs"  # for the next root of this release
    packages_kept.mkdir(exist_ok=True)
    command = [
        "debootstrap",
        "--variant=minbase",
        f"--cache-dir={packages_kept}",
        f"--keyring={KEYRING}",
        f"--include={','.join(packages)}",
    ]
    run([*command, suite, root, main], log=log, timeout=BOOTSTRAP_TIMEOUT)
    # debootstrap copies this from the machine.
    (root / "etc/hostname").write_text("localhost\n")


def extra_authorities(directory: Path = Path("/usr/local/share/ca-certificates")) -> list[Path]:
    """CA files somebody added to this machine (a proxy's, an organisation's); servers behind it need them too."""
    return sorted(path for path in directory.glob("**/*.crt") if path.is_file())
