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
import os
import pathlib
import re
import signal
import ssl
import subprocess
import tempfile
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "tljh_service"

HUB, PROXY = "jupyterhub.service", "traefik.service"
# In this order: when the proxy fails, systemd stops the hub, which is then not at fault.
UNITS = (PROXY, HUB)
POLL = 0.25  # seconds between two looks
STOPPED = 5  # seconds after which a unit that is stopped, with no job queued, is taken to stay so
CRASHES = 2  # restarts by systemd during one wait that make it hopeless: one may be a port that was still taken
JOURNAL_LINES = 20
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Traefik's log has them
_PROPERTIES = "Id,LoadState,ActiveState,SubState,Result,NRestarts,InvocationID,Job,ActiveEnterTimestampMonotonic"


def __virtual__():
    return __virtualname__


def units():
    """
    Return what systemd says of the two units: ``{"traefik.service": {"ActiveState": "active", ...}, ...}``.

    Raises CommandExecutionError where systemd does not run.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_service.units
    """
    code, out, err = _run(["systemctl", "show", f"--property={_PROPERTIES}", *UNITS])
    found = {}
    for block in out.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found[unit.get("Id")] = unit
    if code or not all(name in found for name in UNITS):
        raise CommandExecutionError(f"systemctl does not show the hub's units: {err.strip() or out.strip()}.")
    return {name: found[name] for name in UNITS}


def running():
    """
    Return whether the hub is meant to run: its unit is active, starting, or has failed, and was not just never started.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_service.running
    """
    return units()[HUB]["ActiveState"] not in ("inactive", "deactivating")


def started(component):
    """
    Return when the unit of *component* (``hub`` or ``proxy``) was last started, in seconds of the monotonic clock;
    None when it does not run.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_service.started hub
    """
    unit = units()[_unit(component)]
    when = int(unit.get("ActiveEnterTimestampMonotonic") or 0)
    return when / 1e6 if when and unit["ActiveState"] not in ("inactive", "deactivating") else None


def ready(config, timeout=60):
    """
    Wait until the hub answers ``/hub/api`` through the proxy and both units are active.

    config
        Content of config.yaml; ``base_url``, ``http`` and ``https`` say where the hub answers. With ``https.enabled``
        that is the HTTPS port (plain HTTP only redirects there); its certificate is not checked.

    timeout
        Seconds; 0 looks once. The wait ends earlier when a unit failed, crashes again and again, or stays stopped.

    Returns ``{"ready": bool, "seconds": float, "version": str | None, "problem": str | None, "journal": [str]}``;
    the journal holds the last lines of the unit at fault. Raises CommandExecutionError where systemd does not run.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_service.ready '{http: {port: 8080}}'
    """
    return _Wait(config, timeout).until_ready()


def reload(component, prefix="/opt/tljh", config=None, timeout=60):
    """
    Restart the hub, or render the proxy's configuration and restart both, and wait until the hub answers.

    component
        ``hub`` or ``proxy``.

    prefix
        Where the hub is installed.

    config, timeout
        As for ``ready``; the timeout, in seconds, holds for the whole.

    Returns what ``ready`` returns. Raises SaltInvocationError for an unknown component.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_service.reload hub
    """
    _unit(component)
    wait = _Wait(config or {}, timeout)
    seen = units()
    before = {name: unit["InvocationID"] for name, unit in seen.items()}
    command = pathlib.Path(prefix) / "hub" / "bin" / "tljh-config"
    argv = ["systemctl", "restart", "--no-block", PROXY]  # the unit's ExecStartPre renders
    if component == "proxy" and command.exists():
        argv = [str(command), "reload", "proxy"]
        if seen[PROXY]["ActiveState"] != "active" or int(seen[PROXY].get("NRestarts") or 0):
            # tljh-config takes seconds to begin; a crash loop that goes on meanwhile is not its outcome.
            _run(["systemctl", "stop", PROXY])
    # Without this, systemd refuses to start a unit that crashed too often in a short time.
    _run(["systemctl", "reset-failed", *UNITS])
    if component == "proxy":
        failed = wait.until_exit(argv, {"TLJH_INSTALL_PREFIX": str(prefix)})
        failed = failed or wait.until_started(PROXY, before[PROXY])
        if failed:
            return failed
        hub = units()[HUB]
        if _queued(hub) or (hub["ActiveState"] == "active" and hub["InvocationID"] != before[HUB]):
            return wait.until_ready(before[HUB])  # restarted through Requires=
    code, out, err = _run(["systemctl", "restart", "--no-block", HUB])
    if code:
        return wait.result(HUB, f"{HUB} cannot be restarted: {(err or out).strip().rstrip('.')}")
    return wait.until_ready(before[HUB])


def _run(argv):
    """Run a short command of systemd; returns (exit code, stdout, stderr)."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            timeout=30,
        )
    except OSError as exc:
        raise CommandExecutionError(f"{argv[0]} cannot be run: {exc.strerror}.") from exc
    except subprocess.TimeoutExpired:
        raise CommandExecutionError(f"{' '.join(argv[:2])} did not finish within 30 seconds.") from None
    return done.returncode, done.stdout, done.stderr


def _unit(component):
    if component not in ("hub", "proxy"):
        raise SaltInvocationError(f"component must be hub or proxy, not {component!r}.")
    return HUB if component == "hub" else PROXY


def _queued(unit):
    return unit.get("Job", "0") not in ("", "0")


class _Wait:
    """One bounded wait: its clock, what it saw of the units, and how it ends."""

    def __init__(self, config, timeout):
        self.config = config
        self.begin = time.monotonic()
        self.timeout = float(timeout)
        self.restarts = {}
        self.stopped = {}

    def left(self):
        return self.begin + self.timeout - time.monotonic()

    def until_ready(self, before=None):
        """Wait for the hub to answer; *before* is the invocation of the hub that must be gone first."""
        while True:
            found, fault = self._look()
            idle = [name for name in UNITS if found[name]["ActiveState"] != "active"]
            if idle:
                state = found[idle[0]]
                unit, why = idle[0], f"{idle[0]} is {state['ActiveState']} ({state['SubState']})"
            elif before and found[HUB]["InvocationID"] == before:
                unit, why = HUB, f"{HUB} has not been restarted"
            else:
                version, why = _answer(self.config, min(max(self.left(), 1), 5))
                if version:
                    return self.result(None, None, version)
                unit = HUB
            if fault:
                return self.result(*fault)
            if self.left() <= 0:
                late = f" after {self.timeout:.0f} seconds" if self.timeout else ""
                return self.result(unit, f"{why}{late}")
            time.sleep(max(min(POLL, self.left()), 0))

    def until_exit(self, argv, environment):
        """Run a command that may hang, as tljh-config does when Traefik fails; None, or the result when it fails."""
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={**os.environ, **environment},
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    fault = self._look(starting=True)[1]
                    if not fault and self.left() <= 0:
                        name = " ".join([os.path.basename(argv[0]), *argv[1:]])
                        fault = PROXY, f"{name} did not finish within {self.timeout:.0f} seconds"
                    if fault:
                        return self.result(*fault)
                    time.sleep(max(min(POLL, self.left()), 0.01))
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            output.seek(0)
            lines = [line.rstrip() for line in output.read().decode(errors="replace").splitlines() if line.strip()]
        if not process.returncode:
            return None
        last = lines[-1] if lines else f"exit code {process.returncode}"
        result = self.result(None, f"the proxy cannot be reloaded: {last.strip().rstrip('.')}")
        return {**result, "journal": lines[-JOURNAL_LINES:]}

    def until_started(self, name, before):
        """Wait for another invocation of a unit than *before*; None, or the result when that fails."""
        while True:
            found, fault = self._look()
            if found[name]["ActiveState"] == "active" and found[name]["InvocationID"] != before:
                return None
            if fault:
                return self.result(*fault)
            if self.left() <= 0:
                return self.result(name, f"{name} has not started after {self.timeout:.0f} seconds")
            time.sleep(max(min(POLL, self.left()), 0))

    def _look(self, starting=False):
        """
        Return the units, and the unit at fault with the reason when there is nothing to wait for.

        With *starting*, somebody else is about to start them: being stopped is no fault then.
        """
        found = units()
        for name, unit in found.items():
            count = int(unit.get("NRestarts") or 0)
            # A restart by hand sets the counter back to zero.
            self.restarts[name] = min(count, self.restarts.get(name, count))
            if unit["LoadState"] == "not-found":
                return found, (name, f"{name} does not exist")
            if _queued(unit):
                self.stopped.pop(name, None)
            elif unit["ActiveState"] == "failed":
                return found, (name, f"{name} failed ({unit['Result']})")
            elif unit["ActiveState"] == "inactive" and not starting:
                since = self.stopped.setdefault(name, time.monotonic())
                if time.monotonic() - since >= STOPPED:
                    return found, (name, f"{name} is stopped")
            else:
                self.stopped.pop(name, None)
            if count - self.restarts[name] >= CRASHES:
                return found, (name, f"{name} crashes again and again")
        return found, None

    def result(self, unit, problem, version=None):
        return {
            "ready": problem is None,
            "seconds": round(time.monotonic() - self.begin, 2),
            "version": version,
            "problem": problem,
            "journal": _journal(unit) if unit else [],
        }


def _journal(unit):
    try:
        out = _run(["journalctl", "--no-pager", "--output=cat", f"--lines={JOURNAL_LINES}", f"--unit={unit}"])[1]
    except CommandExecutionError as exc:
        out = str(exc)
    return _COLOURS.sub("", out).splitlines()[-JOURNAL_LINES:]


def connection(config, timeout):
    """
    Return how the hub is reached from this machine, through the proxy: ``(connection, path)``, a connection as of
    ``http.client`` that is made with the first request, and the path of the hub's API without a slash at its end.

    config, timeout
        As for ``ready``; the timeout, in seconds, holds for one answer.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' tljh_service.connection '{}' 10  # not from the command line: what it returns is an object
    """

    def section(name):
        return config.get(name) if isinstance(config.get(name), dict) else {}

    secure = section("https").get("enabled") is True
    place = section("https" if secure else "http")
    address = place.get("address") or "127.0.0.1"
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    port = place.get("port") or (443 if secure else 80)
    path = f"/{str(config.get('base_url') or '').strip('/')}/hub/api".replace("//", "/")
    if not secure:
        return http.client.HTTPConnection(address, port, timeout=timeout), path
    # Where people's servers have names of their own, the hub answers to its name alone.
    name = section("plasma").get("user_domains")
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
