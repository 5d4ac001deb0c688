"""
Files of the state directory that hub and proxy make by themselves when they start, and cannot work without. While they
run, the loss of one shows in nothing, or in what looks like something else.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import stat
import time

import plasma_hub_ports
import tljh_service

_SECRETS = {
    "plasma-operator.token": "Salt cannot ask the hub",
    "traefik-api.secret": "the next start of the hub changes the password of the proxy's API",
    "jupyterhub_cookie_secret": "the next start of the hub ends all logins",
}
# Seconds that a hub may take to write its routes.
_STARTS = 60


def read_secret(path: pathlib.Path) -> str | None:
    """
    Return a secret of 64 hexadecimal digits, as the plugin makes them; None when the file holds something else, or is
    one that others than root may have written or read.

    path
        Its file. Raises FileNotFoundError where there is none, and other OSErrors.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        text = os.read(descriptor, 256).decode("ascii", errors="replace") if stat.S_ISREG(status.st_mode) else ""
    finally:
        os.close(descriptor)
    private = status.st_uid == os.geteuid() and not status.st_mode & 0o077
    # JupyterHub ends its own with a line break.
    return text.removesuffix("\n") if private and re.fullmatch(r"[0-9a-f]{64}\n?", text) else None


def lost(prefix: str = "/opt/tljh") -> list[dict[str, str]]:
    """
    Return the files that are missing, or hold something else, ``[{"file", "component", "effect"}]``; a reload of the
    component, ``hub`` or ``proxy``, makes them anew.

    prefix
        Where the hub is installed.
    """
    state = pathlib.Path(prefix) / "state"
    started = tljh_service.started("hub")
    runs = started is not None and started + _STARTS < time.monotonic()
    losses = [(name, "hub", effect) for name, effect in _SECRETS.items() if not _holds_secret(state / name)]
    if b"auth_api" not in _content(state / "traefik.toml"):
        losses.append(("traefik.toml", "proxy", "the proxy does not start again"))
    if not _holds_json(state / "acme.json"):
        losses.append(("acme.json", "proxy", "the proxy does not start again, or has no certificate"))
    if runs and "hub" not in plasma_hub_ports.backends(prefix):
        losses.append(("rules/rules.toml", "hub", "the proxy does not find the hub"))
    return [{"file": str(state / name), "component": component, "effect": effect} for name, component, effect in losses]


def _holds_secret(path: pathlib.Path) -> bool:
    try:
        return read_secret(path) is not None
    except OSError:
        return False


def _holds_json(path: pathlib.Path) -> bool:
    """Whether it does; an empty one will, and one that cannot be read does not."""
    try:
        json.loads(path.read_bytes() or b"{}")
    except (OSError, ValueError):
        return False
    return True


def _content(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def health(prefix: str = "/opt/tljh") -> dict[str, str | None]:
    """
    Return whether such a file is lost while the hub runs: ``{"problem": sentence with its mend or None}``.

    prefix
        Where the hub is installed.
    """
    losses = lost(prefix) if tljh_service.running() else []
    if not losses:
        return {"problem": None}
    files = ", ".join(loss["file"] for loss in losses)
    return {
        "problem": f"Lost or spoilt: {files} ({losses[0]['effect']}): "
        f"`tljh_config.reload {max(loss['component'] for loss in losses)}`"
    }
