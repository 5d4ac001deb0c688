"""Which values the hub's ``config.yaml`` may hold.

TLJH publishes a JSON schema of its keys, and where it is installed that one decides, but for ``limits``: TLJH 2.0.0
wants whole CPUs there, which neither its hub nor our spawner does. Elsewhere `HUB_SCHEMA` decides: the same keys and
types, as read in the ``tljh.config_schema`` after 2.0. The ``plasma`` section is ours in both cases.
As in TLJH, top-level sections that are not listed are left to those who read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonschema import Draft7Validator, ValidationError, validators

from .hub_keys import KEYS, Key, value_at


def _section(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


STRING = {"type": "string"}
INTEGER = {"type": "integer"}
BOOLEAN = {"type": "boolean"}
STRINGS = {"type": "array", "items": STRING}

HUB_SCHEMA = {
    "type": "object",
    "properties": {
        "base_url": STRING,
        "user_environment": _section(default_app={"type": "string", "enum": ["jupyterlab", "classic"]}),
        "users": _section(allowed=STRINGS, banned=STRINGS, admin=STRINGS, extra_user_groups={"type": "object"}),
        "limits": _section(memory={"type": ["string", "null"]}, cpu={"type": ["number", "null"], "minimum": 0}),
        "http": _section(address=STRING, port=INTEGER),
        "https": _section(
            enabled=BOOLEAN,
            address=STRING,
            port=INTEGER,
            tls=_section(key=STRING, cert=STRING),
            letsencrypt=_section(email=STRING, domains=STRINGS, staging=BOOLEAN),
        ),
        "traefik_api": _section(ip=STRING, port=INTEGER, username=STRING, password=STRING),
        "services": {
            "type": "object",
            "properties": {
                "cull": _section(
                    enabled=BOOLEAN,
                    timeout=INTEGER,
                    every=INTEGER,
                    concurrency=INTEGER,
                    users=BOOLEAN,
                    max_age=INTEGER,
                    remove_named_servers=BOOLEAN,
                )
            },
        },
    },
}

# JSON's 2.0 is an integer for jsonschema, but a port 80.0 is none for the programs that read the file.
_Validator = validators.extend(
    Draft7Validator,
    type_checker=Draft7Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)

_NAMES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "a section with keys",
    "string": "a string",
}


def problems(config: dict[str, Any]) -> list[str]:
    """Return what is wrong with *config* (plain values), one phrase for each problem; an empty list when it is valid.

    The phrases name keys, never values: these may be secrets.
    """
    try:
        from tljh.config_schema import config_schema as hub_schema
    except ImportError:
        hub_schema = HUB_SCHEMA
    hub_schema = {
        **hub_schema,
        "properties": {**hub_schema["properties"], "limits": HUB_SCHEMA["properties"]["limits"]},
    }
    errors = sorted(_Validator(hub_schema).iter_errors(config), key=lambda error: list(map(str, error.absolute_path)))
    return [*map(_phrase, errors), *_ours(config)]


def _ours(config: dict[str, Any]) -> Iterator[str]:
    """What is wrong in the section ``plasma``; keys of it that a newer plugin may know are left alone."""
    if not isinstance(config.get("plasma"), dict | None):
        yield _not_a_section("plasma")
        return
    known: dict[str, list[Key]] = {}
    for key in KEYS.values():
        if key.sections[0] == "plasma":
            known.setdefault(".".join(key.sections), []).append(key)
    for section, keys in known.items():
        values, names = value_at(config, section) or {}, sorted(key.name for key in keys)
        if not isinstance(values, dict):
            yield _not_a_section(section)
            continue
        if section != "plasma" and (unknown := sorted(set(values) - set(names))):
            yield f"{section} has no key {', '.join(unknown)} (there are {', '.join(names)})"
        for key in keys:
            if key.name in values:
                yield from (f"{place} must be {rule.words}" for place, rule, _ in key.problems(values[key.name]))


def _not_a_section(name: str) -> str:
    return f"{name} must be a section with keys"


def _phrase(error: ValidationError) -> str:
    name = ".".join(map(str, error.absolute_path)) or "the file"
    rule, wanted = error.validator, error.validator_value
    if rule == "anyOf":
        # The alternative whose type fits says what is wrong; when none fits, the types of all of them do.
        fitting = [other for other in error.context if other.validator != "type"]
        if fitting:
            return _phrase(fitting[0])
        rule, wanted = "type", [kind for other in error.context for kind in _listed(other.validator_value)]
    if rule == "type":
        hint = ""
        if "string" in _listed(wanted) and isinstance(error.instance, (int, float)):
            hint = " (put it in quotes)"
        return f"{name} must be {' or '.join(_NAMES[kind] for kind in _listed(wanted))}{hint}"
    if rule == "additionalProperties":
        known = error.schema["properties"]
        unknown = sorted(set(error.instance) - set(known))
        return f"{name} has no key {', '.join(unknown)} (there are {', '.join(sorted(known))})"
    if rule == "enum":
        return f"{name} must be one of {', '.join(map(str, wanted))}"
    if rule == "minimum":
        return f"{name} must be {wanted} or more"
    return f"{name} must be different ({rule})"


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
