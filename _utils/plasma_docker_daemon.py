"""
Settings of the Docker engine under which servers or builds cannot work though the engine runs: where other software, or
somebody by hand, has set them, nothing but this says what is wrong.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_docker_undo

_ROOT = "/var/lib/docker"
_FORWARDING = pathlib.Path("/proc/sys/net/ipv4/ip_forward")
_SOCKETS = ("unix://", "fd://")
_PROC = pathlib.Path("/proc")
_PID = pathlib.Path("/run/docker.pid")
_REACH_NOTHING = "servers of users and builds reach neither the internet nor anything else"
# What the options of the daemon's command line are called there, as words of daemon.json.
_FLAGS = ("iptables", "ip-forward", "ip-masq", "bridge", "userns-remap", "host")


def daemon_problems(path: str = plasma_docker_undo.CONFIGURATION) -> list[str]:
    """
    Return what is wrong with the engine's settings, one sentence each with the mend; an empty list is good.

    path
        The engine's configuration file.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.daemon_problems
    """
    try:
        config = plasma_docker_undo.read(path) or {}
    except CommandExecutionError:
        return []  # said by the state docker, which has to write it
    found = [(key, path, value) for key, value in config.items()]
    found += [(key, "the unit docker.service", value) for key, value in _flags().items()]
    return [sentence for key, place, value in found if (sentence := _sentence(key, place, value))]


def docker_root(path: str = plasma_docker_undo.CONFIGURATION) -> str:
    """
    Return the directory of the Docker engine, as its configuration says: an engine that hangs could not be asked, and
    one that is not installed yet will take this one.

    path
        The engine's configuration file.
    """
    try:
        return str((plasma_docker_undo.read(path) or {}).get("data-root") or _ROOT)
    except CommandExecutionError:
        return _ROOT  # said by the state docker


def health() -> dict[str, str | None]:
    """
    Return whether the engine's settings let servers and builds work: ``{"problem": sentence with its mend or None}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.health
    """
    return {"problem": next(iter(daemon_problems()), None)}


def _sentence(key: str, place: str, value: Any) -> str | None:
    """What is wrong with one setting, or None."""
    why = None
    if key == "iptables" and value is False:
        why = _REACH_NOTHING
    elif key == "ip-forward" and value is False and not _forwards():
        why = f"{_REACH_NOTHING}, as the kernel does not forward"
    elif key == "ip-masq" and value is False:
        why = "builds reach nothing outside of this server"
    elif key == "bridge" and value == "none":
        why = "builds have no network"
    elif key == "userns-remap" and value:
        why = "servers of users cannot read the homes, whose owners are others in them"
    elif key in ("hosts", "host") and not any(str(host).startswith(_SOCKETS) for host in _listed(value)):
        why = "the hub, which asks the engine at its Unix socket, cannot reach it"
    if why is None:
        return None
    return (
        f"{place} has {json.dumps(key)}: {json.dumps(value)}, so {why}. Take it out, and restart the engine: "
        "`systemctl restart docker`"
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _forwards() -> bool:
    try:
        return _FORWARDING.read_text(encoding="ascii").strip() == "1"
    except OSError:
        return True


def _flags() -> dict[str, Any]:
    """What the running engine was told on its command line, of what is looked at here."""
    try:
        process = _PROC / _PID.read_text(encoding="ascii").strip()
        if (process / "comm").read_text(encoding="utf-8").strip() != "dockerd":
            return {}  # of an engine that was killed
        words = (process / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except (OSError, UnicodeDecodeError):
        return {}
    found: dict[str, Any] = {}
    for number, word in enumerate(words):
        name, equals, value = word.lstrip("-").partition("=")
        name = {"H": "host", "b": "bridge"}.get(name, name)
        if not word.startswith("-") or name not in _FLAGS:
            continue
        if not equals and name in ("bridge", "userns-remap", "host") and number + 1 < len(words):
            value = words[number + 1]
        plain = {"false": False, "": True, "true": True}.get(value, value)
        if name == "host":
            found.setdefault("host", []).append(value)
        else:
            found[name] = plain
    return found
