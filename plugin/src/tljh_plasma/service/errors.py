"""Refusals: what a request is answered with when it cannot be done."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tornado import web

from ..builds import BuildRefused

# Where nobody had anything better to say. The details of failures are in the log, never in an answer.
SENTENCES = {
    400: "The request could not be understood.",
    403: "You are not allowed to do this.",
    404: "There is nothing at this address.",
    405: "This address does not answer requests of this kind.",
    413: "The request is too large.",
    415: "The request's body must be JSON, with the content type application/json.",
    503: "A part of the hub does not answer. Please try again in a moment.",
}
FAILURE = (
    "Something went wrong in the hub. Please try again, and tell its administrator if it happens again: "
    "the details are in the hub's log."
)
DOCKER_SILENT = "Docker does not answer. Please try again, and tell the administrator of the hub if it happens again."
HUB_SILENT = "The hub does not answer. Please try again in a moment."


class Refused(web.HTTPError):
    """A request is refused.

    Attributes:
        sentence: what the person is told.
        details: further keys of the API's answer.
    """

    def __init__(self, status: int, sentence: str = "", **details: Any):
        super().__init__(status)
        self.sentence = sentence or sentence_for(status)
        self.details = details

    def __str__(self) -> str:
        return f"{self.status_code}: {self.sentence}"


class Invalid(Refused):
    """A request cannot be used; the sentence says why."""

    def __init__(self, sentence: str) -> None:
        super().__init__(400, sentence)


@contextmanager
def refusals() -> Generator[None]:
    """Answer with what builds say of a request that they do not do."""
    try:
        yield
    except BuildRefused as error:
        raise Refused(error.status, error.message) from error


def sentence_for(status: int) -> str:
    """Return what a person is told when there is only an HTTP status to go by."""
    return SENTENCES.get(status, FAILURE if status >= 500 else SENTENCES[400])
