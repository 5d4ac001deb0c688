"""
Turns what pydantic found into lines for the operator: one problem each, with its key, its value and what is allowed.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from .base import Contradictions, Found, Section, Shape, holds_secrets, is_secret, walk
from .hub_rules import NotAllowed

ROOT = "plasma"
HIDDEN = "********"
# Logins in addresses, also in half-written ones, and what follows a question mark, which may be a token.
_LOGIN = re.compile(r"([a-z][a-z0-9+.-]*://)?(.*)@", re.DOTALL)
_QUERY = re.compile(r"(?<=\?).*", re.DOTALL)
# Keys and certificates: with their headings, or a line of their inside. Digests have no other letters than those of
# hexadecimal numbers.
_PEM = re.compile(
    r"-----(BEGIN|END)|PRIVATE KEY|^[ \t]*(?=\S*[G-Zg-z])[A-Za-z0-9+][A-Za-z0-9+/]{47,}={0,2}[ \t\r]*$", re.MULTILINE
)
# Of the languages of Europe: an umlaut is shown as one.
_LETTER = re.compile("[\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017f]")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
# What somebody may have meant as a key.
_KEY = re.compile("[A-Za-z][A-Za-z_-]{0,24}")

_REASONS = {
    "missing": "is required",
    "string_type": "is not text",
    "int_type": "is not a whole number",
    "float_type": "is not a number",
    "bool_type": "is neither true nor false",
    "list_type": "is not a list",
    "dict_type": "is not a mapping",
    "model_type": "is not a mapping",
    "greater_than_equal": "is too small",
    "less_than_equal": "is too large",
    "literal_error": "is not one of the choices",
}


def problems(error: ValidationError, given: Any, root: type[Section]) -> Iterator[str]:
    """
    One line for each problem.

    error
        What validating `given` against `root` raised.
    """
    for item in error.errors(include_url=False):
        kind, loc = item["type"], item["loc"]
        if found := contradictions(item):
            for below, why, other in found:
                why = f"{why} {path((*loc, *other))}" if other else why
                yield _value_line(root, given, (*loc, *below), why, related=True)
        elif kind in ("extra_forbidden", "invalid_key"):
            yield _unknown_key(root, (*loc[:-1], _real_key(given, loc)))
        elif loc and loc[-1] == "[key]":
            shape, _ = _shape_at(root, loc[:-2])
            names = Shape.of(shape.bare.__args__[0])
            yield f"{path(loc[:-1])}: the key {show(loc[-2])} is not allowed here. Allowed: {names.allowed}."
        else:
            yield _value_line(root, given, loc, reason(item))


def reason(item: Mapping[str, Any]) -> str:
    """Why a value is wrong, of one of pydantic's errors: the end of a sentence."""
    error = item.get("ctx", {}).get("error")
    return str(error) if isinstance(error, NotAllowed) else _REASONS.get(item["type"], "is not allowed here")


def contradictions(item: Mapping[str, Any]) -> list[Found]:
    """What a check of several keys found, when that is what one of pydantic's errors is about."""
    error = item.get("ctx", {}).get("error")
    return error.found if isinstance(error, Contradictions) else []


def shape_at(root: type[Section], loc: tuple[Any, ...]) -> Shape:
    """What may stand at a place."""
    return _shape_at(root, loc)[0]


def path(loc: tuple[Any, ...]) -> str:
    """`("users", 3, "name")` as `plasma.users[3].name`."""
    text = ROOT
    for part in loc:
        if isinstance(part, int) and not isinstance(part, bool):
            text += f"[{part}]"
        else:
            text += f".{part if isinstance(part, str) and _PLAIN_KEY.fullmatch(part) else show(part)}"
    return text


def show(value: Any) -> str:
    """A value on one line; but for Latin letters in ASCII, so that look-alikes and control characters can be seen."""
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return "a number of more than 38 digits"
    if isinstance(value, str) and _PEM.search(value):
        return HIDDEN
    if isinstance(value, str):
        value = _without_login(value)
        value = value if len(value) <= 100 else f"{value[:100]}..."
        return f'"{"".join(char if _LETTER.match(char) else json.dumps(char)[1:-1] for char in value)}"'
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    return f"a {type(value).__name__}"


def _without_login(text: str) -> str:
    login = _LOGIN.match(text)
    if login and (login[1] or ":" in login[2]):
        text = f"{login[1] or ''}{HIDDEN}@{text[login.end() :]}"
    return _QUERY.sub(HIDDEN, text) if "://" in text else text


def _value_line(root: type[Section], given: Any, loc: tuple[Any, ...], reason: str, *, related: bool = False) -> str:
    """
    related
        The value is wrong because of another key: the reason says all, and what is allowed by itself does not help.
    """
    shape, secret = _shape_at(root, loc)
    try:
        value = _value_at(given, loc)
    except LookupError:
        # A key that is not there: the reason says why it should be.
        return f"{path(loc)} {reason}. Allowed: {shape.words}."
    advice, allowed = _advice(value, shape), "" if related else f" Allowed: {shape.allowed}."
    if value is None:
        return f"{path(loc)}: null is not allowed here{advice}.{allowed}"
    # Where secrets stand below, a wrong value may be one of them: `- anna: hunter2`, `users: hunter2`.
    hidden = secret or (isinstance(value, str) and holds_secrets(shape))
    return f"{path(loc)}: {HIDDEN if hidden else show(value)} {reason}{advice}.{allowed}"


def _advice(value: Any, shape: Shape) -> str:
    """What YAML may have made of what was written."""
    if value is None:
        return " (nothing stands after the key: give it a value, or remove the line)"
    if shape.wants_text and isinstance(value, bool):
        return " (YAML reads yes, no, on, off, true and false as truth values: put the text in quotes)"
    if shape.wants_text and isinstance(value, int | float):
        return " (YAML reads it as a number: put the text in quotes)"
    if not isinstance(value, str):
        return ""
    if shape.bare in (int, int | float) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
        return " (it is text: remove the quotes)"
    if shape.bare is bool and value.lower() in ("yes", "no", "on", "off", "true", "false"):
        return " (it is text: remove the quotes)"
    return ""


def _unknown_key(root: type[Section], loc: tuple[Any, ...]) -> str:
    parent, _ = _shape_at(root, loc[:-1])
    name, known = loc[-1], list(parent.section.model_fields) if parent.section else []
    if not isinstance(name, str):
        return f"{path(loc[:-1])}: unknown key {show(name)}, which is no text. Known: {', '.join(known)}."
    head = name.partition(":")[0]
    if head != name and head in known:
        return f"{path(loc[:-1])}: a blank is missing after `{head}:`."
    # A password that lost its key, or the blank before it, is read as a key.
    astray = holds_secrets(parent) and not _KEY.fullmatch(name)
    line = f"{path((*loc[:-1], HIDDEN) if astray else loc)}: unknown key"
    spelled = name.lower().replace("-", "_")
    close = difflib.get_close_matches(spelled, known, n=1, cutoff=0.75)
    # A key that belongs to another section.
    elsewhere = [where for where, _, _ in walk(root, ROOT) if where.rpartition(".")[2] == name]
    if not close and 0 < len(elsewhere) <= 4:
        choices = "' or '".join(elsewhere)
        return f"{line}; did you mean '{choices}'?"
    close = close or difflib.get_close_matches(spelled, known, n=1)
    if close:
        return f"{line}; did you mean '{close[0]}'?"
    return f"{line}. Known: {', '.join(known)}."


def _real_key(given: Any, loc: tuple[Any, ...]) -> Any:
    """The key itself: pydantic turns a key that is no text into text or, for yes and no, into a number."""
    mapping = _value_at(given, loc[:-1])
    return next((key for key in mapping if key == loc[-1] or str(key) == loc[-1]), loc[-1])


def _value_at(given: Any, loc: tuple[Any, ...]) -> Any:
    for part in loc:
        if not isinstance(given, dict | list):
            # A short form: the name of a group that stands for a mapping.
            return given
        given = given[part]
    return given


def _shape_at(root: type[Section], loc: tuple[Any, ...]) -> tuple[Shape, bool]:
    """The shape of the value at a place, and whether it is, or is in, a secret."""
    shape, secret = Shape.of(root), False
    for part in loc:
        if shape.section:
            field = shape.section.model_fields[part]
            shape, secret = Shape.of_field(field), secret or is_secret(field)
        else:
            shape = shape.items or shape
    return shape, secret
