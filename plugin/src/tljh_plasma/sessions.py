"""Sessions end on the server: at a logout, and when the password changes, whoever changes it.

JupyterHub's login cookie holds an id that the hub keeps for each person, the same for all their browsers, and the
tokens of services and of user servers belong to sessions. So a person's sessions end together: with another id, every
cookie that was handed out is worth nothing. A digest of the password's entry is part of the id, so that a changed
password is noticed however it was changed, also while the hub was down.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from . import accounts

# Between the random part of the id and the digest.
SEPARATOR = "."


def digest(name: str, key: bytes) -> str | None:
    """Return a keyed digest of an account's password as it is stored, and of the day it was set.

    Args:
        name: login name.
        key: the hub's secret for its cookies.

    Returns:
        Hexadecimal digits; an empty text for an account without a password on this server, as those of a directory;
        None when the file cannot be read.
    """
    try:
        fields = accounts.shadow_entry(name)
    except OSError:
        return None
    if len(fields) < 3:
        return ""
    # A lock (``passwd --lock``) is a mark before it, and no other password.
    stored = b"\0".join((name.encode(), fields[1].lstrip(b"!"), fields[2]))
    return hmac.new(key, b"plasma password\0" + stored, hashlib.sha256).hexdigest()[:32]


def agrees(user: Any, now: str | None, *, login: bool = False) -> bool:
    """Tell whether the password is the one with which a person's sessions began.

    Sessions of an earlier release say nothing about it: they go on, until the person logs in anew somewhere.

    Args:
        user: the hub's user.
        now: the digest of this moment.
        login: whether they are logging in.
    """
    _, marked, then = user.cookie_id.partition(SEPARATOR)
    return now is None or (then == now if marked else not login)


def end(db: Any, user: Any, now: str | None, *, programs: bool = False) -> int:
    """End all sessions of a person: cookies of the hub, of services and of user servers.

    Args:
        db: the hub's database session.
        user: the hub's user.
        now: the digest of the password's entry that new sessions belong to.
        programs: whether tokens that were made for programs end, too. Those that running servers have stay.

    Returns:
        How many tokens of sessions were removed.
    """
    from jupyterhub import orm

    kept = user.cookie_id.partition(SEPARATOR)[2] if now is None else now
    user.orm_user.cookie_id = orm.new_token() + SEPARATOR + kept
    tokens = db.query(orm.APIToken).filter(orm.APIToken.user_id == user.id)
    if programs:
        of_servers = [orm.APIToken.find(db, one.api_token) for one in user.spawners.values() if one.api_token]
        found = [token for token in tokens if token not in of_servers]
    else:
        found = tokens.filter(orm.APIToken.session_id.is_not(None)).all()
    for token in found:
        db.delete(token)
    for code in db.query(orm.OAuthCode).filter_by(user_id=user.id):
        db.delete(code)
    db.commit()
    return len(found)
