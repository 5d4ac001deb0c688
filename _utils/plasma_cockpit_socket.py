"""
The socket on which Cockpit listens, as systemd has it. The other half of ``plasma_cockpit``, which says where that is.
"""

from __future__ import annotations

import pathlib

from salt.exceptions import CommandExecutionError

import plasma_systemd

SOCKET = "/run/plasma-cockpit.sock"
UNIT = "cockpit.socket"
# Only with this does the hub lead here. After everybody else's.
DROP_IN = pathlib.Path("/etc/systemd/system/cockpit.socket.d/zz-plasma.conf")
UNIX_SOCKETS = pathlib.Path("/proc/net/unix")
_LISTENING = 1 << 16  # __SO_ACCEPTCON of the kernel


def unit():
    """
    Return what systemd says of the unit, as ``{"known": bool, "active": bool, "enabled": bool, "stale": bool}``; stale
    is what was changed and not read again.
    """
    found = plasma_systemd.show(UNIT, "LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload")
    return {
        "known": found.get("LoadState") == "loaded",
        "active": found.get("ActiveState") == "active",
        "enabled": found.get("UnitFileState") == "enabled",
        "stale": found.get("NeedDaemonReload") == "yes",
    }


def listening():
    """
    Return whether Cockpit listens where it should, as ``{"socket": bool, "enabled": bool}``; None where it is not
    installed.

    socket
        The Unix socket takes connections, and systemd has no newer instructions.

    enabled
        It does so after a reboot too.
    """
    state = unit()
    if not state["known"]:
        return None
    return {"socket": state["active"] and not state["stale"] and _accepts(SOCKET), "enabled": state["enabled"]}


def listen():
    """
    Make Cockpit listen where it should, now and after reboots. Who is in Cockpit by another way is cut off.

    Returns what ``listening`` returns. Raises CommandExecutionError when systemd fails, with its words.
    """
    plasma_systemd.check("daemon-reload")
    # A socket does not start while its service runs.
    plasma_systemd.check("stop", UNIT, "cockpit.service")
    plasma_systemd.check("enable", UNIT)
    plasma_systemd.check("start", UNIT)
    now = listening()
    if not now or not now["socket"]:
        raise CommandExecutionError(f"Cockpit does not listen on {SOCKET}: see `journalctl --unit={UNIT}`.")
    return now


def stop():
    """
    Stop listening, and Cockpit with it. Where it is not installed, that is done.
    """
    if unit()["known"]:
        plasma_systemd.check("stop", UNIT, "cockpit.service")


def put_back(enabled, active):
    """
    Let systemd read its files again, and bring the unit, where it is still installed, to a state of before.

    enabled
        Whether it starts with the server.

    active
        Whether it listens now.
    """
    plasma_systemd.check("daemon-reload")
    if unit()["known"]:
        plasma_systemd.check("enable" if enabled else "disable", UNIT)
        plasma_systemd.check("start" if active else "stop", UNIT)


def _accepts(path):
    """Whether somebody listens on a Unix socket: the file may be left over."""
    try:
        lines = UNIX_SOCKETS.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    except OSError:
        return False
    return any(
        words[-1] == path and int(words[3], 16) & _LISTENING for words in map(str.split, lines) if len(words) > 7
    )
