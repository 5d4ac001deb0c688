"""
Restart the hub and its proxy, and see whether they really answer. The other half of ``tljh_config``.

``jupyterhub.service`` has ``Requires=traefik.service`` in both providers, so restarting the proxy restarts the hub
too. TLJH's own ``tljh-config reload`` cannot be relied on for an answer (seen with TLJH 2.0): for the hub it never
returns when the hub cannot come up; for the proxy it returns before the hub is back, and reports success even when
Traefik then fails. Hence: jobs are only queued, and what comes of them is observed with a deadline.
"""

from __future__ import annotations

import http.client
import json
import pathlib
import re
import ssl
import time
from collections.abc import Callable
from typing import Any

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_run
import plasma_systemd

HUB, PROXY = "jupyterhub.service", "traefik.service"
# In this order: when the proxy fails, systemd stops the hub, which is then not at fault.
UNITS = (PROXY, HUB)
POLL = 0.25  # seconds between two looks
STOPPED = 5  # seconds after which a unit that is stopped, with no job queued, is taken to stay so
CRASHES = 2  # restarts by systemd during one wait that make it hopeless: one may be a port that was still taken
JOURNAL_LINES = 20
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Traefik's log has them
_PROPERTIES = "Id,LoadState,ActiveState,SubState,Result,NRestarts,InvocationID,Job,ActiveEnterTimestampMonotonic"
# What `tljh-config reload proxy` does before it restarts the proxy. Units of the provider pypi do it at every start.
_RENDER = "from tljh import config, traefik; traefik.ensure_traefik_config(config.STATE_DIR)"


def units() -> dict[str, dict[str, str]]:
    """
    Return what systemd says of the two units: ``{"traefik.service": {"ActiveState": "active", ...}, ...}``.

    Raises CommandExecutionError where systemd does not run.
    """
    shown = plasma_systemd.run("show", f"--property={_PROPERTIES}", *UNITS)
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in shown.stdout.split("\n\n")
    ]
    by_name = {unit.get("Id", ""): unit for unit in blocks}
    if shown.returncode or not by_name.keys() >= set(UNITS):
        raise CommandExecutionError(f"systemctl does not show the hub's units: {shown.last_line}.")
    return {name: by_name[name] for name in UNITS}


def running() -> bool:
    """
    Return whether the hub is meant to run: its unit is active, starting, or has failed, and was not just never started.
    """
    return _on(units()[HUB])


def started(component: str) -> float | None:
    """
    Return when the unit of *component* (``hub`` or ``proxy``) was last started, in seconds of the monotonic clock;
    None when it does not run.
    """
    unit = units()[_unit(component)]
    when = int(unit.get("ActiveEnterTimestampMonotonic") or 0)
    return when / 1e6 if when and _on(unit) else None


def ready(config: dict[str, Any], timeout: float = 60) -> dict[str, Any]:
    """
    Wait until the hub answers ``/hub/api`` through the proxy and both units are active.

    config
        Content of config.yaml; ``base_url``, ``http`` and ``https`` say where the hub answers. With ``https.enabled``
        that is the HTTPS port (plain HTTP only redirects there); its certificate is not checked.

    timeout
        Seconds; 0 looks once. The wait ends earlier when a unit failed, crashes again and again, or stays stopped.

    Returns ``{"ready": bool, "seconds": float, "version": str | None, "problem": str | None, "journal": [str]}``;
    the journal holds the last lines of the unit at fault. Raises CommandExecutionError where systemd does not run.
    """
    return _Wait(config, timeout).until_ready()


def reload(
    component: str, prefix: str = "/opt/tljh", config: dict[str, Any] | None = None, timeout: float = 60
) -> dict[str, Any]:
    """
    Restart the hub, or render the proxy's configuration and restart both, and wait until the hub answers.

    component
        ``hub`` or ``proxy``.

    prefix
        Where the hub is installed.

    config, timeout
        As for ``ready``; the timeout, in seconds, holds for the whole.

    Returns what ``ready`` returns. Raises SaltInvocationError for an unknown component.
    """
    _unit(component)
    wait = _Wait(config or {}, timeout)
    before = {name: unit["InvocationID"] for name, unit in units().items()}
    # Without this, systemd refuses to start a unit that crashed too often in a short time.
    plasma_systemd.run("reset-failed", *UNITS)
    if component == "proxy":
        failed = wait.render(prefix) or wait.restart(PROXY) or wait.until_started(PROXY, before[PROXY])
        if failed:
            return failed
        hub = units()[HUB]
        if _queued(hub) or (hub["ActiveState"] == "active" and hub["InvocationID"] != before[HUB]):
            return wait.until_ready(before[HUB])  # restarted through Requires=
    return wait.restart(HUB) or wait.until_ready(before[HUB])


def _unit(component: str) -> str:
    if component not in ("hub", "proxy"):
        raise SaltInvocationError(f"component must be hub or proxy, not {component!r}.")
    return HUB if component == "hub" else PROXY


def _on(unit: dict[str, str]) -> bool:
    return unit["ActiveState"] not in ("inactive", "deactivating")


def _queued(unit: dict[str, str]) -> bool:
    return unit.get("Job", "0") not in ("", "0")


class _Wait:
    """One bounded wait: its clock, what it saw of the units, and how it ends."""

    def __init__(self, config: dict[str, Any], timeout: float):
        self.config = config
        self.begin = time.monotonic()
        self.timeout = float(timeout)
        self.version: str | None = None
        self.restarts: dict[str, int] = {}
        self.stopped: dict[str, float] = {}

    def left(self) -> float:
        return self.begin + self.timeout - time.monotonic()

    def render(self, prefix: str) -> dict[str, Any] | None:
        """Write the proxy's configuration where its unit does not; None, or the result when that fails."""
        programs = pathlib.Path(prefix) / "hub" / "bin"
        if not (programs / "tljh-config").exists():
            return None
        done = plasma_run.run(
            [str(programs / "python3"), "-c", _RENDER], timeout=60, env={"TLJH_INSTALL_PREFIX": str(prefix)}
        )
        if not done.returncode:
            return None
        result = self.result(None, f"the proxy cannot be reloaded: {done.last_line}")
        return {**result, "journal": done.stderr.splitlines()[-JOURNAL_LINES:]}

    def restart(self, unit: str) -> dict[str, Any] | None:
        """Queue the restart of a unit; None, or the result when that fails."""
        done = plasma_systemd.run("restart", "--no-block", unit)
        return self.result(unit, f"{unit} cannot be restarted: {done.last_line}") if done.returncode else None

    def until_ready(self, before: str | None = None) -> dict[str, Any]:
        """Wait for the hub to answer; *before* is the invocation of the hub that must be gone first."""

        def missing(current: dict[str, dict[str, str]]) -> tuple[str, str] | None:
            for name, unit in current.items():
                if unit["ActiveState"] != "active":
                    return name, f"{name} is {unit['ActiveState']} ({unit['SubState']})"
            if before and current[HUB]["InvocationID"] == before:
                return HUB, f"{HUB} has not been restarted"
            self.version, why = _answer(self.config, min(max(self.left(), 1), 5))
            return (HUB, why) if why else None

        return self._until(missing) or self.result(None, None)

    def until_started(self, name: str, before: str) -> dict[str, Any] | None:
        """Wait for another invocation of a unit than *before*; None, or the result when that fails."""
        return self._until(
            lambda current: (
                None
                if current[name]["ActiveState"] == "active" and current[name]["InvocationID"] != before
                else (name, f"{name} has not started")
            )
        )

    def _until(self, missing: Callable[[dict[str, dict[str, str]]], tuple[str, str] | None]) -> dict[str, Any] | None:
        """Look until nothing is missing, which is None; the result when that is hopeless or takes too long."""
        while True:
            current = units()
            hopeless = self._hopeless(current)
            problem = missing(current)
            if not problem:
                return None
            if hopeless:
                return self.result(*hopeless)
            if self.left() <= 0:
                late = f" after {self.timeout:.0f} seconds" if self.timeout else ""
                return self.result(problem[0], f"{problem[1]}{late}")
            time.sleep(max(min(POLL, self.left()), 0))

    def _hopeless(self, current: dict[str, dict[str, str]]) -> tuple[str, str] | None:
        """The unit at fault and the reason, when there is nothing to wait for."""
        for name, unit in current.items():
            count = int(unit.get("NRestarts") or 0)
            # A restart by hand sets the counter back to zero.
            self.restarts[name] = min(count, self.restarts.get(name, count))
            if unit["ActiveState"] != "inactive" or _queued(unit):
                self.stopped.pop(name, None)
            since = self.stopped.setdefault(name, time.monotonic()) if unit["ActiveState"] == "inactive" else None
            if unit["LoadState"] == "not-found":
                return name, f"{name} does not exist"
            if unit["ActiveState"] == "failed" and not _queued(unit):
                return name, f"{name} failed ({unit['Result']})"
            if since and not _queued(unit) and time.monotonic() - since >= STOPPED:
                return name, f"{name} is stopped"
            if count - self.restarts[name] >= CRASHES:
                return name, f"{name} crashes again and again"
        return None

    def result(self, unit: str | None, problem: str | None) -> dict[str, Any]:
        journal = _COLOURS.sub("", plasma_systemd.journal(unit, JOURNAL_LINES)).splitlines() if unit else []
        return {
            "ready": problem is None,
            "seconds": round(time.monotonic() - self.begin, 2),
            "version": self.version,
            "problem": problem,
            "journal": journal[-JOURNAL_LINES:],
        }


def place(config: dict[str, Any], secure: bool) -> tuple[str, int]:
    """
    Return where the proxy is reached from this machine, ``(address, port)``.

    config
        Content of config.yaml.
    secure
        Whether it is asked by HTTPS.
    """
    listens = section(config, "https" if secure else "http")
    address = str(listens.get("address") or "0.0.0.0").strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address), listens.get("port") or (443 if secure else 80)


def section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a section of config.yaml, empty where there is none."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def connection(config: dict[str, Any], timeout: float) -> tuple[http.client.HTTPConnection, str]:
    """
    Return how the hub is reached from this machine, through the proxy: ``(connection, path)``, a connection as of
    ``http.client`` that is made with the first request, and the path of the hub's API without a slash at its end.

    config, timeout
        As for ``ready``; the timeout, in seconds, holds for one answer.
    """

    secure = section(config, "https").get("enabled") is True
    address, port = place(config, secure)
    path = f"/{str(config.get('base_url') or '').strip('/')}/hub/api".replace("//", "/")
    if not secure:
        return http.client.HTTPConnection(address, port, timeout=timeout), path
    # Where people's servers have names of their own, the hub answers to its name alone.
    name = section(config, "plasma").get("user_domains")
    context = ssl.create_default_context()
    context.check_hostname = False  # asked by address, and the certificate may be on its way
    context.verify_mode = ssl.CERT_NONE
    return _Named(address, port, name=name, timeout=timeout, context=context), path


class _Named(http.client.HTTPSConnection):
    """A connection to an address that asks for a name."""

    def __init__(self, *arguments, name, **options):
        super().__init__(*arguments, **options)
        self.name = name

    def putrequest(self, method, url, skip_host=False, skip_accept_encoding=False):
        super().putrequest(method, url, skip_host or bool(self.name), skip_accept_encoding)
        if self.name and not skip_host:
            self.putheader("Host", self.name if self.port == 443 else f"{self.name}:{self.port}")


def _answer(config, timeout):
    """Ask the hub for its version: ``(version, None)``, or ``(None, why not)``."""
    hub, path = connection(config, timeout)
    scheme = "https" if isinstance(hub, http.client.HTTPSConnection) else "http"
    url = f"{scheme}://{hub.host}:{hub.port}{path}"
    try:
        hub.request("GET", path)
        answer = hub.getresponse()
        if answer.status != 200:
            return None, f"{url} answers with HTTP status {answer.status}"
        return str(json.loads(answer.read())["version"]), None
    except (OSError, http.client.HTTPException) as exc:
        return None, f"{url} does not answer ({getattr(exc, 'strerror', None) or exc or type(exc).__name__})"
    except (ValueError, KeyError, TypeError):
        return None, f"{url} is not answered by JupyterHub"
    finally:
        hub.close()
