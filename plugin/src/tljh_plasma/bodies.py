"""Bodies of requests to the hub's API: an object of JSON that everything behind it can take, or a sentence.

JupyterHub's handlers each look at what they need, and fail where something else comes. So a body is looked at once,
where all of them read it; what is left to a handler are keys and values of its own.
"""

from __future__ import annotations

import json
import math
from typing import Any

# Levels of lists and objects in one another. A start, the deepest one, has two.
DEEPEST = 32
# What every program that reads JSON takes for the same number.
LARGEST = 2**53
# Seconds: ten years. A token that is to be valid for longer has no end.
LONGEST_TOKEN = 10 * 366 * 24 * 3600
# Keys that hold names, in whichever body they are.
NAMES = ("usernames", "users", "groups", "roles", "scopes")


class Unusable(ValueError):
    """A body cannot be used; the text is one sentence."""


def _refuse_constant(text: str) -> None:
    raise Unusable(f"The request's body holds {text}, which is no number in JSON.")


def _check(value: Any) -> None:
    """Check all that is in a body, without calling itself: it may be as deep as it is long."""
    todo = [(value, 1)]
    while todo:
        one, depth = todo.pop()
        if depth > DEEPEST:
            raise Unusable("The request's body is nested too deeply.")
        if isinstance(one, str):
            if any("\ud800" <= char <= "\udfff" for char in one):
                raise Unusable("The request's body holds half a character (a lone surrogate).")
        elif isinstance(one, (int, float)):
            if not math.isfinite(one) or abs(one) > LARGEST:
                raise Unusable("The request's body holds a number that is too large.")
        elif isinstance(one, list):
            todo += [(item, depth + 1) for item in one]
        elif isinstance(one, dict):
            todo += [(item, depth + 1) for pair in one.items() for item in pair]


def read_object(raw: bytes) -> dict[str, Any]:
    """Return the object of JSON in a body.

    Args:
        raw: the body, which is not empty.

    Raises:
        Unusable: it is something else, or holds what cannot be kept or passed on.
    """
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except Unusable:
        raise
    except (ValueError, RecursionError) as error:
        raise Unusable("The request's body must be JSON, in UTF-8.") from error
    if not isinstance(value, dict):
        raise Unusable("The request's body must be an object of JSON, in curly brackets.")
    _check(value)
    return value


def check_names(body: dict[str, Any]) -> None:
    """Check keys that hold names.

    Raises:
        Unusable: one of them holds something else than a list of texts.
    """
    for key in NAMES:
        value = body.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            raise Unusable(f"{key} must be a list of texts.")


def check_flags(body: dict[str, Any]) -> None:
    """Check a body that holds nothing but true and false.

    Raises:
        Unusable: it holds something else.
    """
    for key, value in body.items():
        if not isinstance(value, bool):
            raise Unusable(f"{key!r} must be true or false.")


def check_expiry(body: dict[str, Any]) -> None:
    """Check for how long a token is to be valid.

    Raises:
        Unusable: that is no such time.
    """
    value = body.get("expires_in")
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LONGEST_TOKEN:
        raise Unusable(f"expires_in must be a number of seconds from 1 to {LONGEST_TOKEN}, or null.")
