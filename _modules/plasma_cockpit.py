"""
Cockpit behind the hub: where it listens, what its configuration says, and what was here before.

Cockpit's web service gets a Unix socket of root's in place of its port, so that nobody reaches it but the hub's service
"cockpit", which lets administrators in (``tljh_plasma.cockpit``). cockpit-tls takes such a socket from systemd in all
releases from 264 (Ubuntu 22.04) on, and treats it as a connection of this machine (its src/tls/connection.c).

What was here before is noted in /var/lib/plasma/cockpit.json, and the configuration of before is kept below
/var/backups/plasma; both are root's alone.
"""

from __future__ import annotations

import pathlib
import shutil
import time

from salt.exceptions import CommandExecutionError

import plasma_cockpit_socket
import plasma_files
import plasma_listeners
import tljh_settings

CONF = pathlib.Path("/etc/cockpit/cockpit.conf")
DROP_IN = plasma_cockpit_socket.DROP_IN
PAGE = pathlib.Path("/usr/local/share/cockpit/plasma")
NOTE = pathlib.Path("/var/lib/plasma/cockpit.json")
BACKUPS = pathlib.Path("/var/backups/plasma/cockpit")
SOCKET = plasma_cockpit_socket.SOCKET
PORT = 301  # of the hub's service, as in tljh_plasma.settings
IDLE = 15  # minutes after which Cockpit logs people out

_CONF_TEXT = """\
# Written by Plasma's state "cockpit": changes here are lost at its next apply.
# `state.apply cockpit.disabled` brings back what was here before.
[WebService]
UrlRoot = {root}
ProtocolHeader = X-Forwarded-Proto
ForwardedForHeader = X-Forwarded-For
# TLS ends at the hub's proxy, and nothing else than the hub reaches this Cockpit.
AllowUnencrypted = true
# To other machines, people go by themselves.
LoginTo = false

[Session]
IdleTimeout = {idle}
"""
_DROP_IN_TEXT = f"""\
# Written by Plasma's state "cockpit": the hub leads here, and there is no port.
[Socket]
ListenStream=
ListenStream={SOCKET}
SocketUser=root
SocketGroup=root
SocketMode=0600
RemoveOnStop=yes
# The message at login would name the port.
ExecStartPost=
ExecStartPost=-/bin/ln -snf /dev/null /run/cockpit/motd
"""


def refusal(prefix="/opt/tljh"):
    """
    Return why Cockpit cannot be offered, as a sentence, or None.

    prefix
        Where the hub is installed.

    Raises CommandExecutionError when config.yaml cannot be read.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_cockpit.refusal
    """
    config = tljh_settings.show(prefix)
    if _section(config, "https").get("enabled") is True:
        return None
    return (
        "Cockpit asks for passwords of the server, so it needs HTTPS, which is not on: set plasma.https and apply the "
        "state https, then this one."
    )


def compare(prefix="/opt/tljh"):
    """
    Return what ``prepare`` would write, ``{path: {"old": ..., "new": ...}}``. Nothing is changed.

    prefix
        Where the hub is installed; its ``base_url`` is part of the configuration.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_cockpit.compare
    """
    present = {path: (_read(path), text) for path, text in _files(prefix).items()}
    return {
        str(path): {"old": None if old is None else "other content", "new": "content of Plasma"}
        for path, (old, text) in present.items()
        if old != text
    }


def prepare(packages, prefix="/opt/tljh"):
    """
    Write Cockpit's configuration and that of its socket, before or after it is installed; what was there is kept.

    packages
        Names of the packages that are going to be installed: those that are not there yet are removed again by
        ``disable``.

    prefix
        As for ``compare``.

    Returns what ``compare`` returned before.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_cockpit.prepare '[cockpit-ws, cockpit-system]'
    """
    changes, note = compare(prefix), _note()
    if note is None:
        installed, unit = __salt__["pkg.list_pkgs"](), plasma_cockpit_socket.unit()
        note = {
            "packages": sorted(name for name in packages if name not in installed),
            "conf": CONF.exists(),
            "enabled": unit["enabled"],
            "active": unit["active"],
            "written": [],
        }
        if note["conf"]:
            _keep("cockpit.conf")
        plasma_files.write_note(NOTE, note)
    for path, text in _files(prefix).items():
        if str(path) in changes:
            if path == CONF:
                _keep_edited(note)
                plasma_files.write_note(NOTE, {**note, "written": [text]})
            _write(path, text)
    return changes


def compare_disabled(prefix="/opt/tljh"):
    """
    Return what ``disable`` would change, ``{what: {"old": ..., "new": ...}}``; empty where nothing of ours is left.

    prefix
        Where the hub is installed.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_cockpit.compare_disabled
    """
    note, changes = _note() or {}, {}
    if "cockpit" in _section(tljh_settings.show(prefix), "plasma"):
        changes["plasma.cockpit"] = {"old": "in config.yaml", "new": None}
    if DROP_IN.exists():
        changes[str(DROP_IN)] = {"old": "content of Plasma", "new": None}
    if note and (CONF.exists() or note["conf"]):
        changes[str(CONF)] = {"old": "content of Plasma", "new": "as before" if note["conf"] else None}
    if PAGE.exists():
        changes[str(PAGE)] = {"old": "page of Plasma", "new": None}
    ours, others = _installed(note)
    if ours and not others:
        changes["packages"] = {"old": ours, "new": None}
    if note and not changes:
        changes[str(NOTE)] = {"old": "note of Plasma", "new": None}
    return changes


def kept_packages():
    """
    Return the packages that ``disable`` leaves although this state installed them, and those that need them, as
    ``{"kept": [names], "for": [names]}``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_cockpit.kept_packages
    """
    ours, others = _installed(_note() or {})
    return {"kept": ours, "for": others} if ours and others else {"kept": [], "for": []}


def disable(prefix="/opt/tljh", timeout=120):
    """
    Take the hub's way to Cockpit, our configuration and the packages that were installed for it away; bring back what
    was here before.

    prefix
        Where the hub is installed.

    timeout
        Seconds for the reload of the hub.

    Returns what ``compare_disabled`` returned before. Raises CommandExecutionError when the hub does not come back, or
    apt or systemd fails; a repetition goes on from there.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_cockpit.disable
    """
    changes, note = compare_disabled(prefix), _note()
    if "plasma.cockpit" in changes:
        tljh_settings.apply({}, prefix=prefix, unset=["plasma.cockpit"], timeout=timeout)
    if PAGE.exists():
        shutil.rmtree(PAGE)
    if DROP_IN.exists():
        # Otherwise it would listen on its port for a moment.
        plasma_cockpit_socket.stop()
        DROP_IN.unlink()
        if not any(DROP_IN.parent.iterdir()):
            DROP_IN.parent.rmdir()
    if note:
        _keep_edited(note)
        if note["conf"]:
            shutil.copy2(BACKUPS / "cockpit.conf", CONF)
        else:
            CONF.unlink(missing_ok=True)
        if "packages" in changes:
            removed = changes["packages"]["old"]
            __salt__["pkg.remove"](pkgs=removed)
            left = sorted(set(removed) & set(__salt__["pkg.list_pkgs"]()))
            if left:
                raise CommandExecutionError(f"apt did not remove {', '.join(left)}: see /var/log/apt/term.log.")
        # For a package that stays, with nothing of ours: as it was, or off.
        plasma_cockpit_socket.put_back(note["enabled"], note["active"])
        NOTE.unlink(missing_ok=True)
    return changes


def health(prefix="/opt/tljh"):
    """
    Return how Cockpit is, for the status: ``{"installed": version or None, "running": bool, "problem": str or None}``.

    prefix
        Where the hub is installed.

    running
        Whether it is offered and can be reached through the hub.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_cockpit.health
    """
    version = __salt__["pkg.list_pkgs"]().get("cockpit-ws")
    report = {"installed": version or None, "running": False, "problem": None}
    try:
        config = tljh_settings.show(prefix)
    except CommandExecutionError:
        return report  # told by the part that is about the hub
    cockpit = _section(config, "plasma", "cockpit")
    if cockpit.get("enabled"):
        report["problem"] = _problem(version, cockpit.get("port", PORT), prefix)
        report["running"] = report["problem"] is None
    return report


def _problem(version, port, prefix):
    again = "run `state.apply cockpit`"
    if refusal(prefix):
        return "Cockpit is not offered because HTTPS is off: run `state.apply https`."
    if not version:
        return f"Cockpit is not installed any more: {again}."
    if compare(prefix):
        return f"Cockpit's configuration was changed: {again}."
    if not (plasma_cockpit_socket.listening() or {}).get("socket"):
        return f"Cockpit does not listen for the hub: {again}."
    if plasma_listeners.listeners("127.0.0.1", port) != [0]:
        return "The hub's service cockpit does not run: see `journalctl --unit=jupyterhub`."
    return None


def _section(config, *names):
    for name in names:
        config = config.get(name) if isinstance(config, dict) else None
    return config if isinstance(config, dict) else {}


def _files(prefix):
    """The files of ours, path to text."""
    base = str(tljh_settings.show(prefix).get("base_url") or "").strip("/")
    root = f"/{base}/services/cockpit".replace("//", "/")
    return {DROP_IN: _DROP_IN_TEXT, CONF: _CONF_TEXT.format(root=root, idle=IDLE)}


def _read(path):
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def _write(path, text):
    plasma_files.directory(path.parent)
    plasma_files.write(path, text, mode=0o644)


def _note():
    return plasma_files.read_note(NOTE, "move it away, then apply again")


def _keep(name):
    """A copy of the configuration below the backups, with owner and mode."""
    for folder in (BACKUPS.parent, BACKUPS):
        plasma_files.directory(folder, 0o700)
    shutil.copy2(CONF, BACKUPS / name)


def _keep_edited(note):
    """A copy for the operator of what was edited since, while the text of before stays what comes back."""
    if CONF.exists() and _read(CONF) not in (*note["written"], _read(BACKUPS / "cockpit.conf")):
        _keep(f"cockpit.conf.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")


def _installed(note):
    """(packages that we installed, other packages of Cockpit), of those that are installed."""
    installed, noted = __salt__["pkg.list_pkgs"](), note.get("packages", ())
    # The bridge comes with ours, and goes with them.
    others = {name for name in installed if name.partition("-")[0] == "cockpit"} - {*noted, "cockpit-bridge"}
    return [name for name in noted if name in installed], sorted(others)
