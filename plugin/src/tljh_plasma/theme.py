"""How the hub looks, and what its answers forbid browsers.

The pages are JupyterHub's own with some of their blocks replaced, so that an upgrade of JupyterHub brings its changes.
Nothing here replaces what others have configured: an administrator's own templates come before these.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from traitlets.config.loader import LazyConfigValue

from . import announcement, disks, guard, notices
from .settings import Settings

STATIC = Path(__file__).with_name("static")
TEMPLATES = Path(__file__).with_name("templates")
LOGO = STATIC / "logo.svg"

# Where templates are looked for. The second one holds the parts that hub and service share ("shared/nav.html"), the
# third one the style sheet, which the hub puts into its pages: they must not depend on the service's process.
HUB_TEMPLATES = (TEMPLATES / "hub", TEMPLATES, STATIC)
SERVICE_TEMPLATES = (TEMPLATES / "service", TEMPLATES)

# No Content-Security-Policy among them: JupyterHub sends one that fits each kind of answer ("frame-ancestors 'none'",
# and "default-src 'none'" for its API), which a configured one would replace. What more its pages may not do, the guard
# adds.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # Addresses of the hub name people and may hold tokens: neither other sites nor user servers need to know them. With
    # this value browsers keep them out of what a page can read of the history of its window, too.
    "Referrer-Policy": "origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def version_hash(directory: Path = STATIC) -> str:
    """Return what changes with the content of a directory's files: browsers keep files under this name."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(directory)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _plain(section: Any, name: str) -> dict[str, Any]:
    """Return a dict trait of a section of the configuration as it stands, without changing it."""
    value = section.get(name, {})
    if isinstance(value, LazyConfigValue):
        value = value.get_value({})
    return dict(value)


def apply(c: Any, settings: Settings) -> None:
    """Give the hub Plasma's look, and its answers security headers.

    Args:
        c: the traitlets ``Config`` object.
        settings: the settings of config.yaml.
    """
    hub = c.JupyterHub
    for path in reversed(HUB_TEMPLATES):
        hub.template_paths.insert(0, str(path))
    options = _plain(hub, "jinja_environment_options")
    hub.jinja_environment_options = {**options, "extensions": [*options.get("extensions", ()), guard.Nonces]}
    if "logo_file" not in hub:
        hub.logo_file = str(LOGO)
    hub.template_vars.update(
        {
            "plasma_monitoring_url": settings.monitoring_url,
            "plasma_cockpit_url": settings.cockpit_url,
            # JupyterHub calls it with the visitor for every page; the pages that show it call what it returns.
            "plasma_notice": notices.asked_for,
            "plasma_disks": disks.Watch(settings).asked_for,
            "plasma_announcement": announcement.shown_to(settings.state_dir),
        }
    )
    tornado = _plain(hub, "tornado_settings")
    theirs = dict(tornado.get("headers") or {})
    named = {name.lower() for name in theirs}
    ours = {name: value for name, value in HEADERS.items() if name.lower() not in named}
    tornado["headers"] = {**ours, **theirs}
    tornado["transforms"] = [*tornado.get("transforms", ()), guard.of_hub(hub.get("base_url", "/"))]
    # No script reads it: pages have the token in them. One at a user's address could claim the hub's (pushState).
    secure = {"secure": True} if settings.https else {}
    tornado["xsrf_cookie_kwargs"] = {
        **dict(tornado.get("xsrf_cookie_kwargs") or {}),
        "httponly": True,
        "samesite": "Lax",
        **secure,
    }
    hub.tornado_settings = tornado
