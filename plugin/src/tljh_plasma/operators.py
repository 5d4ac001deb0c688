"""Access to the hub for root on this machine: how Salt's states stop servers, forget people, name administrators and
keep environments as pillar has them.

A service without a process has a random token, which is kept in a file of the hub's state directory that root alone
can read. Whoever reads it could read the hub's database as well, so it opens no door that was shut; its role still
holds no more than those states need. It starts no servers, makes no tokens and acts for nobody.

JupyterHub lets nobody but full administrators say who is one. So the hub gets an address of ours for that, with a
scope of its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from tljh_repo2docker import TLJH_R2D_ADMIN_SCOPE

SERVICE = "plasma-operator"
TOKEN_FILE = "plasma-operator.token"
# Bytes of the token, which is written in twice as many hexadecimal digits.
TOKEN_BYTES = 32
ADMINISTRATORS_SCOPE = "custom:plasma:administrators"
# Whose token it is that the environments' service sees, and who made what comes with it.
PILLAR = "pillar"
# Lists come with people's names and rights, and when they were last there; servers with whether they run;
# "delete:servers" stops. The last two are for environments: into the service that keeps them, and among those who may.
SCOPES = (
    "list:users",
    "read:users:activity",
    "read:servers",
    "delete:servers",
    "delete:users",
    ADMINISTRATORS_SCOPE,
    "access:services!service=plasma",
    TLJH_R2D_ADMIN_SCOPE,
)


def is_operator(visitor: dict[str, Any] | None) -> bool:
    """Tell whether the hub says of a visitor that it is this service. A person of the same name is none.

    Args:
        visitor: what the hub's API says of whoever holds a token; None for nobody.
    """
    return bool(visitor) and visitor.get("kind") == "service" and visitor.get("name") == SERVICE


def _usable(path: Path) -> str | None:
    """Return the token of the file; None when there is none, or one that somebody else may know."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1
        if not ours or status.st_mode & 0o077:
            return None
        text = file.read(4 * TOKEN_BYTES).decode("ascii", errors="replace").strip()
    digits = len(text) == 2 * TOKEN_BYTES and not text.strip("0123456789abcdef")
    return text if digits else None


def kept_token(state_dir: Path) -> str:
    """Return the operator's token, made on the first call and kept in a file (0600).

    A file that others could read or write, a link, or one that was cut off is replaced by a new token; the hub then
    forgets the old one (see ``forget_old_tokens``).

    Args:
        state_dir: the hub's state directory, which nobody but its owner may write to.

    Raises:
        OSError: the file cannot be written.
    """
    path = state_dir / TOKEN_FILE
    token = _usable(path)
    if token is None:
        token = secrets.token_hex(TOKEN_BYTES)
        # Written beside it and then renamed: it is there completely or not at all, and a link is not followed.
        beside = state_dir / f".{TOKEN_FILE}.{secrets.token_hex(8)}"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(token)
                file.flush()
                os.fsync(descriptor)
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
    return token


def register(c: Any, state_dir: Path) -> dict[str, Any]:
    """Register the service with its token, and return its role for the list of roles.

    Args:
        c: the traitlets ``Config`` object.
        state_dir: the hub's state directory.
    """
    c.JupyterHub.services.append({"name": SERVICE, "api_token": kept_token(state_dir), "display": False})
    c.JupyterHub.custom_scopes.update({ADMINISTRATORS_SCOPE: {"description": "Say who administers the hub"}})
    return {"name": SERVICE, "scopes": list(SCOPES), "services": [SERVICE]}


def forget_old_tokens(app: Any) -> None:
    """Remove tokens of the service that are not its own any more: JupyterHub would go on with them for ever.

    Args:
        app: the hub, with its database open.
    """
    from jupyterhub import orm

    service = orm.Service.find(app.db, SERVICE)
    current = [token for token, name in app.service_tokens.items() if name == SERVICE]
    for known in list(service.api_tokens) if service else ():
        if not any(known.match(token) for token in current):
            app.log.info("Removing a former token of %s", SERVICE)
            app.db.delete(known)
    app.db.commit()
