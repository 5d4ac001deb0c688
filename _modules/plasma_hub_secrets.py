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

__virtualname__ = "plasma_hub_secrets"

_SECRETS = {
    "plasma-operator.token": "Salt cannot ask the hub",
    "traefik-api.secret": "the next start of the hub changes the password of the proxy's API",
    "jupyterhub_cookie_secret": "the next start of the hub ends all logins",
}
# Seconds that a hub may take to write its routes.
_STARTS = 60
_LARGEST = 4 * 1024**2


def __virtual__():
    return __virtualname__


def lost(prefix="/opt/tljh"):
    """
    Return the files that are missing, or hold something else, ``[{"file", "component", "effect"}]``; a reload of the
    component, ``hub`` or ``proxy``, makes them anew.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_secrets.lost
    """
    state = pathlib.Path(prefix) / "state"
    found = []

    def add(name, component, effect):
        found.append({"file": str(state / name), "component": component, "effect": effect})

    for name, effect in _SECRETS.items():
        if not _secret(state / name):
            add(name, "hub", effect)
    if b"auth_api" not in _content(state / "traefik.toml"):
        add("traefik.toml", "proxy", "the proxy does not start again")
    certificates = _content(state / "acme.json", missing=b"{")
    if certificates:
        try:
            json.loads(certificates)
        except ValueError:
            add("acme.json", "proxy", "the proxy does not start again, or has no certificate")
    started = __salt__["tljh_service.started"]("hub")
    runs = started is not None and started + _STARTS < time.monotonic()
    if runs and "hub" not in __salt__["plasma_hub_ports.backends"](prefix):
        add("rules/rules.toml", "hub", "the proxy does not find the hub")
    return found


def _secret(path):
    """Whether a file holds a secret as the plugin makes them (``secret_files``), for root alone."""
    try:
        status = path.lstat()
    except OSError:
        return False
    private = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return private and bool(re.fullmatch(rb"[0-9a-f]{64}", _content(path).strip()))


def _content(path, missing=b""):
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST)
    except OSError:
        return missing


def health(prefix="/opt/tljh"):
    """
    Return whether such a file is lost while the hub runs: ``{"problem": sentence with its mend or None}``.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_secrets.health
    """
    if not __salt__["tljh_service.running"]():
        return {"problem": None}
    found = lost(prefix)
    if not found:
        return {"problem": None}
    files = ", ".join(one["file"] for one in found)
    return {
        "problem": f"Lost or spoilt: {files} ({found[0]['effect']}): "
        f"`tljh_config.reload {max(one['component'] for one in found)}`"
    }
