"""
Which passwords were edited in pillar and are not set: with the policy ``on_create``, an account keeps the one it has.

A hash does not tell, as each controller makes its own. A mark does: it is of one controller, whose name it begins with,
and changes when the password does. It is made with a key that never leaves the controller (``hash_cache`` of the
schema), so it says nothing of the password.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any


def compare(
    users: Collection[Mapping[str, Any]],
    known: Mapping[str, Mapping[str, str]],
    hashes: Mapping[str, str],
    being_set: Collection[str],
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """
    Return the marks to note, ``{user: {controller: mark}}``, and the users whose edited password is not set.

    users
        Entries as the completed pillar has them.
    known
        The marks of the passwords that were set, or that were pillar's when this was noted first.
    hashes
        What the accounts have.
    being_set
        Names of those who get the password of pillar now.
    """
    marks, edited = {}, []
    for user in users:
        name, hashed = user["name"], user.get("password_hash")
        if not hashed:
            continue
        ready = f"hash.{hashlib.sha256(hashed.encode()).hexdigest()[:16]}"
        controller, _, mark = (user.get("password_mark") or ready).partition(".")
        before = known.get(name, {})
        if name in being_set or hashes.get(name) == hashed:
            marks[name] = {controller: mark}
            continue
        # What this controller has not said before is no edit.
        marks[name] = {controller: mark, **before}
        if marks[name][controller] != mark:
            edited.append(name)
    return marks, edited
