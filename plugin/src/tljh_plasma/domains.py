"""A host name of its own for each person's servers, below the hub's (``plasma.https.user_domains`` in pillar).

Browsers keep pages of different hosts apart: a page of a student's server is none of the hub's, nor of anybody else's
server. What one host can still do to another below the same name is set cookies for both. So cookies that say who
somebody is have the prefix ``__Host-``: browsers take those from the host itself alone, and send them nowhere else.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from .settings import Settings

HOST_PREFIX = "__Host-"
SESSION_COOKIE = f"{HOST_PREFIX}jupyterhub-session-id"
# A label that says all of a name. `--` is in none of them, and in every one that is made of a hash.
_PLAIN = re.compile(r"[a-z](?:-?[a-z0-9])*")
LONGEST = 63
# Hexadecimal digits: too many to find another name with the same ones.
_DIGITS = 24


def label(name: str) -> str:
    """Return the first part of the host name of a person's servers; no two people have the same.

    Args:
        name: name of the account, which may have dots, capitals and whatever else a directory allows.
    """
    if len(name) <= LONGEST and _PLAIN.fullmatch(name):
        return name
    start = "".join(re.findall(r"[a-z0-9]", name.lower()))[:20] or "x"
    return f"u-{start}--{hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]}"


def subdomain(name: str, domain: str, kind: str) -> str:
    """Return the host of a person's servers; services, which are the hub's own, stay on its name.

    Args:
        name: name of the person or the service.
        domain: the hub's host.
        kind: "user" or "service".
    """
    return f"{label(name)}.{domain}" if kind == "user" else domain


def keep_session_cookie() -> None:
    """Let the hub keep the cookie of its session to itself: JupyterHub sets it for all hosts below its own.

    Servers do without it. JupyterHub has no setting for it, so two methods of its handlers are replaced.
    """
    from jupyterhub.handlers import base

    def on_this_host(method: Any) -> Any:
        def call(self: Any, name: str, *arguments: Any, **options: Any) -> Any:
            if name.startswith(HOST_PREFIX):
                options.pop("domain", None)
            return method(self, name, *arguments, **options)

        return call

    if base.SESSION_COOKIE_NAME != SESSION_COOKIE:
        base.SESSION_COOKIE_NAME = SESSION_COOKIE  # ty: ignore[invalid-assignment]
        base.BaseHandler._set_cookie = on_this_host(base.BaseHandler._set_cookie)
        base.BaseHandler.clear_cookie = on_this_host(base.BaseHandler.clear_cookie)


def apply(c: Any, values: Settings) -> None:
    """Set the host names in ``c``, where they are wanted.

    Args:
        c: the traitlets ``Config`` object.
        values: the settings.
    """
    host = values.user_domains
    if not host:
        return
    port = values.config["https"].get("port") or 443
    c.JupyterHub.subdomain_host = c.PlasmaProxy.hub_url = f"https://{host}" + ("" if port == 443 else f":{port}")
    c.JupyterHub.subdomain_hook = subdomain
    # JupyterHub's own default answers for every host there is.
    c.JupyterHub.hub_routespec = f"{host}/"
    c.JupyterHub.cookie_host_prefix_enabled = True
    keep_session_cookie()
