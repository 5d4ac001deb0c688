"""
Checks one `plasma` mapping and completes it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from . import directory
from .csv_file import CsvItem, master
from .csv_people import load
from .environments import secrets, without_secrets
from .everyone import Everyone, Person
from .hash_cache import CacheError, hashes, marks
from .hashing import HashingError
from .hub_keys import config_of
from .report import ROOT, path, problems
from .servers import directories
from .site import Plasma
from .trust import load as load_authorities

# A pillar that is wrong in one way five thousand times need not be read five thousand times.
MOST = 50
DEEPEST = 12
_ALIKE = 0.83


def check(pillar: dict[Any, Any], opts: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], list[str]]:
    """
    Validate and complete the namespace of a whole pillar.

    pillar
        All of a server's pillar.
    opts
        The controller's configuration: where the pillar files, the keys and the cache are.

    Returns (completed, []) or ({}, lines), one line for each problem.
    """
    lines = _misplaced(pillar)
    given = pillar.get(ROOT)
    if given is None:
        # No key at all, or a file in which every line below the key is commented out.
        given = {}
    everyone = None
    if not _shallow(given, DEEPEST):
        lines.append(f"{ROOT}: is nested more than {DEEPEST} levels deep; no key of the schema is.")
    else:
        plasma = None
        try:
            plasma = Plasma.model_validate(given)
        except ValidationError as error:
            lines.extend(problems(error, given, Plasma))
        rows: list[Person] = []
        for file, absent in _files(given).items():
            people, wrong = load(file, opts)
            for person in people:
                person.user.absent = absent
            rows.extend(people)
            lines.extend(wrong)
        if plasma:
            plasma.trust, wrong = load_authorities(plasma.trust, opts)
            lines.extend(wrong)
            everyone = Everyone(plasma, rows)
            lines.extend(everyone.problems())
    if lines or not everyone:
        return {}, [*lines[:MOST], f"... and {len(lines) - MOST} more problems"] if len(lines) > MOST else lines
    try:
        return _completed(everyone, master(opts).get("cachedir")), []
    except (HashingError, CacheError) as error:
        return {}, [f"{path(('users',))}: {error}"]


def _files(given: Any) -> dict[str, bool]:
    """The CSV files, and whether their people go; none where the key itself is wrong."""
    try:
        items = _CSV_FILES.validate_python(given.get("users_csv", []), strict=True)
    except (ValidationError, AttributeError):
        return {}
    return {item.file: item.absent for item in items}


_CSV_FILES = TypeAdapter(list[CsvItem])
# What states get in another form than it was written in.
_REWRITTEN = {"users", "users_csv", "groups", "admins", "quota", "quotas", "environments"}


def _completed(everyone: Everyone, cachedir: str | None) -> dict[str, Any]:
    # Salt writes the pillar and the arguments of states to files on the server, and the files outlive the run: no form
    # of a plain password may be in it.
    users = everyone.users()
    known, marked = (found(everyone.passwords(), cachedir) for found in (hashes, marks))
    for user in users:
        if user["name"] in known:
            user["password_hash"] = known[user["name"]]
        if user["name"] in marked:
            user["password_mark"] = marked[user["name"]]
    dns = everyone.plasma.https.dns
    plasma = everyone.plasma.model_dump(mode="json", exclude=_REWRITTEN)
    if dns:
        # Kept apart from what states get as arguments, which Salt shows.
        del plasma["https"]["dns"]["environment"]
    directory_secrets = directory.secrets(everyone.plasma.directory)
    for name in directory.SECRETS if everyone.plasma.directory else ():
        del plasma["directory"][name]
    completed = {
        **plasma,
        "https_secrets": dict(dns.environment) if dns else {},
        "directory_secrets": directory_secrets,
        "users": users,
        "groups": everyone.groups(),
        "external_groups": everyone.external_groups(),
        "admins": everyone.admins(),
        "admin_groups": everyone.admin_groups(),
        "quotas": everyone.quotas(),
        "environments": [without_secrets(one) for one in everyone.plasma.environments],
        "environment_secrets": secrets(everyone.plasma.environments),
        "server_directories": directories(everyone.plasma.servers),
    }
    return {**completed, "hub_config": config_of(completed)}


def _misplaced(pillar: dict[Any, Any]) -> list[str]:
    """Keys beside `plasma` that were meant to be it, or to be in it."""
    lines = []
    for name in pillar:
        if not isinstance(name, str) or name == ROOT:
            continue
        if difflib.SequenceMatcher(None, name.strip().lower(), ROOT).ratio() >= _ALIKE:
            lines.append(f"{name}: unknown key; did you mean '{ROOT}'?")
        elif ROOT in pillar and pillar[ROOT] is None and name in Plasma.model_fields:
            # `plasma:` with nothing below it, and its sections not indented.
            lines.append(f"{name}: stands beside '{ROOT}:', not below it; indent it by two spaces.")
    return lines


def _shallow(value: Any, left: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    return left > 0 and all(_shallow(item, left - 1) for item in (value.values() if isinstance(value, dict) else value))
