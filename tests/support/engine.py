"""A Docker engine to make targets in: the machine's own when it answers, else one started by hand."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.support import paths
from tests.support.shell import CommandError, SupportError, ensure_packages, kill_group, run, tail, wait_for

SYSTEM_SOCKET = "unix:///var/run/docker.sock"
START_TIMEOUT = 60
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def data_root() -> Path:
    """Where the engine started here keeps images and volumes."""
    return paths.engine_path() / "docker"


def _run_dir() -> Path:
    return paths.engine_path() / "run"


def pidfile() -> Path:
    """Process id of the engine started here."""
    return _run_dir() / "dockerd.pid"


def logfile() -> Path:
    """Log of the engine started here."""
    return paths.engine_dir() / "dockerd.log"


def own_host() -> str:
    """DOCKER_HOST of the engine started here."""
    return f"unix://{_run_dir() / 'docker.sock'}"


def answers(host: str, timeout: float = 10) -> bool:
    """Whether an engine answers at ``host``."""
    if host.startswith("unix://") and not Path(host.removeprefix("unix://")).exists():
        return False
    asked = ["docker", "-H", host, "version", "--format", "{{.Server.Version}}"]
    try:
        return run(asked, check=False, timeout=timeout).returncode == 0
    except CommandError:  # it listens and says nothing
        return False


def running_host() -> str | None:
    """The DOCKER_HOST of the engine that ensure_engine() would take without starting one, or None."""
    if not shutil.which("docker"):
        return None
    named = os.environ.get("DOCKER_HOST")
    return next((host for host in (named, SYSTEM_SOCKET, own_host()) if host and answers(host)), None)


def ensure_engine() -> str:
    """
    Return the DOCKER_HOST of an engine that answers, starting one when there is none.

    Order: the environment's DOCKER_HOST, /var/run/docker.sock, the engine an earlier call started (by any process),
    a new one. Raises SupportError with the end of the engine's log when it does not come up within a minute.
    """
    if not shutil.which("dockerd", path=SYSTEM_PATH):
        ensure_packages(["docker.io", "iptables"])
    if not shutil.which("docker"):
        ensure_packages(["docker-cli"])  # part of docker.io until Debian 12, only recommended by it since
    if _apparmor_enabled() and not shutil.which("apparmor_parser", path=SYSTEM_PATH):
        ensure_packages(["apparmor"])  # only recommended too, but no container starts without it on such a kernel
    named = os.environ.get("DOCKER_HOST")
    if named:
        if answers(named):
            return named
        if named != own_host():
            raise SupportError(f"DOCKER_HOST is {named}, but no engine answers there: start it or unset DOCKER_HOST")
    if answers(SYSTEM_SOCKET):
        return SYSTEM_SOCKET
    with paths.lock("engine", paths.engine_dir()):
        if running_pid() and answers(own_host()):
            return own_host()
        if Path("/run/systemd/system").is_dir() and _system_engine_starts():
            return SYSTEM_SOCKET
        _start()
    return own_host()


def _apparmor_enabled() -> bool:
    switch = Path("/sys/module/apparmor/parameters/enabled")
    return switch.exists() and switch.read_text().strip() == "Y"


def _system_engine_starts() -> bool:
    """On a machine with systemd the packaged service is the better engine: start it."""
    if run(["systemctl", "cat", "docker.service"], check=False).returncode:
        return False
    run(["systemctl", "start", "docker.service"], check=False, timeout=START_TIMEOUT)
    return answers(SYSTEM_SOCKET)


def running_pid() -> int | None:
    """Process id of the engine started here, or None: a pid file alone proves nothing after a crash or a reboot."""
    return live_pid(pidfile(), "dockerd", str(data_root()))


def live_pid(file: Path, program: str, argument: str) -> int | None:
    """The pid in ``file`` if that process runs ``program`` with ``argument`` on its command line, else None."""
    try:
        pid = int(file.read_text().strip())
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (OSError, ValueError):
        return None
    return pid if Path(argv[0]).name == program and argument in argv else None


def clear_stale_files(run_dir: Path) -> None:
    """
    Remove what a dead engine left in ``run_dir``.

    dockerd refuses to start when its pid file names any live process, and takes any live process named by
    containerd.pid for its containerd: after a reboot those numbers belong to somebody else.
    """
    for leftover in (run_dir / "dockerd.pid", run_dir / "docker.sock"):
        leftover.unlink(missing_ok=True)
    shutil.rmtree(run_dir / "exec" / "containerd", ignore_errors=True)


def _start() -> None:
    if os.geteuid() != 0:
        raise SupportError("No Docker engine answers and only root can start one: run as root or set DOCKER_HOST")
    _stop_own()
    run_dir = paths.engine_dir() / "run"
    run_dir.mkdir(mode=0o711, exist_ok=True)
    clear_stale_files(run_dir)
    command = [
        shutil.which("dockerd", path=SYSTEM_PATH) or "dockerd",
        "--data-root",
        str(data_root()),
        "--exec-root",
        str(run_dir / "exec"),
    ]
    command += ["--pidfile", str(pidfile()), "-H", own_host(), "--mtu", str(_uplink_mtu())]
    # Docker's own pools end with 31 networks, and tests that were killed leave theirs.
    command += ["--default-address-pool", "base=172.17.0.0/16,size=24"]
    with logfile().open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": _path_with_working_iptables()},
            cwd="/",
            start_new_session=True,  # it outlives the process that started it
        )

    def ready() -> bool:
        if process.poll() is not None:
            raise SupportError(f"dockerd ended at once (exit code {process.returncode}):\n{_log_tail()}")
        return answers(own_host())

    try:
        wait_for(ready, timeout=START_TIMEOUT, what="the Docker engine", details=_log_tail)
    except SupportError:
        kill_group(process.pid)
        process.wait()
        raise


def _log_tail() -> str:
    return tail(logfile().read_text(errors="replace")) if logfile().exists() else ""


def _uplink_mtu() -> int:
    """
    MTU of the interface of the default route, 1500 when there is none.

    With larger packets on the bridge than the uplink takes, downloads inside a container hang.
    """
    route = run(["ip", "-4", "route", "show", "default"], check=False).stdout.split()
    if "dev" in route:
        device = route[route.index("dev") + 1]
        return min(1500, int(Path(f"/sys/class/net/{device}/mtu").read_text()))
    return 1500


def _path_with_working_iptables() -> str:
    """
    PATH for dockerd on which ``iptables`` works with this kernel.

    Debian's default speaks nftables, which a kernel may lack; the legacy one then comes first, for dockerd alone: the
    machine's alternatives are not changed.
    """
    ensure_packages(["iptables", "iproute2"])
    path = SYSTEM_PATH
    if _nat_works("iptables"):
        return path
    if not _nat_works("iptables-legacy"):
        raise SupportError("Neither iptables nor iptables-legacy can change the nat table of this kernel")
    shims = paths.engine_dir() / "iptables-legacy"
    shims.mkdir(exist_ok=True)
    for name in ("iptables", "ip6tables"):
        shim = shims / name
        shim.unlink(missing_ok=True)
        shim.symlink_to(shutil.which(f"{name}-legacy", path=path) or f"/usr/sbin/{name}-legacy")
    return f"{shims}:{path}"


def _nat_works(program: str) -> bool:
    """Whether ``program`` can make a chain of the kind Docker needs (it is removed again)."""
    chain = "PLASMA-PROBE"

    found = shutil.which(program, path=SYSTEM_PATH)
    if not found:
        return False

    def call(*args: str) -> bool:
        return run([found, "-w", "5", "-t", "nat", *args], check=False).returncode == 0

    made = call("-N", chain)
    works = made and call("-A", chain, "-m", "addrtype", "--dst-type", "LOCAL", "-j", "RETURN")
    if made:
        call("-F", chain)
        call("-X", chain)
    return works


def stop_engine() -> bool:
    """Stop the engine that ensure_engine() started, never another one. Returns whether there was one."""
    if not paths.engine_path().is_dir():
        return False
    with paths.lock("engine", paths.engine_dir()):
        return _stop_own()


def _stop_own() -> bool:
    pid = running_pid()
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    try:
        wait_for(lambda: running_pid() != pid, timeout=30, what="the end of dockerd")
    except SupportError:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: running_pid() != pid, timeout=10, what="the end of dockerd after SIGKILL")
    clear_stale_files(_run_dir())
    return True


def docker_command(*args: str | os.PathLike[str]) -> list[str | os.PathLike[str]]:
    """The docker command line with ``args`` for ensure_engine()."""
    return ["docker", "-H", _host(), *args]


def docker(*args: str | os.PathLike[str], **options) -> subprocess.CompletedProcess[str]:
    """Run docker with ``args`` against ensure_engine(); ``options`` are those of shell.run."""
    return run(docker_command(*args), **options)


def _host() -> str:
    """The engine of this process, asked for once and again only when it no longer answers at all."""
    host = _known.get("host")
    if host and (not host.startswith("unix://") or Path(host.removeprefix("unix://")).exists()):
        return host
    _known["host"] = ensure_engine()
    return _known["host"]


_known: dict[str, str] = {}
