"""
Section about environments: what they are built from, who may use them, and the credentials of private repositories.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any

from .base import Found, Section, checked, number, option, ruled
from .hub_rules import OPENS, NotAllowed
from .names import GroupAnywhere
from .people import repeated
from .rules import (
    BuildArgument,
    EnvironmentCpu,
    EnvironmentMemory,
    EnvironmentName,
    GitRef,
    Line,
    ServerPath,
    check_line,
    check_url,
)
from .server_rules import GPUS
from .service import PinnedImage

_SCP = re.compile(r"[a-z][a-z0-9._-]*@[A-Za-z0-9.-]+:[A-Za-z0-9._/~+-]+")
# What neither Git nor the Dockerfile that repo2docker writes could take for anything but a part of an address.
_PLAIN_URL = re.compile(r"[a-z]+://[^/]+(?:/[A-Za-z0-9._~%+,=:@!-]+)+/?")
_KEY = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]*PRIVATE KEY)-----\n(?P<body>[A-Za-z0-9+/=:,. \n-]*)-----END (?P=kind)-----\n*"
)
_OPENSSH = b"openssh-key-v1\0"
_KNOWN_HOST = re.compile(r"(?:@cert-authority )?\S+ (?:ssh|ecdsa|sk)[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}(?: .*)?")


def _repository(text: str) -> str:
    if _SCP.fullmatch(text):
        return text
    # The name that people have at the server is the one account of all: `git@`.
    check_url(text.replace("git@", "", 1) if text.startswith("ssh://git@") else text, ("https", "http", "ssh", "git"))
    if not _PLAIN_URL.fullmatch(text):
        raise NotAllowed("has no path, or a character in it that no repository's address needs")
    return text


Repository = checked(
    _repository, "an https://, http://, ssh:// or git:// URL without a password in it, or git@HOST:PATH"
)


def _credential(text: str) -> str:
    if not text:
        raise NotAllowed("is empty")
    return check_line(text, 500)


Credential = checked(_credential, "one line of text of at most 500 characters")


def _private_key(text: str) -> str:
    if len(text) > 20_000:
        raise NotAllowed("is longer than 20000 characters")
    match = _KEY.fullmatch(text.strip() + "\n")
    if not match:
        raise NotAllowed("is not a private key in PEM format")
    if "ENCRYPTED" in match["kind"] + match["body"] or _cipher(match["body"]) not in (None, b"none"):
        raise NotAllowed("is protected by a passphrase, which nobody is there to type")
    return text.strip() + "\n"


def _cipher(body: str) -> bytes | None:
    """The name of the cipher that protects a key in OpenSSH's own format; None for other formats."""
    try:
        content = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    if not content.startswith(_OPENSSH):
        return None
    length = int.from_bytes(content[len(_OPENSSH) : len(_OPENSSH) + 4], "big")
    return content[len(_OPENSSH) + 4 : len(_OPENSSH) + 4 + length]


PrivateKey = checked(
    _private_key, "a private key of SSH without a passphrase, all its lines, as `ssh-keygen -t ed25519` makes it"
)


def _known_hosts(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines or len(text) > 20_000 or not all(_KNOWN_HOST.fullmatch(line) for line in lines):
        raise NotAllowed("is not what ssh keeps in known_hosts")
    return "".join(f"{line}\n" for line in lines)


KnownHosts = checked(_known_hosts, "lines such as `ssh-keyscan HOST` prints: HOST KIND KEY")


Opens = ruled(OPENS)
Gpus = number(GPUS)


class Credentials(Section):
    username: Credential = option("git", example="deploy")
    """User name. Services that take a token do not mind which one comes with it."""
    password: Credential = option(secret=True, example="glpat-0123456789")
    """Password, or better a token that can only read."""


class Environment(Section):
    name: EnvironmentName = option(example="python-course")
    """Name of the environment, and of its directory in people's homes."""
    repository: Repository | None = option(
        None,
        shown_default="required, unless `image` or `absent`",
        example="https://github.com/plasmabio/template-python",
    )
    """Git repository that describes it."""
    ref: GitRef = option("HEAD", example="v1.2")
    """Tag, branch or commit (all 40 digits) to build. It is built again when a tag or branch has moved."""
    image: PinnedImage | None = option(None, example="registry.example.org/course:2026")
    """A ready image, in place of `repository`. It is downloaded when the engine does not have it."""
    image_file: ServerPath | None = option(None, example="/srv/images/course.tar")
    """Archive of `docker save` on the server that holds `image`, where no registry can be reached."""
    memory: EnvironmentMemory | None = option(None, shown_default="`plasma.limits.memory`", example="4G", unit="bytes")
    """Memory of each server of this environment."""
    cpu: EnvironmentCpu | None = option(None, shown_default="`plasma.limits.cpu`", example=4, unit="CPUs")
    """Processor time of each server."""
    opens: Opens | None = option(None, shown_default="`lab`", example="rstudio")
    """What servers of this environment open with: `lab`, `notebook`, `rstudio`, `vscode`, `desktop`, or a path inside
    the server, such as `/voila/render/course.ipynb` or `/lab/tree/course.ipynb`."""
    gpus: Gpus = option(0, example=1, unit="GPUs")
    """GPUs of each server, which no other server has meanwhile. Needs `plasma.gpu.enabled`."""
    groups: list[GroupAnywhere] | None = option(
        None, shown_default="as the page Permissions has it", example=["biology"]
    )
    """Groups whose members may use it, of `plasma.groups`, of users, or of a directory. Set, the list is the whole
    truth; `[]` leaves it to `plasma.permissions.default`."""
    description: Line | None = option(
        None, shown_default="as the page Environments has it", example="First steps in Python"
    )
    """What users read about it."""
    build_args: dict[BuildArgument, Line] = option(dict, secret=True, example={"PYTHON_VERSION": "3.12"})
    """Arguments of the build. The image keeps them: no place for passwords."""
    credentials: Credentials | None = option(None, example={"password": "glpat-0123456789"})
    """For a private repository with an https:// URL, or for the registry of `image`."""
    deploy_key: PrivateKey | None = option(
        None,
        secret=True,
        example="-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU=\n"
        "-----END OPENSSH PRIVATE KEY-----\n",
    )
    """Private key for a repository with an ssh:// or git@HOST:PATH address."""
    known_hosts: KnownHosts | None = option(
        None,
        shown_default="required with `deploy_key`",
        example="git.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGbNmVb0f3y8PzTb6Gq1n9zqJQKX6mEwS4DqK5JbWc0v",
    )
    """Keys of the host that the repository is on; no other host gets the connection."""
    previous: bool = option(False, example=True)
    """Use the image from before the newest build, and build nothing as long as this is set. Without it the newest one
    is in use again, or one that is newer still and is built then."""
    archived: bool = option(False, example=True)
    """Have no image of it: nobody can start it, and it is built again as soon as this is taken out. Groups and words
    are kept."""
    replace: bool = option(False, example=True)
    """Once this one is built, remove what pillar made of the same name from another reference. Without it both stay."""
    absent: bool = option(False, example=True)
    """Remove every environment of this name. The entry's other keys may stay as they are."""
    wait: int = option(0, ge=0, le=86400, unit="seconds", example=3600)
    """With `absent`: how long to wait for people to stop their servers, before the removal is refused."""

    def found(self) -> Iterable[Found]:
        yield from repeated(self.groups or (), "groups")
        if self.wait and not self.absent:
            yield Found(("wait",), "needs `absent: true` beside it: only a removal waits")
        if self.archived and self.previous:
            yield Found(("archived",), "is set beside previous: an archived environment has no image to go back to")
        if self.absent:
            return
        if self.image:
            yield from self._ready(self.image)
        elif not self.repository:
            yield Found(("repository",), "is required")
        elif self.image_file:
            yield Found(("image_file",), "needs `image` in place of repository: the name of the image in the archive")
        if self.repository:
            yield from self._access(self.repository)

    def _ready(self, image: str) -> Iterable[Found]:
        """What a ready image leaves no place for."""
        if self.repository:
            yield Found(("image",), "is set beside repository: keep one of them")
            return
        for name in ("build_args", "deploy_key", "known_hosts"):
            if getattr(self, name):
                yield Found((name,), "needs a repository: a ready image is not built")
        if self.image_file and self.credentials:
            yield Found(("credentials",), "is set beside image_file: nobody asks a registry")
        if self.image_file and "@" in image:
            yield Found(("image",), "has a digest, which archives do not keep: give the image a tag")
        if image == f"{self.name}:{image.rpartition(':')[2]}":
            yield Found(("image",), "is what the environment's own image is called: name one of the two differently")

    def _access(self, repository: str) -> Iterable[Found]:
        """What fits to the address of the repository."""
        web = repository.startswith(("https://", "http://"))
        ssh = not web and not repository.startswith("git://")
        if self.credentials and not web:
            yield Found(("credentials",), "needs a repository with an https:// URL")
        if self.deploy_key and not ssh:
            yield Found(("deploy_key",), "needs a repository with an ssh:// or git@HOST:PATH address")
        if ssh and not self.deploy_key:
            yield Found(("deploy_key",), "is required with a repository that is reached by SSH")
        if self.deploy_key and not self.known_hosts:
            yield Found(("known_hosts",), "is required with deploy_key (`ssh-keyscan HOST` prints them: compare them)")
        if self.known_hosts and not self.deploy_key:
            yield Found(("known_hosts",), "needs deploy_key beside it")


def without_secrets(environment: Environment) -> dict[str, Any]:
    """What states get as arguments."""
    if environment.absent:
        return environment.model_dump(mode="json", include={"name", "absent", "wait"})
    return environment.model_dump(mode="json", exclude={"wait", *SECRETS})


def secrets(environments: Iterable[Environment]) -> dict[str, dict[str, Any]]:
    """
    What must be in no argument of a state, by name: Salt prints arguments (`state.show_sls`, debugging).
    """
    found = {
        environment.name: environment.model_dump(mode="json", include=set(SECRETS), exclude_none=True)
        for environment in environments
        if not environment.absent
    }
    return {
        name: {key: value for key, value in some.items() if value} for name, some in found.items() if any(some.values())
    }


SECRETS = ("build_args", "credentials", "deploy_key", "known_hosts")
