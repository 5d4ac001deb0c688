"""
Sections about what the hub's own pages offer: who may start what, building environments, the link to monitoring.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from .base import Rule, Section, option, refuse
from .reach import BuildEntry, NetworkEntry
from .rules import check_link

# repo2docker decides what every environment is made of: pinned, so that a course is the same when it is built again.
BUILDER_IMAGE = "quay.io/jupyterhub/repo2docker:2025.12.0"

_IMAGE_TEXT = re.compile(r"[A-Za-z0-9._/:@-]+", re.ASCII)
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9][A-Za-z0-9-]*)*(?::[0-9]{1,5})?/)?"
    rf"{_PART}(?:/{_PART})*"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?P<digest>@sha256:[0-9a-f]{64})?",
    re.ASCII,
)


def _image(text: str) -> str:
    if len(text) > 255:
        raise refuse("is longer than 255 characters")
    if not _IMAGE_TEXT.fullmatch(text):
        raise refuse("is empty or has a character that no image's name has")
    image = _IMAGE.fullmatch(text)
    if not image:
        raise refuse("is not the name of a Docker image")
    if not image["tag"] and not image["digest"]:
        raise refuse("names neither a tag nor a digest: Docker would take `latest`, which changes over time")
    if image["tag"] == "latest" and not image["digest"]:
        raise refuse("names the tag `latest`, which changes over time")
    return text


PinnedImage = Annotated[
    str,
    AfterValidator(_image),
    Rule(
        "a Docker image with a tag other than `latest` or with a digest: REGISTRY/NAME:TAG or "
        "REGISTRY/NAME@sha256:DIGEST, of letters, digits and . _ - / : @"
    ),
]


def _entering(text: str) -> str:
    if not re.fullmatch(r"%?[^\s:,%\x00-\x1f\x7f-][^\s:,\x00-\x1f\x7f]*", text) or len(text) > 255:
        raise refuse("is not the name of a person or of a group")
    return text


MonitoringLink = Annotated[
    str,
    AfterValidator(lambda text: check_link(text) if text else text),
    Rule("an https:// or http:// URL, a path on this server that starts with one /, or '' for no link"),
]


Entering = Annotated[
    str,
    AfterValidator(_entering),
    Rule("`administrators`, the name of a person, or of a group with % before it"),
]


class Permissions(Section):
    default: Literal["open", "closed"] = option(
        "open",
        example="closed",
        description="Who may start an environment that has no groups on the permissions page: everybody (`open`), or "
        "administrators alone (`closed`).",
    )


class Builder(Section):
    image: PinnedImage = option(
        BUILDER_IMAGE,
        example="registry.example.org/jupyterhub/repo2docker:2025.12.0",
        description="Image of repo2docker, which builds the environments. It works as root with the server's Docker "
        "engine: name only an image you trust.",
    )
    parallel: int = option(
        2, ge=1, le=16, unit="builds", example=1, description="Builds at a time; further ones wait for their turn."
    )
    timeout: int = option(
        7200, ge=60, le=86400, unit="seconds", example=3600, description="Time after which a build is ended as failed."
    )


Port = Annotated[int, Field(ge=1, le=65535), Rule("a port from 1 to 65535")]


class Network(Section):
    allow: list[NetworkEntry] = option(
        list,
        example=["10.1.2.0/24:5432", "10.1.2.3"],
        description="Addresses of private networks, beside the internet, that user servers and builds reach: all other "
        "private, link-local and shared addresses are closed to them. With a port TCP and UDP of that one, without one "
        "everything. Name servers of the server work without being named; metadata services of clouds never do. A "
        "single address may be one of the server's own; a network does not open the server that is in it.",
    )
    host_ports: list[Port] = option(
        list,
        example=[5432],
        description="TCP ports of the server itself that user servers and builds reach, beside the hub's own.",
    )
    builds: list[BuildEntry] = option(
        list,
        example=["gitlab.example.org:443", "10.1.2.3:3128"],
        description="What builds reach beside that, by address or name: a Git server, a registry or a mirror in a "
        "private network. The proxies and the package index of `plasma.hub.sources` are added.",
    )
