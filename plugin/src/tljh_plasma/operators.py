"""Access to the hub for root on this machine: how Salt's states stop servers, forget and rename people, name
administrators and keep environments as pillar has them.

A service without a process has a random token, which is kept in a file of the hub's state directory that root alone
can read. Whoever reads it could read the hub's database as well, so it opens no door that was shut; its role still
holds no more than those states need. It starts no servers, makes no tokens and acts for nobody.

JupyterHub lets nobody but full administrators say who is one, or what somebody is called. So the hub gets addresses of
ours for that, with scopes of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tljh_repo2docker import TLJH_R2D_ADMIN_SCOPE

from .secret_files import kept_secret

SERVICE = "plasma-operator"
TOKEN_FILE = "plasma-operator.token"
ADMINISTRATORS_SCOPE = "custom:plasma:administrators"
PEOPLE_SCOPE = "custom:plasma:people"
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
    PEOPLE_SCOPE,
    "access:services!service=plasma",
    TLJH_R2D_ADMIN_SCOPE,
)


def is_operator(visitor: dict[str, Any] | None) -> bool:
    """Tell whether the hub says of a visitor that it is this service. A person of the same name is none.

    Args:
        visitor: what the hub's API says of whoever holds a token; None for nobody.
    """
    return bool(visitor) and visitor.get("kind") == "service" and visitor.get("name") == SERVICE


def kept_token(state_dir: Path) -> str:
    """Return the operator's token, made on the first call and kept in a file (0600).

    When it had to be replaced by another one, the hub forgets the old one (see ``forget_old_tokens``).

    Args:
        state_dir: the hub's state directory, which nobody but its owner may write to.

    Raises:
        OSError: the file cannot be written.
    """
    return kept_secret(state_dir / TOKEN_FILE)


def register(c: Any, state_dir: Path) -> dict[str, Any]:
    """Register the service with its token, and return its role for the list of roles.

    Args:
        c: the traitlets ``Config`` object.
        state_dir: the hub's state directory.
    """
    c.JupyterHub.services.append({"name": SERVICE, "api_token": kept_token(state_dir), "display": False})
    c.JupyterHub.custom_scopes.update(
        {
            ADMINISTRATORS_SCOPE: {"description": "Say who administers the hub"},
            PEOPLE_SCOPE: {"description": "Know people by another name"},
        }
    )
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
