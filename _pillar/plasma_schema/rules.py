"""
Types of single values: names, sizes, paths, addresses. Each has the words for what it allows.
"""

from __future__ import annotations

import re
import unicodedata
from functools import partial
from typing import Annotated, Any

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import PlainValidator

from . import server_rules
from .base import Rule, checked, ruled
from .hub_rules import NotAllowed, check_directory, check_path, check_url, matching

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMGT])")
_LARGEST = "1024T"


def size_bytes(text: str) -> int:
    """Bytes in a size such as `1.5G`."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise NotAllowed("is not a size")
    return int(float(match[1]) * UNITS[match[2]])


def _size(least: str, what: str) -> Any:
    def check(text: str) -> str:
        number = size_bytes(text)
        if number < size_bytes(least):
            raise NotAllowed(f"is less than {least}")
        # The system counts disk space in blocks of 1K: less would be rounded to 0, which is no limit at all.
        if number < UNITS["K"] and float(text[:-1]):
            raise NotAllowed("is less than 1K")
        if number > size_bytes(_LARGEST):
            raise NotAllowed(f"is more than {_LARGEST}")
        return text

    return checked(check, f"a number followed by K, M, G or T, such as 512M or 1.5G{what}")


# The suffix is not optional although Docker takes plain bytes: JupyterHub refuses a text without one.
MemorySize = _size("64M", ", at least 64M")
EnvironmentMemory = _size("256M", ", at least 256M")
DiskSize = _size("0K", "; 0K for none")


def _cpu(least: float) -> Any:
    def check(value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise NotAllowed("is not a number")
        if not least <= value <= 1024:
            raise NotAllowed("is out of range")
        return value

    return Annotated[int | float, PlainValidator(check), Rule(f"a number from {least} to 1024, fractions too")]


CpuShare = _cpu(0.01)
# The service that builds environments takes no less.
EnvironmentCpu = _cpu(0.1)


def pattern(expression: str, reason: str, allowed: str, longest: int = 255) -> Any:
    """A text that an expression matches from its first to its last character."""
    return checked(matching(expression, reason, longest), allowed)


def check_line(text: str, longest: int) -> str:
    if len(text) > longest:
        raise NotAllowed(f"is longer than {longest} characters")
    # Cc and Cf hold line breaks, terminal escapes, and marks that reorder or hide what is read on a screen.
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in text):
        raise NotAllowed("has a line break or another control character")
    return text


Line = checked(partial(check_line, longest=200), "one line of text of at most 200 characters")


def _full_name(text: str) -> str:
    if set(text) & set(":,"):
        raise NotAllowed("has a colon or a comma, which /etc/passwd cannot hold")
    return check_line(text, 100)


FullName = checked(_full_name, "one line of at most 100 characters without colons and commas")

Sha256 = pattern(r"[0-9a-f]{64}", "is not a SHA-256 checksum", "64 lower-case hexadecimal digits")
GitRef = pattern(
    r"(?!.*\.\.)(?!.*//)(?!.*[/.]$)[A-Za-z0-9][A-Za-z0-9._/+-]*",
    "is not a Git reference",
    "a tag, a branch or a commit: letters, digits and . _ / + -",
    100,
)
# A dash at the end makes apt remove the package.
Package = pattern(
    r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.]",
    "is not a package name",
    "the name of a Debian package: lower-case letters, digits and + . -",
    100,
)
Version = pattern(r"[0-9][A-Za-z0-9.+-]*", "is not a version", "a version such as 0.7.7", 30)
Email = pattern(
    r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}",
    "is not an e-mail address",
    "an e-mail address such as admin@example.org",
    254,
)
NoProxy = ruled(server_rules.NO_PROXY)
EnvironmentName = pattern(
    r"[a-z0-9]+(?:[._-][a-z0-9]+)*",
    "is not the name of an environment",
    "lower-case letters and digits, with single . _ - between them, at most 63",
    63,
)
BuildArgument = pattern(r"[A-Za-z_][A-Za-z0-9_]*", "is not the name of a build argument", "letters, digits and _", 64)
Calendar = pattern(
    r"[A-Za-z0-9*][A-Za-z0-9*:.,/~ -]*",
    "is not what systemd takes for OnCalendar",
    "when a timer of systemd runs (OnCalendar), such as `daily` or `Mon *-*-* 03:30:00`",
    100,
)

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def check_domain(text: str) -> str:
    if not text.isascii():
        raise NotAllowed("has letters outside ASCII (write the xn-- form of such a domain)")
    if "*" in text:
        raise NotAllowed("is a wildcard")
    if "/" in text or ":" in text:
        raise NotAllowed("is an address, not only a domain")
    name = text.lower()
    labels = name.split(".")
    if len(labels) < 2 or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise NotAllowed("is not a full domain name")
    if labels[-1].isdigit():
        raise NotAllowed("is an IP address, not a domain name")
    return name


Domain = checked(check_domain, "a full domain name such as hub.example.org")

# What is fetched from these is verified by a checksum or a signature: a mirror on a closed network needs no TLS.
_check_verified = partial(check_url, schemes=("https", "http"))

HttpsUrl = checked(check_url, "an https:// URL")
IndexUrl = checked(partial(_check_verified, login=True), "an https:// or http:// URL")
# Images keep it, and whoever starts a server reads it there.
BuildIndexUrl = checked(_check_verified, "an https:// or http:// URL without a login")
ProxyUrl = checked(
    partial(check_url, schemes=("http", "https"), login=True),
    "an http:// or https:// URL, with a login where the proxy needs one",
)
BaseUrl = checked(
    lambda text: _check_verified(text.removesuffix("/")).rstrip("/"), "an https:// or http:// URL of a directory"
)

ServerPath = checked(check_path, "an absolute path on the server, without spaces")


def _prefix(text: str) -> str:
    check_directory(text)
    if text.startswith("/home/"):
        # TLJH's units have ProtectHome.
        raise NotAllowed("is below /home, which the hub's services cannot read")
    return text


HomePath = checked(
    lambda text: text if text == "/home" else check_directory(text),
    "/home, or an absolute path without spaces, not a directory of the system, such as /srv/homes",
)
DataDirectory = checked(
    check_directory, "an absolute path without spaces, not a directory of the system, such as /srv/data"
)
Prefix = checked(
    _prefix, "an absolute path without spaces, not /home and not a directory of the system, such as /opt/tljh"
)


def _certificate(text: str) -> str:
    if text.startswith("salt://"):
        check_path(text.removeprefix("salt:/"))
        return text
    check_path(text)
    if text.startswith(("/home/", "/root/", "/run/user/")):
        # Traefik's unit has ProtectHome.
        raise NotAllowed("is in a home directory, which the proxy cannot read")
    return text


CertificateFile = checked(
    _certificate,
    "an absolute path on the server, outside of home directories, or salt://FILE for a file of this repository",
)


def _check_source(text: str) -> str:
    if text.startswith("/"):
        return check_path(text)
    if "://" in text:
        return _check_verified(text)
    raise NotAllowed("is neither a URL nor an absolute path")


_SOURCE_WORDS = "an https:// or http:// URL, or an absolute path on the server"


def _source(*words: str) -> Any:
    def check(text: str) -> str:
        return text if text in words else _check_source(text)

    named = "".join(f"{word}, " for word in words)
    return checked(check, f"{named}{_SOURCE_WORDS}")


def _template(text: str) -> str:
    """A URL or a path, with places for the version and the architecture."""
    left = text.replace("{version}", "0").replace("{arch}", "x")
    if set(left) & set("{}"):
        raise NotAllowed("has placeholders other than {version} and {arch}")
    _check_source(left)
    return text


Source = _source()
MiniforgeSource = _source("none")
TraefikSource = _source("pypi")
SourceTemplate = checked(_template, f"{_SOURCE_WORDS}, in which {{version}} and {{arch}} are replaced")


def _pip_spec(text: str) -> str:
    if text.startswith("/"):
        return check_path(text)
    if text.startswith(("git+https://", "https://")):
        check_url(text.removeprefix("git+"))
        return text
    try:
        # Options of pip, local files and shell text are no requirements.
        requirement = Requirement(check_line(text, 300))
    except InvalidRequirement:
        raise NotAllowed("is not something pip can install") from None
    if requirement.url:
        if requirement.url.startswith("/"):
            raise NotAllowed("names a file in a requirement: write its path alone")
        _pip_spec(requirement.url)
    return text


PipSpec = checked(
    _pip_spec, "what pip installs: a requirement, a git+https:// or https:// URL, or an absolute path on the server"
)
