"""
The Docker engine: which one is installed, what it is doing, and how to change it without losing containers.

The engine is asked over its own socket, so that what is compared is what it does and not what its
configuration file says.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import time

from salt.exceptions import CommandExecutionError

__virtualname__ = "plasma_docker"

SOCKET = "/var/run/docker.sock"
_PACKAGES = {"docker-ce": "docker-ce", "distro": "docker.io"}
_DPKG_LISTS = "/var/lib/dpkg/info"


def __virtual__():
    return __virtualname__


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over the engine's Unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connection(path=SOCKET, timeout=10):
    """
    Return a connection to the engine, as of ``http.client``, which is made with the first request; for other modules.

    path
        The engine's socket.
    timeout
        Seconds to wait for an answer.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.connection  # not from the command line: what it returns is an object
    """
    return _SocketConnection(path, timeout)


def info(path=SOCKET, timeout=10):
    """
    Return what the running engine says of itself: ``{"version", "log_driver", "live_restore", "root"}``.

    An empty dict means that no engine answers.

    path
        The engine's socket.
    timeout
        Seconds to wait for an answer.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.info
    """
    engine_api = connection(path, timeout)
    try:
        engine_api.request("GET", "/info")
        answer = json.loads(engine_api.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        engine_api.close()
    return {
        "version": answer.get("ServerVersion", ""),
        "log_driver": answer.get("LoggingDriver", ""),
        "live_restore": bool(answer.get("LiveRestoreEnabled")),
        "root": answer.get("DockerRootDir", ""),
    }


def engine():
    """
    Return where the installed engine comes from: ``docker-ce``, ``distro``, ``other`` or None when there is none.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.engine
    """
    if not shutil.which("dockerd"):
        # A snap's daemon is not in the path, but it answers.
        return "other" if info() else None
    return next((source for source, package in _PACKAGES.items() if _brings_engine(package)), "other")


def _brings_engine(package):
    """Whether this package is installed: one that was removed, but not purged, still has a list, of its conffiles."""
    try:
        with open(os.path.join(_DPKG_LISTS, f"{package}.list"), encoding="utf-8") as files:
            return any(line.rstrip().endswith("/dockerd") for line in files)
    except FileNotFoundError:
        return False


def keeps_engine(source):
    """
    Return True when an engine from elsewhere than ``source`` is installed, which is kept as it is.

    source
        ``docker-ce`` or ``distro``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.keeps_engine docker-ce
    """
    return engine() not in (None, source)


def config_problem(log_driver="journald", path="/etc/docker/daemon.json"):
    """
    Return why the engine could not start with this file once the wanted settings are in it, or None.

    log_driver
        Default logging driver of containers that the file is going to name.
    path
        The engine's configuration file.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.config_problem journald
    """
    try:
        with open(path, encoding="utf-8") as handle:
            config = json.load(handle)
    except FileNotFoundError:
        return None
    except ValueError as exc:
        return f"{path} is not valid JSON ({exc}): mend it, or remove it."
    if not isinstance(config, dict):
        return f"{path} holds no JSON object: mend it, or remove it."
    current = config.get("log-driver", "json-file")
    if config.get("log-opts") and current != log_driver:
        # Options belong to one driver: with those of another, the daemon refuses to start.
        return (
            f"{path} has log-opts for the driver {current!r}: remove them, "
            f"or set plasma.docker.log_driver to {current!r}."
        )
    return None


def compare(log_driver="journald", live_restore=True):
    """
    Return how the running engine differs from what is wanted, as ``{setting: {"old", "new"}}``.

    log_driver
        Default logging driver of containers.
    live_restore
        Whether containers go on running while the engine restarts.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.compare journald
    """
    changes = {} if __salt__["service.enabled"]("docker") else {"at_boot": {"old": "disabled", "new": "enabled"}}
    current = info()
    if not current:
        return {**changes, "engine": {"old": "stopped", "new": "running"}}
    for key, value in (("log_driver", log_driver), ("live_restore", live_restore)):
        if current[key] != value:
            changes[key] = {"old": current[key], "new": value}
    return changes


def ensure_running(log_driver="journald", live_restore=True, timeout=90):
    """
    Bring the engine to the wanted settings, which its configuration file must hold already; return the changes.

    ``live-restore`` is taken over by a reload, and only then, if still needed, is the engine restarted: a
    restart without it would end every user's server
    (https://docs.docker.com/engine/daemon/live-restore/).

    log_driver, live_restore
        See ``compare``.
    timeout
        Seconds to wait for the engine to answer.

    Raises ``CommandExecutionError`` with the journal's last lines when the engine does not come up as asked, or when
    its unit cannot be enabled.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_docker.ensure_running journald
    """
    before = compare(log_driver, live_restore)
    if "at_boot" in before and not _systemctl("enable"):
        raise CommandExecutionError(
            "docker.service cannot be enabled: see `systemctl status docker.service` (a masked unit needs "
            "`systemctl unmask docker.service`), and apply again."
        )
    if not before.keys() - {"at_boot"}:
        return before
    if "engine" in before:
        _systemctl("start")
    elif "live_restore" in before:
        _systemctl("reload")
        _wait(lambda: "live_restore" not in compare(log_driver, live_restore), 10)
    after = _wait_compare(log_driver, live_restore, timeout if "engine" in before else 1)
    if after:
        _systemctl("restart")
        after = _wait_compare(log_driver, live_restore, timeout)
    if after:
        journal = __salt__["cmd.run_stdout"](
            ["journalctl", "--unit", "docker", "--lines", "15", "--no-pager", "--output", "cat"], python_shell=False
        )
        raise CommandExecutionError(
            f"Docker did not come up as configured ({', '.join(sorted(after))} differ): look at "
            f"/etc/docker/daemon.json and at `journalctl -u docker`, whose last lines are:\n{journal}"
        )
    return before


def _systemctl(action):
    result = __salt__["cmd.run_all"](["systemctl", action, "docker.service"], python_shell=False)
    # A failed start is explained by the caller, with the journal; a failed reload is followed by a restart.
    return result["retcode"] == 0


def _wait_compare(log_driver, live_restore, timeout):
    _wait(lambda: not compare(log_driver, live_restore), timeout)
    return compare(log_driver, live_restore)


def _wait(condition, timeout):
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
