"""Bodies of requests: their shape, and what may be in them.

What a build makes of repository, reference, build arguments and credentials is checked by ``builds.request``. Each
refusal is one sentence that says what to write instead.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from .. import bodies
from ..builds import sources
from ..environments import UNITS
from ..hub_rules import OPENS, NotAllowed
from ..server_rules import GPUS
from .errors import Invalid

MIN_GIGABYTES = 0.25
MIN_CPUS = 0.1
MAX_NAME = 63
MAX_DESCRIPTION = 200
MAX_TAIL = 1000
NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,20})?")


class Body(BaseModel):
    """Base of the bodies: no unknown keys, no types that are only nearly right."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Build(Body):
    """What is built and how: a repository with its credentials, or a ready image in its place."""

    repo: str = ""
    ref: str = ""
    reference: str = ""
    commit: str = ""
    pull: bool = False
    memory: str | int | float | None = None
    cpu: str | int | float | None = None
    buildargs: str = ""
    username: str = ""
    password: str = ""
    deploy_key: str = ""
    known_hosts: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> _Build:
        if self.repo and self.reference:
            raise PydanticCustomError("source", "The request has both 'repo' and 'reference': give one of them.")
        if self.reference and self.ref:
            raise PydanticCustomError("source", "A ready image has no 'ref': its tag is part of 'reference'.")
        return self


class NewEnvironment(_Build):
    """``POST api/environments``"""

    name: str = ""
    description: str = ""
    groups: list[str] = []
    opens: str = ""
    gpus: str | int | None = None

    @model_validator(mode="after")
    def _a_source(self) -> NewEnvironment:
        if not {"repo", "reference"} & self.model_fields_set:
            raise PydanticCustomError("source", "The request lacks 'repo'.")
        return self


class Rebuild(_Build):
    """``POST api/environments/IMAGE/build``; what is not given stays as it was."""


class Change(Body):
    """``PATCH api/environments/IMAGE``; what is not given stays as it was."""

    description: str = ""
    groups: list[str] = []
    memory: str | int | float | None = None
    cpu: str | int | float | None = None
    opens: str = ""
    previous: bool = False
    gpus: str | int | None = None


class NewLink(Body):
    """``POST api/links``"""

    image: str
    repo: str = ""
    branch: str = ""
    file: str = ""
    opens: str = ""


class Permissions(Body):
    """``PUT api/permissions``"""

    environments: dict[str, list[str]]


EXPECTED = {
    "memory": "a number of GB",
    "cpu": "a number of CPUs",
    "gpus": "a whole number of GPUs",
    **dict.fromkeys(("pull", "previous"), "true or false"),
    "groups": "a list of names of groups",
    "environments": "an object that maps images to lists of names of groups",
}

AnyBody = TypeVar("AnyBody", bound=Body)


def parse(model: type[AnyBody], body: bytes) -> AnyBody:
    """Return a request's body as ``model``.

    Args:
        model: what it has to look like.
        body: JSON.

    Raises:
        Invalid: it is no JSON, or does not look like it.
    """

    try:
        value = bodies.read_object(body)
    except bodies.Unusable as error:
        raise Invalid(str(error)) from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
        if problem["type"] == "source":
            raise Invalid(problem["msg"]) from error
        key = shown(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            raise Invalid(f"The request has an unknown key, '{key}': known are {known}.") from error
        if problem["type"] == "missing":
            raise Invalid(f"The request lacks '{key}'.") from error
        raise Invalid(f"'{key}' must be {EXPECTED.get(key, 'text')}.") from error


def shown(text: Any, longest: int = 60) -> str:
    """Return what somebody wrote in a form that fits into a sentence."""
    text = "".join(char if char.isprintable() else "?" for char in str(text))
    return text if len(text) <= longest else text[:longest] + "..."


def _plain(what: str, text: str, longest: int) -> str:
    """Return a text without space around it, checked for length and invisible characters."""
    text = text.strip()
    if len(text) > longest:
        raise Invalid(f"{what} is longer than {longest} characters.")
    if not all(char.isprintable() for char in text):
        raise Invalid(f"{what} must be one line of visible characters.")
    return text


def environment_name(text: str, repo: str) -> str:
    """Return the name of an environment, made of what somebody typed or else of the repository's path.

    Args:
        text: upper case, accents and spaces are turned into what is allowed.
        repo: URL of the repository; empty where there is none to make a name of.

    Raises:
        Invalid: other characters than letters, digits, dots, hyphens and underscores.
    """
    text = _plain("The name", text, 200)
    if text:
        name = re.sub(r"\s+(?:-+\s+)?", "-", _unaccented(text))
        if not NAME.fullmatch(name):
            raise Invalid(
                f"'{shown(text)}' cannot be the name of an environment: use letters and digits, with single dots, "
                "hyphens or underscores between them."
            )
    else:
        try:
            path = sources.path_of(repo) if sources.is_ssh(repo) else unquote(urlsplit(repo).path)
        except ValueError as error:
            raise Invalid("The URL of the repository is not valid.") from error
        name = re.sub(r"[^a-z0-9]+", "-", _unaccented(path.strip("/").removesuffix(".git")))
        name = name.strip("-")[-MAX_NAME:].strip("-")
        if not name:
            raise Invalid("Give the environment a name: none can be made of the repository's URL.")
    if len(name) > MAX_NAME:
        raise Invalid(f"The name is longer than {MAX_NAME} characters.")
    return name


def _unaccented(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char)).lower()


def _number(what: str, value: str | int | float | None, least: float, most: float, unit: str) -> float | None:
    text = "" if value is None else str(value).strip()
    if not text:
        return None
    if "," in text:
        raise Invalid(f"Write {what} with a point and not with a comma, as in 3.5.")
    if not NUMBER.fullmatch(text):
        raise Invalid(f"'{shown(text)}' cannot be {what}: give a number of {unit}, such as 2 or 0.5.")
    number = float(text)
    if not least <= number <= most:
        raise Invalid(
            f"{what[0].upper()}{what[1:]} must be between {least:g} and {most:g} {unit}: this server has no more."
        )
    return number


def memory(value: str | int | float | None, most: int) -> int | None:
    """Return a memory limit in bytes, or None for the hub's default.

    Args:
        value: a number of GB, or nothing.
        most: memory of the machine in bytes.

    Raises:
        Invalid: no number, less than 0.25 GB, or more than the machine has.
    """
    # Rounded down, so that the number shown is one that is accepted.
    whole = int(most / UNITS["G"] * 100) / 100
    number = _number("the memory limit", value, MIN_GIGABYTES, whole, "GB")
    return None if number is None else int(number * UNITS["G"])


def cpus(value: str | int | float | None, most: float) -> float | None:
    """Return a CPU limit, or None for the hub's default.

    Args:
        value: a number of CPUs, or nothing.
        most: CPUs of the machine.

    Raises:
        Invalid: no number, less than 0.1, or more than the machine has.
    """
    return _number("the CPU limit", value, MIN_CPUS, most, "CPUs")


def gpus(value: str | int | None) -> int:
    """Return a number of GPUs; nothing is none.

    Raises:
        Invalid: no whole number, or too large.
    """
    text = "" if value is None else str(value).strip()
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) or not GPUS.allows(int(text)):
        raise Invalid(f"'{shown(text)}' cannot be the number of GPUs: give {GPUS.words}.")
    return int(text)


def tail(text: str) -> int:
    """Return a number of lines of a log.

    Raises:
        Invalid: no whole number from 1 to 1000.
    """
    if not re.fullmatch(r"[0-9]{1,4}", text, re.ASCII) or not 1 <= int(text) <= MAX_TAIL:
        raise Invalid(f"'{shown(text)}' cannot be a number of lines: give one from 1 to {MAX_TAIL}.")
    return int(text)


def description(text: str) -> str:
    """Check what people read about an environment: one line.

    Raises:
        Invalid: it is longer, or has more lines.
    """
    return _plain("The description", text, MAX_DESCRIPTION)


def opens(text: str) -> str:
    """Check what servers of an environment open with; nothing is the hub's default.

    Raises:
        Invalid: it is something else, or leads out of the server.
    """
    text = text.strip()
    try:
        return OPENS.check(text) if text else ""
    except NotAllowed as error:
        raise Invalid(f"An environment cannot open with '{shown(text)}': it {error}. Give {OPENS.words}.") from error


def build_arguments(text: str) -> tuple[str, ...]:
    """Return build arguments from one a line; what is in them is for ``builds.request.checked`` to say."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())
