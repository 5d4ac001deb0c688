"""What an administrator asks to be built, and the checks that it passes before anything is done.

The values end up in the arguments of repo2docker, in the name of a Docker image and, for most repositories, between
double quotes in a Dockerfile that repo2docker writes. What could mean something else there is refused, not escaped:
repositories with a Dockerfile of their own get the same values past any Dockerfile, where an escape would show.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field, replace

from tljh_repo2docker.docker import compute_image_name, split_url_credentials

from .. import environments as envs
from . import sources
from .sources import BuildRefused

# A path of printable characters that mean nothing to a shell, to Docker or to repo2docker.
REPOSITORY = re.compile(rf"(?:https?|git)://{sources.HOST}(?::[0-9]{{1,5}})?(?:/[A-Za-z0-9._~%+,=:@!-]+)+/?")
REFERENCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+#@-]*")
IMAGE = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
BUILD_ARGUMENT = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)", re.DOTALL)
# What repo2docker itself gives to the build.
RESERVED_ARGUMENTS = ("NB_USER", "NB_UID")
MAX_REPOSITORY = 1000
MAX_REFERENCE = 200
MAX_IMAGE = 255
MAX_NAME = 200
MAX_ARGUMENTS = 50
MAX_ARGUMENT = 4096
MAX_CREDENTIAL = 1024


@dataclass(frozen=True)
class BuildRequest:
    """An environment to be built, or built again.

    Attributes:
        image: name and tag that the image gets (see ``image_name``).
        repo: URL of the Git repository; empty with ``reference``.
        ref: branch, tag or commit; empty for the default branch. For a ready image, see ``sources.ready_tag``.
        name: name that people see; empty for the one in ``image``.
        memory: memory limit of its servers in bytes, None for the hub's default.
        cpu: CPU limit of its servers in CPUs, None for the hub's default.
        owner: name of the administrator.
        buildargs: build arguments, "NAME=VALUE". They are no place for secrets: images keep them.
        username: user name for the repository or the registry, empty for a public one.
        password: password or token that goes with it.
        commit: the commit that is built under the name of ``ref``; empty for whatever ``ref`` leads to.
        reference: a ready image, which takes the place of a repository and is not built.
        pull: whether the registry is asked for the ready image even if the engine has one of its name.
        deploy_key: private key for a repository over ssh.
        known_hosts: the keys that its server may have.
    """

    image: str
    repo: str
    ref: str
    name: str = ""
    memory: int | None = None
    cpu: float | None = None
    owner: str = ""
    buildargs: tuple[str, ...] = ()
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    commit: str = ""
    reference: str = ""
    pull: bool = False
    deploy_key: str = field(default="", repr=False)
    known_hosts: str = field(default="", repr=False)

    @property
    def memory_label(self) -> str:
        """The memory limit as a label says it: "2G", or "" for the hub's default."""
        if self.memory is None:
            return ""
        unit = next((unit for unit in "TGMK" if self.memory % envs.UNITS[unit] == 0), "")
        return f"{self.memory // envs.UNITS[unit]}{unit}"

    @property
    def cpu_label(self) -> str:
        """The CPU limit as a label says it, or "" for the hub's default."""
        return "" if self.cpu is None else f"{self.cpu:.12g}"


def image_name(repo: str, ref: str, name: str) -> str:
    """Return the name and tag of the image for a repository, as tljh-repo2docker makes them up.

    What Docker does not allow in there becomes a hyphen: "Cours d'été" at "feature/x" is "cours-d-ete:feature-x".

    Args:
        repo: URL of the repository; empty for a ready image, which needs a name.
        ref: branch, tag or commit; empty for the default branch.
        name: name that people see; empty to take it from the URL.

    Raises:
        BuildRefused: no name can be made of this.
    """
    if repo:
        # First, or the name that is made of it would be blamed.
        check_reference(ref or "HEAD")
    try:
        image, _, _ = compute_image_name(repo, ref, envs.directory_name(name) if name.strip() else "")
    except ValueError as error:
        raise BuildRefused(f"The URL of the repository is not valid: {error}.") from error
    base, _, tag = image.partition(":")
    # Of all that is no letter or digit, only the separators that Docker knows stay.
    base = re.sub(r"[^a-z0-9]+", lambda match: match[0] if re.fullmatch(r"\.|__?|-+", match[0]) else "-", base)
    image = f"{base.strip('-_.')}:{re.sub(r'[^A-Za-z0-9_.-]', '-', tag)}"
    if not IMAGE.fullmatch(image) or len(image) > MAX_IMAGE:
        raise BuildRefused("Please choose a name with letters or digits for this environment.")
    return image


def checked(request: BuildRequest) -> BuildRequest:
    """Return a request that is safe to run, with credentials taken out of the URL and empty values filled in.

    Raises:
        BuildRefused: something in it is not allowed, with status 400.
    """
    try:
        repo, username, password = split_url_credentials(request.repo.strip())
    except ValueError:
        raise BuildRefused("The URL of the repository is not valid.") from None
    request = _check_ready(request) if request.reference else _check_ssh(request)
    request = replace(
        request,
        repo=repo,
        ref=request.ref.strip() or "HEAD",
        name=" ".join(request.name.split()) or request.image.partition(":")[0],
        username=request.username or username,
        password=request.password or password,
    )
    if not request.reference:
        if len(repo) > MAX_REPOSITORY or not (REPOSITORY.fullmatch(repo) or request.deploy_key):
            raise BuildRefused("The repository must be a URL like https://example.org/teacher/course.")
        check_reference(request.ref)
        if request.commit and not envs.COMMIT.fullmatch(request.commit):
            raise BuildRefused("The commit must be a whole hash, of 40 hexadecimal digits.")
    _check_credentials(request)
    if not IMAGE.fullmatch(request.image) or len(request.image) > MAX_IMAGE:
        raise BuildRefused(f"{request.image!r} is not the name and tag of an environment's image.")
    if len(request.name) > MAX_NAME:
        raise BuildRefused(f"The name of an environment has at most {MAX_NAME} characters.")
    for what, label in (("an environment", request.name), ("an administrator who builds environments", request.owner)):
        # The first three end or change a string in a Dockerfile: LABEL name="value".
        if any(char in label for char in '"\\$') or _has_odd_characters(label):
            raise BuildRefused(f'The name of {what} must not contain ", \\, $ or characters that cannot be seen.')
    if request.memory is not None and envs.parse_memory(request.memory) != request.memory:
        raise BuildRefused(f"The memory limit must be at least {envs.MIN_MEMORY // envs.UNITS['M']} MB.")
    if request.cpu is not None and envs.parse_cpu(request.cpu) is None:
        raise BuildRefused(f"The CPU limit must be a number of at least {envs.MIN_CPU:g}.")
    _check_arguments(request.buildargs)
    return request


def check_reference(ref: str) -> None:
    """Check the name of a branch, a tag or a commit.

    Raises:
        BuildRefused: it could be something else.
    """
    if not REFERENCE.fullmatch(ref) or ".." in ref or "@{" in ref or len(ref) > MAX_REFERENCE:
        raise BuildRefused("The reference must be the name of a branch or tag, or the hash of a commit.")


def _check_ready(request: BuildRequest) -> BuildRequest:
    tag = sources.ready_tag(request.reference)
    if request.repo or request.commit or request.buildargs or request.deploy_key or request.known_hosts:
        raise BuildRefused(
            "A ready image takes the place of a repository, and has no commit, build arguments or deploy key."
        )
    return replace(request, ref=tag)


def _check_ssh(request: BuildRequest) -> BuildRequest:
    if request.pull:
        raise BuildRefused("Only a ready image can be pulled: leave out pull for a repository.")
    if not sources.is_ssh(request.repo.strip()):
        if request.deploy_key or request.known_hosts:
            raise BuildRefused(
                "A deploy key and known hosts need a repository like ssh://git@example.org/teacher/course."
            )
        return request
    if not request.deploy_key:
        raise BuildRefused(
            "A repository over ssh needs a deploy key and the known hosts, which are given in pillar: use an https:// "
            "URL here."
        )
    key, hosts = sources.private_key(request.deploy_key), sources.known_hosts(request.known_hosts)
    return replace(request, deploy_key=key, known_hosts=hosts)


def _check_credentials(request: BuildRequest) -> None:
    if not request.username and not request.password:
        return
    if not request.reference and not request.repo.startswith(("https://", "http://")):
        raise BuildRefused("A user name and a password need a repository with an https:// URL.")
    if request.reference and "/" not in request.reference:
        raise BuildRefused("A user name and a password need a ready image with the name of its registry.")
    for text in (request.username, request.password):
        if len(text) > MAX_CREDENTIAL or _has_odd_characters(text):
            raise BuildRefused("The user name or the password for the repository has characters that cannot be used.")


def _check_arguments(arguments: tuple[str, ...]) -> None:
    if len(arguments) > MAX_ARGUMENTS:
        raise BuildRefused(f"There can be at most {MAX_ARGUMENTS} build arguments.")
    for argument in arguments:
        match = BUILD_ARGUMENT.fullmatch(argument)
        if not match or len(argument) > MAX_ARGUMENT or _has_odd_characters(match["value"]):
            raise BuildRefused("Build arguments must be lines like NAME=VALUE.")
        if match["name"] in RESERVED_ARGUMENTS:
            raise BuildRefused(f"The build argument {match['name']} cannot be set: repo2docker needs it.")


def _has_odd_characters(value: str) -> bool:
    """Whether there are control characters, line ends or invisible formatting in a text."""
    return any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in value)
