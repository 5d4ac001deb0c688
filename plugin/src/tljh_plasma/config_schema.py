"""Which values the hub's ``config.yaml`` may hold.

TLJH publishes a JSON schema of its keys, and where it is installed that one decides. Elsewhere `HUB_SCHEMA` does: the
same keys and types, as read in TLJH 2.0's ``tljh.config_schema``. The ``plasma`` section is ours in both cases.
As in TLJH, top-level sections that are not listed are left to those who read them.
"""

from __future__ import annotations

from jsonschema import Draft7Validator, validators

from . import settings


def _section(**properties):
    return {"type": "object", "additionalProperties": False, "properties": properties}


STRING = {"type": "string"}
INTEGER = {"type": "integer"}
BOOLEAN = {"type": "boolean"}
STRINGS = {"type": "array", "items": STRING}


def _within(limits):
    """An integer within (least, most) of `settings`."""
    least, most = limits
    return {**INTEGER, "minimum": least} | ({} if most is None else {"maximum": most})


def _text(rule):
    """A text as a rule of `settings` allows it. `title` is what `_phrase` says of it."""
    # \Z, as $ would let a line break pass at the end.
    return {**STRING, "pattern": rf"^(?:{rule.pattern})\Z", "maxLength": rule.longest, "title": rule.words}


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

PLASMA_SCHEMA = {
    "type": "object",
    "properties": {
        # Open, so that a plugin that is older than the file still accepts it; the keys that are there are checked.
        "plasma": {
            "type": "object",
            "properties": {
                "named_servers": _section(limit=_within(settings.NAMED_SERVER_LIMIT)),
                "shared_data": {"type": "string", "pattern": r"^/[^\x00-\x1f]*\Z", "title": "an absolute path"},
                "groups": {"type": "array", "items": _text(settings.GROUP)},
                "permissions": _section(default={"enum": list(settings.POLICIES)}),
                "enter_servers": {"type": "array", "items": _text(settings.ENTERING)},
                "builder": _section(
                    image=_text(settings.IMAGE),
                    parallel=_within(settings.BUILDER_PARALLEL),
                    timeout=_within(settings.BUILDER_TIMEOUT),
                ),
                "network": _section(
                    name=_text(settings.NETWORK),
                    allow=STRINGS,
                    host_ports={"type": "array", "items": _within(settings.PORT)},
                    builds=STRINGS,
                ),
                "service_port": _within(settings.INNER_PORT),
                "monitoring_url": _text(settings.LINK),
                "disk": _section(warn_at=_within(settings.DISK_WARN_AT), homes=_text(settings.DIRECTORY)),
                "cockpit": _section(enabled=BOOLEAN, port=_within(settings.INNER_PORT), socket=_text(settings.SOCKET)),
                "user_domains": _text(settings.HOST),
            },
        }
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


def problems(config):
    """Return what is wrong with *config* (plain values), one phrase for each problem; an empty list when it is valid.

    The phrases name keys, never values: these may be secrets.
    """
    try:
        from tljh.config_schema import config_schema as hub_schema
    except ImportError:
        hub_schema = HUB_SCHEMA
    errors = [error for schema in (hub_schema, PLASMA_SCHEMA) for error in _Validator(schema).iter_errors(config)]
    return [_phrase(error) for error in sorted(errors, key=lambda error: list(map(str, error.absolute_path)))]


def _phrase(error):
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
    if rule == "maximum":
        return f"{name} must be {wanted} or less"
    return f"{name} must be {error.schema.get('title', f'different ({rule})')}"


def _listed(value):
    return [value] if isinstance(value, str) else list(value)
