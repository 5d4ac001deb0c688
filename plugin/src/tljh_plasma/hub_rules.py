"""What values of config.yaml and of pillar may be: rules that say so in words and check it.

The plugin and, through a link, the schema of the pillar use them: nothing but the standard library is imported.
"""

from __future__ import annotations

import ipaddress
import os
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit


class NotAllowed(ValueError):
    """A value is not allowed; the text is the end of a sentence that starts with the value: `is too small`."""


# All of them, in the list of the administrators who may enter other people's servers.
ADMINISTRATORS = "administrators"
# Passwords, logins and tokens pass through the hub's ports. Only root can listen on a port below 1024, so nobody else
# can stand in for what belongs there while it restarts; and above 511 the kernel hands out ports below 1024 to whoever
# asks for one. Who is not root, as on a developer's machine, has no choice.
INNER_PORT = (1, 511) if os.geteuid() == 0 else (1, 65535)


@dataclass(frozen=True)
class Rule:
    """What a value may be.

    Attributes:
        words: what is allowed, as the end of "must be ...".
        check: returns the value, or raises NotAllowed.
        shown: whether a wrong value may be repeated in an error; not where people put passwords.
        bounds: least and most of a whole number.
        entry: the rule of each entry of a list.
        empty: whether nothing (null) in config.yaml is the same as an empty text or list.
    """

    words: str
    check: Callable[[Any], Any]
    shown: bool = True
    bounds: tuple[int, int] | None = None
    entry: Rule | None = None
    empty: bool = False

    def problems(self, value: Any) -> list[tuple[str, Rule, Any]]:
        """Return what is wrong with a value: each time the place below it ("", or "2" in a list), the rule, the value.

        Args:
            value: of any type.
        """
        try:
            self.check(value)
        except NotAllowed:
            return [("", self, value)]
        if not self.entry:
            return []
        entry = self.entry
        return [
            (f"{at}.{below}".rstrip("."), rule, wrong)
            for at, item in enumerate(value)
            for below, rule, wrong in entry.problems(item)
        ]

    def allows(self, value: Any) -> bool:
        """Whether a value of any type is allowed."""
        return not self.problems(value)


def of_type(kind: type, check: Callable[[Any], Any] = lambda value: value) -> Callable[[Any], Any]:
    """Return the check of a value of one type; true and false are no numbers."""

    def typed(value: Any) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise NotAllowed("is of another type")
        check(value)
        return value

    return typed


def number(least: int, most: int, words: str = "a whole number") -> Rule:
    """Return the rule of a whole number."""

    def check(value: int) -> None:
        if not least <= value <= most:
            raise NotAllowed("is too small" if value < least else "is too large")

    return Rule(f"{words} from {least} to {most}", of_type(int, check), bounds=(least, most))


def text(words: str, check: Callable[[str], Any], *, shown: bool = True, empty: bool = False) -> Rule:
    """Return the rule of a text."""
    return Rule(words, of_type(str, check), shown, empty=empty)


def list_of(entry: Rule) -> Rule:
    """Return the rule of a list."""
    return Rule("a list", of_type(list), entry=entry, empty=True)


FLAG = Rule("true or false", of_type(bool))


def matching(expression: str, reason: str, longest: int = 255) -> Callable[[str], str]:
    """Return the check of a text that an expression matches from its first to its last character."""
    compiled = re.compile(expression)

    def check(text: str) -> str:
        if len(text) > longest:
            raise NotAllowed(f"is longer than {longest} characters")
        if not compiled.fullmatch(text):
            raise NotAllowed(reason)
        return text

    return check


_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9][A-Za-z0-9-]*)*(?::[0-9]{1,5})?/)?"
    rf"{_PART}(?:/{_PART})*"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?P<digest>@sha256:[0-9a-f]{64})?",
    re.ASCII,
)


# In place of an image's name: the server makes it itself (the state builder).
LOCAL = "local"


def _check_build_size(text: str) -> None:
    size = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([MGT])", text, re.ASCII)
    if not size or float(size[1]) * {"M": 1, "G": 1024, "T": 1024**2}[size[2]] < 512:
        raise NotAllowed("is no size, or too little for a build")


BUILD_SIZE = text("a number followed by M, G or T, such as 4G or 1.5G, at least 512M", _check_build_size)


def _check_image(text: str) -> None:
    matching(r"[A-Za-z0-9._/:@-]+", "is empty or has a character that no image's name has")(text)
    image = _IMAGE.fullmatch(text)
    if not image:
        raise NotAllowed("is not the name of a Docker image")
    if not image["tag"] and not image["digest"]:
        raise NotAllowed("names neither a tag nor a digest: Docker would take `latest`, which changes over time")
    if image["tag"] == "latest" and not image["digest"]:
        raise NotAllowed("names the tag `latest`, which changes over time")


# Characters that need quoting in a shell, a systemd unit or an apt source never get as far as there.
_URL_TEXT = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!*+,=&%-]+")


def check_url(text: str, schemes: tuple[str, ...] = ("https",), *, login: bool = False) -> str:
    """Check a URL; `login` allows `user:password@` in it."""
    if len(text) > 2000:
        raise NotAllowed("is longer than 2000 characters")
    if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        raise NotAllowed(f"does not start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not _URL_TEXT.fullmatch(text):
        raise NotAllowed("has a character that is not allowed in a URL (write it in its % form)")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host:
        raise NotAllowed("is not a complete URL")
    if not login and "@" in parts.netloc:
        raise NotAllowed("has a user name or password in it, which would end up in logs")
    return text


def _check_link(text: str) -> None:
    """Check where a link of a page leads: no `javascript:`, and no `//elsewhere` that looks like a path."""
    if text.startswith("//"):
        raise NotAllowed("starts with //, which browsers read as the address of another server")
    if text.startswith("/"):
        # By the rules of a URL, of which it is the end.
        check_url(f"https://localhost{text}")
    elif text:
        check_url(text, ("https", "http"))


# What an environment may open with by a name, and where a server that has it has it. That of RStudio is
# jupyter-rsession-proxy's, that of code-server jupyter-vscode-proxy's, that of desktops jupyter-remote-desktop-proxy's.
APPLICATIONS = {
    "lab": "/lab",
    "notebook": "/tree",
    "rstudio": "/rstudio/",
    "vscode": "/vscode/",
    "desktop": "/desktop/",
}
_INSIDE = re.compile(r"(?:[A-Za-z0-9._~/!*+,=&@:-]|%[0-9A-Fa-f]{2})+")


def _check_opens(text: str) -> None:
    """Check what an environment opens with: whatever it is, it is inside the person's own server."""
    if text in APPLICATIONS:
        return
    if not text.startswith("/"):
        raise NotAllowed("is neither one of these names nor a path that starts with /")
    if len(text) > 500:
        raise NotAllowed("is longer than 500 characters")
    path, mark, query = text.partition("?")
    if not _INSIDE.fullmatch(path) or (mark and not _INSIDE.fullmatch(query)):
        raise NotAllowed("has a character that is not allowed in a path (write it in its % form)")
    try:
        path, query = unquote(path, errors="strict"), unquote(query, errors="strict")
    except UnicodeDecodeError:
        raise NotAllowed("has a % form that is no UTF-8") from None
    if not f"{path}{query}".isprintable() or "\\" in f"{path}{query}":
        raise NotAllowed("has a backslash or a control character")
    if "//" in path or {".", ".."} & set(path.split("/")):
        raise NotAllowed("has . or .. or // in it, and so could lead out of the server")
    if "//" in query or ":" in query:
        raise NotAllowed("has an address in its query, and so could lead out of the server")
    if path == "/":
        raise NotAllowed("says nothing: it is where servers look up what they open with")


_PATH = re.compile(r"(?:/[A-Za-z0-9._+@=,~-]+)+", re.ASCII)


def check_path(text: str) -> str:
    """Check an absolute path without links to itself and without what needs quoting."""
    if not text.startswith("/"):
        raise NotAllowed("is not an absolute path")
    if not _PATH.fullmatch(text) or text.startswith("//") or posixpath.normpath(text) != text:
        raise NotAllowed(
            "is not a plain path (letters, digits and . _ + @ = , ~ - only; no .., no // and no / at the end)"
        )
    if len(text) > 200:
        raise NotAllowed("is longer than 200 characters")
    return text


# Where the system keeps its own files, or where files do not last. Directories of services in /var/lib belong to
# packages, so /var is closed but for /var/opt.
_SYSTEM = frozenset(
    (
        *("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "lost+found", "proc", "root", "run", "sbin"),
        *("snap", "sys", "tmp", "usr", "var"),
    )
)
_USR_LOCAL = frozenset(["bin", "etc", "games", "include", "lib", "man", "sbin", "share", "src"])
_SHARED = frozenset({"/home", "/media", "/mnt", "/opt", "/srv"})


def system_directory(path: str) -> bool:
    """Whether a path is, or is in, a directory of the system itself."""
    parts = path.split("/")[1:]
    if parts[0] == "usr" and len(parts) > 2:
        return parts[1] != "local" or parts[2] in _USR_LOCAL
    if parts[0] == "var" and len(parts) > 2:
        return parts[1] != "opt"
    return parts[0] in _SYSTEM


def check_directory(text: str) -> str:
    """Check a path that is neither the system's nor shared by others."""
    if text == "/":
        raise NotAllowed("is the root directory")
    check_path(text)
    if system_directory(text):
        raise NotAllowed("is a directory of the system")
    if text in _SHARED:
        raise NotAllowed("is shared with others: name a directory in it")
    return text


# In lower case, with or without a domain.
HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")


def _check_network(text: str) -> None:
    """Check an IPv4 address or network, with a port or without."""
    host, colon, port = text.partition(":")
    if text.count(":") > 1:
        raise NotAllowed("is an IPv6 address, which user servers do not have")
    if colon and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise NotAllowed("has no port from 1 to 65535 after the colon")
    try:
        network = ipaddress.IPv4Interface(host)
    except ValueError:
        raise NotAllowed("is no IPv4 address and no network") from None
    if network.ip != network.network.network_address:
        raise NotAllowed(f"has host bits set (the network is {network.network})")


def _check_place(text: str) -> None:
    """Check what builds reach: an address or network, or the name of a host."""
    host, colon, port = text.partition(":")
    named = HOST_NAME.fullmatch(host.lower()) and not host.rpartition(".")[2].isdigit()
    # Of a name the port alone is left to check.
    _check_network(f"0.0.0.0{colon}{port}" if named else text)


_PLACE = "an IPv4 address or network with or without :PORT, such as 10.1.2.3:5432 or 10.1.2.0/24"

# What directories call their people and groups: capitals, blanks, user@domain, DOMAIN\user, other alphabets. A colon or
# a comma would end a name in the files of accounts, a slash a part of a path.
_REFERENCE = (
    r"(?![-%\s])[^:,/\"`$;|<>*?{}\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U00010000-\U0010ffff]"
    r"{1,255}(?<!\s)"
)
_SIGNS = 'without : , / " ` $ ; | < > * ? { } and control characters, not with - or % or a blank at its beginning'
GROUP = text(f"the name of a group, {_SIGNS}", matching(_REFERENCE, "is not the name of a group"))
ENTERING = text(
    f"`{ADMINISTRATORS}`, the name of a person, or of a group with % before it",
    matching(f"%?{_REFERENCE}", "is not the name of a person or of a group", 256),
)
_IMAGE_WORDS = (
    "a Docker image with a tag other than `latest` or with a digest: REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST, "
    "of letters, digits and . _ - / : @"
)
IMAGE = text(_IMAGE_WORDS, _check_image)
BUILDER_IMAGE = text(f"{_IMAGE_WORDS}; or `{LOCAL}`", lambda name: None if name == LOCAL else _check_image(name))
# Docker has networks of the first three names; the fourth is its word for one of them.
NETWORK = text(
    "lower-case letters, digits, _ and -, at most 32, and no network of Docker's own",
    matching(r"(?!(?:bridge|host|none|default)\Z)[a-z0-9][a-z0-9_-]*", "is not the name of a network", 32),
)
LINK = text(
    "an https:// or http:// URL, a path on this server that starts with one /, or '' for no link",
    _check_link,
    shown=False,
)
OPENS = text(
    f"{', '.join(APPLICATIONS)}, or a path inside the server such as /voila/render/course.ipynb, of at most 500 "
    "letters, digits and . _ ~ / ! * + , = & @ : - % with one ? before a query",
    _check_opens,
)
PORT = number(1, 65535, "a port")
# Where the hub, its services and the proxy's API listen.
INNER_PORTS = range(301, 305)


def _check_public_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise NotAllowed("is too small" if port < 1 else "is too large")
    if port in INNER_PORTS:
        raise NotAllowed("is a port of the hub's own inside the server")


PUBLIC_PORT = Rule(
    "a port from 1 to 65535, and none of 301 to 304, which are the hub's own", of_type(int, _check_public_port)
)


def _check_listen(text: str) -> None:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        raise NotAllowed("is no IPv4 address") from None


LISTEN = text("an IPv4 address of the server, such as 127.0.0.1, or 0.0.0.0 for all of them", _check_listen)


def _check_front(text: str) -> None:
    """Check the address or the network of proxies whose word is believed."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise NotAllowed("is no IP address and no network") from None
    if network.prefixlen < (8 if network.version == 4 else 16):
        raise NotAllowed("is so large that clients would be believed, too")


FRONT = text("the IP address of a proxy, or a network of them, such as 127.0.0.1 or 10.1.2.0/24", _check_front)
BASE_URL = text(
    "/ or a path that starts and ends with /, such as /jupyter/: letters, digits and . _ ~ -",
    matching(r"/(?:(?!\.{1,2}/)[A-Za-z0-9._~-]+/)*", "is not such a path", 200),
)
NETWORK_ENTRY = text(_PLACE, _check_network)
BUILD_ENTRY = text(f"{_PLACE}, or a host's name such as git.example.org:443", _check_place)
OWN_PORT = number(*INNER_PORT)
SOCKET = text(
    "an absolute path of at most 100 characters", matching(r"/[^\x00-\x1f\x7f]+", "is not an absolute path", 100)
)
DIRECTORY = text("an absolute path", matching(r"/[^\x00-\x1f]*", "is not an absolute path", 4000))
SHARED_DIRECTORY = text(
    "an absolute path, or empty", matching(r"(?:/[^\x00-\x1f]*)?", "is not an absolute path", 4000), empty=True
)
# A person's part and its dot come before it.
HOST = text(
    "a full domain name such as hub.example.org, or empty",
    matching(
        r"(?:(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]*[a-z][a-z0-9-]*)?", "is not a full domain name", 189
    ),
)
POLICY = text("open or closed", matching("open|closed", "is not one of the choices"))
