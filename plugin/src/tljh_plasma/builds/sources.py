"""Checks of where an environment comes from, other than a public repository: ready images, repositories over ssh."""

from __future__ import annotations

import base64
import binascii
import re

# A host, which no program can take for an option.
HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
_STEP = r"[A-Za-z0-9._~%+,=:@!-]+"
# The second form is Git's own, relative to the home of the user.
SSH = re.compile(rf"ssh://{_USER}@{HOST}(?::[0-9]{{1,5}})?(?:/{_STEP})+/?|{_USER}@{HOST}:(?!-)/?{_STEP}(?:/{_STEP})*/?")
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REGISTRY = r"[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9][A-Za-z0-9-]*)*(?::[0-9]{1,5})?"
READY = re.compile(
    rf"(?:{_REGISTRY}/)?{_PART}(?:/{_PART})*"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})(?:@sha256:[0-9a-f]{64})?|@sha256:(?P<digest>[0-9a-f]{64}))"
)
KEY = re.compile(r"-----BEGIN ((?:[A-Z]+ )?PRIVATE KEY)-----\n((?:[A-Za-z0-9+/=]+\n)+)-----END \1-----")
# An OpenSSH key begins with this when no passphrase is needed to read it.
PLAIN_KEY = b"openssh-key-v1\0\0\0\0\x04none"
KNOWN_HOST = re.compile(r"(?:@cert-authority )?[^\s#@]\S* [a-z][a-z0-9@.-]+ [A-Za-z0-9+/]+=*(?: .*)?")
MAX_READY = 400
MAX_KEY = 16 * 1024
MAX_KNOWN_HOSTS = 64 * 1024


class BuildRefused(Exception):
    """Something cannot be built, or not now.

    Attributes:
        status: HTTP status.
        message: one sentence for the person, without what was refused.
    """

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status
        self.message = message


def is_ssh(repo: str) -> bool:
    """Tell whether a repository is one that ssh leads to."""
    return SSH.fullmatch(repo) is not None


def path_of(repo: str) -> str:
    """Return the path of a repository that ssh leads to, without the user and the host."""
    rest = repo.removeprefix("ssh://")
    return rest.partition("/" if repo != rest else ":")[2]


def ready_tag(reference: str) -> str:
    """Return what a ready image has in place of a Git reference: its tag, or the digits of its digest.

    Args:
        reference: "registry.example.org/course:2026", or with "@sha256:..." in place of the tag.

    Raises:
        BuildRefused: it is no reference with a tag or a digest.
    """
    match = READY.fullmatch(reference)
    if not match or len(reference) > MAX_READY:
        raise BuildRefused(
            "A ready image must be given with a tag or a digest, like registry.example.org/teacher/course:2026."
        )
    return match["tag"] or match["digest"]


def private_key(text: str) -> str:
    """Return a deploy key as ssh reads it.

    Raises:
        BuildRefused: it is no private key, or one with a passphrase.
    """
    text = "\n".join(line.strip() for line in text.strip().splitlines())
    match = KEY.fullmatch(text)
    if not match or len(text) > MAX_KEY:
        # A key with a passphrase has further lines, or another name, in the older formats.
        raise BuildRefused("The deploy key must be a private key without a passphrase, as ssh-keygen makes it.")
    try:
        content = base64.b64decode(match[2], validate=False)
    except binascii.Error as error:
        raise BuildRefused("The deploy key is damaged: it must be the whole file that ssh-keygen made.") from error
    encrypted = match[1] == "OPENSSH PRIVATE KEY" and not content.startswith(PLAIN_KEY)
    if encrypted or match[1].startswith("ENCRYPTED"):
        raise BuildRefused("The deploy key has a passphrase, or is damaged: make one without, with ssh-keygen -N ''.")
    return f"{text}\n"


def known_hosts(text: str) -> str:
    """Return the accepted host keys, one a line, as ssh reads them.

    Raises:
        BuildRefused: there are none, or lines are something else.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    valid = all(line.isascii() and line.isprintable() and KNOWN_HOST.fullmatch(line) for line in lines)
    if len(text) > MAX_KNOWN_HOSTS or not valid:
        raise BuildRefused("The known hosts must be lines like 'git.example.org ssh-ed25519 AAAA...'.")
    if not lines:
        raise BuildRefused(
            "A deploy key needs the known hosts: the keys of the repository's server, as ssh-keyscan prints them. "
            "Compare them with what its operator publishes."
        )
    return "\n".join(lines) + "\n"
