"""What counts as activity of a server: the extension of Jupyter's server, with stand-ins for what is Jupyter's."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
import tljh_plasma
from tljh_plasma import container_files

sys.path.append(f"{next(iter(tljh_plasma.__path__))}/singleuser")
import plasma_server


class Handler:
    """Jupyter's, as far as it matters."""

    def __init__(self, method, path, **arguments):
        self.request = SimpleNamespace(method=method, path=path)
        self.arguments = arguments
        self.noted = 0

    def get_argument(self, name, default):
        return self.arguments.get(name, default)

    def note(self):
        self.noted += 1


@pytest.mark.parametrize(
    ("method", "path", "arguments", "expected"),
    [
        # What a forgotten tab of JupyterLab asks.
        ("GET", "/user/ada/api/kernels", {}, False),
        ("GET", "/user/ada/api/sessions", {}, False),
        ("GET", "/user/ada/api/terminals", {}, False),
        ("GET", "/user/ada/api/contents/course", {"content": "1"}, False),
        ("GET", "/user/ada/api/metrics/v1", {}, False),
        ("HEAD", "/user/ada/api/contents/x", {}, False),
        ("POST", "/user/ada/git/course/status", {}, False),
        ("GET", "/user/ada/api/config/plasma_notice", {}, False),
        # What people do.
        ("GET", "/user/ada/api/config/plasma_notice", {"plasma_present": "1"}, True),
        ("PUT", "/user/ada/api/contents/course/a.ipynb", {}, True),
        ("POST", "/user/ada/api/sessions", {}, True),
        ("POST", "/user/ada/git/course/commit", {}, True),
        ("DELETE", "/user/ada/api/kernels/1", {}, True),
    ],
)
def test_requests_of_a_forgotten_tab_do_not_count(method, path, arguments, expected):
    counted = type("Counted", (Handler,), {})
    plasma_server.count_people_only(counted, "note")
    handler = counted(method, path, **arguments)
    handler.note()
    assert handler.noted == expected
    # Without it, each of them would.
    plain = Handler(method, path, **arguments)
    plain.note()
    assert plain.noted == 1


@pytest.mark.parametrize(("path", "expected"), [("/rstudio/events/get_events", 0), ("/rstudio/rpc/console_input", 1)])
def test_a_forgotten_tab_of_rstudio_does_not_count(path, expected):
    counted = type("Counted", (Handler,), {})
    plasma_server.count_no_polls(counted, "note")
    handler = counted("POST", path)
    handler.note()
    assert handler.noted == expected


@pytest.fixture
def watched(monkeypatch):
    """A watch of a server whose kernels and processor time are told by the test."""
    state = SimpleNamespace(cpu=100.0, kernels=[])
    monkeypatch.setattr(plasma_server, "cpu_seconds", lambda: state.cpu)
    state.settings = {}
    manager = SimpleNamespace(list_kernels=lambda: state.kernels)
    state.make = lambda cpus: plasma_server.Watch(state.settings, manager, cpus)
    return state


@pytest.mark.parametrize(
    ("states", "expected"), [(["busy"], True), (["idle", "busy"], True), (["idle"], False), ([], False)]
)
def test_a_busy_kernel_is_activity_whoever_looks(watched, states, expected):
    watched.kernels = [{"execution_state": state} for state in states]
    watch = watched.make(2.0)
    watch.look()
    assert ("plasma_last_activity" in watched.settings) == expected
    if expected:
        age = datetime.now(timezone.utc) - watched.settings["plasma_last_activity"]
        assert 0 <= age.total_seconds() < 10


@pytest.mark.parametrize(
    ("cpus", "used", "expected"),
    [(2.0, 4.0, True), (2.0, 3.9, False), (0.1, 1.0, True), (0.1, 0.9, False), (2.0, None, False)],
)
def test_what_computes_is_activity_also_in_terminals_and_rstudio(watched, cpus, used, expected):
    watch = watched.make(cpus)
    watched.cpu = None if used is None else watched.cpu + used
    watch.look()
    assert ("plasma_last_activity" in watched.settings) == expected
    # What was used before the last look does not count again.
    watched.settings.clear()
    watch.look()
    assert watched.settings == {}


def test_processor_time_is_that_of_the_container(tmp_path):
    own = tmp_path / "own"
    own.write_text("0::/\n")
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    assert plasma_server.cpu_seconds(str(tmp_path), str(own)) == 2.5
    # An engine that shows it the cgroups of the host.
    own.write_text("0::/system.slice/docker-1.scope\n")
    (tmp_path / "system.slice" / "docker-1.scope").mkdir(parents=True)
    (tmp_path / "system.slice" / "docker-1.scope" / "cpu.stat").write_text("usage_usec 500000\n")
    assert plasma_server.cpu_seconds(str(tmp_path), str(own)) == 0.5
    # The first version of cgroups, and none.
    old = tmp_path / "old"
    (old / "cpuacct").mkdir(parents=True)
    own.write_text("3:cpu,cpuacct:/docker/1\n")
    (old / "cpuacct" / "cpuacct.usage").write_text("7000000000\n")
    assert plasma_server.cpu_seconds(str(old), str(own)) == 7.0
    assert plasma_server.cpu_seconds(str(tmp_path / "none"), str(own)) is None


def test_every_container_gets_the_extension(tmp_path):
    directory = container_files._ours(tmp_path)
    assert (directory / "lib" / "plasma_server.py").read_text().startswith('"""What our extension does')
    assert "/opt/plasma/lib" in (directory / "etc/jupyter/jupyter_server_config.py").read_text()
    assert "plasma_server" in (directory / "etc/jupyter/jupyter_server_config.d/plasma_server.json").read_text()
    assert {path.stat().st_mode & 0o022 for path in directory.rglob("*")} == {0}
