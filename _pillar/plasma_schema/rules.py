"""
Types of single values: names, sizes, paths, addresses. Each has the words for what it allows.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from typing import Annotated, Any
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, PlainValidator

from .base import Rule, refuse, words

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([KMGT])")
_LARGEST = "1024T"


def size_bytes(text: str) -> int:
    """Bytes in a size such as `1.5G`; ValueError when it is not one."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(text)
    return int(float(match[1]) * UNITS[match[2]])


def _size(least: str, what: str) -> Any:
    def check(text: str) -> str:
        try:
            number = size_bytes(text)
        except ValueError:
            raise refuse("is not a size") from None
        if number < size_bytes(least):
            raise refuse(f"is less than {least}")
        # The system counts disk space in blocks of 1K: less would be rounded to 0, which is no limit at all.
        if number < UNITS["K"] and float(text[:-1]):
            raise refuse("is less than 1K")
        if number > size_bytes(_LARGEST):
            raise refuse(f"is more than {_LARGEST}")
        return text

    return Annotated[str, AfterValidator(check), Rule(what)]


# The suffix is not optional although Docker takes plain bytes: JupyterHub refuses a text without one.
_SIZE_WORDS = "a number followed by K, M, G or T, such as 512M or 1.5G"
MemorySize = _size("64M", f"{_SIZE_WORDS}, at least 64M")
EnvironmentMemory = _size("256M", f"{_SIZE_WORDS}, at least 256M")
DiskSize = _size("0K", f"{_SIZE_WORDS}; 0K for none")


def _cpu(least: float) -> Any:
    def check(value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refuse("is not a number")
        if not least <= value <= 1024:
            raise refuse("is out of range")
        return value

    words = f"a number from {least} to 1024, fractions too"
    return Annotated[int | float, PlainValidator(check), Rule(words)]


CpuShare = _cpu(0.01)
# The service that builds environments takes no less.
EnvironmentCpu = _cpu(0.1)


def pattern(expression: str, allowed: str, *, longest: int = 255, hint: str = "does not look like one") -> Any:
    """A text that an expression matches from its first to its last character."""
    compiled = re.compile(expression, re.ASCII)

    def check(text: str) -> str:
        if len(text) > longest:
            raise refuse(f"is longer than {longest} characters")
        if not compiled.fullmatch(text):
            raise refuse(hint)
        return text

    return Annotated[str, AfterValidator(check), Rule(allowed)]


def check_line(text: str, longest: int) -> str:
    if len(text) > longest:
        raise refuse(f"is longer than {longest} characters")
    # Cc and Cf hold line breaks, terminal escapes, and marks that reorder or hide what is read on a screen.
    if any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in text):
        raise refuse("has a line break or another control character")
    return text


Line = Annotated[
    str, AfterValidator(lambda text: check_line(text, 200)), Rule("one line of text of at most 200 characters")
]


def _full_name(text: str) -> str:
    if set(text) & set(":,"):
        raise refuse("has a colon or a comma, which /etc/passwd cannot hold")
    return check_line(text, 100)


FullName = Annotated[
    str, AfterValidator(_full_name), Rule("one line of at most 100 characters without colons and commas")
]

Sha256 = pattern(r"[0-9a-f]{64}", "64 lower-case hexadecimal digits", hint="is not a SHA-256 checksum")
GitRef = pattern(
    r"(?!.*\.\.)(?!.*//)(?!.*[/.]$)[A-Za-z0-9][A-Za-z0-9._/+-]*",
    "a tag, a branch or a commit: letters, digits and . _ / + -",
    longest=100,
    hint="is not a Git reference",
)
Package = pattern(
    # A dash at the end makes apt remove the package.
    r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.]",
    "the name of a Debian package: lower-case letters, digits and + . -",
    longest=100,
    hint="is not a package name",
)
Version = pattern(r"[0-9][A-Za-z0-9.+-]*", "a version such as 0.7.7", longest=30, hint="is not a version")
Email = pattern(
    r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}",
    "an e-mail address such as admin@example.org",
    longest=254,
    hint="is not an e-mail address",
)
NoProxy = pattern(
    r"[A-Za-z0-9.*:/_\[\]-]+(?:,[A-Za-z0-9.*:/_\[\]-]+)*",
    "host names, domains and addresses, separated by commas without spaces",
    longest=2000,
    hint="is not such a list",
)
EnvironmentName = pattern(
    r"[a-z0-9]+(?:[._-][a-z0-9]+)*",
    "lower-case letters and digits, with single . _ - between them, at most 63",
    longest=63,
    hint="is not the name of an environment",
)
BuildArgument = pattern(
    r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and _", longest=64, hint="is not the name of a build argument"
)

# In lower case, with or without a domain.
HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def check_domain(text: str) -> str:
    if not text.isascii():
        raise refuse("has letters outside ASCII (write the xn-- form of such a domain)")
    if "*" in text:
        raise refuse("is a wildcard")
    if "/" in text or ":" in text:
        raise refuse("is an address, not only a domain")
    name = text.lower()
    labels = name.split(".")
    if len(labels) < 2 or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise refuse("is not a full domain name")
    if labels[-1].isdigit():
        raise refuse("is an IP address, not a domain name")
    return name


Domain = Annotated[str, AfterValidator(check_domain), Rule("a full domain name such as hub.example.org")]

# Characters that need quoting in a shell, a systemd unit or an apt source never get as far as there.
_URL_TEXT = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!*+,=&%-]+")


def check_url(text: str, schemes: tuple[str, ...] = ("https",), *, login: bool = False) -> str:
    """Check a URL; `login` allows `user:password@` in it."""
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    if len(text) > 2000:
        raise refuse("is longer than 2000 characters")
    if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise refuse(f"does not start with {wanted}")
    if not _URL_TEXT.fullmatch(text):
        raise refuse("has a character that is not allowed in a URL (write it in its % form)")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise refuse("is not a complete URL")
    if not login and "@" in parts.netloc:
        raise refuse("has a user name or password in it, which would end up in logs")
    return text


def check_link(text: str) -> str:
    """Check where a link of a page leads: a URL, or a path on the same server."""
    if not text.startswith("/"):
        return check_url(text, ("https", "http"))
    if text.startswith("//"):
        raise refuse("starts with //, which browsers read as the address of another server")
    # By the rules of a URL, of which it is the end.
    check_url(f"https://localhost{text}")
    return text


def _url(words: str, *schemes: str, login: bool = False) -> Any:
    return Annotated[str, AfterValidator(lambda text: check_url(text, schemes, login=login)), Rule(words)]


# What is fetched from these is verified by a checksum or a signature: a mirror on a closed network needs no TLS.
VERIFIED = ("https", "http")

HttpsUrl = _url("an https:// URL", "https")
IndexUrl = _url("an https:// or http:// URL", "https", "http", login=True)
ProxyUrl = _url("an http:// or https:// URL, with a login where the proxy needs one", "http", "https", login=True)


def _repository_base(text: str) -> str:
    return check_url(text[:-1] if text.endswith("/") else text, VERIFIED)


BaseUrl = Annotated[
    str,
    AfterValidator(lambda text: _repository_base(text).rstrip("/")),
    Rule("an https:// or http:// URL of a directory"),
]

_PATH = re.compile(r"(?:/[A-Za-z0-9._+@=,~-]+)+", re.ASCII)


def check_path(text: str) -> str:
    if not text.startswith("/"):
        raise refuse("is not an absolute path")
    if not _PATH.fullmatch(text) or text.startswith("//") or posixpath.normpath(text) != text:
        raise refuse("is not a plain path (letters, digits and . _ + @ = , ~ - only; no .., no // and no / at the end)")
    if len(text) > 200:
        raise refuse("is longer than 200 characters")
    return text


ServerPath = Annotated[str, AfterValidator(check_path), Rule("an absolute path on the server, without spaces")]

# Where the system keeps its own files, or where files do not last. Directories of services in /var/lib belong to
# packages, so /var is closed but for /var/opt.
_SYSTEM = words("bin boot dev etc lib lib32 lib64 libx32 lost+found proc root run sbin snap sys tmp usr var")
_USR_LOCAL = words("bin etc games include lib man sbin share src")
_SHARED = frozenset({"/home", "/media", "/mnt", "/opt", "/srv"})


def system_directory(path: str) -> bool:
    """Whether a path is, or is in, a directory of the system itself."""
    parts = path.split("/")[1:]
    if parts[0] == "usr" and len(parts) > 2:
        return parts[1] != "local" or parts[2] in _USR_LOCAL
    if parts[0] == "var" and len(parts) > 2:
        return parts[1] != "opt"
    return parts[0] in _SYSTEM


def _directory(text: str) -> str:
    if text == "/":
        raise refuse("is the root directory")
    check_path(text)
    if system_directory(text):
        raise refuse("is a directory of the system")
    if text in _SHARED:
        raise refuse("is shared with others: name a directory in it")
    return text


def _prefix(text: str) -> str:
    _directory(text)
    if text.startswith("/home/"):
        # TLJH's units have ProtectHome.
        raise refuse("is below /home, which the hub's services cannot read")
    return text


HomePath = Annotated[
    str,
    AfterValidator(lambda text: text if text == "/home" else _directory(text)),
    Rule("/home, or an absolute path without spaces, not a directory of the system, such as /srv/homes"),
]
Calendar = pattern(
    r"[A-Za-z0-9*][A-Za-z0-9*:.,/~ -]*",
    "when a timer of systemd runs (OnCalendar), such as `daily` or `Mon *-*-* 03:30:00`",
    longest=100,
    hint="is not what systemd takes for OnCalendar",
)
DataDirectory = Annotated[
    str,
    AfterValidator(_directory),
    Rule("an absolute path without spaces, not a directory of the system, such as /srv/data"),
]
Prefix = Annotated[
    str,
    AfterValidator(_prefix),
    Rule("an absolute path without spaces, not /home and not a directory of the system, such as /opt/tljh"),
]


def _certificate(text: str) -> str:
    if text.startswith("salt://"):
        check_path(text.removeprefix("salt:/"))
        return text
    check_path(text)
    if text.startswith(("/home/", "/root/", "/run/user/")):
        # Traefik's unit has ProtectHome.
        raise refuse("is in a home directory, which the proxy cannot read")
    return text


CertificateFile = Annotated[
    str,
    AfterValidator(_certificate),
    Rule("an absolute path on the server, outside of home directories, or salt://FILE for a file of this repository"),
]


def _check_source(text: str) -> str:
    if text.startswith("/"):
        return check_path(text)
    if "://" in text:
        return check_url(text, VERIFIED)
    raise refuse("is neither a URL nor an absolute path")


_SOURCE_WORDS = "an https:// or http:// URL, or an absolute path on the server"


def _source(*words: str) -> Any:
    def check(text: str) -> str:
        return text if text in words else _check_source(text)

    named = "".join(f"{word}, " for word in words)
    return Annotated[str, AfterValidator(check), Rule(f"{named}{_SOURCE_WORDS}")]


def _template(text: str) -> str:
    """A URL or a path, with places for the version and the architecture."""
    left = text.replace("{version}", "0").replace("{arch}", "x")
    if set(left) & set("{}"):
        raise refuse("has placeholders other than {version} and {arch}")
    _check_source(left)
    return text


Source = _source()
MiniforgeSource = _source("none")
TraefikSource = _source("pypi")
SourceTemplate = Annotated[
    str, AfterValidator(_template), Rule(f"{_SOURCE_WORDS}, in which {{version}} and {{arch}} are replaced")
]


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
        raise refuse("is not something pip can install") from None
    if requirement.url:
        if requirement.url.startswith("/"):
            raise refuse("names a file in a requirement: write its path alone")
        _pip_spec(requirement.url)
    return text


PipSpec = Annotated[
    str,
    AfterValidator(_pip_spec),
    Rule("what pip installs: a requirement, a git+https:// or https:// URL, or an absolute path on the server"),
]
